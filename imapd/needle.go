package imapd

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"mailsrv/internal/message"
)

// needle is a text that SEARCH looks for: case does not count, nor whether accents are composed (as in RFC 5051's
// i;unicode-casemap).
type needle struct {
	folded []byte
}

func newNeedle(text string) *needle { return &needle{appendFolded(nil, []byte(text))} }

func (n *needle) empty() bool { return len(n.folded) == 0 }

// in reports whether the text is in s.
func (n *needle) in(s string) bool {
	return n.empty() || bytes.Contains(appendFolded(nil, []byte(s)), n.folded)
}

// inField reports whether the text is in a field's value, decoded; the empty text is in every field.
func (n *needle) inField(raw []byte) bool {
	if n.empty() {
		return true
	}
	_, value, _ := strings.Cut(unfold(raw), ":")
	return n.in(message.DecodeHeader(strings.TrimSpace(value)))
}

// unfold takes the line ends out of a header field.
func unfold(raw []byte) string {
	b := make([]byte, 0, len(raw))
	for _, c := range raw {
		if c != '\r' && c != '\n' {
			b = append(b, c)
		}
	}
	return string(b)
}

// inHeader reports whether the text is in a header block: names of fields count, as "subject: x" does.
func (n *needle) inHeader(header []byte) bool {
	found := false
	message.Fields(header, func(_ string, raw []byte) bool {
		found = n.in(message.DecodeHeader(unfold(raw)))
		return !found
	})
	return found
}

// searchChunk is how much of a body is looked through at a time.
const searchChunk = 32 << 10

var searchBuffers = sync.Pool{New: func() any { return new([searchChunk]byte) }}

// inReader reports whether the text is in what r gives, in constant memory.
func (n *needle) inReader(r io.Reader) (bool, error) {
	if n.empty() {
		return true, nil
	}
	buf := searchBuffers.Get().(*[searchChunk]byte)
	defer searchBuffers.Put(buf)
	var window []byte // folded text, with the end of what came before in front
	held := 0         // octets at buf's beginning that wait for the rest of their character
	for {
		k, err := io.ReadFull(r, buf[held:])
		k += held
		cut := k
		if err == nil {
			cut = characterBoundary(buf[:k])
		}
		window = appendFolded(window, buf[:cut])
		if bytes.Contains(window, n.folded) {
			return true, nil
		}
		if keep := len(n.folded) - 1; len(window) > keep {
			window = append(window[:0], window[len(window)-keep:]...)
		}
		held = copy(buf[:], buf[cut:k])
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return false, nil
		default:
			return false, err
		}
	}
}

// characterBoundary is where text can be cut so that no character, nor an accent from its letter, is torn apart; looking back
// a little only, since anything can call itself UTF-8.
func characterBoundary(b []byte) int {
	if b[len(b)-1] < utf8.RuneSelf {
		return len(b) - 1 // an accent may follow the letter
	}
	from := max(0, len(b)-64)
	if i := norm.NFKD.LastBoundary(b[from:]); i > 0 {
		return from + i
	}
	return len(b)
}
