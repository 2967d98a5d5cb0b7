package mailauth

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// Canonical forms of RFC 6376 section 3.4. go-msgauth has them too, but keeps them to itself.

// relaxedField is a field in the "relaxed" form, with its CRLF (section 3.4.2).
func relaxedField(raw []byte) string {
	name, value, _ := bytes.Cut(raw, []byte{':'})
	words := bytes.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' })
	return strings.ToLower(string(bytes.TrimRight(name, " \t"))) + ":" + string(bytes.Join(words, []byte{' '})) + "\r\n"
}

// canonicalField is a field in the form that a signature's c= names for the header.
func canonicalField(raw []byte, relaxed bool) string {
	if relaxed {
		return relaxedField(raw)
	}
	return string(raw)
}

// canonicalBody writes a body's canonical form to w, as it comes: "relaxed" of section 3.4.4, or "simple" of 3.4.3. What
// ends lines is LF, with or without CR; the latter is in binary bodies only (RFC 3030). Close has to be called.
type canonicalBody struct {
	w       *bufio.Writer
	relaxed bool
	any     bool // something was written
	lines   int  // line ends that count only if something follows
	space   bool // relaxed: white space that counts only if something follows in the line
	cr      bool // a CR that may belong to a line end
}

func newCanonicalBody(w io.Writer, relaxed bool) *canonicalBody {
	return &canonicalBody{w: bufio.NewWriterSize(w, 8<<10), relaxed: relaxed}
}

// Write never fails: it writes to hashes.
func (b *canonicalBody) Write(p []byte) (int, error) {
	special := "\r\n"
	if b.relaxed {
		special = " \t\r\n"
	}
	for rest := p; len(rest) > 0; {
		n := bytes.IndexAny(rest, special)
		if n < 0 {
			n = len(rest)
		}
		if n > 0 {
			b.settle()
			_, _ = b.w.Write(rest[:n]) // bufio keeps the first error, for Close
			rest = rest[n:]
			continue
		}
		switch rest[0] {
		case '\n':
			b.lines, b.space, b.cr = b.lines+1, false, false
		case '\r':
			if b.cr {
				b.settle() // it was none of a line end
			}
			b.cr = true
		default:
			if b.cr {
				b.settle()
			}
			b.space = true
		}
		rest = rest[1:]
	}
	return len(p), nil
}

// settle writes what was held back: something follows.
func (b *canonicalBody) settle() {
	for ; b.lines > 0; b.lines-- {
		_, _ = b.w.WriteString("\r\n")
	}
	if b.space {
		_ = b.w.WriteByte(' ')
	}
	if b.cr {
		_ = b.w.WriteByte('\r')
	}
	b.any, b.space, b.cr = true, false, false
}

// Close ends the body: empty lines at its end are dropped, one line end stays. An empty body is one line end in the simple
// form, nothing in the relaxed one.
func (b *canonicalBody) Close() error {
	if b.cr {
		b.settle()
	}
	if b.any || !b.relaxed {
		_, _ = b.w.WriteString("\r\n")
	}
	return b.w.Flush()
}
