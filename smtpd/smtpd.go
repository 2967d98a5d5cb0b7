// Package smtpd takes mail in: SMTP from the world (port 25), message submission with STARTTLS or implicit TLS, and LMTP.
// It is a translator from the wire to package delivery.
//
// Served: SMTP (RFC 5321), submission (RFC 6409, RFC 8314), LMTP (RFC 2033), PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME
// (RFC 6152), SMTPUTF8 (RFC 6531), ENHANCEDSTATUSCODES (RFC 2034, RFC 3463), CHUNKING and BINARYMIME (RFC 3030), DSN (RFC
// 3461, RFC 6533), STARTTLS (RFC 3207), AUTH (RFC 4954), REQUIRETLS (RFC 8689), DELIVERBY (RFC 2852),
// MT-PRIORITY (RFC 6710), FUTURERELEASE (RFC 4865), LIMITS (RFC 9422). Every answer it gives is in docs/smtp-answers.md.
//
// # What is go-smtp's and what is ours
//
// go-smtp gives the vocabulary (MailOptions, RcptOptions, BodyType, DSNNotify …: what MAIL and RCPT can say) and the client
// that drives the tests. The conversation is ours. go-smtp's Server was read for the part (v0.25.1) and cannot play it, from
// outside or with a filter below it:
//   - its DATA reader departs from RFC 5321's framing (see dot_test.go), and since its STARTTLS puts TLS on top of whatever
//     connection it was given, no filter below sees the clear text of a session that matters;
//   - 354 is said before the backend is asked, so a full disk cannot be told before the data;
//   - <postmaster> without a domain (RFC 5321 section 4.5.1) and ORCPTs of other types are syntax errors, AUTH is taken in
//     the middle of a transaction, nesting and order are 502, and a BDAT with a number it cannot read loses the framing;
//   - one read deadline has to do for a whole DATA, a long command line ends the session, and so does a fourth unknown command;
//     shutting down says nothing and waits for ever.
//
// Two parsers for one stream are what smuggling is made of, so there is one: the conversation is the table in commands.go.
package smtpd

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-sasl"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// Service is what a listener is for; the names are IANA's.
type Service string

// The services. Submissions is submission with TLS from the first byte.
const (
	SMTP        Service = "smtp"
	Submission  Service = "submission"
	Submissions Service = "submissions"
	LMTP        Service = "lmtp"
)

// submits reports whether people send through it: they log in, and their messages are repaired rather than refused.
func (s Service) submits() bool { return s == Submission || s == Submissions }

// Limits on what a client may do. Zero fields have the defaults written beside them; -1 is no limit where a limit can be
// done without.
type Limits struct {
	MessageSize    int64         // octets of one message: 50 MiB; advertised as SIZE
	Recipients     int           // of one message: 1000 (RFC 5321 section 4.5.3.1.8 wants at least 100)
	Connections    int           // at once, in all: 1000, or -1
	PerAddress     int           // at once, from one address (an IPv6 /64): 50, or -1; trusted networks are exempt
	ConnectionRate int           // new ones from one address in a minute: 300, or -1; trusted networks are exempt
	MessageRate    int           // from one address in a minute: 600, or -1; trusted networks are exempt
	Errors         int           // 4xx and 5xx answers in one connection since its last accepted message: 20, or -1
	Logins         int           // failed ones in one connection: 3
	Idle           time.Duration // between commands, and at most for one to come in: 5 minutes (RFC 5321 section 4.5.3.2.7)
	CommandLine    int           // octets with CRLF: 2048 (RFC 5321 section 4.5.3.1.4 and its extensions' extra)
	Header         int           // octets of a message's header: 256 KiB
	Line           int           // octets of a message's line: 128 KiB; RFC 5322's 998 is what one should send
}

func (l Limits) withDefaults() Limits {
	l.MessageSize = cmp.Or(l.MessageSize, 50<<20)
	l.Recipients = cmp.Or(l.Recipients, 1000)
	l.Connections = cmp.Or(l.Connections, 1000)
	l.PerAddress = cmp.Or(l.PerAddress, 50)
	l.ConnectionRate = cmp.Or(l.ConnectionRate, 300)
	l.MessageRate = cmp.Or(l.MessageRate, 600)
	l.Errors = cmp.Or(l.Errors, 20)
	l.Logins = cmp.Or(l.Logins, 3)
	l.Idle = cmp.Or(l.Idle, 5*time.Minute)
	l.CommandLine = max(cmp.Or(l.CommandLine, 2048), 512)
	l.Header = cmp.Or(l.Header, 256<<10)
	l.Line = cmp.Or(l.Line, 128<<10)
	return l
}

// What is not worth configuring.
const (
	saslLine      = 12288            // octets of an AUTH exchange's line (RFC 4954 section 4.2)
	junkLine      = 1 << 20          // octets of a command line that are read for the sake of framing, then we hang up
	handshakeTime = 15 * time.Second // for STARTTLS
	commandTime   = 5 * time.Minute  // or Idle, if that is less: from a command's first octet to its last, or its data's …
	slowest       = 512              // … and a second more for so many octets of it
	writeTime     = 2 * time.Minute  // for the client to take an answer
	bufferSize    = 32 << 10         // of a connection's reader
	replyBuffer   = 4 << 10          // of its writer
	maxFields     = 2000             // of a message's header; each costs memory beyond its octets, and real mail has a hundred
	maxRcptOctets = 256 << 10        // of all addresses of one message, ORCPTs included: a thousand ordinary ones take a third
	maxNamed      = 20               // recipients that are named in a To field we have to make up
)

// endless is how much of one message is read for the sake of framing, whatever MessageSize says of it; then we hang up. A
// client that is hung up on while it sends may not see why, so honest mistakes about the size are to stay below.
func (l Limits) endless() int64 { return 2*l.MessageSize + 1<<20 }

// Options of a Server.
type Options struct {
	Service  Service
	Hostname string // in the greeting, EHLO and trace headers
	Delivery *delivery.Deliverer
	Store    *storage.Store
	Auth     *auth.Authenticator // submission(s) only
	TLS      *tls.Config         // nil: no STARTTLS; required for submissions
	Trusted  wire.Networks       // trusted_networks: no rates, no limit per address
	Limits   Limits
	Logger   *slog.Logger // nil discards
	Meter    Meter        // nil: none
	Now      func() time.Time
}

// Meter counts; observe.Metrics is one.
type Meter interface {
	wire.Meter
	MessageAccepted(service string, bytes int64)
	MessageRefused(service, status string)
}

// post is where messages go: package delivery over the store. Tests of the wire alone put a fake here.
type post interface {
	CheckSender(ctx context.Context, env *delivery.Envelope, size int64) error
	CheckRecipient(ctx context.Context, env *delivery.Envelope, r delivery.Recipient, size int64) error
	CheckFrom(env *delivery.Envelope, address string) error
	CheckHops(header []byte) error
	Room(size int64) error
	Trace(env *delivery.Envelope) string
	Incoming() (spool, error)
	Deliver(ctx context.Context, env *delivery.Envelope, in spool) []error
}

// spool is a message on its way in: *storage.Incoming.
type spool interface {
	Write(p []byte) (int, error)
	Seal() error
	Size() int64
	Close() error
}

type office struct {
	*delivery.Deliverer
	store *storage.Store
}

func (o office) Incoming() (spool, error) { return o.store.Incoming() }

func (o office) Deliver(ctx context.Context, env *delivery.Envelope, in spool) []error {
	return o.Deliverer.Deliver(ctx, env, in.(*storage.Incoming))
}

// authenticator is *auth.Authenticator.
type authenticator interface {
	Mechanisms(p auth.Peer) []string
	Epoch(address string) uint64
	Server(ctx context.Context, p auth.Peer, mechanism string, done func(directory.Account)) (sasl.Server, error)
}

// New makes a Server for one service.
func New(o Options) *Server {
	var a authenticator
	if o.Auth != nil {
		a = o.Auth
	}
	return newServer(o, office{o.Delivery, o.Store}, a)
}

// Server serves one service on any number of listeners.
type Server struct {
	service  Service
	hostname string
	post     post
	auth     authenticator // nil: AUTH is not offered
	tls      *tls.Config   // for STARTTLS; nil: not offered
	trusted  wire.Networks
	limits   Limits
	log      *slog.Logger
	meter    Meter
	now      func() time.Time
	connects *rate
	messages *rate
	wire     wire.Server
}

func newServer(o Options, p post, a authenticator) *Server {
	s := &Server{
		service: o.Service, hostname: cmp.Or(o.Hostname, "localhost"), post: p, tls: o.TLS, trusted: o.Trusted,
		limits: o.Limits.withDefaults(), meter: o.Meter, now: o.Now,
		log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("service", string(o.Service)),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if o.Service.submits() {
		s.auth = a
	}
	s.connects = newRate(s.limits.ConnectionRate, s.now)
	s.messages = newRate(s.limits.MessageRate, s.now)
	s.wire = wire.Server{
		Name: string(o.Service),
		Limits: wire.Limits{Total: max(s.limits.Connections, 0), PerAddress: max(s.limits.PerAddress, 0),
			Exempt: o.Trusted},
		HandshakeTimeout: handshakeTime,
		Handle:           s.handle,
		Refuse:           s.refuse,
		Logger:           o.Logger,
	}
	if o.Meter != nil {
		s.wire.Meter = o.Meter
	}
	if o.Service == Submissions {
		s.wire.TLS, s.tls = o.TLS, nil
	}
	return s
}

// Serve accepts on l until Shutdown or Close; it always returns a non-nil error, wire.ErrServerClosed after those.
func (s *Server) Serve(l net.Listener) error { return s.wire.Serve(l) }

// Shutdown stops accepting and tells each session 421 at its next safe point: between commands, not before a message that is
// being sent is answered. It waits for them until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.wire.Shutdown(ctx) }

// Close cuts everything.
func (s *Server) Close() error { return s.wire.Close() }

// refuse is said to a client over the limits on connections.
func (s *Server) refuse(c net.Conn, perAddress bool) {
	r := tooManyConnections
	if perAddress {
		r = tooManyFromAddress
	}
	_, _ = c.Write(r.appendTo(nil)) // it is refused either way
}

func (s *Server) handle(ctx context.Context, c net.Conn) {
	peer := wire.PeerAddr(c)
	trusted := s.trusted.Contains(peer)
	if !trusted && !s.connects.take(peer) {
		s.log.Info("connection refused: too many in a minute", "peer", peer)
		_ = c.SetWriteDeadline(time.Now().Add(writeTime))
		_, _ = c.Write(tooManyAMinute.appendTo(nil))
		wire.Hangup(c)
		return
	}
	newSession(s, c, peer, trusted).serve(ctx)
}
