package relay

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// words are all strings over an alphabet up to a length.
func words(alphabet string, length int) (out []string) {
	out = []string{""}
	for from, n := 0, 0; n < length; n++ {
		to := len(out)
		for _, w := range out[from:to] {
			for _, c := range alphabet {
				out = append(out, w+string(c))
			}
		}
		from = to
	}
	return out
}

// oracle: lines end with CRLF whatever ended them, and a dot that begins one is doubled.
func oracle(body string, dots bool) string {
	body = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(body)
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	if dots {
		body = strings.ReplaceAll("\n"+body, "\n.", "\n..")[1:]
	}
	return strings.ReplaceAll(body, "\n", "\r\n")
}

func TestTextWriterAllShortBodies(t *testing.T) {
	for _, body := range words("\r\n.x", 7) {
		for _, dots := range []bool{true, false} {
			want := oracle(body, dots)
			for cut := range len(body) + 1 {
				var out bytes.Buffer
				w := &textWriter{w: bufio.NewWriter(&out), dots: dots}
				for _, piece := range []string{body[:cut], body[cut:]} {
					if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
						t.Fatal(n, err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				w.w.Flush()
				if out.String() != want {
					t.Fatalf("%q cut at %d, dots %v: %q, want %q", body, cut, dots, out.String(), want)
				}
			}
		}
	}
}

// Every octet but CR and LF passes as it is.
func TestTextWriterEveryOctet(t *testing.T) {
	var body []byte
	for c := range 256 {
		if c != '\r' && c != '\n' {
			body = append(body, byte(c), byte(c), '\r', '\n')
		}
	}
	var out bytes.Buffer
	w := &textWriter{w: bufio.NewWriter(&out), dots: true}
	_, _ = w.Write(body)
	_ = w.Close()
	w.w.Flush()
	if want := bytes.Replace(body, []byte("\n..\r"), []byte("\n...\r"), 1); !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%q", out.Bytes())
	}
}
