package wire

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits on connections. Zero is no limit. Exempt addresses are counted only in Total.
type Limits struct {
	Total int
	// PerAddress counts an IPv6 /64 as one address: it is what one customer gets. Peers without an address (a Unix
	// socket) are counted only in Total.
	PerAddress int
	Exempt     Networks
}

// Meter hears of connections, for metrics; observe.Metrics is one. service is Server.Name. All methods are called from
// several goroutines and must not block.
type Meter interface {
	ConnectionOpened(service string)
	ConnectionClosed(service string)
	// ConnectionRefused: reason is "total", "address" or "handshake".
	ConnectionRefused(service, reason string)
	ConnectionPanicked(service string)
}

type noMeter struct{}

func (noMeter) ConnectionOpened(string)          {}
func (noMeter) ConnectionClosed(string)          {}
func (noMeter) ConnectionRefused(string, string) {}
func (noMeter) ConnectionPanicked(string)        {}

const (
	refuseTime  = 2 * time.Second // for a refused client to take its words
	refuseSlots = 32              // refusals spoken at once; beyond that connections are just closed
)

// census counts open connections against Limits.
type census struct {
	limits Limits

	mu    sync.Mutex
	total int
	by    map[netip.Addr]int
}

type verdict int

const (
	admitted verdict = iota
	tooMany
	tooManyFromAddress
)

// key is what PerAddress counts: the address, or its /64 if it is IPv6; the zero Addr if it is not to be counted.
func (s *census) key(a netip.Addr) netip.Addr {
	if s.limits.PerAddress <= 0 || !a.IsValid() || s.limits.Exempt.Contains(a) {
		return netip.Addr{}
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return a
}

func (s *census) enter(a netip.Addr) verdict {
	k := s.key(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limits.Total > 0 && s.total >= s.limits.Total {
		return tooMany
	}
	if k.IsValid() {
		if s.by[k] >= s.limits.PerAddress {
			return tooManyFromAddress
		}
		if s.by == nil {
			s.by = make(map[netip.Addr]int)
		}
		s.by[k]++
	}
	s.total++
	return admitted
}

func (s *census) leave(a netip.Addr) {
	k := s.key(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if k.IsValid() {
		if s.by[k]--; s.by[k] <= 0 {
			delete(s.by, k)
		}
	}
}

// refuser speaks a few refusals at once, each in a goroutine of its own so that a client that does not read cannot hold up
// Accept.
type refuser struct {
	mu     sync.Mutex
	busy   int
	closed bool
	wg     sync.WaitGroup
}

// refuse says words to c, if there are any and not too many are being said already, and closes it.
func (r *refuser) refuse(c net.Conn, words func(net.Conn)) {
	r.mu.Lock()
	if words == nil || r.closed || r.busy >= refuseSlots {
		r.mu.Unlock()
		c.Close()
		return
	}
	r.busy++
	r.wg.Add(1)
	r.mu.Unlock()
	go func() {
		defer r.wg.Done()
		_ = c.SetDeadline(time.Now().Add(refuseTime)) // a connection that takes no deadline is not one of ours
		words(c)
		Hangup(c)
		r.mu.Lock()
		r.busy--
		r.mu.Unlock()
	}()
}

// close lets no new refusal begin; then wg can be waited for.
func (r *refuser) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
}

// Limit wraps a listener for servers that accept by themselves (net/http): connections over the limits are refused with
// refuse's words and never seen. Below a TLS listener refuse must be nil: the words would not be TLS. The words get two
// seconds; a listener's Close does not wait for them.
func Limit(l net.Listener, limits Limits, refuse func(c net.Conn, perAddress bool)) net.Listener {
	return &limited{Listener: l, census: census{limits: limits}, words: refuse}
}

type limited struct {
	net.Listener
	census census
	words  func(c net.Conn, perAddress bool)
	no     refuser
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a := PeerAddr(c)
		v := l.census.enter(a)
		if v == admitted {
			keepAlive(c)
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.census.leave(a) })}, nil
		}
		var words func(net.Conn)
		if l.words != nil {
			words = func(c net.Conn) { l.words(c, v == tooManyFromAddress) }
		}
		l.no.refuse(c, words)
	}
}

// counted is a connection that gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// NetConn is the connection below, as for tls.Conn.
func (c *counted) NetConn() net.Conn { return c.Conn }

// CloseWrite is TCP's half-close, which Hangup looks for.
func (c *counted) CloseWrite() error { return closeWrite(c.Conn) }

// keepAlive finds peers that are gone without a word, such as phones that left the network, in about three minutes.
func keepAlive(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		// An error leaves the system's setting, which only finds them later.
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: 90 * time.Second, Interval: 30 * time.Second, Count: 3,
		})
	}
}
