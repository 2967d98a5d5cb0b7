package smtpd

import (
	"bytes"
	"strings"
)

// header gathers a message's header while it comes in. It ends at the empty line, or at the first line that cannot belong
// to one; the empty line that is then missing is put in, or else our trace fields would make a header of the body.
type header struct {
	text   []byte // what has come, header and perhaps the begin of the body
	fields []field
	end    int // of the last field in text
	body   int // where the body begins in text; only once add or close has found it
}

// field is one header field with its folds and CRLF.
type field struct {
	name string
	raw  []byte
}

// add takes more text and reports whether the header is complete.
func (h *header) add(p []byte) bool {
	if len(h.text)+len(p) > cap(h.text) {
		h.grow(len(p))
	}
	h.text = append(h.text, p...)
	for {
		n := bytes.Index(h.text[h.body:], []byte("\r\n"))
		if n < 0 {
			return false
		}
		if h.line(h.body, h.body+n+2) {
			return true
		}
	}
}

// grow makes room for n more octets of text. The fields go along: each would hold on to the memory it was read into.
func (h *header) grow(n int) {
	h.text = append(make([]byte, 0, max(len(h.text)+n, len(h.text)*3/2, 1<<10)), h.text...)
	at := 0 // before the header is whole, its fields are what it has from its beginning, without gaps
	for i := range h.fields {
		next := at + len(h.fields[i].raw)
		h.fields[i].raw = h.text[at:next]
		at = next
	}
}

// close ends a message that has no body: its last line may lack its end.
func (h *header) close() {
	if h.body == len(h.text) {
		return
	}
	if h.body < len(h.text) && !h.line(h.body, len(h.text)) {
		// The line became a field, which has to end.
		last := &h.fields[len(h.fields)-1]
		last.raw = append(bytes.Clone(last.raw), "\r\n"...)
	}
}

// line takes the line text[from:to] into the header, or finds that the body begins.
func (h *header) line(from, to int) (ends bool) {
	line := h.text[from:to]
	if len(line) == 2 && line[0] == '\r' { // the separator
		h.body = to
		return true
	}
	if (line[0] == ' ' || line[0] == '\t') && len(h.fields) > 0 {
		last := &h.fields[len(h.fields)-1]
		last.raw = h.text[h.end-len(last.raw) : to]
		h.body, h.end = to, to
		return false
	}
	name := fieldName(line)
	if name == "" {
		return true // body stays at this line
	}
	h.fields = append(h.fields, field{name, line})
	h.body, h.end = to, to
	return false
}

// fieldName is the name of the field that begins with this line, or "" (RFC 5322 section 2.2; white space before the colon
// is section 4.5's).
func fieldName(line []byte) string {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return ""
	}
	name := bytes.TrimRight(line[:colon], " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return string(name)
}

// count says how many fields there are of a name.
func (h *header) count(name string) (n int) {
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			n++
		}
	}
	return n
}

// remove takes all fields of a name away.
func (h *header) remove(name string) {
	kept := h.fields[:0]
	for _, f := range h.fields {
		if !strings.EqualFold(f.name, name) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
}

// set adds a field.
func (h *header) set(name, value string) {
	h.fields = append(h.fields, field{name, []byte(name + ": " + value + "\r\n")})
}
