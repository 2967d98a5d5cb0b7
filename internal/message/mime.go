package message

import (
	"sort"
	"strconv"
	"strings"
)

// nstring is a string that may be absent: IMAP's NIL.
type nstring struct {
	text    string
	present bool
}

func (n *nstring) set(raw []byte) { n.text, n.present = FieldValue(raw), true }

// mimeHeader is the MIME fields of a part's header as written (RFC 2045, RFC 2183, RFC 3282, RFC 2557, RFC 1864).
type mimeHeader struct {
	contentType, encoding, id, description, md5, disposition, language, location nstring

	typ, subtype string // of contentType, or the default
	params       []param
}

// field finds the place of a field, by its name in lower case.
func (m *mimeHeader) field(key string) *nstring {
	switch key {
	case "content-type":
		return &m.contentType
	case "content-transfer-encoding":
		return &m.encoding
	case "content-id":
		return &m.id
	case "content-description":
		return &m.description
	case "content-md5":
		return &m.md5
	case "content-disposition":
		return &m.disposition
	case "content-language":
		return &m.language
	case "content-location":
		return &m.location
	}
	return nil
}

// add takes a field in. The first of several counts, as in Dovecot.
func (m *mimeHeader) add(key string, raw []byte) {
	if f := m.field(key); f != nil && !f.present {
		f.set(raw)
	}
}

// settle decides the type: as declared, or, without a declaration that can be read, the default (RFC 2045 section 5.2,
// RFC 2046 section 5.1.5). closed says that nothing more may be opened: then a message is so many bytes.
func (m *mimeHeader) settle(digest, closed bool) {
	m.typ, m.subtype, m.params = parseContentType(m.contentType.text)
	switch {
	case m.typ == "" && digest:
		m.typ, m.subtype = "message", "rfc822"
	case m.typ == "":
		m.typ, m.subtype = "text", "plain"
	}
	if closed && strings.EqualFold(m.typ, "message") {
		m.typ, m.subtype, m.params = "application", "octet-stream", nil
	}
}

// describe fills in what readers of the tree want to know, decoded.
func (m *mimeHeader) describe(n *node, closed bool) {
	n.Type, n.Subtype = strings.ToLower(m.typ), strings.ToLower(m.subtype)
	n.Charset = paramValue(m.params, "charset")
	n.Encoding = strings.ToLower(m.transferEncoding())
	disposition, dispParams := parseDisposition(m.disposition.text)
	n.Disposition = strings.ToLower(disposition)
	if n.Filename = decodedParam(dispParams, "filename"); n.Filename == "" {
		n.Filename = decodedParam(m.params, "name")
	}
	if b := paramValue(m.params, "boundary"); n.Type == "multipart" && !closed && len(b) <= maxBoundary {
		n.boundary = strings.TrimRight(b, " \t") // a boundary cannot end in white space
	}
}

// transferEncoding is the declared token, without comments, or the default of RFC 2045 section 6.1.
func (m *mimeHeader) transferEncoding() string {
	p := paramParser{m.encoding.text}
	p.skipSpace()
	if token := p.until(" \t\r\n;(),"); token != "" {
		return token
	}
	return "7bit"
}

// parseContentType reads type "/" subtype *(";" parameter); both types are "" if they cannot be read.
func parseContentType(v string) (typ, subtype string, params []param) {
	p := paramParser{v}
	p.skipSpace()
	typ = p.token()
	p.skipSpace()
	if typ == "" || !p.eat('/') {
		return "", "", nil
	}
	p.skipSpace()
	if subtype = p.token(); subtype == "" {
		return "", "", nil
	}
	return typ, subtype, p.params()
}

// parseDisposition reads RFC 2183's disposition-type *(";" parameter).
func parseDisposition(v string) (disposition string, params []param) {
	p := paramParser{v}
	p.skipSpace()
	if disposition = p.token(); disposition == "" {
		return "", nil
	}
	return disposition, p.params()
}

// parseLanguages reads RFC 3282's list of tags.
func parseLanguages(v string) []string {
	var tags []string
	p := paramParser{v}
	for p.s != "" && len(tags) < maxParams {
		p.skipSpace()
		if tag := p.until(" \t\r\n;(),"); tag != "" {
			tags = append(tags, tag)
		} else if p.s != "" {
			p.s = p.s[1:]
		}
	}
	return tags
}

// param is a parameter of Content-Type or Content-Disposition. One whose name ends in "*" has a value as RFC 2231 section
// 4 writes it (charset'language'percent-encoded).
type param struct{ name, value string }

// paramValue finds a parameter by its name in lower case.
func paramValue(params []param, name string) string {
	for _, p := range params {
		if strings.EqualFold(p.name, name) {
			return p.value
		}
	}
	return ""
}

// decodedParam finds a parameter and decodes it, either as RFC 2231 says or, QUIRK, as encoded words, which RFC 2047
// section 5 forbids here and Outlook writes.
func decodedParam(params []param, name string) string {
	if v := paramValue(params, name+"*"); v != "" {
		if charset, rest, ok := strings.Cut(v, "'"); ok {
			if _, text, ok := strings.Cut(rest, "'"); ok {
				return cleanName(charsetText(charset, percentDecode(text)))
			}
		}
		return cleanName(charsetText("", percentDecode(v)))
	}
	return cleanName(DecodeHeader(paramValue(params, name)))
}

// cleanName makes a file name that is one line of text.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.TrimSpace(name))
	return cut(name, maxFilename)
}

func percentDecode(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(c))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}

// paramParser reads the rest s of a structured MIME field. It takes what mailers write: a missing ";", unquoted values with
// spaces or specials, unknown junk.
type paramParser struct{ s string }

// skipSpace passes white space and comments.
func (p *paramParser) skipSpace() {
	for {
		p.s = strings.TrimLeft(p.s, " \t\r\n")
		if !strings.HasPrefix(p.s, "(") {
			return
		}
		_, p.s = cutComment(p.s)
	}
}

// cutComment takes the comment off that s begins with (RFC 5322 section 3.2.2), which may nest. An unterminated one ends
// with s.
func cutComment(s string) (comment, rest string) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return unescape(s[1:i]), s[i+1:]
			}
		}
	}
	return unescape(s[1:]), ""
}

// cutQuoted takes the quoted string off that s begins with; an unterminated one ends with s.
func cutQuoted(s string) (text, rest string) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return unescape(s[1:i]), s[i+1:]
		}
	}
	return unescape(s[1:]), ""
}

// unescape undoes quoted pairs.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

func (p *paramParser) eat(c byte) bool {
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

// until takes everything before the first of the given bytes.
func (p *paramParser) until(stop string) string {
	i := strings.IndexAny(p.s, stop)
	if i < 0 {
		i = len(p.s)
	}
	t := p.s[:i]
	p.s = p.s[i:]
	return t
}

// token takes RFC 2045's token, but with octets above 127.
func (p *paramParser) token() string {
	return p.until("()<>@,;:\\\"/[]?= \t\r\n\x00\x7f")
}

// params reads parameters to the end.
func (p *paramParser) params() []param {
	var list []param
	for len(list) < maxParams {
		p.skipSpace()
		for p.eat(';') {
			p.skipSpace()
		}
		if p.s == "" {
			break
		}
		name := p.until("=;\" \t\r\n(")
		p.skipSpace()
		if name == "" || !p.eat('=') {
			p.skipJunk(name)
			continue
		}
		p.skipSpace()
		if value, ok := p.value(); ok {
			list = append(list, param{name, value})
		}
	}
	return joinContinuations(list)
}

// skipJunk gets on where no parameter is; a name without "=" was already taken.
func (p *paramParser) skipJunk(name string) {
	switch {
	case strings.HasPrefix(p.s, `"`):
		_, p.s = cutQuoted(p.s)
	case name == "" && p.s != "":
		p.s = p.s[1:]
	}
}

// value takes a parameter's value; there is none (ok is false) if nothing comes before the next ";".
func (p *paramParser) value() (value string, ok bool) {
	if strings.HasPrefix(p.s, `"`) {
		value, p.s = cutQuoted(p.s)
		return value, true
	}
	whole := p.s
	for p.until("; \t\r\n("); len(p.s) < len(whole); {
		// QUIRK: filename=my report.pdf. The words belong to the value unless one looks like the next parameter.
		next := paramParser{strings.TrimLeft(p.s, " \t")}
		spaces := len(p.s) - len(next.s)
		word := next.until("; \t\r\n(")
		if spaces == 0 || word == "" || strings.Contains(word, "=") && !strings.HasPrefix(word, "=?") {
			break
		}
		p.s = next.s
	}
	value = whole[:len(whole)-len(p.s)]
	return value, value != ""
}

// joinContinuations puts the pieces name*0, name*1* … of RFC 2231 section 3 together, behind the parameters that are
// whole: as "name*" if a piece is encoded, else as "name". Pieces that do not begin at 0 stay as they are.
func joinContinuations(list []param) []param {
	pieces := map[string][]piece{}
	var whole []param
	var order []string
	for _, p := range list {
		base, rest, ok := strings.Cut(p.name, "*")
		digits, encoded := strings.CutSuffix(rest, "*")
		n, err := strconv.ParseUint(digits, 10, 16)
		if !ok || err != nil || base == "" {
			whole = append(whole, p)
			continue
		}
		key := strings.ToLower(base)
		if pieces[key] == nil {
			order = append(order, key)
		}
		pieces[key] = append(pieces[key], piece{int(n), encoded, base, p})
	}
	for _, key := range order {
		whole = append(whole, join(pieces[key])...)
	}
	return whole
}

type piece struct {
	n       int
	encoded bool
	base    string
	param   param
}

func join(pieces []piece) (joined []param) {
	sort.SliceStable(pieces, func(i, j int) bool { return pieces[i].n < pieces[j].n })
	count, encoded := 0, false
	for count < len(pieces) && pieces[count].n == count {
		encoded = encoded || pieces[count].encoded
		count++
	}
	if count > 0 {
		whole := param{name: pieces[0].base}
		var b strings.Builder
		if encoded {
			whole.name += "*"
			if !pieces[0].encoded {
				b.WriteString("''")
			}
		}
		for _, p := range pieces[:count] {
			if encoded && !p.encoded {
				b.WriteString(strings.ReplaceAll(p.param.value, "%", "%25"))
			} else {
				b.WriteString(p.param.value)
			}
		}
		whole.value = b.String()
		joined = append(joined, whole)
	}
	for _, p := range pieces[count:] {
		joined = append(joined, p.param)
	}
	return joined
}
