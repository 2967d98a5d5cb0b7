// Package imapd serves IMAP4rev2 (RFC 9051) and IMAP4rev1 (RFC 3501) over package storage.
//
// A command comes in through the reader, whose methods are the grammar and which bounds everything it reads; the table in
// commands.go says which handler runs it, in which state, and what may be told meanwhile; the handler answers with a reply.
// Between commands the session compares its own view of the selected mailbox with storage's and tells the
// differences (view.go). Nothing else writes to the client.
//
// Served: RFC 3501 and 9051, LITERAL+ (7888), SASL-IR (4959), ID (2971), ENABLE (5161), IDLE (2177), NAMESPACE (2342), UIDPLUS
// (4315), MOVE (6851), UNSELECT (3691), CHILDREN (3348), LIST-EXTENDED (5258), LIST-STATUS (5819), SPECIAL-USE and
// CREATE-SPECIAL-USE (6154), ESEARCH (4731), SEARCHRES (5182), STATUS=SIZE (8438), BINARY (3516), UTF8=ACCEPT (6855), CONDSTORE
// (7162), APPENDLIMIT (7889), the response codes of 5530.
package imapd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// Options of a Server. Zero values: see each field.
type Options struct {
	Store    *storage.Store
	Auth     *auth.Authenticator // nil: nobody can log in
	TLS      *tls.Config         // for ServeTLS and STARTTLS; nil: neither
	Hostname string              // in the greeting; "" is "localhost"

	MaxMessage   int64         // APPEND's limit in octets (APPENDLIMIT, RFC 7889); 0 is 64 MiB
	IdleTimeout  time.Duration // autologout after login (RFC 9051 section 5.4: at least 30 minutes); 0 is 35 minutes
	LoginTimeout time.Duration // from the connection to a login; 0 is 2 minutes

	Trusted wire.Networks // peers whose failed logins are not slowed down
	Limits  wire.Limits   // held for Serve and ServeTLS separately
	Logger  *slog.Logger  // nil discards
	Meter   wire.Meter    // nil: none
}

// Server is an IMAP server. Serve and ServeTLS may both be called, each for any number of listeners.
type Server struct {
	o        Options
	commands map[string]command
	plain    *wire.Server
	tls      *wire.Server
}

// New makes a Server.
func New(o Options) *Server {
	if o.Hostname == "" {
		o.Hostname = "localhost"
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 20
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 35 * time.Minute
	}
	if o.LoginTimeout == 0 {
		o.LoginTimeout = 2 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, commands: commandTable()}
	s.plain = s.listener("imap", nil)
	s.tls = s.listener("imaps", o.TLS)
	return s
}

func (s *Server) listener(name string, cfg *tls.Config) *wire.Server {
	return &wire.Server{
		Name: name, Limits: s.o.Limits, TLS: cfg, Logger: s.o.Logger, Meter: s.o.Meter, Refuse: refuseConnection,
		Handle: func(ctx context.Context, c net.Conn) { newSession(ctx, s, c, cfg != nil).serve() },
	}
}

// refuseConnection tells a connection that it is one too many.
func refuseConnection(c net.Conn, perAddress bool) {
	why := "* BYE [UNAVAILABLE] Too many connections, try again later\r\n"
	if perAddress {
		why = "* BYE [LIMIT] Too many connections from your address\r\n"
	}
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte(why))
}

// Serve serves plain connections (with STARTTLS if there is a TLS configuration) until Shutdown or Close; it always
// returns a non-nil error.
func (s *Server) Serve(l net.Listener) error { return s.plain.Serve(l) }

// ServeTLS is Serve with TLS from the first octet (RFC 8314).
func (s *Server) ServeTLS(l net.Listener) error {
	if s.o.TLS == nil {
		return errors.New("imapd: ServeTLS without a TLS configuration")
	}
	return s.tls.Serve(l)
}

// Shutdown stops accepting, lets each session finish its command and say BYE, and waits for them until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.tls.Shutdown(ctx) }()
	return errors.Join(s.plain.Shutdown(ctx), <-done)
}

// Close cuts everything.
func (s *Server) Close() error { return errors.Join(s.plain.Close(), s.tls.Close()) }
