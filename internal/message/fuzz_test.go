package message

import (
	"bytes"
	"reflect"
	"testing"
	"unicode/utf8"
)

// checkSummary states what is true of the Summary of any bytes.
func checkSummary(t *testing.T, s *Summary, raw []byte) {
	t.Helper()
	if s.Size != int64(len(raw)) || s.Root.Header != 0 || s.Root.End != s.Size || s.HeaderSize != s.Root.Body {
		t.Fatalf("size %d header size %d root %d %d %d of %d bytes", s.Size, s.HeaderSize, s.Root.Header, s.Root.Body, s.Root.End, len(raw))
	}
	checkPart(t, &s.Root, raw)
	for what, text := range map[string]string{"ENVELOPE": s.Envelope, "BODYSTRUCTURE": s.BodyStructure, "BODY": BodyOf(s.BodyStructure)} {
		if text == "" || text[0] != '(' || valueLen(text) != len(text) {
			t.Fatalf("%s is not one list: %q", what, text)
		}
	}
	if bytes.IndexByte([]byte(s.Envelope+s.BodyStructure), 0) >= 0 {
		t.Fatalf("NUL in %q %q", s.Envelope, s.BodyStructure)
	}
	if !utf8.ValidString(s.Preview) || utf8.RuneCountInString(s.Preview) > maxPreview {
		t.Fatalf("preview %q", s.Preview)
	}
	if !utf8.ValidString(s.Subject) || len(s.Subject) > maxSubject || len(s.References) > maxReferences {
		t.Fatalf("subject %q, %d references", s.Subject, len(s.References))
	}
}

// checkPart: offsets ascend, children lie inside their parent's body in order, lines are counted.
func checkPart(t *testing.T, p *Part, raw []byte) {
	t.Helper()
	if p.Header > p.Body || p.Body > p.End || p.End > int64(len(raw)) {
		t.Fatalf("part %d %d %d of %d bytes", p.Header, p.Body, p.End, len(raw))
	}
	if n := bytes.Count(raw[p.Body:p.End], []byte{'\n'}); p.Lines != int64(n) {
		t.Fatalf("part %d %d %d: %d lines, really %d", p.Header, p.Body, p.End, p.Lines, n)
	}
	if p.Type == "multipart" && len(p.Children) == 0 || p.Type == "message" && p.Subtype == "rfc822" && !p.Embedded() {
		t.Fatalf("%s/%s without children", p.Type, p.Subtype)
	}
	at := p.Body
	for i := range p.Children {
		if p.Children[i].Header < at {
			t.Fatalf("part at %d begins before %d", p.Children[i].Header, at)
		}
		checkPart(t, &p.Children[i], raw)
		at = p.Children[i].End
	}
	if at > p.End {
		t.Fatalf("children end at %d, their parent at %d", at, p.End)
	}
}

func FuzzScanner(f *testing.F) {
	for _, raw := range corpus(f) {
		f.Add(raw, uint(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, at uint) {
		want := scan(raw)
		checkSummary(t, want, raw)
		s := NewScanner()
		split := int(at % uint(len(raw)+1))
		_, _ = s.Write(raw[:split])
		_, _ = s.Write(raw[split:])
		if got := s.Finish(); !reflect.DeepEqual(got, want) {
			t.Fatalf("split at %d: got\n%#v\nwant\n%#v", split, got, want)
		}
		b := want.AppendBinary(nil)
		got, err := ParseSummary(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("round trip: %v\ngot  %#v\nwant %#v", err, got, want)
		}
		if _, err := BestText(bytes.NewReader(raw), want, 1000); err != nil {
			t.Fatal(err)
		}
	})
}

// Header values of any kind: lists stay lists, text is valid UTF-8, nothing panics.
func FuzzHeaderValue(f *testing.F) {
	for _, v := range []string{
		`Group: "a \"b\"" <@x,@y:c@d> (e), =?utf-8?q?f,g?= <h@i>;, j@[k]`, "=?utf-8?b?w6k=?= =?x?q?=41?= =?=?", "Mon, 7 Oct 2024 10:15:00 +0200 (x)",
		`text/plain; a*0*=utf-8''%C3; a*1="%"; b=c d; e="f`, "<a@b> (c <d>) e@f",
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		text := DecodeHeader(v)
		if !utf8.ValidString(text) {
			t.Fatalf("%q decodes to %q", v, text)
		}
		list := "(" + string(addressList([]string{v}, 1<<20)) + ")"
		if valueLen(list) != len(list) {
			t.Fatalf("%q gives %q", v, list)
		}
		_, _, params := parseContentType(v)
		disposition, dispParams := parseDisposition(v)
		structure := string(appendDisposition(appendParams([]byte("("), params, true), disposition, dispParams)) + ")"
		if valueLen(structure) != len(structure) || len(params) > maxParams {
			t.Fatalf("%q gives %q", v, structure)
		}
		if name := decodedParam(dispParams, "filename"); !utf8.ValidString(name) || len(name) > maxFilename {
			t.Fatalf("%q names %q", v, name)
		}
		if when, day := parseDate(v); when.IsZero() != (day == 0) && when.Year() != 0 && when.Year() != 1 {
			t.Fatalf("%q is %v, day %d", v, when, day)
		}
		if ids := messageIDs(v, 5); len(ids) > 5 {
			t.Fatalf("%d ids", len(ids))
		}
	})
}

func FuzzBodyOf(f *testing.F) {
	for _, raw := range corpus(f) {
		f.Add(scan(raw).BodyStructure)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := BodyOf(in)
		if len(out) > len(in) || valueLen(in) == len(in) && valueLen(out) != len(out) {
			t.Fatalf("%q gives %q", in, out)
		}
		if BodyOf(out) != out && out != in {
			t.Fatalf("%q gives %q gives %q", in, out, BodyOf(out))
		}
	})
}

func FuzzParseSummary(f *testing.F) {
	for _, raw := range corpus(f) {
		f.Add(scan(raw).AppendBinary(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSummary(b)
		if err != nil {
			return
		}
		again, err := ParseSummary(s.AppendBinary(nil))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%v\ngot  %#v\nwant %#v", err, again, s)
		}
		BodyOf(s.BodyStructure)
	})
}
