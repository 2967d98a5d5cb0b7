package imapd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
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

	afterLogin bool                      // which of the bounds hold
	utf8       bool                      // mailbox names are UTF-8, not modified UTF-7 (IMAP4rev2 or UTF8=ACCEPT enabled)
	exists     func(mailbox string) bool // nil before login; see netUnicode

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
	// hurry has what came so far acknowledged at once.
	hurry()
	// clientSpeaksUTF8 notes that the client wrote a mailbox name in UTF-8 though it has not enabled it.
	clientSpeaksUTF8()
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
	if r.lit.announced && !r.lit.taken || !r.AtEnd() {
		r.fail("Unexpected text after the command's arguments: %s", quoteForError(r.line[r.pos:]))
	}
	return !r.Failed()
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
		if !r.buffered() {
			// QUIRK: Python's imaplib writes the line's end by itself, and its kernel (Nagle) holds it back until ours
			// acknowledges the literal, which the 40 ms of a delayed acknowledgement would make slow.
			r.con.hurry()
		}
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

// timedOut reports whether an error is a passed deadline.
func timedOut(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
