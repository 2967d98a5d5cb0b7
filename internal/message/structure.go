package message

import (
	"strconv"
	"strings"
)

// appendString writes an IMAP string: quoted if it can be, else a literal (RFC 9051 section 4.3). Quoted strings with
// octets above 127 are only for clients that enabled them, so these are literals for all. There is no way to write NUL.
func appendString(b []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	escapes := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\r' || c == '\n' || c > 126:
			return appendLiteral(b, s)
		case c == '"' || c == '\\':
			escapes++
		}
	}
	if len(s)+escapes > maxQuoted {
		return appendLiteral(b, s)
	}
	b = append(b, '"')
	if escapes == 0 {
		b = append(b, s...)
	} else {
		for i := 0; i < len(s); i++ {
			if s[i] == '"' || s[i] == '\\' {
				b = append(b, '\\')
			}
			b = append(b, s[i])
		}
	}
	return append(b, '"')
}

// maxQuoted keeps quoted strings within what clients have line buffers for.
const maxQuoted = 1000

func appendLiteral(b []byte, s string) []byte {
	b = append(b, '{')
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, "}\r\n"...)
	return append(b, s...)
}

func (n nstring) append(b []byte) []byte {
	if !n.present {
		return append(b, "NIL"...)
	}
	return appendString(b, n.text)
}

// render writes the BODYSTRUCTURE of a part but for its sizes and children: what comes before them and what comes after
// (RFC 9051 section 7.5.2, "BODYSTRUCTURE"). For a multipart, all comes after.
func (m *mimeHeader) render() (head, tail string) {
	isText := strings.EqualFold(m.typ, "text")
	b := make([]byte, 0, 128)
	disposition, dispParams := parseDisposition(m.disposition.text)
	if strings.EqualFold(m.typ, "multipart") {
		b = append(appendString(b, m.subtype), ' ')
		b = append(appendParams(b, m.params, false), ' ')
	} else {
		b = append(appendString(b, m.typ), ' ')
		b = append(appendString(b, m.subtype), ' ')
		b = append(appendParams(b, m.params, isText), ' ')
		b = append(m.id.append(b), ' ')
		b = append(m.description.append(b), ' ')
		b = appendString(b, m.transferEncoding())
		head = string(b)
		b = append(m.md5.append(b[:0]), ' ')
	}
	b = append(appendDisposition(b, disposition, dispParams), ' ')
	b = append(appendLanguages(b, parseLanguages(m.language.text)), ' ')
	b = m.location.append(b)
	return head, string(b)
}

// appendParams writes body-fld-param. Text has a charset even if nobody said which (RFC 2045 section 5.2).
func appendParams(b []byte, params []param, isText bool) []byte {
	open := byte('(')
	for _, p := range params {
		isText = isText && !strings.EqualFold(p.name, "charset")
		b = append(b, open)
		b = append(appendString(b, p.name), ' ')
		b = appendString(b, p.value)
		open = ' '
	}
	if isText {
		b = append(b, open)
		b = append(b, `"charset" "us-ascii"`...)
		open = ' '
	}
	if open == '(' {
		return append(b, "NIL"...)
	}
	return append(b, ')')
}

func appendDisposition(b []byte, disposition string, params []param) []byte {
	if disposition == "" {
		return append(b, "NIL"...)
	}
	b = append(appendString(append(b, '('), disposition), ' ')
	return append(appendParams(b, params, false), ')')
}

func appendLanguages(b []byte, tags []string) []byte {
	if len(tags) == 0 {
		return append(b, "NIL"...)
	}
	for i, tag := range tags {
		if i == 0 {
			b = append(b, '(')
		} else {
			b = append(b, ' ')
		}
		b = appendString(b, tag)
	}
	return append(b, ')')
}

// appendStructure writes the finished part's BODYSTRUCTURE.
func (n *node) appendStructure(b []byte) []byte {
	b = append(b, '(')
	if n.Type == "multipart" {
		for _, kid := range n.kids {
			b = kid.appendStructure(b)
		}
		b = append(b, ' ')
		b = append(b, n.tail...)
		return append(b, ')')
	}
	b = append(b, n.head...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, n.End-n.Body, 10)
	switch {
	case n.Type == "text":
		b = append(b, ' ')
		b = strconv.AppendInt(b, n.Lines, 10)
	case n.holdsMessage() && len(n.kids) == 1:
		b = append(b, ' ')
		b = append(b, n.kids[0].envelope...)
		b = append(b, ' ')
		b = n.kids[0].appendStructure(b)
		b = append(b, ' ')
		b = strconv.AppendInt(b, n.Lines, 10)
	}
	b = append(b, ' ')
	b = append(b, n.tail...)
	return append(b, ')')
}

// BodyOf derives the BODY wire text (no extension data) from a BODYSTRUCTURE. What it cannot read it returns as it is.
func BodyOf(bodyStructure string) string {
	w := structureWalker{in: bodyStructure, out: make([]byte, 0, len(bodyStructure))}
	w.body(0)
	if w.bad || w.in != "" {
		return bodyStructure
	}
	return string(w.out)
}

// structureWalker copies a BODYSTRUCTURE from in to out without its extension data.
type structureWalker struct {
	in  string
	out []byte
	bad bool
}

// body copies one body: "(" … ")".
func (w *structureWalker) body(depth int) {
	if depth > 2*maxDepth {
		w.bad = true
	}
	w.copy("(")
	if strings.HasPrefix(w.in, "(") {
		for strings.HasPrefix(w.in, "(") && !w.bad {
			w.body(depth + 1)
		}
		w.copy(" ")
		w.value(true) // subtype
	} else {
		typ := w.value(true)
		w.copy(" ")
		subtype := w.value(true)
		for range 5 { // parameters, id, description, encoding, size
			w.copy(" ")
			w.value(true)
		}
		w.lines(depth, strings.ToLower(typ), strings.ToLower(subtype))
	}
	for strings.HasPrefix(w.in, " ") && !w.bad { // extension data
		w.in = w.in[1:]
		w.value(false)
	}
	w.copy(")")
}

// lines copies what only texts and messages have.
func (w *structureWalker) lines(depth int, typ, subtype string) {
	switch {
	case typ == `"text"`:
		w.copy(" ")
		w.value(true)
	case typ == `"message"` && (subtype == `"rfc822"` || subtype == `"global"`):
		w.copy(" ")
		w.value(true)
		w.copy(" ")
		w.body(depth + 1)
		w.copy(" ")
		w.value(true)
	}
}

func (w *structureWalker) copy(s string) {
	rest, ok := strings.CutPrefix(w.in, s)
	if !ok {
		w.bad = true
		return
	}
	w.in = rest
	w.out = append(w.out, s...)
}

// value takes one atom, string or list, and copies it if told to.
func (w *structureWalker) value(keep bool) string {
	n := valueLen(w.in)
	if n <= 0 {
		w.bad = true
		return ""
	}
	v := w.in[:n]
	w.in = w.in[n:]
	if keep {
		w.out = append(w.out, v...)
	}
	return v
}

// valueLen is the length of the S-expression that s begins with, 0 if there is none.
func valueLen(s string) int {
	depth, i := 0, 0
	for i < len(s) {
		switch s[i] {
		case '(':
			depth++
			i++
		case ')':
			depth--
			i++
		case ' ':
			if i++; depth == 0 {
				return 0
			}
		default:
			n := stringLen(s[i:])
			if n <= 0 {
				return 0
			}
			i += n
		}
		if depth == 0 {
			return i
		}
		if depth < 0 {
			return 0
		}
	}
	return 0
}

// stringLen is the length of the atom, quoted string or literal that s begins with, 0 if it is broken.
func stringLen(s string) int {
	switch s[0] {
	case '"':
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
		return 0
	case '{':
		digits, _, ok := strings.Cut(s[1:min(len(s), 24)], "}\r\n")
		n, err := strconv.ParseInt(digits, 10, 32)
		begin := int64(len(digits)) + 4
		if !ok || err != nil || n < 0 || n > int64(len(s))-begin {
			return 0
		}
		return int(begin + n)
	}
	if i := strings.IndexAny(s, " ()\""); i >= 0 {
		return i
	}
	return len(s)
}
