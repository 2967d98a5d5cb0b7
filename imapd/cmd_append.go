package imapd

// APPEND (RFC 9051 section 6.3.12), with literal8 (RFC 3516) and the UTF8 data extension (RFC 6855 section 4).

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"mailsrv/storage"
)

// maxKeyword bounds a keyword's length; it stands in FLAGS responses of everybody's.
const maxKeyword = 128

// append files a message. Its octets go straight from the connection into storage's spool; they are asked for only
// when it is known that they can be kept.
func (s *session) append() reply {
	s.in.SP()
	name := s.in.Mailbox()
	s.in.SP()
	msg := storage.NewMessage{}
	if s.in.Peek() == '(' {
		msg.Flags = s.messageFlags(s.in.FlagList())
		s.in.SP()
	}
	if s.in.Peek() == '"' {
		msg.InternalDate = s.in.DateTime()
		s.in.SP()
	}
	// Thunderbird sends UTF8 (~{n+} whenever submission offers SMTPUTF8, whether or not UTF8=ACCEPT was enabled.
	utf8 := s.in.TryFold("UTF8 (")
	size, binary, _ := s.in.Literal()
	if s.in.Failed() {
		return s.in.Refusal()
	}
	if err := s.mayAppend(name, size); err != nil {
		return *err
	}
	spool, err := s.srv.o.Store.Incoming()
	if err != nil {
		return refused("append", err)
	}
	defer func() { _ = spool.Close() }()
	refusal := s.takeMessage(spool, binary)
	if s.in.AfterLiteral(); utf8 {
		s.in.Expect(')')
	}
	switch {
	case !s.in.End():
		return s.in.Refusal()
	case refusal != nil:
		return *refusal
	}
	if err := spool.Seal(); err != nil {
		return refused("append", err)
	}
	msg.Incoming = spool
	filed, err := s.account.Append(name, msg)
	if err != nil {
		return refusedDest("append", err)
	}
	return ok("APPENDUID "+num(uint64(filed.UIDValidity))+" "+uidSetText(filed.Dest), "Appended") // RFC 4315
}

// mayAppend says before the literal is asked for whether there is any point in it.
func (s *session) mayAppend(name string, size int64) *reply {
	r := reply{}
	if _, err := s.account.Mailbox(name); err != nil {
		r = refusedDest("append", err)
	} else if size > s.srv.o.MaxMessage {
		r = no("TOOBIG", "Message is bigger than APPENDLIMIT") // RFC 7889 section 4
	} else if size == 0 {
		r = no("CANNOT", "Message is empty")
	} else if err := s.srv.o.Store.Room(size); err != nil {
		r = refused("append", err)
	} else {
		return nil
	}
	return &r
}

// takeMessage reads the literal to its end into the spool. What the spool refuses is still read.
func (s *session) takeMessage(spool io.Writer, binary bool) *reply {
	r := s.in.Accept()
	guard := &appendGuard{w: spool, binary: binary}
	_, err := io.Copy(guard, r)
	if err == nil || s.in.ioErr != nil {
		return nil
	}
	if _, lost := io.Copy(io.Discard, r); lost != nil {
		return nil
	}
	refusal := refused("append", err)
	if errors.Is(err, errNUL) {
		refusal = bad("NUL in a literal") // RFC 9051 section 4.3: literal8 is for those
	}
	return &refusal
}

var errNUL = errors.New("NUL octet in a message")

// appendGuard passes a message on as it is if it comes as literal8; else it refuses NUL and repairs lines that end in a bare LF (curl and scripts upload
// files as they are on a Unix disk; mail's lines end with CRLF, RFC 5322 section 2.1).
type appendGuard struct {
	w      io.Writer
	binary bool
	last   byte
	out    []byte
}

func (g *appendGuard) Write(p []byte) (int, error) {
	n := len(p)
	switch {
	case g.binary || n == 0:
		return g.w.Write(p)
	case bytes.IndexByte(p, 0) >= 0:
		return 0, errNUL
	}
	g.out = g.out[:0]
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			g.out = append(g.out, p...)
			g.last = p[len(p)-1]
			break
		}
		before := g.last
		if i > 0 {
			before = p[i-1]
		}
		if g.out = append(g.out, p[:i]...); before != '\r' {
			g.out = append(g.out, '\r')
		}
		g.out = append(g.out, '\n')
		g.last = '\n'
		p = p[i+1:]
	}
	_, err := g.w.Write(g.out)
	return n, err
}

// messageFlags checks flags that a client wants set: \Recent is passed over (RFC 9051 section 2.3.2: clients cannot set it),
// other flags with a backslash than the five system flags are refused.
func (s *session) messageFlags(flags []string) []string {
	kept := make([]string, 0, len(flags))
	for _, f := range flags {
		switch {
		case strings.EqualFold(f, `\Recent`):
		case strings.HasPrefix(f, `\`) && !isSystemFlag(f):
			s.in.fail("Unknown system flag")
		case len(f) > maxKeyword:
			s.in.fail("Keyword is too long")
		default:
			kept = append(kept, f)
		}
	}
	return kept
}

func isSystemFlag(f string) bool {
	for _, known := range []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`} {
		if strings.EqualFold(f, known) {
			return true
		}
	}
	return false
}
