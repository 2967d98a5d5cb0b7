package message

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// corpus returns the messages in testdata.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	messages := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		messages[name] = b
	}
	return messages
}

func scan(b []byte) *Summary {
	s := NewScanner()
	_, _ = s.Write(b)
	return s.Finish()
}

// describe writes all that a Summary says, for golden files.
func describe(s *Summary, raw []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "size %d header %d\n", s.Size, s.HeaderSize)
	fmt.Fprintf(&b, "envelope %s\n", s.Envelope)
	fmt.Fprintf(&b, "bodystructure %s\n", s.BodyStructure)
	fmt.Fprintf(&b, "body %s\n", BodyOf(s.BodyStructure))
	fmt.Fprintf(&b, "preview %q\n", s.Preview)
	if !s.Date.IsZero() {
		fmt.Fprintf(&b, "date %s day %d\n", s.Date.Format("2006-01-02T15:04:05-0700"), s.SentDay)
	}
	fmt.Fprintf(&b, "subject %q\nid %q reply to %q references %q\n", s.Subject, s.MessageID, s.InReplyTo, s.References)
	describePart(&b, &s.Root, raw, "")
	text, err := BestText(bytes.NewReader(raw), s, 400)
	fmt.Fprintf(&b, "text %q %v\n", text, err)
	return strings.ReplaceAll(b.String(), "\r\n", "\\r\\n\n")
}

func describePart(b *strings.Builder, p *Part, raw []byte, indent string) {
	fmt.Fprintf(b, "%spart %d %d %d lines %d %s/%s %s", indent, p.Header, p.Body, p.End, p.Lines, p.Type, p.Subtype, p.Encoding)
	for _, f := range []struct{ name, value string }{
		{"charset", p.Charset}, {"disposition", p.Disposition}, {"filename", p.Filename},
	} {
		if f.value != "" {
			fmt.Fprintf(b, " %s=%q", f.name, f.value)
		}
	}
	begin, end := raw[p.Body:min(p.Body+20, p.End)], raw[max(p.Body, p.End-20):p.End]
	fmt.Fprintf(b, " %q…%q\n", begin, end)
	for i := range p.Children {
		describePart(b, &p.Children[i], raw, indent+"  ")
	}
}

func TestGolden(t *testing.T) {
	for name, raw := range corpus(t) {
		got := describe(scan(raw), raw)
		golden := strings.TrimSuffix(name, ".eml") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\ngot:\n%s\nwant:\n%s", name, err, got, want)
		}
	}
}

// However the bytes come, the Summary is the same: every split in two, and all small chunk sizes.
func TestScannerChunks(t *testing.T) {
	for name, raw := range corpus(t) {
		if len(raw) > 8<<10 {
			raw = raw[:8<<10]
		}
		want := scan(raw)
		step := 1 + len(raw)/1500 // every place in small messages; the chunk sizes below do the rest
		for at := 0; at < len(raw); at += step {
			s := NewScanner()
			_, _ = s.Write(raw[:at])
			_, _ = s.Write(raw[at:])
			if got := s.Finish(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s split at %d: got\n%s\nwant\n%s", name, at, describe(got, raw), describe(want, raw))
			}
		}
		for _, n := range []int{1, 2, 3, 5, 7, 64, 1000} {
			s := NewScanner()
			for rest := raw; len(rest) > 0; rest = rest[min(n, len(rest)):] {
				_, _ = s.Write(rest[:min(n, len(rest))])
			}
			if got := s.Finish(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s in chunks of %d: got\n%s\nwant\n%s", name, n, describe(got, raw), describe(want, raw))
			}
		}
	}
}

// Bytes written by version 1 mean for ever what they meant: these two files are never written again.
func TestSummaryVersion1(t *testing.T) {
	raw, err := os.ReadFile("testdata/german-newsletter.eml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/summary-v1.bin")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/summary-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSummary(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(s, raw); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := ParseSummary(append([]byte{summaryVersion + 1}, b[1:]...)); !errors.Is(err, ErrVersion) {
		t.Errorf("the next version: %v", err)
	}
	if _, err := ParseSummary(append(b, 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
}

// Bytes written by version 2, the same: but other bytes may say the same, as S2 compresses better or worse.
func TestSummaryVersion2(t *testing.T) {
	raw, err := os.ReadFile("testdata/german-newsletter.eml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/summary-v2.bin")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/summary-v2.txt")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSummary(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(s, raw) + s.Fields; got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := ParseSummary(append(b, 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
	huge := append([]byte{2, 0xff, 0xff, 0xff, 0xff, 0x0f}, b[3:]...) // says that it is 4 GiB
	if _, err := ParseSummary(huge); !errors.Is(err, ErrDamaged) {
		t.Errorf("4 GiB: %v", err)
	}
}

// What Fields says is what the message's header says.
func TestSummaryFields(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"folds, order, case", "To: a\r\nX-Secret: x\r\n y\r\nsubject: b\r\n\tc\r\nTO : d\r\n\r\nbody", "To: a\r\nsubject: b\r\n\tc\r\nTO : d\r\n\r\n"},
		{"bare LF", "X: y\nTo: a\n\nTo: body\n", "To: a\n\n"},
		{"nothing listed", "X: y\r\n\r\n", "\r\n"},
		{"no empty line", "To: a\r\nthis is the body\r\n", "To: a\r\n"},
		{"no header", "hello\r\n", ""},
		{"mbox line", "From x Mon\r\nTo: a\r\n\r\n", ""},
		{"too long", "To: " + strings.Repeat("a", maxFields) + "\r\n\r\n", ""},
		{"header not all seen", "To: a\r\nX: " + strings.Repeat("a", maxHeaderBlock) + "\r\n\r\n", ""},
	} {
		if got := scan([]byte(c.raw)).Fields; got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for name := range listedNames {
		if !Listed(strings.ToUpper(name)) || name != strings.ToLower(name) {
			t.Errorf("%s is not found", name)
		}
	}
}

func TestSummaryRoundTrip(t *testing.T) {
	for name, raw := range corpus(t) {
		want := scan(raw)
		b := want.AppendBinary([]byte("x"))[1:]
		got, err := ParseSummary(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\ngot  %#v\nwant %#v", name, err, got, want)
		}
		for n := range b {
			if _, err := ParseSummary(b[:n]); err == nil {
				t.Errorf("%s: cut to %d of %d bytes, and no error", name, n, len(b))
			}
		}
	}
}
