package imapd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Bounds on what a client may make us hold or wait for. RFC 9051 section 4.3 and RFC 7888 leave them to the server; RFC
// 7162 section 4 asks for command lines of at least 8,192 octets, and UID sets of 60 KB are seen in the wild.
const (
	maxCommandBefore = 64 << 10 // octets of a command before login: its lines and the literals kept in memory
	maxCommandAfter  = 1 << 20  // the same after login
	maxTag           = 128
	maxAtomBefore    = 512 // user names and passwords may be atoms
	maxAtomAfter     = 8 << 10
	maxStringBefore  = 4 << 10  // quoted strings and literals before login; later a string may fill a command
	maxSASL          = 48 << 10 // one base64 response; OAUTHBEARER tokens take some kilobytes
	maxDepth         = 64       // nested parentheses
	maxDropBefore    = 1 << 20  // octets of a refused command that are still read before we hang up instead
	maxDropAfter     = 1 << 30  // the same after login: a whole message that was too big
	literalHeaderMax = 26       // "~{9223372036854775807+}" and some
)

// reader reads commands. Its methods are named after the grammar of RFC 9051 section 9; the first thing that goes wrong
// sticks (Failed, Refusal), and from then on every method returns a zero value, so a handler reads all its arguments and
// asks once, with End.
//
// It works line by line: a command is a line, or several with a literal between each two. Whether a line announces a
// literal is known from the line's end alone, before anybody parses it; so whatever the parser makes of a command, finish
// knows where the next one begins, and never is a literal's data taken for a command.
type reader struct {
	br  *bufio.Reader
	con conversation

	afterLogin bool // which of the bounds hold
	utf8       bool // mailbox names are UTF-8, not modified UTF-7 (IMAP4rev2 or UTF8=ACCEPT enabled)

	line  []byte // the current line without its line end
	pos   int
	depth int
	held  int   // octets of this command that we keep, against the command limit
	drop  int64 // octets of this command that were read only to be thrown away
	lit   literal
	err   *reply // the first refusal of this command
	ioErr error  // the connection is no good any more
}

// conversation is what a reader needs of the other direction.
type conversation interface {
	// askForLiteral tells the client to go on ("+ …") and flushes.
	askForLiteral() error
	// moreTime extends the read deadline after a good piece of a literal has come.
	moreTime()
}

// literal is one announced at the end of the current line.
type literal struct {
	announced bool
	start     int // where in the line its header begins
	size      int64
	sync      bool // {n}: the client waits for a continuation; {n+} (RFC 7888) comes at once
	binary    bool // ~{n}: literal8 (RFC 9051 section 4.3, RFC 3516)
	broken    bool // looks like a literal's header, but with a number that cannot be: nobody knows what follows

	taken bool  // accepted: its octets are part of the command
	left  int64 // octets of a taken literal that are still to come
}

func newReader(c io.Reader, con conversation) *reader {
	return &reader{br: bufio.NewReaderSize(c, 4096), con: con}
}

// buffered reports whether the client has already sent more (a pipelined command).
func (r *reader) buffered() bool { return r.br.Buffered() > 0 }

// begin reads the first line of the next command and its tag. A tag of "" is one that was none, with the refusal in
// Refusal; io errors only end the session.
func (r *reader) begin() (tag string, err error) {
	r.depth, r.held, r.drop, r.err = 0, 0, 0, nil
	if r.readLine(); r.ioErr != nil {
		return "", r.ioErr
	}
	n := 0
	for n < len(r.line) && isAStringChar(r.line[n]) && r.line[n] != '+' {
		n++
	}
	switch {
	case len(r.line) == 0:
		r.fail("Empty command line")
	case n == 0 || n > maxTag || n < len(r.line) && r.line[n] != ' ':
		r.fail("Invalid tag")
	default:
		r.pos = n
		return string(r.line[:n]), nil
	}
	return "", nil
}

// finish reads what is left of the command, be it megabytes, and forgets it. After it the next octet is the first of the
// next command. An error ends the session.
func (r *reader) finish() error {
	for r.ioErr == nil {
		switch l := &r.lit; {
		case l.broken:
			r.ioErr = errUnframed
		case l.taken:
			r.discard(l.left)
		case !l.announced || l.sync:
			// A synchronizing literal that was not asked for never comes (RFC 9051 section 4.3).
			if cap(r.line) > 16<<10 {
				r.line = nil // a long command is rare: do not keep its memory while the client thinks
			}
			return nil
		default:
			r.discard(l.size)
		}
		r.readLine()
	}
	return r.ioErr
}

// discard throws n octets away; if they are too many, it reads none of them.
func (r *reader) discard(n int64) {
	for r.dropped(n); n > 0 && r.ioErr == nil; {
		k, err := r.br.Discard(int(min(n, 64<<10)))
		n -= int64(k)
		if err != nil {
			r.ioErr = err
		}
		r.con.moreTime()
	}
}

// dropped counts octets thrown away, and gives up when they are too many.
func (r *reader) dropped(n int64) {
	limit := int64(maxDropBefore)
	if r.afterLogin {
		limit = maxDropAfter
	}
	if r.drop += n; r.drop > limit || r.drop < 0 {
		r.ioErr = errUnframed
	}
}

// readLine reads the next line into r.line, as much of it as the command limit allows, and finds the literal it announces. A
// bare LF ends a line too: people type commands into nc, and nothing is lost by it. Once the command has failed, lines are
// read only for the literal at their end.
func (r *reader) readLine() {
	r.line, r.pos, r.lit = r.line[:0], 0, literal{}
	if r.ioErr != nil {
		return
	}
	var tail []byte // the last octets of a line that is not kept whole
	whole := true
	for {
		chunk, err := r.br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			r.ioErr = err
			return
		}
		if whole && r.held+len(chunk) > r.commandLimit() {
			whole = false
			tail = append(tail, r.line[max(0, len(r.line)-literalHeaderMax-2):]...)
			r.fail("Command line too long")
		}
		if whole {
			r.held += len(chunk)
			r.line = append(r.line, chunk...)
		} else {
			tail = append(tail, chunk...)
			tail = tail[max(0, len(tail)-literalHeaderMax-2):]
			if r.dropped(int64(len(chunk))); r.ioErr != nil {
				return
			}
		}
		if err == nil {
			break
		}
	}
	if whole {
		r.line = trimLineEnd(r.line)
		r.lit = announcedLiteral(r.line)
	} else {
		r.lit = announcedLiteral(trimLineEnd(tail))
		r.lit.start = -1
	}
}

func (r *reader) commandLimit() int {
	if r.afterLogin {
		return maxCommandAfter
	}
	return maxCommandBefore
}

func trimLineEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// announcedLiteral looks for a literal's header at the end of a line.
func announcedLiteral(line []byte) literal {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return literal{}
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return literal{}
	}
	digits := line[i+1 : len(line)-1]
	l := literal{announced: true, start: i, sync: true}
	if n := len(digits); n > 0 && digits[n-1] == '+' {
		digits, l.sync = digits[:n-1], false
	}
	if len(digits) == 0 || bytes.ContainsFunc(digits, func(c rune) bool { return c < '0' || c > '9' }) {
		return literal{}
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	l.size = n
	l.broken = err != nil && !l.sync // 2^63 and more: it cannot be read to its end
	if err != nil {
		l.size = -1
	}
	if i > 0 && line[i-1] == '~' {
		l.binary, l.start = true, i-1
	}
	return l
}

// Failed reports whether the command was refused already.
func (r *reader) Failed() bool { return r.err != nil || r.ioErr != nil }

// Refusal is the answer to a command that Failed.
func (r *reader) Refusal() reply {
	if r.err != nil {
		return *r.err
	}
	return bad("Command was cut off")
}

// fail refuses the command as bad syntax, unless it is refused already.
func (r *reader) fail(format string, args ...any) { r.refuse(bad(fmt.Sprintf(format, args...))) }

// refuse ends the parsing with the given answer, unless there is one already.
func (r *reader) refuse(why reply) {
	if r.err == nil {
		r.err = &why
	}
}

// End expects the end of the command and reports whether all of it was good; if not, answer with Refusal.
func (r *reader) End() bool {
	if r.Failed() {
		return false
	}
	if r.lit.announced && !r.lit.taken || r.pos < len(r.line) {
		r.fail("Unexpected text after the command's arguments: %s", quoteForError(r.line[r.pos:]))
	}
	return !r.Failed()
}

// AtEnd reports whether nothing is left of the command.
func (r *reader) AtEnd() bool { return r.Failed() || r.pos >= len(r.line) }

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
	var s []byte // stays nil while nothing is escaped
	from := 0
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			if i > r.stringLimit() {
				r.fail("String of %d octets is too long", i)
				return ""
			}
			r.pos += i + 2
			if s == nil {
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

// Literal reads a literal's header only: {n}, {n+}, ~{n} or ~{n+}. The octets themselves stay with the client until Accept; if
// the command ends without it, finish gets rid of them.
func (r *reader) Literal() (size int64, binary, ok bool) {
	if r.Failed() {
		return 0, false, false
	}
	if l := &r.lit; !l.announced || l.taken || l.start != r.pos {
		r.fail("Expected a literal before %s", quoteForError(r.line[r.pos:]))
		return 0, false, false
	} else if l.size < 0 {
		r.fail("Literal's size is out of range")
		return 0, false, false
	}
	return r.lit.size, r.lit.binary, true
}

// Accept lets the literal come (asking for it if it is a synchronizing one). The Reader gives its octets and then io.EOF;
// read it to its end and call AfterLiteral to go on parsing.
func (r *reader) Accept() io.Reader {
	r.pos = len(r.line)
	r.lit.taken, r.lit.left = true, r.lit.size
	if r.lit.sync {
		if err := r.con.askForLiteral(); err != nil {
			r.ioErr = err
		}
	}
	return (*literalReader)(r)
}

// AfterLiteral reads the line behind a literal that was accepted and read to its end.
func (r *reader) AfterLiteral() {
	if r.ioErr == nil && r.lit.taken && r.lit.left == 0 {
		r.readLine()
	}
}

// literalReader reads an accepted literal's octets.
type literalReader reader

func (l *literalReader) Read(p []byte) (int, error) {
	switch {
	case l.ioErr != nil:
		return 0, l.ioErr
	case l.lit.left == 0:
		return 0, io.EOF
	case int64(len(p)) > l.lit.left:
		p = p[:l.lit.left]
	}
	before := l.lit.left
	n, err := l.br.Read(p)
	l.lit.left -= int64(n)
	if before>>16 != l.lit.left>>16 {
		l.con.moreTime() // 64 KiB came: slow is fine, a byte a minute is not
	}
	if err == io.EOF && l.lit.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		l.ioErr = err
	}
	return n, err
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
	name, err := decodeMailboxName(wire, r.utf8)
	if err != nil {
		r.refuse(no("CANNOT", err.Error()))
		return ""
	}
	return name
}

// ListMailbox reads list-mailbox: an astring that may hold the wildcards "%" and "*". Not decoded.
func (r *reader) ListMailbox() string {
	switch r.Peek() {
	case '"', '{', '~':
		return r.Str()
	}
	return r.span("a mailbox pattern", r.atomLimit(), func(c byte) bool { return isAStringChar(c) || c == '%' || c == '*' })
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

// answerLine reads a whole line that is not a command: a SASL response, DONE. It must not be longer than maxSASL.
func (r *reader) answerLine() (string, error) {
	r.depth, r.held, r.drop, r.err = 0, 0, 0, nil
	if r.readLine(); r.ioErr != nil {
		return "", r.ioErr
	}
	if r.err == nil && len(r.line) > maxSASL {
		r.fail("Line too long")
	}
	r.lit = literal{} // in these lines "{5+}" at the end means nothing
	return string(r.line), nil
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

// timedOut reports whether an error is a passed deadline.
func timedOut(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
