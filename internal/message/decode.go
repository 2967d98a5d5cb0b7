package message

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
)

// Decode returns the part's body with its content-transfer-encoding undone; broken encodings yield what can be read. known
// is false for an encoding we do not know (BINARY's [UNKNOWN-CTE]): then the body is as it is. r reads the whole message.
func Decode(r io.ReaderAt, p *Part) (body io.Reader, known bool) {
	return decodeTransfer(p.Encoding, io.NewSectionReader(r, p.Body, p.End-p.Body))
}

// decodeTransfer undoes an encoding of RFC 2045 section 6, or uuencode.
func decodeTransfer(encoding string, r io.Reader) (body io.Reader, known bool) {
	switch encoding {
	case "", "7bit", "8bit", "binary", "7-bit", "8-bit", "7bits", "8bits":
		return r, true
	case "base64", "b":
		return &chunkReader{in: bufio.NewReader(r), decoder: &base64Decoder{}}, true
	case "quoted-printable", "q":
		return &chunkReader{in: bufio.NewReader(r), decoder: &qpDecoder{}}, true
	case "x-uuencode", "uuencode", "x-uue", "uue":
		return &chunkReader{in: bufio.NewReader(r), decoder: &uuDecoder{}}, true
	}
	return r, false
}

// decoder undoes an encoding piece by piece.
type decoder interface {
	// decode appends to dst what in stands for. What it cannot judge yet it keeps, a bounded number of bytes. The last
	// call has atEOF set.
	decode(dst, in []byte, atEOF bool) []byte
}

// chunkReader reads what a decoder makes of in.
type chunkReader struct {
	in      *bufio.Reader
	decoder decoder
	out     []byte // decoded and not read yet, in buf
	buf     []byte
	err     error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if _, c.err = c.in.Peek(1); c.err != nil && c.err != io.EOF {
			continue
		}
		piece, _ := c.in.Peek(c.in.Buffered())
		c.buf = c.decoder.decode(c.buf[:0], piece, c.err == io.EOF)
		c.out = c.buf
		_, _ = c.in.Discard(len(piece)) // they are buffered
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// base64Value is the value of each character of base64's alphabet, -1 for others.
var base64Value = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = int8(i)
	}
	return t
}()

// base64Decoder takes base64 with junk between (RFC 2045 section 6.8: "all … characters not found in Table 1 must be
// ignored"), without padding, or of several pieces each with its own.
type base64Decoder struct {
	bits uint32
	n    uint // bits that wait
}

func (d *base64Decoder) decode(dst, in []byte, atEOF bool) []byte {
	for len(in) > 0 {
		if d.n == 0 {
			// Whole lines of clean base64 go the fast way.
			n := 0
			for n < len(in) && base64Value[in[n]] >= 0 {
				n++
			}
			n &^= 3
			if n > 0 {
				at := len(dst)
				dst = append(dst, make([]byte, n/4*3)...)
				_, _ = base64.StdEncoding.Decode(dst[at:], in[:n]) // only alphabet, whole groups
				in = in[n:]
				continue
			}
		}
		c := in[0]
		in = in[1:]
		if v := base64Value[c]; v >= 0 {
			d.bits, d.n = d.bits<<6|uint32(v), d.n+6
			if d.n >= 24 {
				dst = append(dst, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
				d.bits, d.n = 0, 0
			}
		} else if c == '=' {
			dst = d.flush(dst)
		}
	}
	if atEOF {
		dst = d.flush(dst)
	}
	return dst
}

// flush ends a group that is not full.
func (d *base64Decoder) flush(dst []byte) []byte {
	switch d.n {
	case 12:
		dst = append(dst, byte(d.bits>>4))
	case 18:
		dst = append(dst, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return dst
}

// qpDecoder undoes quoted-printable (RFC 2045 section 6.7). Wrong escapes stay as they are; white space at a line's end
// goes, it was added on the way.
type qpDecoder struct {
	held []byte // an escape that is not complete, or white space that may end a line
}

// maxHeldSpace bounds the white space that is kept to see whether a line ends with it.
const maxHeldSpace = 4 << 10

func (d *qpDecoder) decode(dst, in []byte, atEOF bool) []byte {
	for _, c := range in {
		dst = d.byte(dst, c)
	}
	if atEOF {
		if !isSpace(d.held) && !(d.held[0] == '=' && isSpace(d.held[1:])) {
			dst = append(dst, d.held...)
		}
		d.held = nil
	}
	return dst
}

func isSpace(b []byte) bool { return len(bytes.Trim(b, " \t\r")) == 0 }

func (d *qpDecoder) byte(dst []byte, c byte) []byte {
	if len(d.held) > 0 {
		if d.held[0] == '=' {
			return d.escape(dst, c)
		}
		switch c {
		case ' ', '\t', '\r':
			return d.hold(dst, c)
		case '\n':
			if d.held[len(d.held)-1] == '\r' {
				dst = append(dst, '\r')
			}
			d.held = d.held[:0]
			return append(dst, '\n')
		}
		dst = append(dst, d.held...)
		d.held = d.held[:0]
	}
	switch c {
	case '=', ' ', '\t', '\r':
		d.held = append(d.held, c)
		return dst
	}
	return append(dst, c)
}

func (d *qpDecoder) hold(dst []byte, c byte) []byte {
	if len(d.held) >= maxHeldSpace {
		dst = append(dst, d.held...)
		d.held = d.held[:0]
	}
	d.held = append(d.held, c)
	return dst
}

// escape goes on after "=".
func (d *qpDecoder) escape(dst []byte, c byte) []byte {
	switch n := len(d.held); {
	case c == '\n': // a soft line break, perhaps with white space before
		d.held = d.held[:0]
		return dst
	case n == 1 && isHex(c), (c == ' ' || c == '\t' || c == '\r') && !isHexIn(d.held) && n < maxHeldSpace:
		d.held = append(d.held, c)
		return dst
	case n == 2 && isHex(c) && isHex(d.held[1]):
		dst = append(dst, unhex(d.held[1])<<4|unhex(c))
		d.held = d.held[:0]
		return dst
	}
	dst = append(dst, d.held...)
	d.held = d.held[:0]
	return d.byte(dst, c)
}

func isHexIn(held []byte) bool { return len(held) > 1 && isHex(held[1]) }

// uuDecoder undoes uuencode, from its "begin" line to its "end" line.
type uuDecoder struct {
	line  []byte
	begun bool
	ended bool
}

// maxUULine bounds what is kept of a line; uuencode's are at most 61 characters.
const maxUULine = 200

func (d *uuDecoder) decode(dst, in []byte, atEOF bool) []byte {
	for _, c := range in {
		if c == '\n' {
			dst = d.take(dst)
		} else if len(d.line) < maxUULine {
			d.line = append(d.line, c)
		}
	}
	if atEOF {
		dst = d.take(dst)
	}
	return dst
}

// take decodes a complete line: a count and as many bytes, each character worth 6 bits.
func (d *uuDecoder) take(dst []byte) []byte {
	line := bytes.TrimRight(d.line, "\r")
	d.line = d.line[:0]
	switch {
	case !d.begun:
		d.begun = bytes.HasPrefix(line, []byte("begin "))
		return dst
	case d.ended || len(line) == 0:
		return dst
	case string(line) == "end":
		d.ended = true
		return dst
	}
	n := int(line[0]-' ') & 63
	for i := 1; n > 0; i += 4 {
		var group uint32
		for j := range 4 {
			group <<= 6
			if i+j < len(line) { // trailing spaces get lost on the way; a space is 0
				group |= uint32(line[i+j]-' ') & 63
			}
		}
		for shift := 16; shift >= 0 && n > 0; shift -= 8 {
			dst = append(dst, byte(group>>shift))
			n--
		}
	}
	return dst
}
