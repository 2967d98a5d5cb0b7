package message

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

func path(t *testing.T, s string) []int {
	t.Helper()
	var p []int
	for _, n := range strings.FieldsFunc(s, func(r rune) bool { return r == '.' }) {
		i, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		p = append(p, i)
	}
	return p
}

// section reads BODY[spec] of a message; ok is false if there is none.
func section(t *testing.T, raw []byte, spec string) (text string, ok bool) {
	t.Helper()
	what := Whole
	for name, w := range map[string]Specifier{"HEADER": HeaderOnly, "TEXT": TextOnly, "MIME": MIMEOnly} {
		if rest, found := strings.CutSuffix(spec, name); found {
			spec, what = strings.TrimSuffix(rest, "."), w
		}
	}
	from, to, ok := scan(raw).Section(path(t, spec), what)
	return string(raw[from:to]), ok
}

// The example tree of RFC 9051 section 6.4.5.1, whole.
func TestSectionRFC9051(t *testing.T) {
	raw, err := os.ReadFile("testdata/rfc9051-sections.eml")
	if err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		"1":           "part 1",
		"1.MIME":      "Content-Type: text/plain\r\n\r\n",
		"2":           "part 2",
		"2.MIME":      "Content-Type: application/octet-stream\r\n\r\n",
		"3.MIME":      "Content-Type: message/rfc822\r\n\r\n",
		"3.HEADER":    "Subject: three\r\nContent-Type: multipart/mixed; boundary=three\r\n\r\n",
		"3.TEXT":      "--three\r\n\r\npart 3.1\r\n--three\r\nContent-Type: application/octet-stream\r\n\r\npart 3.2\r\n--three--\r\n",
		"3.1":         "part 3.1",
		"3.1.MIME":    "\r\n",
		"3.2":         "part 3.2",
		"4.MIME":      "Content-Type: multipart/mixed; boundary=four\r\n\r\n",
		"4.1":         "part 4.1",
		"4.1.MIME":    "Content-Type: image/gif\r\n\r\n",
		"4.2.HEADER":  "Subject: four two\r\nContent-Type: multipart/mixed; boundary=fourtwo\r\n\r\n",
		"4.2.1":       "part 4.2.1",
		"4.2.2.MIME":  "Content-Type: multipart/alternative; boundary=fourtwotwo\r\n\r\n",
		"4.2.2.1":     "part 4.2.2.1",
		"4.2.2.2":     "part 4.2.2.2",
		"0":           "",
		"5":           "",
		"-1":          "",
		"1.1":         "",
		"1.HEADER":    "",
		"1.TEXT":      "",
		"2.1":         "",
		"3.3":         "",
		"4.HEADER":    "",
		"4.2.2.3":     "",
		"4.2.2.1.1":   "",
		"4.2.2.TEXT":  "",
		"MIME":        "",
		"4.2.3.1.1.1": "",
	} {
		got, ok := section(t, raw, spec)
		if ok != (want != "") || ok && got != want {
			t.Errorf("BODY[%s]: %v %q, want %q", spec, ok, got, want)
		}
	}
	whole, _ := section(t, raw, "")
	header, _ := section(t, raw, "HEADER")
	text, _ := section(t, raw, "TEXT")
	if whole != string(raw) || header+text != whole || !strings.HasSuffix(header, "boundary=outer\r\n\r\n") {
		t.Errorf("whole %d bytes, header %q", len(whole), header)
	}
	three, _ := section(t, raw, "3")
	threeHeader, _ := section(t, raw, "3.HEADER")
	threeText, _ := section(t, raw, "3.TEXT")
	if three != threeHeader+threeText {
		t.Errorf("BODY[3] is %q", three)
	}
}

// Messages that are not multipart have a part 1; so have embedded ones.
func TestSectionSingle(t *testing.T) {
	plain := "Subject: x\r\n\r\nbody\r\n"
	inner := "Subject: in\r\n\r\ninner\r\n"
	embedded := "Content-Type: message/rfc822\r\n\r\n" + inner
	for i, c := range []struct{ raw, spec, want string }{
		{plain, "1", "body\r\n"},
		{plain, "1.MIME", "Subject: x\r\n\r\n"},
		{plain, "TEXT", "body\r\n"},
		{plain, "2", ""},
		{plain, "1.1", ""},
		{plain, "1.HEADER", ""},
		{embedded, "1", inner},
		{embedded, "1.HEADER", "Subject: in\r\n\r\n"},
		{embedded, "1.TEXT", "inner\r\n"},
		{embedded, "1.MIME", "Content-Type: message/rfc822\r\n\r\n"},
		{embedded, "1.1", "inner\r\n"},
		{embedded, "1.1.MIME", "Subject: in\r\n\r\n"},
		{embedded, "1.1.1", ""},
		{embedded, "1.1.TEXT", ""},
		{"Content-Type: message/rfc822\r\n\r\n" + embedded, "1.1", inner},
		{"Content-Type: message/rfc822\r\n\r\n" + embedded, "1.1.1", "inner\r\n"},
		{"Content-Type: message/rfc822\r\n\r\n" + embedded, "1.1.HEADER", "Subject: in\r\n\r\n"},
		{"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n", "1", "no boundary\r\n"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got, ok := section(t, []byte(c.raw), c.spec); ok != (c.want != "") || ok && got != c.want {
				t.Errorf("BODY[%s] of %q: %v %q, want %q", c.spec, c.raw, ok, got, c.want)
			}
		})
	}
}
