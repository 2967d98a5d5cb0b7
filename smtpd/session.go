package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/wire"
)

// session is one connection. What lives shorter is in tx, so that RSET, EHLO, STARTTLS and the end of a message are all
// one call of drop.
type session struct {
	srv     *Server
	log     *slog.Logger
	peer    netip.Addr
	trusted bool

	conn  net.Conn // the connection as accepted, or TLS over it
	timed *wire.Timed
	in    *bufio.Reader
	out   *bufio.Writer
	buf   []byte      // for messages, once there is one
	stop  func() bool // ends the wait for ctx that interrupts timed

	tls      string // version and cipher, "" without
	hello    string // EHLO's argument; "" before it
	extended bool   // it was EHLO (or LHLO), not HELO
	account  string // who logged in
	epoch    uint64 // auth's, of the account at its login
	tx       *transaction
	errors   int // bad answers since the last accepted message
	logins   int // failed
}

// transaction is one MAIL and what follows it.
type transaction struct {
	env    delivery.Envelope
	size   int64   // as announced, 0 if not
	intake *intake // the message, once BDAT or DATA has begun it

	rcptOctets int // what its recipients were called, taken or not
}

func newSession(srv *Server, c net.Conn, peer netip.Addr, trusted bool) *session {
	s := &session{srv: srv, peer: peer, trusted: trusted}
	s.log = srv.log.With("peer", peer)
	s.conn = c
	return s
}

// over puts reader and writer on a connection. What an old reader held is gone with it: after STARTTLS that is what a
// man in the middle said in the clear (RFC 3207 section 4.2).
func (s *session) over(ctx context.Context, c net.Conn) {
	s.conn = c
	s.timed = wire.NewTimed(c, wire.Pace{Idle: s.srv.limits.Idle, Request: min(commandTime, s.srv.limits.Idle), Write: writeTime, Rate: slowest})
	s.out = bufio.NewWriterSize(s.timed, replyBuffer)
	s.in = bufio.NewReaderSize(flushing{s.out, s.timed}, bufferSize)
	if s.stop != nil {
		s.stop()
	}
	s.stop = context.AfterFunc(ctx, s.timed.Interrupt)
	s.tls = ""
	if t, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		state := t.ConnectionState()
		s.tls = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	}
}

// flushing sends the answers before it waits for more: a group of pipelined commands is answered in one write, and no
// client waits for an answer that we hold back.
type flushing struct {
	w *bufio.Writer
	r io.Reader
}

func (f flushing) Read(p []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.r.Read(p)
}

// serve runs the conversation to its end.
func (s *session) serve(ctx context.Context) {
	s.over(ctx, s.conn)
	defer func() { s.stop() }()
	defer s.drop()
	defer func() {
		if p := recover(); p != nil {
			s.say(internalError)
			_ = s.out.Flush()
			panic(p) // wire.Server logs it and ends the connection
		}
	}()
	s.say(s.greeting())
	for {
		r := s.next(ctx)
		s.say(r)
		if r.hangup {
			break
		}
	}
	if s.out.Flush() == nil {
		wire.Hangup(s.timed)
	}
}

func (s *session) greeting() reply {
	protocol := "ESMTP"
	if s.srv.service == LMTP {
		protocol = "LMTP"
	}
	return reply{code: 220, text: s.srv.hostname + " " + protocol + " mailsrv"}
}

// next reads one command and says what to answer.
func (s *session) next(ctx context.Context) reply {
	if s.srv.limits.Errors > 0 && s.errors >= s.srv.limits.Errors {
		s.log.Info("too many errors", "account", s.account)
		return tooManyErrors
	}
	if !s.sending() {
		// Between messages is where Shutdown may end us, and where the client may take its time.
		if ctx.Err() != nil {
			return shuttingDown
		}
		if s.in.Buffered() == 0 {
			s.timed.Await()
		} else {
			s.timed.Begin() // pipelined; it may be a DATA whose message is to be answered
		}
	}
	line, err := s.readLine(s.srv.limits.CommandLine)
	if err != nil {
		return s.unread(err)
	}
	if !s.sending() && ctx.Err() != nil {
		return shuttingDown
	}
	return s.dispatch(ctx, line)
}

// sending reports whether a message is between its first and its last BDAT.
func (s *session) sending() bool { return s.tx != nil && s.tx.intake != nil }

// say writes an answer; it leaves when the reader has to wait. Errors of writing come back from there.
func (s *session) say(r reply) {
	if r.code == 0 {
		return
	}
	if s.counts(r) {
		s.errors++
	}
	_, _ = s.out.Write(r.appendTo(s.out.AvailableBuffer()))
}

// counts reports whether a reply is an error to count. A mail server that hands over by LMTP is not hung up on because of
// recipients it was given.
func (s *session) counts(r reply) bool {
	return r.bad() && (s.srv.service != LMTP || strings.HasPrefix(r.status, "5.5."))
}

// drop ends the transaction; a message half taken in leaves nothing.
func (s *session) drop() {
	if s.tx != nil && s.tx.intake != nil {
		s.tx.intake.abandon()
	}
	s.tx = nil
}

// tlsHandshake is the first octet of a TLS ClientHello.
const tlsHandshake = 0x16

var (
	errLongLine     = errors.New("line too long")
	errVeryLongLine = errors.New("line much too long")
	errBrokenLine   = errors.New("CR or NUL in a line")
	errNotSMTP      = errors.New("TLS where none was expected")
)

// readLine reads up to LF and takes the line end away. A longer line is read to its end, so that what follows is understood.
//
// QUIRK: a command may end in LF alone, which people send with nc; the end of a message may not (see dot.go).
func (s *session) readLine(limit int) (string, error) {
	line, err := s.in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		for n := len(line); err == bufio.ErrBufferFull; n += len(line) {
			if n > junkLine {
				return "", errVeryLongLine
			}
			line, err = s.in.ReadSlice('\n')
		}
		if err == nil {
			err = errLongLine
		}
	}
	if err != nil {
		return "", err
	}
	// AUTH has a limit of its own, for its initial response (RFC 4954 section 4).
	if len(line) > limit && (len(line) > saslLine || !strings.EqualFold(string(line[:5]), "AUTH ")) {
		return "", errLongLine
	}
	text := strings.TrimSuffix(string(line[:len(line)-1]), "\r")
	if text != "" && text[0] == tlsHandshake {
		return "", errNotSMTP
	}
	if strings.ContainsAny(text, "\r\x00") {
		return "", errBrokenLine
	}
	return text, nil
}

// unread is the answer, if there is anybody to hear it, when a line could not be read.
func (s *session) unread(err error) reply {
	switch {
	case err == errLongLine:
		return longLine
	case err == errVeryLongLine:
		return veryLongLine
	case err == errBrokenLine:
		return brokenLine
	case err == errNotSMTP:
		return notSMTP
	case errors.Is(err, wire.ErrInterrupted):
		return shuttingDown
	case errors.Is(err, os.ErrDeadlineExceeded):
		return idleTooLong
	}
	return reply{hangup: true}
}

// authPeer is what package auth decides by.
func (s *session) authPeer() auth.Peer {
	return auth.Peer{Addr: s.peer, TLS: s.tls != "", Trusted: s.trusted, Service: string(s.srv.service)}
}

// origin is where the envelope comes from.
func (s *session) origin(utf8 bool) delivery.Origin {
	return delivery.Origin{
		Service: string(s.srv.service), Addr: s.peer, Hello: s.hello, TLS: s.tls, Account: s.account,
		Protocol: s.protocol(utf8), Trusted: s.trusted,
	}
}

// protocol is the "with" of Received: RFC 3848, and RFC 6531 section 4.3 for the UTF8 ones.
func (s *session) protocol(utf8 bool) string {
	p := "SMTP"
	if s.srv.service == LMTP {
		p = "LMTP"
	}
	switch {
	case utf8:
		p = "UTF8" + p
	case !s.extended:
		return p
	case p == "SMTP":
		p = "ESMTP"
	}
	if s.tls != "" {
		p += "S"
	}
	if s.account != "" {
		p += "A"
	}
	return p
}

// startTLS is RFC 3207. Everything known of the client is forgotten (section 4.2).
func (s *session) startTLS(ctx context.Context, _ string) reply {
	switch {
	case s.tls != "":
		return tlsAlready
	case s.srv.tls == nil:
		return tlsNotOffered
	}
	s.say(readyForTLS)
	if s.out.Flush() != nil {
		return reply{hangup: true}
	}
	t := tls.Server(s.conn, s.srv.tls)
	hctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	// The deadline that reading the command has set would end the connection later.
	if err := errors.Join(s.conn.SetDeadline(time.Time{}), t.HandshakeContext(hctx)); err != nil {
		s.log.Info("TLS handshake failed", "err", err)
		return reply{hangup: true}
	}
	s.drop()
	s.hello, s.extended, s.account = "", false, ""
	s.over(ctx, t)
	return reply{}
}
