package message

import (
	"bytes"
	"strings"
	"time"
)

// Fields iterates over the raw fields of a header block (as read from the message, from Part.Header to Part.Body): the name
// as written, and the whole field with its folds and final CRLF. Lines that belong to no field are passed over; the
// empty line ends the iteration, and so does fn by returning false.
func Fields(header []byte, fn func(name string, raw []byte) bool) {
	for len(header) > 0 {
		end := lineEnd(header)
		if len(trimEOL(header[:end])) == 0 {
			return
		}
		n := fieldName(header[:end])
		for end < len(header) && (header[end] == ' ' || header[end] == '\t') {
			end += lineEnd(header[end:])
		}
		if n > 0 && !fn(string(header[:n]), header[:end]) {
			return
		}
		header = header[end:]
	}
}

// lineEnd is the length of the first line with its LF.
func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// fieldName is the length of the field name that the line begins with, 0 if it is not a field (RFC 5322 section 2.2; white
// space before the colon is of section 4.5).
func fieldName(line []byte) int {
	n := 0
	for n < len(line) && line[n] > ' ' && line[n] < 0x7f && line[n] != ':' {
		n++
	}
	rest := bytes.TrimLeft(line[n:], " \t")
	if len(rest) == 0 || rest[0] != ':' {
		return 0
	}
	return n
}

func trimEOL(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'})
}

// FieldValue is the raw field's value unfolded (RFC 5322 section 2.2.3: the line ends go, white space stays), without NULs
// and without white space around it.
func FieldValue(raw []byte) string {
	_, v, _ := bytes.Cut(raw, []byte{':'})
	v = bytes.Trim(v, " \t\r\n")
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, 0) < 0 {
		return string(v)
	}
	var b strings.Builder
	b.Grow(len(v))
	for i, c := range v {
		switch {
		case c == 0 || c == '\n':
		case c == '\r' && i+1 < len(v) && v[i+1] == '\n':
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// top is what only the header of the whole message tells.
type top struct {
	date, subject, messageID, inReplyTo, references string
	fields                                          string
}

func (t *top) fill(s *Summary) {
	s.Date, s.SentDay = parseDate(t.date)
	s.Subject = cut(DecodeHeader(cut(t.subject, 4*maxSubject)), maxSubject)
	if ids := messageIDs(t.messageID, 1); len(ids) > 0 {
		s.MessageID = ids[0]
	}
	if ids := messageIDs(t.inReplyTo, 1); len(ids) > 0 {
		s.InReplyTo = ids[0]
	}
	s.References = messageIDs(t.references, maxReferences)
}

// readHeader fills in what the header block of a part says, or what is the default without one.
func (s *Scanner) readHeader(n *node, block []byte) {
	var env envelope
	m := mimeHeader{}
	isRoot := n == s.root
	Fields(block, func(name string, raw []byte) bool {
		// Only the few fields we know are worth a lower-case copy.
		if len(name) > len("content-transfer-encoding") {
			return true
		}
		key := strings.ToLower(name)
		m.add(key, raw)
		if n.message {
			env.add(key, raw)
		}
		if isRoot && key == "references" {
			s.top.references = FieldValue(raw)
		}
		return true
	})
	if isRoot {
		s.top.date, s.top.subject = env.date.text, env.subject.text
		s.top.messageID, s.top.inReplyTo = env.messageID.text, env.inReplyTo.text
	}
	closed := len(s.open) >= maxDepth || s.parts >= maxParts
	m.settle(n.digest, closed)
	m.describe(n, closed)
	s.render(n, &m, &env)
}

// render writes what ENVELOPE and BODYSTRUCTURE say of a part, as long as the message's budget for it lasts.
func (s *Scanner) render(n *node, m *mimeHeader, env *envelope) {
	if n.message {
		n.envelope = env.text()
		if n != s.root {
			if s.budget -= len(n.envelope); s.budget < 0 {
				n.envelope = (&envelope{}).text()
			}
		}
	}
	n.head, n.tail = m.render()
	cost := len(n.head) + len(n.tail) + len(n.Charset) + len(n.Filename) + len(n.Encoding) + len(n.Disposition)
	if s.budget -= cost; s.budget >= 0 {
		return
	}
	bare := mimeHeader{typ: m.typ, subtype: m.subtype}
	if len(m.typ)+len(m.subtype) > 100 {
		bare = mimeHeader{typ: "application", subtype: "octet-stream"}
	}
	if len(m.encoding.text) <= 100 { // without it the body cannot be read
		bare.encoding = m.encoding
	}
	bare.describe(n, true)
	n.head, n.tail = bare.render()
}

// messageIDs returns the ids in angle brackets; an id without brackets counts if it is all there is. Beyond n ids, the
// first and the latest ones stay: threads hang on those (RFC 5322 section 3.6.4).
func messageIDs(v string, n int) []string {
	var ids []string
	for rest := v; n > 1 || len(ids) == 0; {
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		j := strings.IndexAny(rest, "<>")
		if j < 0 {
			break
		}
		if id := strings.Join(strings.Fields(rest[:j]), ""); rest[j] == '>' && id != "" && len(id) <= maxID {
			ids = append(ids, id)
		}
		rest = rest[j:]
	}
	if words := strings.Fields(v); len(ids) == 0 && len(words) == 1 && strings.Contains(v, "@") && len(v) <= maxID {
		ids = append(ids, strings.Trim(v, "<>"))
	}
	if len(ids) > n && n > 1 {
		ids = append(ids[:1:1], ids[len(ids)-n+1:]...)
	}
	return ids
}

// cut shortens s to at most n bytes, at a character's end.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

// dayNumber writes a day as YYYYMMDD.
func dayNumber(t time.Time) int {
	y, m, d := t.Date()
	return y*10000 + int(m)*100 + d
}
