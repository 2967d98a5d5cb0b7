package smtpd

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// words yields every string over alphabet up to n letters.
func words(alphabet string, n int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		var grow func(prefix string) bool
		grow = func(prefix string) bool {
			if !yield(prefix) {
				return false
			}
			if len(prefix) == n {
				return true
			}
			for i := range len(alphabet) {
				if !grow(prefix + alphabet[i:i+1]) {
					return false
				}
			}
			return true
		}
		grow("")
	}
}

// oracle is RFC 5321 section 4.5.2 in one line: the message ends at the first CRLF.CRLF, and a dot after CRLF goes.
func oracle(stream string) (message, rest string, ends bool) {
	message, rest, ends = strings.Cut("\r\n"+stream, "\r\n.\r\n")
	message = strings.ReplaceAll(message, "\r\n.", "\r\n")
	return strings.TrimPrefix(message, "\r\n"), rest, ends
}

// The oracle itself, where the CRLF of the end is also the message's last: a message of one line has it back.
func oracleMessage(stream string) (message, rest string, ends bool) {
	message, rest, ends = oracle(stream)
	if ends && strings.HasPrefix("\r\n"+stream, "\r\n.\r\n") {
		return "", rest, true // nothing before the dot
	}
	return message + "\r\n", rest, ends
}

func TestDotReaderAgainstRFC(t *testing.T) {
	const tail = "\r\n.\r\nQUIT\r\n"
	n := 0
	for body := range words("\r\n.x", 8) {
		want, rest, _ := oracleMessage(body + tail)
		in := bufio.NewReader(strings.NewReader(body + tail))
		got, err := io.ReadAll(&dotReader{r: in})
		if err != nil || string(got) != want {
			t.Fatalf("%q: got %q, %v; want %q", body, got, err, want)
		}
		left, _ := io.ReadAll(in)
		if string(left) != rest {
			t.Fatalf("%q: left %q, want %q", body, left, rest)
		}
		n++
	}
	if n != 87381 {
		t.Fatalf("%d bodies tried", n)
	}
}

// What the reader gives must not depend on how the octets arrive or on how much is asked for at once.
func FuzzDotReader(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n..b", "\r\n.\rx", "\n.\n", "\r\r\n.\r\n", "x\r\n.\r"} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, body string, size int) {
		size = 2 + size&1023
		stream := body + "\r\n.\r\nNOOP\r\n"
		want, rest, _ := oracleMessage(stream)
		in := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(stream)), 16)
		d := &dotReader{r: in}
		var got strings.Builder
		buf := make([]byte, size)
		for {
			n, err := d.Read(buf)
			got.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		left, _ := io.ReadAll(in)
		if got.String() != want || string(left) != rest {
			t.Fatalf("%q: got %q left %q; want %q left %q", body, got.String(), left, want, rest)
		}
	})
}

func TestDotReaderCutOff(t *testing.T) {
	for _, s := range []string{"", ".", "a", "a\r\n", "a\r\n.", "a\r\n.\r", "a\n.\n", "a\r\n.\n"} {
		_, err := io.ReadAll(&dotReader{r: bufio.NewReader(strings.NewReader(s))})
		if err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %v", s, err)
		}
	}
}
