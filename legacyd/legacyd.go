// Package legacyd serves the course mail protocol ("Message"): frames of a type, a length and a JSON body, over the same
// store and the same delivery as SMTP and IMAP. What is on the wire is told in docs/course-protocol.md.
//
// The protocol has no passwords. An account must be opened to it (directory.Account.Legacy), and a client outside
// Options.Trusted must give a "password" in its entry.
package legacyd

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// Deliverer takes what is sent; *delivery.Deliverer is one.
type Deliverer interface {
	CheckSender(ctx context.Context, env *delivery.Envelope, size int64) error
	CheckRecipient(ctx context.Context, env *delivery.Envelope, r delivery.Recipient, size int64) error
	Trace(env *delivery.Envelope) string
	Deliver(ctx context.Context, env *delivery.Envelope, in *storage.Incoming) []error
}

// Meter hears what happens, for metrics; observe.Metrics is one.
type Meter interface {
	wire.Meter
	Login(service string, ok bool)
	MessageAccepted(service string, bytes int64)
	MessageRefused(service, status string)
}

// Options of a Server. Store, Directory, Auth and Deliverer are needed; the zero values of the others: see each field.
type Options struct {
	Store     *storage.Store
	Directory *directory.Directory
	Auth      *auth.Authenticator
	Deliverer Deliverer
	Hostname  string        // for Message-ID; "" is "localhost"
	Trusted   wire.Networks // where entry needs no password
	Limits    wire.Limits   // Limits.Exempt is usually Trusted too
	// MaxFrame is the longest request body in bytes; 0 is 1 MiB.
	MaxFrame int
	// MaxReply is the longest reply to a mailbox command in bytes, its frame header included; 0 is 64 KiB. Below some
	// 300 bytes not even one mail fits.
	MaxReply    int
	IdleTimeout time.Duration // between two requests; 0 is 30 minutes
	Logger      *slog.Logger  // nil discards
	Meter       Meter         // nil: none
}

// service is our name in logs, metrics and delivery.Origin.
const service = "legacy"

// The time a client has for the rest of a frame once it has begun one, and to take a reply.
const (
	requestTime = 30 * time.Second
	writeTime   = 30 * time.Second
	leastRate   = 1 << 10 // bytes a second that earn more of it
)

// Server serves the protocol on any number of listeners.
type Server struct {
	o    Options
	log  *slog.Logger
	wire wire.Server

	mu   sync.Mutex
	here map[string]*claim // by canonical address: who has entered
}

// New makes a Server.
func New(o Options) *Server {
	o.Hostname = cmp.Or(o.Hostname, "localhost")
	o.MaxFrame = cmp.Or(o.MaxFrame, 1<<20)
	o.MaxReply = cmp.Or(o.MaxReply, 64<<10)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 30*time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Meter == nil {
		o.Meter = noMeter{}
	}
	s := &Server{o: o, log: o.Logger.With("service", service), here: make(map[string]*claim)}
	s.wire = wire.Server{Name: service, Limits: o.Limits, Handle: s.handle, Refuse: refuseConnection, Logger: o.Logger, Meter: o.Meter}
	return s
}

// Serve accepts on l until Shutdown or Close; then it returns wire.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error { return s.wire.Serve(l) }

// Shutdown lets every session finish the request it is at and ends it, until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.wire.Shutdown(ctx) }

// Close cuts all connections. A send that is being filed is filed; its sender does not hear of it.
func (s *Server) Close() error { return s.wire.Close() }

func refuseConnection(c net.Conn, perAddress bool) {
	text := "Too many connections, try again later"
	if perAddress {
		text = "Too many connections from your address"
	}
	if b, err := encodeFrame(typeError, text); err == nil {
		_, _ = c.Write(b) // the client is being turned away; it may be gone
	}
}

// A claim is a session's hold on an address; gone is closed when it lets go.
type claim struct{ gone chan struct{} }

// grace is how long an entry waits for the session that has the address: a client that hangs up and comes back at once
// must not meet its own last session.
const grace = 200 * time.Millisecond

// claim makes the address this session's alone; false if another live session has it.
func (s *Server) claim(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for {
		other := s.tryClaim(address)
		if other == nil {
			return true
		}
		select {
		case <-other.gone:
		case <-ctx.Done():
			return false
		}
	}
}

// tryClaim returns the claim that stands in the way, or nil.
func (s *Server) tryClaim(address string) *claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.here[address]; taken {
		return other
	}
	s.here[address] = &claim{make(chan struct{})}
	return nil
}

func (s *Server) unclaim(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, held := s.here[address]; held {
		close(c.gone)
		delete(s.here, address)
	}
}

type noMeter struct{}

func (noMeter) ConnectionOpened(string)          {}
func (noMeter) ConnectionClosed(string)          {}
func (noMeter) ConnectionRefused(string, string) {}
func (noMeter) ConnectionPanicked(string)        {}
func (noMeter) Login(string, bool)               {}
func (noMeter) MessageAccepted(string, int64)    {}
func (noMeter) MessageRefused(string, string)    {}
