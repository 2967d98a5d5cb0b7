// Package relay hands mail to the world: the queue's Transport. It finds the next hop (a route, or the domain's MX), decides
// how the connection must be secured (DANE, MTA-STS, REQUIRETLS, a route's own word), speaks SMTP as the other side can, and
// brings back each recipient's answer in the other side's own words. docs/relay.md tells it as a story.
//
//	relay.go        Options, New, Close
//	route.go        smarthosts per domain and per sender
//	hop.go          MX, addresses, our own MX                 RFC 5321 section 5, 7505
//	dial.go         racing addresses, SOCKS                   RFC 8305
//	attempt.go      one Attempt: hosts in order, until everybody has an outcome
//	session.go      greeting, EHLO, STARTTLS                  RFC 5321, 3207
//	auth.go         logins of routes                          RFC 4954
//	reply.go        replies, bounded                          RFC 5321 section 4.2, 3463
//	transaction.go  MAIL, RCPT, DATA, BDAT                    RFC 2920, 3030, 9422
//	params.go       their parameters                          RFC 1870, 6152, 6531, 3461, 6533, 6710, 8689
//	text.go         line ends and dots                        RFC 5321 section 4.5.2
//	downgrade.go    8-bit and binary to 7 bits                RFC 6152, 3030, 2045
//	pool.go         connections kept for the next message
//	security.go     which policy a session has to meet
//	dane.go         TLSA                                      RFC 7672, 7671, 6698
//	sts.go          MTA-STS                                   RFC 8461
//	tlsrpt.go       counters, reports                         RFC 8460
//	failure.go      what went wrong, in words for people
//	store.go        what is kept over a restart
package relay

import (
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"mailsrv/internal/queue"
	"mailsrv/internal/resolve"
)

// Options of a Relay. Hostname and Resolver are required; the zero of everything else is a sensible default.
type Options struct {
	Hostname string // our name: EHLO, and what an MX must not be
	Resolver resolve.Resolver
	Routes   []Route
	// Own are the addresses and ports at which our own server takes mail from the world: an MX that leads there is a loop.
	// OwnAddresses makes it of what is listened on.
	Own []netip.AddrPort

	Port       uint16         // of other servers, 25; tests have others
	PolicyPort uint16         // of MTA-STS's HTTPS, 443
	Roots      *x509.CertPool // of certificate authorities; nil is the system's
	Timeouts   Timeouts
	Limits     Limits

	// Store keeps MTA-STS policies and the day's TLS counters over a restart; nil keeps them in memory only.
	Store Store
	// SendReport mails or posts nothing itself: it queues a TLS-RPT report (RFC 8460). nil: no reports, and nothing is counted.
	SendReport func(ctx context.Context, r Report) error
	// ReportFrom is the reports' sender and contact, "postmaster@" and Hostname if empty.
	ReportFrom string

	// Dial opens TCP connections; nil is the system's. local is the address to come from, invalid for any.
	Dial   func(ctx context.Context, local netip.Addr, to netip.AddrPort) (net.Conn, error)
	Logger *slog.Logger // nil discards
	Meter  Meter        // nil: none
}

// Timeouts are RFC 5321 section 4.5.3.2's, and those that it has no words for. Zero fields get the default.
type Timeouts struct {
	Connect    time.Duration // one address; 30 s
	TLS        time.Duration // the handshake; 1 m
	Greeting   time.Duration // 5 m
	Hello      time.Duration // EHLO, HELO, STARTTLS, AUTH; 5 m
	Mail       time.Duration // 5 m
	Rcpt       time.Duration // 5 m
	DataStart  time.Duration // DATA's 354; 2 m
	DataBlock  time.Duration // for the other side to take a piece of the message; 3 m
	DataDone   time.Duration // the answer to the final dot; 10 m
	Quit       time.Duration // 5 s: nobody waits for a goodbye
	Policy     time.Duration // to fetch an MTA-STS policy; 1 m
	IdleReuse  time.Duration // how long a connection is kept for the next message; 15 s
	RaceDelay  time.Duration // until the next address is tried beside the first; 250 ms
	MaxSession time.Duration // a connection is not used again when it is older; 5 m
}

// Limits of what one attempt and the pool may take. Zero fields get the default.
type Limits struct {
	Sessions   int // connections tried in one attempt, over all MXs; 10
	Recipients int // of one transaction; 100, which RFC 5321 section 4.5.3.1.8 has every server take
	Idle       int // connections kept in all; 100
	IdlePer    int // of those, for one destination; 4
	Messages   int // over one connection; 100
}

// Meter hears of connections, for metrics. Its methods are called from several goroutines and must not block.
type Meter interface {
	// RelayConnected: tls is "none", or how the other side was verified: "unverified", "pkix", "mta-sts", "dane".
	RelayConnected(tls string)
	RelayReused()
	// RelayFailed: stage is "dns", "connect", "greeting", "tls", "hello", "auth", "policy".
	RelayFailed(stage string)
}

// Relay is the queue's Transport to other servers. Safe for use by several goroutines.
type Relay struct {
	o       Options // with defaults
	log     *slog.Logger
	meter   Meter
	routes  routeTable
	shuffle func(n int, swap func(i, j int)) // rand.Shuffle; tests have an order of their own
	pool    *pool
	sts     *stsCache
	tlsrpt  *tlsReports

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex // closed, and wg.Add beside Wait
	closed bool
	wg     sync.WaitGroup // the report goroutine, and goodbyes
}

var _ queue.Transport = (*Relay)(nil)

// Report is one TLS-RPT report, ready to be queued: a whole message, to be DKIM-signed and sent with RequireTLS off.
type Report struct {
	Domain  string   // whose TLS it is about
	From    string   // envelope sender
	To      []string // the domain's rua addresses
	Message []byte
}

// New starts a Relay. Close ends it.
func New(o Options) *Relay {
	o.defaults()
	r := &Relay{o: o, log: o.Logger, meter: o.Meter, routes: newRouteTable(o.Routes), shuffle: rand.Shuffle}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.pool = &pool{r: r, by: map[string][]*session{}}
	r.sts = newSTSCache(r)
	r.tlsrpt = &tlsReports{r: r, on: o.SendReport != nil, tallies: map[string]*tally{}}
	if r.tlsrpt.on {
		r.tlsrpt.load()
		r.wg.Go(func() { r.tlsrpt.run(r.ctx) })
	}
	return r
}

// defaults fills in what is zero.
func (o *Options) defaults() {
	o.Port = cmp.Or(o.Port, 25)
	o.PolicyPort = cmp.Or(o.PolicyPort, 443)
	o.ReportFrom = cmp.Or(o.ReportFrom, "postmaster@"+o.Hostname)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Store == nil {
		o.Store = noStore{}
	}
	if o.Meter == nil {
		o.Meter = noMeter{}
	}
	if o.Dial == nil {
		o.Dial = systemDial
	}
	t := &o.Timeouts
	for _, d := range []struct {
		field *time.Duration
		to    time.Duration
	}{
		{&t.Connect, 30 * time.Second}, {&t.TLS, time.Minute}, {&t.Greeting, 5 * time.Minute}, {&t.Hello, 5 * time.Minute},
		{&t.Mail, 5 * time.Minute}, {&t.Rcpt, 5 * time.Minute}, {&t.DataStart, 2 * time.Minute},
		{&t.DataBlock, 3 * time.Minute}, {&t.DataDone, 10 * time.Minute}, {&t.Quit, 5 * time.Second},
		{&t.Policy, time.Minute}, {&t.IdleReuse, 15 * time.Second}, {&t.RaceDelay, 250 * time.Millisecond},
		{&t.MaxSession, 5 * time.Minute},
	} {
		*d.field = cmp.Or(*d.field, d.to)
	}
	l := &o.Limits
	l.Sessions, l.Recipients = cmp.Or(l.Sessions, 10), cmp.Or(l.Recipients, 100)
	l.Idle, l.IdlePer, l.Messages = cmp.Or(l.Idle, 100), cmp.Or(l.IdlePer, 4), cmp.Or(l.Messages, 100)
}

type noMeter struct{}

func (noMeter) RelayConnected(string) {}
func (noMeter) RelayReused()          {}
func (noMeter) RelayFailed(string)    {}

// Close ends what the Relay does by itself: idle connections, reports. Attempts under way end by their own context.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.pool.close()
	r.wg.Wait()
	return nil
}

// aside runs fn in a goroutine that Close waits for; false after Close.
func (r *Relay) aside(fn func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.wg.Go(fn)
	return true
}

// OwnAddresses turns what our SMTP service listens on ("ip:port", ":port") into Options.Own; an unspecified address stands
// for all of this machine's.
func OwnAddresses(listen []string) (own []netip.AddrPort) {
	for _, l := range listen {
		host, port, err := net.SplitHostPort(l)
		n, errPort := strconv.ParseUint(port, 10, 16)
		if err != nil || errPort != nil {
			continue
		}
		addr, err := netip.ParseAddr(host)
		if err == nil && !addr.IsUnspecified() {
			own = append(own, netip.AddrPortFrom(addr.Unmap(), uint16(n)))
			continue
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			continue
		}
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				own = append(own, netip.AddrPortFrom(p.Addr().Unmap(), uint16(n)))
			}
		}
	}
	return own
}
