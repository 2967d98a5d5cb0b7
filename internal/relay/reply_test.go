package relay

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReply(t *testing.T) {
	for _, test := range []struct {
		in   string
		want string // "code status text", or an error
	}{
		{"250 ok\r\n", "250 2.0.0 ok"},
		{"250\r\n", "250 2.0.0 "},
		{"250 \n", "250 2.0.0 "},
		{"550 5.1.1 no such user\r\n", "550 5.1.1 no such user"},
		{"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n", "550 5.1.1 no such user"},
		{"550-5.1.1 no\r\n550 user\r\n", "550 5.1.1 no user"},
		{"550 4.1.1 of the wrong class\r\n", "550 5.0.0 4.1.1 of the wrong class"},
		{"450 4.1.1234 x\r\n", "450 4.0.0 4.1.1234 x"},
		{"450 4.1 x\r\n", "450 4.0.0 4.1 x"},
		{"250 a\x00b\x1b[31m\xff\u0085c\r\n", "250 2.0.0 a b [31m? c"},
		{"250 bücher\r\n", "250 2.0.0 bücher"},
		{"250-a\r\n251 b\r\n", errNoReply.Error()},
		{"hello\r\n", errNoReply.Error()},
		{"199 x\r\n", errNoReply.Error()},
		{"600 x\r\n", errNoReply.Error()},
		{"2x0 x\r\n", errNoReply.Error()},
		{"250_x\r\n", errNoReply.Error()},
		{"\r\n", errNoReply.Error()},
		{"", io.EOF.Error()},
		{"2", io.ErrUnexpectedEOF.Error()},
		{"250 ok", io.ErrUnexpectedEOF.Error()},
		{"250 ok\r", io.ErrUnexpectedEOF.Error()},
		{"250-ok\r\n", io.ErrUnexpectedEOF.Error()},
		{"250-ok\r\n250", io.ErrUnexpectedEOF.Error()},
		{"250 " + strings.Repeat("x", maxReplyLine) + "\r\n", errReplyTooLong.Error()},
		{strings.Repeat("250-x\r\n", maxReplyLines+1) + "250 x\r\n", errReplyTooLong.Error()},
		{strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 100) + "250 x\r\n", errReplyTooLong.Error()},
	} {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(test.in), 64))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join([]string{itoa(r.code), r.statusOr(), r.text()}, " ")
		}
		if got != test.want && (err == nil || !strings.HasPrefix(got, test.want)) {
			t.Errorf("%.60q: %q, want %q", test.in, got, test.want)
		}
	}
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

// A server that never stops talking costs no memory.
func TestReplyWithoutEnd(t *testing.T) {
	for _, talk := range []string{"250-x\r\n", "x", "250"} {
		in := &endless{piece: talk}
		if _, err := readReply(bufio.NewReader(in)); !errors.Is(err, errReplyTooLong) && !errors.Is(err, errNoReply) {
			t.Errorf("%q: %v", talk, err)
		}
		if in.n > 1<<16 {
			t.Errorf("%q: read %d octets", talk, in.n)
		}
	}
}

type endless struct {
	piece string
	n     int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.piece[e.n%len(e.piece)]
		e.n++
	}
	return len(p), nil
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "550-5.1.1 a\r\n550 b\r\n", "250-\r\n250\r\n", "4\xff0 x\n", "354 go\r\nx"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(string(in)), 16))
		if err != nil {
			return
		}
		text := r.text()
		if r.code < 200 || r.code > 599 || !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n\x00") || len(text) > 4*maxReply {
			t.Errorf("%d %q", r.code, text)
		}
		if !strings.Contains(string(in), "\n") {
			t.Error("a reply without a line end")
		}
		if s := r.statusOr(); int(s[0]-'0') != r.class() || strings.Count(s, ".") != 2 {
			t.Errorf("status %q of %d", s, r.code)
		}
	})
}
