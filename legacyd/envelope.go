package legacyd

import (
	"strconv"
	"strings"
)

// envelopeAddresses reads the From and To addresses out of an ENVELOPE (RFC 9051 section 7.5.2): the first author, and all
// recipients with ", " between them. The index has it, so that a listing need not open the messages for their headers.
// The text is our own scanner's; of anything else what can be read is returned.
func envelopeAddresses(envelope string) (from, to string) {
	e := &envelopeReader{rest: envelope}
	v := e.value(0)
	// date subject from sender reply-to to cc bcc in-reply-to message-id
	if len(v.list) < 6 {
		return "", ""
	}
	froms := addresses(v.list[2])
	if len(froms) == 0 {
		froms = addresses(v.list[3])
	}
	if len(froms) > 0 {
		from = froms[0]
	}
	return from, strings.Join(addresses(v.list[5]), ", ")
}

// addresses spells an address list: (name route mailbox host) each; the marks of a group have NIL as host.
func addresses(v value) []string {
	var out []string
	for _, a := range v.list {
		if len(a.list) == 4 && a.list[2].text != "" && a.list[3].text != "" {
			out = append(out, a.list[2].text+"@"+a.list[3].text)
		}
	}
	return out
}

// value is a parenthesised list or a string; NIL is the empty one of both.
type value struct {
	text string
	list []value
}

type envelopeReader struct{ rest string }

func (e *envelopeReader) value(depth int) value {
	e.rest = strings.TrimLeft(e.rest, " ")
	switch {
	case e.rest == "" || depth > 4:
		e.rest = ""
		return value{}
	case e.rest[0] == '(':
		e.rest = e.rest[1:]
		var v value
		for e.rest != "" && e.rest[0] != ')' {
			v.list = append(v.list, e.value(depth+1))
			e.rest = strings.TrimLeft(e.rest, " ")
		}
		e.rest = strings.TrimPrefix(e.rest, ")")
		return v
	case e.rest[0] == '"':
		return value{text: e.quoted()}
	case e.rest[0] == '{':
		return value{text: e.literal()}
	}
	// NIL
	i := strings.IndexAny(e.rest, " ()")
	if i <= 0 {
		i = len(e.rest)
	}
	e.rest = e.rest[i:]
	return value{}
}

func (e *envelopeReader) quoted() string {
	var b strings.Builder
	for i := 1; i < len(e.rest); i++ {
		switch c := e.rest[i]; {
		case c == '"':
			e.rest = e.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(e.rest):
			i++
			b.WriteByte(e.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	e.rest = ""
	return b.String()
}

// literal reads {n} CRLF and n bytes.
func (e *envelopeReader) literal() string {
	head, tail, found := strings.Cut(e.rest, "}\r\n")
	n, err := strconv.Atoi(strings.TrimPrefix(head, "{"))
	if !found || err != nil || n < 0 || n > len(tail) {
		e.rest = ""
		return ""
	}
	e.rest = tail[n:]
	return tail[:n]
}
