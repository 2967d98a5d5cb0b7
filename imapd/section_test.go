package imapd

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"mailsrv/internal/message"
)

// memBody is a message in memory.
type memBody struct{ *bytes.Reader }

func (memBody) Close() error { return nil }

func newMemBody(b []byte) memBody { return memBody{bytes.NewReader(b)} }

// mails are our messages and those of package message.
func mails(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, pattern := range []string{"testdata/mail/*.eml", "../internal/message/testdata/*.eml"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal("no mail", err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(filepath.ToSlash(name), "testdata/mail/")] = b
		}
	}
	return all
}

func summarize(t testing.TB, raw []byte) *message.Summary {
	t.Helper()
	s := message.NewScanner()
	if _, err := s.Write(raw); err != nil {
		t.Fatal(err)
	}
	return s.Finish()
}

// sectionOf reads a section as FETCH would send it; ok is false for NIL.
func sectionOf(t testing.TB, raw []byte, section string) (text string, ok bool) {
	t.Helper()
	r := readerOn(t, " BODY["+section+"]")
	r.SP()
	it := r.FetchItem()
	if !r.End() {
		t.Fatalf("%s: %s", section, r.Refusal().text)
	}
	c, ok, err := bodySection(newMemBody(raw), summarize(t, raw), &it.section)
	if err != nil {
		t.Fatal(err)
	}
	return readContent(t, &c, ok), ok
}

func readContent(t testing.TB, c *content, ok bool) string {
	t.Helper()
	if !ok {
		return ""
	}
	src, err := c.from(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(src)
	if err != nil || int64(len(b)) != c.size {
		t.Fatalf("content of %d octets announced as %d, %v", len(b), c.size, err)
	}
	return string(b)
}

// What Dovecot 2.3 answers to the same questions, but for parts that are not there: it sends the empty string for those.
func TestSections(t *testing.T) {
	const absent = "NIL"
	for _, c := range []struct{ mail, section, want string }{
		{"plain", "1", "Hello Alice,\r\nthis is a needle in plain text.\r\n"},
		{"plain", "TEXT", "Hello Alice,\r\nthis is a needle in plain text.\r\n"},
		{"plain", "HEADER.FIELDS (subject X-FOLD)", "Subject: plain one\r\nX-Fold: first\r\n second\r\n\tthird\r\n\r\n"},
		{"plain", "HEADER.FIELDS.NOT (from to subject message-id x-fold)", "Date: Tue, 3 Nov 2026 10:11:12 +0100\r\n\r\n"},
		{"plain", "HEADER.FIELDS (nothing)", "\r\n"},
		{"plain", "1.1", absent},
		{"plain", "2", absent},
		{"plain", "1.HEADER", absent},
		{"plain", "1.TEXT", absent},

		{"nested", "1.MIME", "Content-Type: multipart/alternative; boundary=inner\r\n\r\n"},
		{"nested", "1.1", "Sch=F6ne Gr=FC=DFe, Zeile eins=\r\n weiter"},
		{"nested", "1.1.MIME", "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"},
		{"nested", "1.3", absent},
		{"nested", "2.MIME", "Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"fwd.eml\"\r\n\r\n"},
		{"nested", "2.HEADER", "From: dave@example.test\r\nTo: erin@example.test\r\nSubject: inner subject\r\n" +
			"Message-ID: <inner@example.test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=deep\r\n\r\n"},
		{"nested", "2.TEXT", "--deep\r\n\r\ndeep text part\r\n--deep\r\nContent-Type: application/octet-stream; name=data.bin\r\n" +
			"Content-Transfer-Encoding: base64\r\n\r\nAAECAwQFBgcICQ==\r\n--deep--"}, // its CRLF is the next boundary's, RFC 2046 section 5.1.1
		{"nested", "2.1", "deep text part"},
		{"nested", "2.1.MIME", "\r\n"},
		{"nested", "2.2", "AAECAwQFBgcICQ=="},
		{"nested", "2.HEADER.FIELDS (Subject)", "Subject: inner subject\r\n\r\n"},
		{"nested", "3", "Subject: simple inner\r\n\r\nbody of simple inner"},
		{"nested", "3.HEADER", "Subject: simple inner\r\n\r\n"},
		{"nested", "3.TEXT", "body of simple inner"},
		{"nested", "3.1", "body of simple inner"},
		{"nested", "3.1.MIME", "Subject: simple inner\r\n\r\n"},
		{"nested", "3.2", absent},
		{"nested", "4", "JVBERi0xLjQK"},
		{"nested", "4.HEADER", absent},
		{"nested", "5", absent},

		{"noblank", "HEADER", "From: x@example.test\r\nSubject: no blank line"},
		{"noblank", "HEADER.FIELDS (Subject)", "Subject: no blank line"},
		{"noblank", "1", ""},
		{"empty", "TEXT", ""},
		{"held", "1", "From: g@example.test\r\nSubject: held\r\nDate: Mon, 2 Nov 2026 00:00:00 +0000\r\n\r\nheld body\r\n"},
		{"held", "1.HEADER", "From: g@example.test\r\nSubject: held\r\nDate: Mon, 2 Nov 2026 00:00:00 +0000\r\n\r\n"},
		{"held", "1.TEXT", "held body\r\n"},
		{"held", "1.1", "held body\r\n"},
		{"held", "HEADER.FIELDS (subject)", "Subject: a message holding a message\r\n\r\n"},
	} {
		got, ok := sectionOf(t, mails(t)[c.mail+".eml"], c.section)
		if !ok {
			got = absent
		}
		if got != c.want {
			t.Errorf("%s BODY[%s]: %q, want %q", c.mail, c.section, got, c.want)
		}
	}
}

// BODYSTRUCTURE promises sizes; every part's section must keep them, and its pieces must make the whole.
func TestSectionsKeepBodyStructure(t *testing.T) {
	for name, raw := range mails(t) {
		get := func(section string) string {
			text, ok := sectionOf(t, raw, section)
			if !ok {
				t.Errorf("%s: no BODY[%s]", name, section)
			}
			return text
		}
		if get("HEADER")+get("TEXT") != string(raw) || get("") != string(raw) {
			t.Errorf("%s: HEADER and TEXT are not the message", name)
		}
		parts := 0
		var walk func(s []any, path string, message bool)
		walk = func(s []any, path string, message bool) {
			if _, multipart := s[0].([]any); multipart {
				for i, sub := range s {
					if sub, isPart := sub.([]any); isPart && i < firstString(s) {
						walk(sub, join(path, i+1), false)
					}
				}
				return
			}
			if message {
				path = join(path, 1) // a message that is no multipart has one part
			}
			parts++
			size, _ := strconv.Atoi(s[6].(string))
			if body := get(path); len(body) != size {
				t.Errorf("%s: BODY[%s] has %d octets, BODYSTRUCTURE says %d", name, path, len(body), size)
			} else if !strings.Contains(string(raw), get(path+".MIME")+body) {
				t.Errorf("%s: BODY[%s] does not follow its MIME header", name, path)
			}
			if s[0] == "message" && s[1] == "rfc822" {
				if get(path+".HEADER")+get(path+".TEXT") != get(path) {
					t.Errorf("%s: BODY[%s] is not its HEADER and TEXT", name, path)
				}
				walk(s[8].([]any), path, true)
			}
		}
		walk(parseList(summarize(t, raw).BodyStructure), "", true)
		if parts == 0 {
			t.Errorf("%s: no parts", name)
		}
	}
}

func join(path string, n int) string {
	if path == "" {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s.%d", path, n)
}

func firstString(s []any) int {
	for i, e := range s {
		if _, list := e.([]any); !list {
			return i
		}
	}
	return len(s)
}

// parseList reads parentheses, quoted strings, literals and atoms; strings in lower case.
func parseList(text string) []any {
	var read func() any
	pos := 0
	read = func() any {
		switch text[pos] {
		case '(':
			list := []any{}
			for pos++; text[pos] != ')'; {
				if text[pos] == ' ' {
					pos++
					continue
				}
				list = append(list, read())
			}
			pos++
			return list
		case '"':
			var s strings.Builder
			for pos++; text[pos] != '"'; pos++ {
				if text[pos] == '\\' {
					pos++
				}
				s.WriteByte(text[pos])
			}
			pos++
			return strings.ToLower(s.String())
		case '{':
			end := strings.IndexByte(text[pos:], '}') + pos
			n, _ := strconv.Atoi(text[pos+1 : end])
			s := text[end+3 : end+3+n]
			pos = end + 3 + n
			return s
		}
		from := pos
		for text[pos] != ' ' && text[pos] != ')' {
			pos++
		}
		return text[from:pos]
	}
	return read().([]any)
}

func TestBinary(t *testing.T) {
	for _, c := range []struct {
		mail string
		path []int
		want string
		nul  bool
	}{
		{"nested", []int{1, 1}, "Sch\xf6ne Gr\xfc\xdfe, Zeile eins weiter", false},
		{"nested", []int{1, 2}, `<html><body><p>Fett<b>er</b> Text</p><a href="http://example.test/link">x</a></body></html>`, false},
		{"nested", []int{2, 2}, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09", true},
		{"nested", []int{3}, "Subject: simple inner\r\n\r\nbody of simple inner", false},
		{"nested", []int{4}, "%PDF-1.4\n", false},
		{"nested", []int{9}, "NIL", false},
		{"plain", nil, string(mails(t)["plain.eml"]), false},
		{"klingon", []int{1}, "UNKNOWN", false},
	} {
		raw := mails(t)[c.mail+".eml"]
		got, ok, known, err := binarySection(newMemBody(raw), summarize(t, raw), c.path)
		text := readContent(t, &got, ok && known)
		if !ok {
			text = "NIL"
		} else if !known {
			text = "UNKNOWN"
		}
		if text != c.want || got.nul != c.nul || err != nil {
			t.Errorf("%s BINARY%v: %q (NUL %v), %v, want %q", c.mail, c.path, text, got.nul, err, c.want)
		}
	}
}

// A part too big to be held is decoded twice, and is the same from wherever it is read.
func TestBinaryBig(t *testing.T) {
	line := strings.Repeat("0123456789", 7) + "=\r\n"
	n := heldBinary / 70 * 2
	raw := "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat(line, n) + "=00"
	c, ok, known, err := binarySection(newMemBody([]byte(raw)), summarize(t, []byte(raw)), []int{1})
	want := strings.Repeat(strings.Repeat("0123456789", 7), n) + "\x00"
	if !ok || !known || err != nil || !c.nul || c.held != nil && c.make == nil || c.size != int64(len(want)) {
		t.Fatalf("%v %v %v, %d octets, NUL %v", ok, known, err, c.size, c.nul)
	}
	for _, off := range []int64{0, 71, heldBinary + 5, c.size - 3, c.size} {
		r, err := c.from(off)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want[off:] {
			t.Errorf("from %d: %d octets, %v", off, len(got), err)
		}
	}
}

// What a summary lists of a header is what the header itself gives, whatever the mail and whichever fields are asked for.
func TestListedFields(t *testing.T) {
	listed, all := 0, mails(t)
	for _, raw := range all {
		listed += compareListed(t, raw)
	}
	if listed < len(all)/2 {
		t.Errorf("only %d of %d headers were listed", listed, len(all))
	}
}

func FuzzListedFields(f *testing.F) {
	for _, raw := range []string{
		"To: a\r\n b\r\nX: y\r\n z\r\nSubject : c\r\n\r\nTo: d\r\n", "From x\nTo: a\n\n", " \r\nTo: a\r\n", "To: a\r\n \r\nCc: b\r\n\t\n\n",
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { compareListed(t, raw) })
}

// compareListed returns 1 if the summary lists fields at all.
func compareListed(t *testing.T, raw []byte) int {
	t.Helper()
	sum := summarize(t, raw)
	if sum.Fields == "" {
		return 0
	}
	for _, names := range [][]string{{"To"}, {"SUBJECT", "x-none"}, {"From", "to", "Cc", "Subject", "Date", "Received", "Content-Type"}} {
		section := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: names}
		want, err := headerContent(io.NewSectionReader(bytes.NewReader(raw), 0, sum.HeaderSize), section)
		if err != nil {
			t.Fatal(err)
		}
		if got := listedContent(sum, section); string(got.held) != string(want.held) || got.size != want.size {
			t.Errorf("%v of %.300q: got %q, want %q", names, raw, got.held, want.held)
		}
	}
	return 1
}
