package smtpd

import (
	"bufio"
	"bytes"
	"io"
)

// dotReader reads the message after DATA (RFC 5321 section 4.5.2): it ends at CRLF "." CRLF and at nothing else, the CRLF of
// DATA's own line counting as the first one; a dot after CRLF is taken away. CR and LF by themselves are octets like any
// other: what is to be thought of them is for lines.go. Thus no two readings: whoever relays these octets by the RFC sees
// the same end as we do.
type dotReader struct {
	r     *bufio.Reader
	state dotState
}

// dotState is what the last octets were. An octet that might begin the end of the message is held back.
type dotState int

const (
	atLineStart dotState = iota // CRLF, or nothing yet
	heldDot                     // CRLF "."
	heldDotCR                   // CRLF "." CR
	inLine
	afterCR // passed on, as a CR may be anywhere
	atEnd
)

// Read returns io.EOF at the message's end and io.ErrUnexpectedEOF if the connection ends before.
func (d *dotReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if d.state == atEnd {
			return n, io.EOF
		}
		if d.r.Buffered() == 0 && n > 0 {
			return n, nil
		}
		if d.state == inLine {
			if c := d.copyLine(p[n:]); c > 0 {
				n += c
				continue
			}
		}
		c, err := d.r.ReadByte()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
		if d.step(c) {
			if d.state == afterCR {
				c = '\r'
			}
			p[n] = c
			n++
		}
	}
	return n, nil
}

// copyLine moves what is buffered of a line, up to its first CR.
func (d *dotReader) copyLine(p []byte) int {
	b, _ := d.r.Peek(min(d.r.Buffered(), len(p))) // cannot fail: it is there
	if i := bytes.IndexByte(b, '\r'); i >= 0 {
		b = b[:i]
	}
	n := copy(p, b)
	_, _ = d.r.Discard(n)
	return n
}

// step takes one octet and reports whether there is one to pass on: a CR if the state is afterCR now, else the octet itself.
func (d *dotReader) step(c byte) bool {
	switch {
	case d.state == atLineStart && c == '.':
		d.state = heldDot
		return false
	case d.state == heldDot && c == '\r':
		d.state = heldDotCR
		return false
	case d.state == heldDotCR && c == '\n':
		d.state = atEnd
		return false
	case d.state == heldDotCR:
		// The held CR was one of the message; c is looked at again, as what follows it.
		_ = d.r.UnreadByte() // follows a ReadByte
		d.state = afterCR
	case d.state == afterCR && c == '\n':
		d.state = atLineStart
	case c == '\r':
		d.state = afterCR
	default:
		d.state = inLine
	}
	return true
}
