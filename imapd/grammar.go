package imapd

// The grammar: one method per rule of RFC 9051 section 9, over the current line of a reader.

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"
)

// AtEnd reports whether nothing is left of the command. QUIRK: spaces are nothing; clients that put commands together out of
// arguments leave one behind where the last argument is empty.
func (r *reader) AtEnd() bool { return r.Failed() || len(bytes.TrimLeft(r.line[r.pos:], " ")) == 0 }

// Peek returns the next octet of the line, or 0 at its end.
func (r *reader) Peek() byte {
	if r.Failed() || r.pos >= len(r.line) {
		return 0
	}
	return r.line[r.pos]
}

// Try reads c if it is next.
func (r *reader) Try(c byte) bool {
	if r.Peek() != c || c == 0 {
		return false
	}
	r.pos++
	return true
}

// TryFold reads word, in any case, if it is next: TryFold("CHARSET "), say.
func (r *reader) TryFold(word string) bool {
	if r.Failed() || len(r.line)-r.pos < len(word) || !strings.EqualFold(string(r.line[r.pos:r.pos+len(word)]), word) {
		return false
	}
	r.pos += len(word)
	return true
}

// Expect reads c, which must be next.
func (r *reader) Expect(c byte) {
	if !r.Failed() && !r.Try(c) {
		r.fail("Expected %q before %s", string(rune(c)), quoteForError(r.line[r.pos:]))
	}
}

// SP reads the one space between two arguments. QUIRK: several are taken for one, as old clients send them.
func (r *reader) SP() {
	r.Expect(' ')
	for r.Try(' ') {
	}
}

// quoteForError shows where parsing stopped, shortened: it goes into a response and a log line.
func quoteForError(b []byte) string {
	if len(b) == 0 {
		return "the line's end"
	}
	q := strconv.QuoteToASCII(string(b[:min(len(b), 24)]))
	return strings.NewReplacer("[", "(", "]", ")").Replace(q)
}

// span reads the run of octets for which ok holds: at least one, at most limit.
func (r *reader) span(what string, limit int, ok func(byte) bool) string {
	if r.Failed() {
		return ""
	}
	end := r.pos
	for end < len(r.line) && ok(r.line[end]) {
		end++
	}
	switch n := end - r.pos; {
	case n == 0:
		r.fail("Expected %s before %s", what, quoteForError(r.line[r.pos:]))
		return ""
	case n > limit:
		r.fail("%s of %d octets is too long", what, n)
		return ""
	}
	s := string(r.line[r.pos:end])
	r.pos = end
	return s
}

func (r *reader) atomLimit() int {
	if r.afterLogin {
		return maxAtomAfter
	}
	return maxAtomBefore
}

// Atom reads atom.
func (r *reader) Atom() string { return r.span("an atom", r.atomLimit(), isAtomChar) }

// Keyword reads an atom and puts it into capitals: names of commands, items, options.
func (r *reader) Keyword() string { return strings.ToUpper(r.Atom()) }

// AString reads astring: an atom (with "]" allowed), a quoted string or a literal. The octets come as they are.
func (r *reader) AString() string {
	switch r.Peek() {
	case '"', '{', '~':
		return r.Str()
	}
	return r.span("a string", r.atomLimit(), isAStringChar)
}

// NString reads nstring; ok is false for NIL.
func (r *reader) NString() (s string, ok bool) {
	if c := r.Peek(); c == 'N' || c == 'n' {
		if !r.TryFold("NIL") {
			r.fail("Expected NIL or a string before %s", quoteForError(r.line[r.pos:]))
		}
		return "", false
	}
	return r.Str(), !r.Failed()
}

// Str reads string: quoted, or a literal of either kind, which is kept in memory and counts against the command limit.
// 8-bit octets in quoted strings are taken whether or not the client enabled UTF-8: refusing them helps nobody.
func (r *reader) Str() string {
	switch r.Peek() {
	case '"':
		return r.quoted()
	case '{', '~':
		return r.literalString()
	}
	if !r.Failed() {
		r.fail("Expected a string before %s", quoteForError(r.line[r.pos:]))
	}
	return ""
}

func (r *reader) stringLimit() int {
	if r.afterLogin {
		return maxCommandAfter
	}
	return maxStringBefore
}

// quoted reads quoted. A line's end inside it is an error at once: waiting for the other quote would hang the session.
func (r *reader) quoted() string {
	rest := r.line[r.pos+1:]
	var s []byte
	from := 0 // 0 while nothing is escaped
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			if i > r.stringLimit() {
				r.fail("String of %d octets is too long", i)
				return ""
			}
			r.pos += i + 2
			if from == 0 {
				return string(rest[:i])
			}
			return string(append(s, rest[from:i]...))
		case c == '\\':
			if i+1 >= len(rest) || rest[i+1] != '"' && rest[i+1] != '\\' {
				r.fail("Invalid escape in a quoted string")
				return ""
			}
			s = append(s, rest[from:i]...)
			i++
			from = i
		case c == '\r' || c == 0:
			r.fail("CR, LF or NUL in a quoted string")
			return ""
		}
	}
	r.fail("Quoted string without its closing quote")
	return ""
}

// literalString reads a literal into memory, and goes on to the line behind it.
func (r *reader) literalString() string {
	size, binary, ok := r.Literal()
	if !ok {
		return ""
	}
	if size > int64(r.stringLimit()) || int64(r.held)+size > int64(r.commandLimit()) {
		r.refuse(no("TOOBIG", "Literal too big here"))
		return ""
	}
	r.held += int(size)
	buf := make([]byte, size)
	if _, err := io.ReadFull(r.Accept(), buf); err != nil {
		return ""
	}
	if r.AfterLiteral(); !binary && bytes.IndexByte(buf, 0) >= 0 {
		r.fail("NUL in a literal") // RFC 9051 section 4.3: only literal8 may have it
	}
	return string(buf)
}

// Number reads number: 0..2^32-1.
func (r *reader) Number() uint32 { return uint32(r.digits("a number", 1<<32-1)) }

// NzNumber reads nz-number: 1..2^32-1.
func (r *reader) NzNumber() uint32 {
	n := r.Number()
	if n == 0 {
		r.fail("Zero is not allowed here")
	}
	return n
}

// Number64 reads number64: 0..2^63-1.
func (r *reader) Number64() int64 { return int64(r.digits("a number", 1<<63-1)) }

// ModSeq reads mod-sequence-valzer: 0..2^63-1 (RFC 7162 section 7).
func (r *reader) ModSeq() uint64 { return r.digits("a mod-sequence", 1<<63-1) }

func (r *reader) digits(what string, limit uint64) uint64 {
	s := r.span(what, 32, isDigit)
	if r.Failed() {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		r.fail("%s is out of range for %s", s, what)
		return 0
	}
	return n
}

// List reads "(" [item *(SP item)] ")", calling item at the beginning of each; nesting is bounded.
func (r *reader) List(item func()) {
	r.Expect('(')
	if r.Enter(); r.Failed() {
		return
	}
	defer r.Leave()
	if r.Try(')') {
		return
	}
	for !r.Failed() {
		item()
		if r.Try(')') {
			return
		}
		r.SP()
	}
}

// Enter counts one more level of nesting, for grammars that recurse without List (SEARCH's NOT NOT NOT …); Leave one less.
func (r *reader) Enter() {
	if r.depth++; r.depth > maxDepth {
		r.fail("Nested too deeply")
	}
}

// Leave is Enter's other end.
func (r *reader) Leave() { r.depth-- }

// Mailbox reads mailbox and decodes its name as the session's names are encoded (modified UTF-7 or UTF-8). A name that is not
// validly encoded refuses the command with NO [CANNOT]; whether such a mailbox can exist is storage's affair.
func (r *reader) Mailbox() string {
	wire := r.AString()
	if r.Failed() {
		return ""
	}
	name, err := r.decodeName(wire)
	if err != nil {
		r.refuse(no("CANNOT", err.Error()))
		return ""
	}
	return r.netUnicode(name)
}

// decodeName is decodeMailboxName for this session. A client that writes UTF-8 unasked gets its answers so too.
func (r *reader) decodeName(wire string) (string, error) {
	r.noteUTF8(wire)
	return decodeMailboxName(wire, r.utf8)
}

func (r *reader) noteUTF8(wire string) {
	if !r.utf8 && rawUTF8(wire) {
		r.con.clientSpeaksUTF8()
	}
}

// ListMailbox reads list-mailbox: an astring that may hold the wildcards "%" and "*". Not decoded.
func (r *reader) ListMailbox() (pattern string) {
	switch r.Peek() {
	case '"', '{', '~':
		pattern = r.Str()
	default:
		pattern = r.span("a mailbox pattern", r.atomLimit(), func(c byte) bool { return isAStringChar(c) || c == '%' || c == '*' })
	}
	r.noteUTF8(pattern)
	return pattern
}

// Flag reads flag: "\Seen", a keyword. \Recent, \* and system flags that nobody knows are refused by FlagList's callers or
// by storage, not here.
func (r *reader) Flag() string {
	if r.Try('\\') {
		return `\` + r.Atom()
	}
	return r.Atom()
}

// FlagList reads flag-list.
func (r *reader) FlagList() []string {
	flags := []string{}
	r.List(func() { flags = append(flags, r.Flag()) })
	return flags
}

// DateTime reads date-time: "dd-Mon-yyyy hh:mm:ss +zzzz" in quotes.
func (r *reader) DateTime() time.Time {
	if r.Peek() != '"' {
		r.Expect('"')
		return time.Time{}
	}
	s := r.quoted()
	if r.Failed() {
		return time.Time{}
	}
	t, err := time.Parse("_2-Jan-2006 15:04:05 -0700", s)
	if err != nil || t.Year() < 1 {
		r.fail("Invalid date-time")
	}
	return t
}

// Date reads date: d-Mon-yyyy, in quotes or not. The time is midnight UTC of that day.
func (r *reader) Date() time.Time {
	s := ""
	if r.Peek() == '"' {
		s = r.quoted()
	} else {
		s = r.Atom()
	}
	if r.Failed() {
		return time.Time{}
	}
	t, err := time.Parse("2-Jan-2006", s)
	if err != nil {
		r.fail("Invalid date")
	}
	return t
}

// Base64 reads the rest of the line as a SASL response would be written; not decoded.
func (r *reader) Base64() string {
	return r.span("base64", maxSASL, func(c byte) bool {
		return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '+' || c == '/' || c == '='
	})
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isAtomChar is ATOM-CHAR: no CTL, no 8-bit, no atom-specials.
func isAtomChar(c byte) bool {
	switch c {
	case '(', ')', '{', ' ', '%', '*', '"', '\\', ']':
		return false
	}
	return c > 0x1f && c < 0x7f
}

// isAStringChar is ASTRING-CHAR.
func isAStringChar(c byte) bool { return c == ']' || isAtomChar(c) }
