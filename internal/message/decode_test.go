package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct{ encoding, in, want string }{
		{"7bit", "a=41\r\n", "a=41\r\n"},
		{"base64", "aGVsbG8=", "hello"},
		{"base64", "aGVsbG8", "hello"},
		{"base64", "aGVs\r\nbG8=\r\n", "hello"},
		{"base64", "aG Vs!b\x00G*8=\r\n-- \r\n", "hello"},
		{"base64", "aGVsbG8=aGVsbG8=", "hellohello"},
		{"base64", "a", ""},
		{"base64", "====", ""},
		{"base64", "", ""},
		{"quoted-printable", "a=41=e9\r\n", "aA\xe9\r\n"},
		{"quoted-printable", "soft=\r\nbreak= \t\r\nagain=\nlf", "softbreakagainlf"},
		{"quoted-printable", "trailing \t \r\n space", "trailing\r\n space"},
		{"quoted-printable", "trailing \nlf", "trailing\nlf"},
		{"quoted-printable", "wrong =4 =zz =4z == =", "wrong =4 =zz =4z == "},
		{"quoted-printable", "==41", "=A"},
		{"quoted-printable", "a\rb\r\r\n", "a\rb\r\n"},
		{"quoted-printable", "end=", "end"},
		{"quoted-printable", "end=4", "end=4"},
		{"quoted-printable", "end  ", "end"},
		{"quoted-printable", "raw \xe9\x00", "raw \xe9\x00"},
		{"x-uuencode", "junk\r\nbegin 644 x\r\n%:&5L;&\\\r\n`\r\nend\r\njunk\r\n", "hello"},
		{"x-uuencode", "begin 644 x\n#86)C\n#86", "abca\x60\x00"}, // cut off: as many bytes as announced
		{"x-uuencode", "no begin", ""},
	} {
		for _, chunk := range []int{1, 2, 3, 1000} {
			body, known := decodeTransfer(c.encoding, &slowReader{c.in, chunk})
			got, err := io.ReadAll(body)
			if !known || err != nil || string(got) != c.want {
				t.Errorf("%s %q in chunks of %d: %v %q %v, want %q", c.encoding, c.in, chunk, known, got, err, c.want)
			}
		}
	}
	body, known := Decode(strings.NewReader("xrot13y"), &Part{Body: 1, End: 6, Encoding: "x-rot13"})
	if got, err := io.ReadAll(body); known || string(got) != "rot13" || err != nil {
		t.Errorf("unknown encoding: %v %q %v", known, got, err)
	}
}

type slowReader struct {
	s string
	n int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.s == "" {
		return 0, io.EOF
	}
	n := copy(p, r.s[:min(r.n, len(r.s))])
	r.s = r.s[n:]
	return n, nil
}

var errDisk = errors.New("disk broke")

// Errors of the message's reader come through; they are no end of the text.
func TestDecodeErrors(t *testing.T) {
	for _, encoding := range []string{"7bit", "base64", "quoted-printable", "x-uuencode"} {
		body, _ := decodeTransfer(encoding, io.MultiReader(strings.NewReader("aGVs"), iotest.ErrReader(errDisk)))
		if _, err := io.ReadAll(body); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", encoding, err)
		}
		for _, subtype := range []string{"plain", "html"} {
			_, err := Text(brokenReaderAt{}, &Part{End: 10, Type: "text", Subtype: subtype, Encoding: encoding}, 100)
			if !errors.Is(err, errDisk) {
				t.Errorf("Text of %s %s: %v", encoding, subtype, err)
			}
		}
	}
	s := scan([]byte("\r\nx"))
	if _, err := BestText(brokenReaderAt{}, s, 100); !errors.Is(err, errDisk) {
		t.Errorf("BestText: %v", err)
	}
	if _, err := Summarize(iotest.ErrReader(errDisk)); !errors.Is(err, errDisk) {
		t.Errorf("Summarize: %v", err)
	}
}

type brokenReaderAt struct{}

func (brokenReaderAt) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func FuzzDecode(f *testing.F) {
	f.Add([]byte("aGVsbG8="), byte(0))
	f.Add([]byte("a=41= \r\n=4"), byte(1))
	f.Add([]byte("begin 644 x\n%:&5L;&\\\nend"), byte(2))
	f.Fuzz(func(t *testing.T, in []byte, which byte) {
		encoding := []string{"base64", "quoted-printable", "x-uuencode"}[which%3]
		whole, _ := decodeTransfer(encoding, bytes.NewReader(in))
		want, err := io.ReadAll(whole)
		if err != nil || len(want) > len(in)+64*bytes.Count(in, []byte("\n"))+64 {
			t.Fatalf("%v: %d bytes of %d", err, len(want), len(in))
		}
		pieces, _ := decodeTransfer(encoding, iotest.OneByteReader(bytes.NewReader(in)))
		if got, err := io.ReadAll(pieces); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("byte by byte %q %v, at once %q", got, err, want)
		}
		clean := base64.StdEncoding.EncodeToString(in)
		body, _ := decodeTransfer("base64", strings.NewReader(clean))
		if got, _ := io.ReadAll(body); !bytes.Equal(got, in) {
			t.Fatalf("%q came back as %q", in, got)
		}
		qp := composer{}
		qp.quotedPrintable(string(in))
		body, _ = decodeTransfer("quoted-printable", &qp)
		if got, _ := io.ReadAll(body); string(got) != strings.ReplaceAll(string(in), "\n", "\r\n") {
			t.Fatalf("%q came back as %q", in, got)
		}
	})
}

func TestText(t *testing.T) {
	for i, c := range []struct{ head, body, want string }{
		{"Content-Type: text/plain", "a\r\nb\nc\rd\r\n", "a\nb\nc\rd\n"},
		{"", "caf\xe9 caf\xc3\xa9", "café café"},
		{"Content-Type: text/plain; charset=utf-8", "caf\xe9", "caf\uFFFD"},
		{"Content-Type: text/plain; charset=iso-8859-1", "caf\xe9 \x80", "café €"},
		{"Content-Type: text/plain; charset=\"windows-1251\"", "\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"},
		{"Content-Type: text/plain; charset=utf-16", "\xfe\xff\x00a\x20\xac", "a€"},
		{"Content-Type: text/plain; charset=x-nonsense", "caf\xe9 é", "café é"},
		{"Content-Type: text/plain; charset=utf-7", "1 +- 1 +IKw- +2D3eAA-+2D0-!", "1 + 1 € 😀\uFFFD!"},
		{"Content-Type: text/plain; charset=iso-2022-kr", "plain", "plain"},
		{"Content-Type: text/html", "<p>one<p>two &amp; <b>th</b>ree<br>four", "one\n\ntwo & three\nfour"},
		{"Content-Type: text/html", "<style>a{}</style><script>b()</script><!-- c -->d<title>e</title>", "d"},
		{"Content-Type: text/html", "<ul><li>a</li><li>b</ul>c", "- a\n- b\n\nc"},
		{"Content-Type: text/html", "<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"},
		{"Content-Type: text/html", "a<pre>  b\r\n   c</pre>d", "a\n\n  b\n   c\n\nd"},
		{"Content-Type: text/html", "x&nbsp;&nbsp;y  z <img src=a alt='pic'> <IMG ALT=\"Two\"/>", "x  y z pic Two"},
		{"Content-Type: text/html", "unfinished <b", "unfinished"},
		{"Content-Type: text/html", "<textarea>hidden", ""},
		{"Content-Type: text/html; charset=koi8-r", "<b>\xf0\xd2\xc9</b>", "При"},
	} {
		raw := []byte(c.head + "\r\n\r\n" + c.body)
		if c.head == "" {
			raw = raw[2:]
		}
		got, err := Text(bytes.NewReader(raw), &scan(raw).Root, 1<<20)
		if err != nil || got != c.want {
			t.Errorf("%d: %q: got %q %v, want %q", i, raw, got, err, c.want)
		}
		for limit := range int64(len(got)) {
			short, err := Text(bytes.NewReader(raw), &scan(raw).Root, limit)
			if err != nil || int64(len(short)) > limit || !strings.HasPrefix(got, short) {
				t.Errorf("%d: limit %d: got %q %v", i, limit, short, err)
			}
		}
	}
}

func multi(subtype string, parts ...string) string {
	var b strings.Builder
	boundary := fmt.Sprintf("%s-%d", subtype, len(strings.Join(parts, "")))
	fmt.Fprintf(&b, "Content-Type: multipart/%s; boundary=%s\r\n\r\n", subtype, boundary)
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\n%s\r\n", boundary, p)
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return b.String()
}

func TestBestText(t *testing.T) {
	plain, html := "Content-Type: text/plain\r\n\r\nplain", "Content-Type: text/html\r\n\r\n<b>html</b>"
	blank, pdf := "Content-Type: text/plain\r\n\r\n \r\n", "Content-Type: application/pdf; name=a.pdf\r\n\r\nx"
	for i, c := range []struct{ raw, want string }{
		{plain, "plain"},
		{html, "html"},
		{pdf, "[attachments: a.pdf]"},
		{multi("alternative", plain, html), "plain"},
		{multi("alternative", html, plain), "plain"},
		{multi("alternative", blank, html), "html"},
		{multi("alternative", multi("related", html, "Content-Type: image/png; name=i.png\r\n\r\nx")), "html\n[attachments: i.png]"},
		{multi("alternative", plain, multi("mixed", html, pdf)), "plain\n[attachments: a.pdf]"},
		{multi("mixed", plain, pdf, pdf), "plain\n[attachments: a.pdf, a.pdf]"},
		{multi("mixed", plain, html), "plain\nhtml"},
		{multi("mixed", plain, "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nnot shown"), "plain\n[attachments: text/plain]"},
		{multi("mixed", plain, "Content-Type: text/plain; name=log.txt\r\n\r\nnot shown"), "plain\n[attachments: log.txt]"},
		{multi("mixed", plain, "Content-Type: message/rfc822\r\n\r\n"+plain), "plain\n[attachments: message/rfc822]"},
		{"Content-Type: message/rfc822\r\n\r\n" + plain, "plain"},
		{multi("signed", plain, "Content-Type: application/pgp-signature\r\n\r\nx"), "plain"},
		{"", ""},
	} {
		raw := []byte(c.raw)
		s := scan(raw)
		got, err := BestText(bytes.NewReader(raw), s, 1000)
		if err != nil || got != c.want {
			t.Errorf("%d: got %q %v, want %q", i, got, err, c.want)
		}
		for limit := range int64(len(got)) {
			if short, err := BestText(bytes.NewReader(raw), s, limit); err != nil || int64(len(short)) > limit {
				t.Errorf("%d: limit %d: got %q %v", i, limit, short, err)
			}
		}
	}
}

// A hundred nested alternatives must not be looked at 2^100 times.
func TestBestTextNested(t *testing.T) {
	raw := "Content-Type: text/plain\r\n\r\ndeep"
	for i := range 95 {
		raw = fmt.Sprintf("Content-Type: multipart/alternative; boundary=level-%d-\r\n\r\n--level-%d-\r\n%s\r\n--level-%d---\r\n", i, i, raw, i)
	}
	s := scan([]byte(raw))
	if got, err := BestText(strings.NewReader(raw), s, 100); got != "deep" || err != nil || s.Preview != "deep" {
		t.Errorf("got %q %v, preview %q", got, err, s.Preview)
	}
}

func TestPreview(t *testing.T) {
	for i, c := range []struct{ raw, want string }{
		{"\r\n  a\r\n\r\n\tb  c \r\n", "a b c"},
		{"\r\n" + strings.Repeat("a", 300), strings.Repeat("a", 200)},
		{"\r\n" + strings.Repeat("é", 300), strings.Repeat("é", 200)},
		{"\r\n" + strings.Repeat("日本 ", 100), strings.TrimSuffix(strings.Repeat("日本 ", 67), " ")[:len("日本 ")*66+len("日本")]},
		{"\r\n\x00\x07a\x1bb\ufeff", "ab"},
		{"Content-Type: text/html\r\n\r\n<style>x</style>&#847;&zwnj;&nbsp;&#847; &zwnj;<p>Hi</p><p>there</p>", "Hi there"},
		{"Content-Type: text/plain; charset=utf-8\r\n\r\nمی\u200cخواهم", "می\u200cخواهم"},
		{"Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx", ""},
		{"Content-Type: image/png\r\n\r\nx", ""},
		{multi("mixed", "\r\n \r\n", "Content-Type: text/html\r\n\r\n<b>second</b>"), "second"},
		{multi("mixed", "Content-Type: image/png\r\n\r\nx", "\r\nsecond"), "second"},
		{"Content-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte("b64 text")), "b64 text"},
		{"Content-Type: text/html\r\n\r\n<style>" + strings.Repeat("x{} ", 20_000) + "</style>far", "far"},
	} {
		if got := scan([]byte(c.raw)).Preview; got != c.want {
			t.Errorf("%d: got %q, want %q", i, got, c.want)
		}
	}
}
