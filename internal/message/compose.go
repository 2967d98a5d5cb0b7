package message

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Draft is a text message to be composed.
type Draft struct {
	From, To   []string // addresses, or "Name <address>"; without To, the To field is an empty group
	Subject    string
	Text       string
	Date       string            // RFC 5322 date-time; "" is now
	MessageID  string            // "" is a fresh one at Hostname
	Hostname   string            // "" is "localhost"
	Extra      map[string]string // further header fields
	Attachment *Attachment
}

// Attachment is one file of a Draft.
type Attachment struct {
	Name, Type string // Type "" is application/octet-stream
	Data       []byte
}

// ErrInjection is what Compose fails with if a value would end its header field: it holds CR, LF or NUL.
var ErrInjection = errors.New("line end or NUL in a header value")

// Compose writes the draft as an RFC 5322 message with CRLF line ends: MIME text/plain UTF-8 (with an attachment, in a
// multipart/mixed), RFC 2047 where needed, a transfer encoding that survives any text: Text reads back what went in, but
// for CRLF, which becomes LF, and bytes that are no UTF-8, which become U+FFFD. Addresses may be of RFC 6531. Values with
// CR, LF or NUL are refused (ErrInjection), and so are addresses that are none and fields in Extra that the draft has
// already. Nothing is written on such an error.
func Compose(w io.Writer, d Draft) error {
	var c composer
	if err := c.header(d); err != nil {
		return err
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(d.Text, "\uFFFD"), "\r\n", "\n")
	if d.Attachment == nil {
		c.text(text)
	} else if err := c.mixed(text, d.Attachment); err != nil {
		return err
	}
	_, err := w.Write(c.Bytes())
	return err
}

type composer struct{ bytes.Buffer }

// header writes all fields but those that describe the body.
func (c *composer) header(d Draft) error {
	if len(d.From) == 0 {
		return errors.New("compose: no From")
	}
	if d.Date == "" {
		d.Date = time.Now().Format(time.RFC1123Z)
	}
	if d.MessageID == "" {
		d.MessageID = newMessageID(d.Hostname)
	}
	id := "<" + strings.Trim(d.MessageID, "<>") + ">"
	for _, f := range [][2]string{{"Date", d.Date}, {"Message-ID", id}, {"Subject", d.Subject}} {
		if err := oneLine(f[0], f[1]); err != nil {
			return err
		}
	}
	if strings.ContainsAny(id[1:len(id)-1], " \t<>") || len(id) < 3 {
		return fmt.Errorf("compose: %q is no message id", cut(id, 80))
	}
	from, err := mailboxes("From", d.From)
	if err != nil {
		return err
	}
	to, err := mailboxes("To", d.To)
	if err != nil {
		return err
	}
	c.field("Date", d.Date)
	c.field("From", from)
	c.field("To", orElse(to, "undisclosed-recipients:;"))
	c.field("Subject", encodeText(d.Subject))
	c.field("Message-ID", id)
	if err := c.extra(d.Extra); err != nil {
		return err
	}
	c.field("MIME-Version", "1.0")
	return nil
}

func newMessageID(hostname string) string {
	return strconv.FormatInt(time.Now().UnixMicro(), 36) + "." + rand.Text()[:13] + "@" + orElse(hostname, "localhost")
}

func oneLine(field, value string) error {
	if strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("compose %s: %w", field, ErrInjection)
	}
	return nil
}

// extra writes further fields in the order of their names.
func (c *composer) extra(fields map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if err := oneLine("extra field", value); err != nil {
			return err
		}
		if n := fieldName([]byte(name + ":")); n == 0 || n != len(name) || len(name) > 70 {
			return fmt.Errorf("compose: %q is no field name", cut(name, 80))
		}
		switch strings.ToLower(name) {
		case "date", "from", "to", "subject", "message-id", "mime-version":
			return fmt.Errorf("compose: %s is a field of its own", name)
		case "cc", "bcc", "reply-to", "sender": // encoded words are only for names; UTF-8 addresses stay
			value = strings.ToValidUTF8(value, "\uFFFD")
		default:
			if strings.HasPrefix(strings.ToLower(name), "content-") {
				return fmt.Errorf("compose: %s is a field of its own", name)
			}
			value = encodeText(value)
		}
		c.field(name, value)
	}
	return nil
}

// field writes a field, folded where it has spaces (RFC 5322 section 2.1.1: lines of at most 78 characters, if possible).
func (c *composer) field(name, value string) {
	c.WriteString(name + ":")
	column := len(name) + 1
	for value = strings.TrimRight(" "+value, " \t"); value != ""; {
		// A piece is white space and the word behind it.
		n := len(value) - len(strings.TrimLeft(value, " \t"))
		if i := strings.IndexAny(value[n:], " \t"); i >= 0 {
			n += i
		} else {
			n = len(value)
		}
		if column+n > 78 && column > len(name)+1 && strings.TrimLeft(value[:n], " \t") != "" {
			c.WriteString("\r\n")
			column = 0
		}
		c.WriteString(value[:n])
		column += n
		value = value[n:]
	}
	c.WriteString("\r\n")
}

// mailboxes writes addresses as a list.
func mailboxes(field string, list []string) (string, error) {
	var out []string
	for _, s := range list {
		if err := oneLine(field, s); err != nil {
			return "", err
		}
		name, addr := splitMailbox(s)
		addr, err := checkAddress(addr)
		if err != nil {
			return "", fmt.Errorf("compose %s: %w", field, err)
		}
		if name != "" {
			addr = encodePhrase(name) + " <" + addr + ">"
		}
		out = append(out, addr)
	}
	return strings.Join(out, ", "), nil
}

// splitMailbox splits "Name <address>"; the name may be quoted.
func splitMailbox(s string) (name, addr string) {
	s = strings.TrimSpace(s)
	i := strings.LastIndexByte(s, '<')
	if i < 0 || !strings.HasSuffix(s, ">") {
		return "", s
	}
	name, addr = strings.TrimSpace(s[:i]), s[i+1:len(s)-1]
	if text, rest := cutQuoted(name + " "); strings.HasPrefix(name, `"`) && rest == " " {
		name = text
	}
	return name, addr
}

// checkAddress checks an addr-spec and quotes its local part if that needs to be (RFC 5322 section 3.4.1, RFC 6532 section 3.2).
func checkAddress(addr string) (string, error) {
	i := strings.LastIndexByte(addr, '@')
	if i < 1 || i == len(addr)-1 || len(addr) > 900 || !utf8.ValidString(addr) {
		return "", fmt.Errorf("%q is no address", cut(addr, 100))
	}
	local, domain := addr[:i], addr[i+1:]
	literal := strings.HasPrefix(domain, "[") && strings.IndexByte(domain, ']') == len(domain)-1
	if hasSpecial(domain) && !literal || strings.ContainsAny(domain, " \"<>\t") {
		return "", fmt.Errorf("%q is no domain", cut(domain, 100))
	}
	if text, rest := cutQuoted(local + " "); local[0] == '"' && rest == " " {
		local = text
	} else if strings.ContainsAny(local, "\"<>") {
		return "", fmt.Errorf("%q is no address", cut(addr, 100))
	}
	if hasSpecial(local) || local == "" || local[0] == '.' || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		local = quote(local)
	}
	return local + "@" + domain, nil
}

// hasSpecial reports whether s is no dot-atom for a special or a control in it.
func hasSpecial(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>[]:;@\,"`, r)
	})
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// encodePhrase writes a display name: as it is, quoted, or in encoded words.
func encodePhrase(name string) string {
	switch {
	case needsWords(name):
		return encodeWords(name)
	case hasSpecial(strings.ReplaceAll(name, " ", "")) || strings.Contains(name, "  ") || strings.Contains(name, "."):
		return quote(name)
	}
	return name
}

// encodeText writes unstructured text: as it is, or in encoded words.
func encodeText(s string) string {
	if needsWords(s) {
		return encodeWords(s)
	}
	return s
}

// needsWords reports whether s cannot be in a header as it is and come back the same: not ASCII, looks encoded, has
// white space that would be lost, or a word too long for a line.
func needsWords(s string) bool {
	if strings.Contains(s, "=?") || strings.Trim(s, " \t") != s {
		return true
	}
	word := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ' || c == '\t':
			word = 0
			continue
		case c < ' ' || c > '~':
			return true
		}
		if word++; word > 500 {
			return true
		}
	}
	return strings.Contains(s, strings.Repeat(" ", 60))
}

// encodeWords writes s as encoded words (RFC 2047), none longer than 75 characters nor ending inside a character:
// quoted-printable if most of it is ASCII, else base64.
func encodeWords(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	plain := 0
	for i := 0; i < len(s); i++ {
		if plainInWord(s[i]) {
			plain++
		}
	}
	const room = 75 - len("=?utf-8?q??=")
	q := 2*plain >= len(s)
	var words []string
	for s != "" {
		n, width := 0, 0
		for n < len(s) {
			_, size := utf8.DecodeRuneInString(s[n:])
			add := size
			if q && (size > 1 || !plainInWord(s[n])) {
				add = 3 * size
			}
			if q && width+add > room || !q && base64.StdEncoding.EncodedLen(n+size) > room {
				break
			}
			n, width = n+size, width+add
		}
		if q {
			words = append(words, "=?utf-8?q?"+encodeQ(s[:n])+"?=")
		} else {
			words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		}
		s = s[n:]
	}
	return strings.Join(words, " ")
}

// plainInWord reports whether c needs no encoding in a Q word of a phrase (RFC 2047 section 5, rule 3), or is a space.
func plainInWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(" !*+-/", c) >= 0
}

func encodeQ(s string) string {
	b := make([]byte, 0, 2*len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == ' ':
			b = append(b, '_')
		case plainInWord(s[i]):
			b = append(b, s[i])
		default:
			b = append(b, '=', upperHex[s[i]>>4], upperHex[s[i]&15])
		}
	}
	return string(b)
}

const upperHex = "0123456789ABCDEF"

// text writes the body's fields, the empty line and the text, whose lines end with LF.
func (c *composer) text(text string) {
	encoding := textEncoding(text)
	c.field("Content-Type", "text/plain; charset=utf-8")
	c.field("Content-Transfer-Encoding", encoding)
	c.WriteString("\r\n")
	switch encoding {
	case "7bit":
		c.WriteString(strings.ReplaceAll(text, "\n", "\r\n"))
	case "base64":
		c.base64([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	default:
		c.quotedPrintable(text)
	}
}

// maxPlainLine is the longest line that is sent as it is; relays may fold lines near RFC 5321's 998.
const maxPlainLine = 500

// textEncoding chooses 7bit for text that no relay will touch, else whichever of the others is shorter.
func textEncoding(text string) string {
	plain, encoded := true, 0
	for line := range strings.Lines(text) {
		content, ended := strings.CutSuffix(line, "\n")
		if !ended || len(content) > maxPlainLine || strings.HasPrefix(content, "From ") || strings.TrimRight(content, " \t") != content {
			plain = false
		}
		for i := 0; i < len(content); i++ {
			if c := content[i]; c < ' ' && c != '\t' || c > '~' {
				plain = false
				encoded++
			}
		}
	}
	switch {
	case plain:
		return "7bit"
	case encoded*6 > len(text):
		return "base64"
	}
	return "quoted-printable"
}

func (c *composer) base64(data []byte) {
	const perLine = 57 // 76 characters
	for len(data) > 0 {
		n := min(perLine, len(data))
		c.Write(base64.StdEncoding.AppendEncode(c.AvailableBuffer(), data[:n]))
		c.WriteString("\r\n")
		data = data[n:]
	}
}

// quotedPrintable writes text so that only its LFs are line ends; a last line without one ends with a soft line break.
func (c *composer) quotedPrintable(text string) {
	for line := range strings.Lines(text) {
		content, ended := strings.CutSuffix(line, "\n")
		column := 0
		for i := 0; i < len(content); i++ {
			ch, last := content[i], i == len(content)-1
			size := 1
			if ch != '\t' && (ch < ' ' || ch > '~') || ch == '=' || (ch == ' ' || ch == '\t') && last ||
				column == 0 && (ch == '.' || strings.HasPrefix(content[i:], "From ")) { // the one gets stuffed, the other quoted
				size = 3
			}
			if column+size > 75 {
				c.WriteString("=\r\n")
				column = 0
			}
			if column += size; size == 1 {
				c.WriteByte(ch)
			} else {
				c.Write([]byte{'=', upperHex[ch>>4], upperHex[ch&15]})
			}
		}
		if !ended {
			c.WriteByte('=')
		}
		c.WriteString("\r\n")
	}
}

// mixed writes the text and the attachment as a multipart/mixed.
func (c *composer) mixed(text string, a *Attachment) error {
	if err := oneLine("attachment name", a.Name+a.Type); err != nil {
		return err
	}
	typ := orElse(a.Type, "application/octet-stream")
	if t, s, params := parseContentType(typ); t+"/"+s != typ || len(params) > 0 || !attachable(t) {
		return fmt.Errorf("compose: %q is no type for an attachment", cut(typ, 80))
	}
	boundary := "=_" + rand.Text() // "=_" cannot be in base64 nor quoted-printable (RFC 2045 section 6.7)
	c.field("Content-Type", `multipart/mixed; boundary="`+boundary+`"`)
	c.WriteString("\r\n--" + boundary + "\r\n")
	c.text(text)
	c.WriteString("\r\n--" + boundary + "\r\n")
	c.field("Content-Type", typ)
	c.field("Content-Transfer-Encoding", "base64")
	c.field("Content-Disposition", "attachment"+filenameParam(a.Name))
	c.WriteString("\r\n")
	c.base64(a.Data)
	c.WriteString("\r\n--" + boundary + "--\r\n")
	return nil
}

// attachable: RFC 2045 section 6.4 has no base64 for multiparts, nor RFC 2046 section 5.2.1 for messages.
func attachable(typ string) bool {
	return !strings.EqualFold(typ, "multipart") && !strings.EqualFold(typ, "message")
}

// filenameParam writes a file name as RFC 2183 and, where it must, RFC 2231 have it.
func filenameParam(name string) string {
	name = cut(strings.ToValidUTF8(name, "\uFFFD"), 255)
	if name == "" {
		return ""
	}
	if !needsWords(name) {
		return "; filename=" + quote(name)
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; c != '/' && c != ' ' && plainInWord(c) && c != '*' || c == '.' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return "; filename*=utf-8''" + b.String()
}
