package imapd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/directory"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

const (
	// commandTimeout is for a command that has begun to come, for each 64 KiB of a literal, and for each write.
	commandTimeout = 5 * time.Minute
	maxBadInRow    = 10 // protocol errors one after the other, before we hang up
	maxLoginFails  = 5  // failed logins on one connection
)

// feature is something a client switches on for the rest of the session (RFC 5161).
type feature uint8

const (
	featRev2 feature = 1 << iota
	featCondstore
	featUTF8
)

// session is one connection, from its greeting to its end. All of it is used by one goroutine only.
type session struct {
	srv  *Server
	ctx  context.Context // ends when Shutdown begins
	conn net.Conn
	tls  bool
	peer netip.Addr
	log  *slog.Logger
	in   *reader
	out  *writer

	state    state
	features feature
	deadline time.Time // of the login
	began    time.Time
	badInRow int
	fails    int // failed logins

	account *storage.Account // nil before login
	epoch   uint64           // auth's, of the account at its login
	sel     *mailbox         // nil but in state selected

	tag   string
	name  string // of the running command
	cmd   command
	after func() error // runs when the tagged reply is sent: STARTTLS
}

func newSession(ctx context.Context, srv *Server, c net.Conn, secure bool) *session {
	id := make([]byte, 6)
	_, _ = rand.Read(id) // never fails
	s := &session{srv: srv, ctx: ctx, tls: secure, peer: wire.PeerAddr(c), state: notAuthenticated, began: time.Now()}
	s.log = srv.o.Logger.With("service", "imap", "session", hex.EncodeToString(id), "peer", s.peer.String())
	s.deadline = s.began.Add(srv.o.LoginTimeout)
	s.use(c)
	return s
}

// use makes c the session's connection: at its beginning and after STARTTLS. Octets read ahead from the former one
// are gone with its reader: commands sent in plaintext behind STARTTLS must not run inside TLS (CVE-2011-0411).
func (s *session) use(c net.Conn) {
	s.conn = c
	s.in, s.out = newReader(c, s), newWriter(c)
	s.out.beforeWrite = func() { _ = c.SetWriteDeadline(time.Now().Add(commandTimeout)) }
}

// serve runs the session to its end.
func (s *session) serve() {
	defer s.end()
	s.tell(ok("CAPABILITY "+s.capabilities(), s.srv.o.Hostname+" IMAP server ready"))
	for s.out.Flush() == nil && s.state != logout && s.await() {
		s.step()
	}
	if s.out.Flush() == nil {
		wire.Hangup(s.conn) // so that BYE arrives
	}
}

// end releases what the session holds. It also runs when a handler panics.
func (s *session) end() {
	s.sel = nil
	if s.account != nil {
		s.log.Info("logout", "account", s.account.Address(), "after", time.Since(s.began).Round(time.Millisecond), "sent", s.out.sent)
		s.account.Release()
		s.account = nil
	}
}

// await waits for the first octet of the next command; false ends the session.
func (s *session) await() bool {
	if s.in.buffered() {
		switch {
		case s.ctx.Err() != nil:
			return s.goodbye("Server is shutting down")
		case s.closed():
			return s.goodbyeClosed()
		}
		s.extend(commandTimeout)
		return true
	}
	s.extend(s.srv.o.IdleTimeout)
	stop := s.interruptible()
	_, err := s.in.br.Peek(1)
	stop()
	switch {
	case s.ctx.Err() != nil:
		return s.goodbye("Server is shutting down")
	case err != nil:
		return s.lost(err)
	}
	if s.closed() {
		return s.goodbyeClosed()
	}
	s.extend(commandTimeout)
	return true
}

// closed reports whether the login is over: the password was changed since, or the account disabled or removed.
func (s *session) closed() bool {
	return s.account != nil && s.srv.o.Auth != nil && s.srv.o.Auth.Epoch(s.account.Address()) != s.epoch
}

// goodbyeClosed ends a session whose login is over.
func (s *session) goodbyeClosed() bool {
	s.log.Info("the account's credentials changed, ending the session", "account", s.account.Address())
	return s.goodbye("Log in again: the account's password was changed, or it was closed")
}

// interruptible lets Shutdown end a read that waits for the client to begin something; call stop when it has.
func (s *session) interruptible() (stop func() bool) {
	return context.AfterFunc(s.ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
}

// extend sets the read deadline; before login never beyond the login's.
func (s *session) extend(d time.Duration) {
	t := time.Now().Add(d)
	if s.state == notAuthenticated && t.After(s.deadline) {
		t = s.deadline
	}
	_ = s.conn.SetReadDeadline(t)
}

// moreTime is for the reader: a piece of a literal has come.
func (s *session) moreTime() { s.extend(commandTimeout) }

// hurry is for the reader.
func (s *session) hurry() { wire.Hurry(s.conn) }

// clientSpeaksUTF8 is for the reader.
func (s *session) clientSpeaksUTF8() { s.out.utf8 = true }

// askForLiteral is for the reader: the client waits for it before it sends a synchronizing literal.
func (s *session) askForLiteral() error {
	s.out.Raw("+ OK\r\n")
	return s.out.Flush()
}

// lost ends the session after a failed read, with a word if there is somebody to hear it.
func (s *session) lost(err error) bool {
	switch {
	case s.state == logout:
	case errors.Is(err, errUnframed):
		return s.goodbye("[TOOBIG] Command too big")
	case timedOut(err) && s.ctx.Err() != nil:
		return s.goodbye("Server is shutting down")
	case timedOut(err) && s.state == notAuthenticated:
		return s.goodbye("Login took too long")
	case timedOut(err):
		return s.goodbye("Autologout: idle for too long")
	case !errors.Is(err, io.EOF):
		s.log.Debug("connection lost", "err", err)
	}
	s.enter(logout)
	return false
}

// goodbye says BYE and ends the session. It returns false, for await.
func (s *session) goodbye(text string) bool {
	s.out.Raw("* BYE ").Raw(text).CRLF()
	s.enter(logout)
	return false
}

// enter is the one place where the state changes.
func (s *session) enter(to state) {
	if s.state == to {
		return
	}
	s.log.Debug("state", "from", s.state.String(), "to", to.String())
	s.state = to
	s.in.afterLogin = to&loggedIn != 0
	if to != selected {
		s.sel = nil
	}
}

// step runs one command.
func (s *session) step() {
	s.name, s.cmd, s.after = "", command{}, nil
	began := time.Now()
	tag, err := s.in.begin()
	if err != nil {
		s.lost(err)
		return
	}
	if s.state == notAuthenticated && speaksHTTP(s.in.line) {
		s.log.Info("HTTP on the IMAP port, hanging up")
		s.goodbye("This is not a web server")
		return
	}
	s.tag = tag
	answer := s.in.Refusal // the tag or the line was wrong
	if tag == "" {
		s.tag = "*"
	}
	if !s.in.Failed() {
		answer = s.dispatch
	}
	r := answer()
	if err := s.in.finish(); err != nil {
		s.lost(err)
		return
	}
	s.conclude(r)
	if s.log.Enabled(s.ctx, slog.LevelDebug) { // never the arguments: they may be passwords
		s.log.Debug("command", "name", quoteForError([]byte(s.name)), "reply", r.status+" "+r.text, "took", time.Since(began))
	}
}

// speaksHTTP recognises a browser, or a cross-protocol attack by way of one.
func speaksHTTP(line []byte) bool {
	verb, rest, _ := strings.Cut(string(line[:min(len(line), 2048)]), " ")
	switch verb {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI":
		return strings.HasPrefix(rest, "/") || strings.Contains(rest, " HTTP/")
	}
	return false
}

// dispatch finds the command in the table, enforces its row, and runs it.
func (s *session) dispatch() reply {
	s.in.SP()
	s.name = s.in.Keyword()
	if s.name == "UID" {
		s.in.SP()
		s.name += " " + s.in.Keyword()
	}
	if s.in.Failed() {
		return s.in.Refusal()
	}
	cmd, known := s.srv.commands[s.name]
	switch {
	case !known:
		return bad("Unknown command")
	case cmd.states&s.state == 0:
		return bad("Command not allowed now: session is " + s.state.String())
	case cmd.traits&writes != 0 && s.sel.readOnly:
		return no("READ-ONLY", "Mailbox was opened read-only")
	}
	s.cmd = cmd
	if cmd.traits&writes == 0 {
		s.syncBefore()
	}
	if s.state == logout {
		return reply{}
	}
	return cmd.run(s)
}

// byUID reports whether the numbers in the running command are UIDs.
func (s *session) byUID() bool { return s.cmd.traits&byUID != 0 }

// conclude tells what has changed in the selected mailbox, and then the command's own reply.
func (s *session) conclude(r reply) {
	if s.state != logout {
		s.sync()
	}
	if r.status == "" || s.state == logout && r.status != "OK" {
		return // BYE was said instead
	}
	if r.cause != nil {
		s.log.Error("command failed", "command", s.name, "err", r.cause)
	}
	s.out.Status(s.tag, r)
	s.countBad(r)
	if r.hangup {
		s.goodbye("Closing the connection")
	}
	if s.after != nil && s.state != logout {
		if err := errors.Join(s.out.Flush(), s.after()); err != nil {
			s.log.Info("connection upgrade failed", "err", err)
			s.enter(logout)
		}
	}
}

// countBad gives up on a client that talks nonsense.
func (s *session) countBad(r reply) {
	if r.status != "BAD" {
		s.badInRow = 0
	} else if s.badInRow++; s.badInRow >= maxBadInRow {
		s.goodbye("Too many bad commands")
	}
}

// tell sends an untagged status response.
func (s *session) tell(r reply) { s.out.Status("*", r) }

// enabled reports whether the client has enabled a feature.
func (s *session) enabled(f feature) bool { return s.features&f != 0 }

// authPeer describes the client to package auth.
func (s *session) authPeer() auth.Peer {
	return auth.Peer{Addr: s.peer, TLS: s.tls, Trusted: s.srv.o.Trusted.Contains(s.peer), Service: "imap"}
}

// capabilities is the CAPABILITY list as of now.
func (s *session) capabilities() string {
	var list []string
	for _, c := range capabilities {
		if c.when(s) {
			list = append(list, c.name)
		}
	}
	if s.state == notAuthenticated && s.srv.o.Auth != nil {
		for _, m := range s.srv.o.Auth.Mechanisms(s.authPeer()) {
			list = append(list, "AUTH="+m)
		}
	}
	if afterLogin(s) {
		list = append(list, "APPENDLIMIT="+strconv.FormatInt(s.srv.o.MaxMessage, 10))
	}
	return strings.Join(list, " ")
}

// upgrade is STARTTLS's second half.
func (s *session) upgrade() error {
	c := tls.Server(s.conn, s.srv.o.TLS)
	ctx, cancel := context.WithDeadline(s.ctx, s.deadline)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	s.use(c)
	s.tls = true
	return nil
}

// welcome opens the account after a successful login and gives the reply to it.
func (s *session) welcome(a directory.Account, how string) reply {
	acct, err := s.srv.o.Store.Account(a.Address)
	if errors.Is(err, storage.ErrNoAccount) {
		// The directory knows the account and nobody has written or read mail yet.
		if err = s.srv.o.Store.Create(a.Address); err == nil || errors.Is(err, storage.ErrAccountExists) {
			acct, err = s.srv.o.Store.Account(a.Address)
		}
	}
	if err != nil {
		return refused("open account", err)
	}
	s.account, s.epoch = acct, s.srv.o.Auth.Epoch(a.Address)
	s.in.exists = func(name string) bool { _, err := acct.Mailbox(name); return err == nil }
	s.enter(authenticated)
	s.log.Info("login", "account", a.Address, "mechanism", how, "tls", s.tls)
	return ok("CAPABILITY "+s.capabilities(), "Logged in")
}
