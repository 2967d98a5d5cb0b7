package resolve

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Options of a Client. The zero asks the servers of /etc/resolv.conf.
type Options struct {
	Server  string // "ip:port"; "" is the system's
	Trusted bool   // believe the servers' AD bit though they are not on loopback: the way to them is safe
	// Timeout is for one question to one server; 0 is 5 s, or what resolv.conf says. Tries is how often each server is asked;
	// 0 is 2, or what resolv.conf says.
	Timeout time.Duration
	Tries   int
	// Cache is the number of answers kept; 0 is 10,000, negative none.
	Cache int
	// ResolvConf is for tests; "" is /etc/resolv.conf. It is read again when an answer is needed and a minute has passed.
	ResolvConf string
	Now        func() time.Time // for the cache; nil is time.Now
}

// Bounds on what is believed about time, and on answers.
const (
	maxTTL         = 24 * time.Hour
	maxNegativeTTL = 15 * time.Minute
	// failureTTL is for answers like SERVFAIL (RFC 9520 section 3.2: at least a second, at most five minutes): a thousand
	// queued messages ask once.
	failureTTL = 5 * time.Second
	udpSize    = 1232 // octets that pass everywhere unfragmented
	maxRecords = 256  // of one answer
	maxChain   = 10   // CNAMEs
	reread     = time.Minute
)

// Client asks recursive resolvers over UDP, and TCP where the answer does not fit. It implements [Resolver]. Answers are cached,
// negative ones too, and the same question is asked once however many wait for it.
type Client struct {
	o     Options
	cache *cache

	mu      sync.Mutex
	servers []string
	timeout time.Duration
	tries   int
	readAt  time.Time
	flights map[question]*flight
}

// New makes a Client. It fails if Server is no "ip:port"; a resolv.conf that cannot be read means the resolver on this machine.
func New(o Options) (*Client, error) {
	if o.Server != "" {
		if _, err := netip.ParseAddrPort(o.Server); err != nil {
			return nil, fmt.Errorf("DNS server %q: %w", o.Server, err)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Cache == 0 {
		o.Cache = 10_000
	}
	return &Client{o: o, cache: newCache(o.Cache), flights: map[question]*flight{}}, nil
}

// config returns whom to ask and how.
func (c *Client) config() (servers []string, timeout time.Duration, tries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.o.Now(); c.servers == nil || c.o.Server == "" && now.Sub(c.readAt) > reread {
		c.readAt = now
		c.configure()
	}
	return c.servers, c.timeout, c.tries
}

func (c *Client) configure() {
	c.servers, c.timeout, c.tries = []string{c.o.Server}, 5*time.Second, 2
	if c.o.Server == "" {
		file := c.o.ResolvConf
		if file == "" {
			file = "/etc/resolv.conf"
		}
		c.servers = []string{"127.0.0.1:53"} // resolv.conf(5): without a nameserver line
		if conf, err := dns.ClientConfigFromFile(file); err == nil && len(conf.Servers) > 0 {
			c.servers = nil
			for _, s := range conf.Servers[:min(len(conf.Servers), 3)] {
				c.servers = append(c.servers, joinPort(s, conf.Port))
			}
			c.timeout = time.Duration(conf.Timeout) * time.Second
			c.tries = conf.Attempts
		}
	}
	if c.o.Timeout > 0 {
		c.timeout = c.o.Timeout
	}
	if c.o.Tries > 0 {
		c.tries = c.o.Tries
	}
}

func joinPort(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}

// trusted reports whether a server's AD bit counts: nobody can be between us and it.
func (c *Client) trusted(server string) bool {
	if c.o.Trusted {
		return true
	}
	a, err := netip.ParseAddrPort(server)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

type question struct {
	name string // lower case, with the final dot
	kind uint16
}

// answer is what came back, or what is known of there being nothing.
type answer struct {
	records []dns.RR // of the kind that was asked, of the name at the end of the chain
	name    string
	secure  bool
	ttl     time.Duration // when it was fetched
	until   time.Time     // cached; zero if not
	err     error
}

// flight is a question being asked.
type flight struct {
	done   chan struct{}
	answer *answer
}

// ask returns the answer, from the cache if there is one. The answer is shared: its records must not be changed.
func (c *Client) ask(ctx context.Context, name string, kind uint16) (*answer, error) {
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return nil, fmt.Errorf("%.100q is no name: %w", name, ErrNotFound)
	}
	q := question{strings.ToLower(dns.Fqdn(name)), kind}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%s %s: %w: %w", name, dns.TypeToString[kind], ErrTemporary, err)
		}
		c.mu.Lock()
		if a := c.cache.get(q, c.o.Now()); a != nil {
			c.mu.Unlock()
			return a, a.err
		}
		f := c.flights[q]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[q] = f
			c.mu.Unlock()
			return c.fly(ctx, q, f)
		}
		c.mu.Unlock()
		select {
		case <-f.done:
			if f.answer != nil {
				return f.answer, f.answer.err
			} // else who asked gave up: ask oneself
		case <-ctx.Done():
		}
	}
}

// fly asks, and tells the others who wait. A question that was given up has no answer to share.
func (c *Client) fly(ctx context.Context, q question, f *flight) (*answer, error) {
	a := c.exchange(ctx, q)
	c.mu.Lock()
	delete(c.flights, q)
	if ctx.Err() == nil || a.err == nil {
		f.answer = a
		if a.ttl > 0 {
			a.until = c.o.Now().Add(a.ttl)
			c.cache.put(q, a)
		}
	}
	c.mu.Unlock()
	close(f.done)
	return a, a.err
}

// exchange asks each server in turn until one knows.
func (c *Client) exchange(ctx context.Context, q question) *answer {
	servers, timeout, tries := c.config()
	var last error
	for range tries {
		for _, server := range servers {
			reply, err := exchangeOne(ctx, q, server, timeout)
			if err == nil {
				return c.read(q, reply, c.trusted(server))
			}
			if last = err; ctx.Err() != nil {
				break
			}
		}
	}
	return &answer{ttl: failureTTL, err: fmt.Errorf("%s %s: %w: %w", unfqdn(q.name), dns.TypeToString[q.kind], ErrTemporary, last)}
}

// exchangeOne asks one server once. Answers other than NOERROR and NXDOMAIN are errors: another server may know better.
func exchangeOne(ctx context.Context, q question, server string, timeout time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m := new(dns.Msg).SetQuestion(q.name, q.kind)
	m.SetEdns0(udpSize, false)
	m.AuthenticatedData = true // RFC 6840 section 5.7: we understand AD
	reply, err := over(ctx, "udp", m, server)
	if err == nil && reply.Rcode == dns.RcodeFormatError && reply.IsEdns0() == nil {
		m.Extra = nil // a server from before EDNS
		reply, err = over(ctx, "udp", m, server)
	}
	if reply != nil && reply.Truncated || errors.Is(err, dns.ErrBuf) {
		reply, err = over(ctx, "tcp", m, server)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", server, err)
	case !reply.Response || len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, q.name) ||
		reply.Question[0].Qtype != q.kind || reply.Question[0].Qclass != dns.ClassINET:
		return nil, fmt.Errorf("%s: answers another question", server)
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("%s: %s", server, dns.RcodeToString[reply.Rcode])
	}
	return reply, nil
}

// over asks over a connection of its own, from a fresh random port. The library minds ctx's deadline; an end before that it does
// not notice by itself.
func over(ctx context.Context, network string, m *dns.Msg, server string) (*dns.Msg, error) {
	c := dns.Client{Net: network, UDPSize: udpSize}
	if end, ok := ctx.Deadline(); ok {
		c.Timeout = time.Until(end) // else the library has an idea of its own
	}
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	reply, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return reply, err
}

// read takes the records out of a reply, along its CNAMEs.
func (c *Client) read(q question, reply *dns.Msg, trusted bool) *answer {
	a := &answer{name: q.name, secure: reply.AuthenticatedData && trusted, ttl: maxTTL}
	for range maxChain {
		next := ""
		for _, rr := range reply.Answer[:min(len(reply.Answer), maxRecords)] {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, a.name) {
				continue
			}
			ttl := time.Duration(min(h.Ttl, math.MaxInt32)) * time.Second
			if alias, ok := rr.(*dns.CNAME); ok && q.kind != dns.TypeCNAME {
				next = strings.ToLower(alias.Target)
				a.ttl = min(a.ttl, ttl)
			} else if h.Rrtype == q.kind {
				a.records = append(a.records, rr)
				a.ttl = min(a.ttl, ttl)
			}
		}
		if next == "" || len(a.records) > 0 {
			break
		}
		a.name = next
	}
	if len(a.records) == 0 {
		a.ttl = min(a.ttl, negativeTTL(reply))
		a.err = fmt.Errorf("%s %s: %w", unfqdn(q.name), dns.TypeToString[q.kind], ErrNotFound)
	}
	return a
}

// negativeTTL is RFC 2308 section 5's; a minute if the reply does not say.
func negativeTTL(reply *dns.Msg) time.Duration {
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second, maxNegativeTTL)
		}
	}
	return time.Minute
}

func unfqdn(name string) string { return strings.TrimSuffix(name, ".") }

// look asks and converts each record; what pick refuses is left out.
func look[T any](ctx context.Context, c *Client, name string, kind uint16, pick func(dns.RR) (T, bool)) (Answer[T], error) {
	a, err := c.ask(ctx, name, kind)
	if a == nil {
		return Answer[T]{Name: name}, err
	}
	out := Answer[T]{Secure: a.secure, TTL: a.ttl, Name: unfqdn(a.name)}
	if !a.until.IsZero() {
		out.TTL = max(0, a.until.Sub(c.o.Now()))
	}
	for _, rr := range a.records {
		if v, ok := pick(rr); ok {
			out.Records = append(out.Records, v)
		}
	}
	return out, err
}

// MX is Resolver's. The order is the DNS's, not by preference.
func (c *Client) MX(ctx context.Context, name string) (Answer[MX], error) {
	return look(ctx, c, name, dns.TypeMX, func(rr dns.RR) (MX, bool) {
		mx := rr.(*dns.MX)
		return MX{mx.Preference, strings.ToLower(unfqdn(mx.Mx))}, true
	})
}

// Addresses is Resolver's. It is an error only if neither kind of address is there; temporary if that is not certain. Secure
// means that all that is returned is. localhost is this machine, without asking (RFC 6761 section 6.3).
func (c *Client) Addresses(ctx context.Context, name string) (Answer[netip.Addr], error) {
	if n := strings.ToLower(unfqdn(name)); n == "localhost" || strings.HasSuffix(n, ".localhost") {
		return Answer[netip.Addr]{Records: []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Name: n}, nil
	}
	var six Answer[netip.Addr]
	var err6 error
	done := make(chan struct{})
	go func() { // ends with ctx at the latest; waited for below
		defer close(done)
		six, err6 = look(ctx, c, name, dns.TypeAAAA, func(rr dns.RR) (netip.Addr, bool) {
			return netip.AddrFromSlice(rr.(*dns.AAAA).AAAA.To16())
		})
	}()
	four, err4 := look(ctx, c, name, dns.TypeA, func(rr dns.RR) (netip.Addr, bool) {
		return netip.AddrFromSlice(rr.(*dns.A).A.To4())
	})
	<-done
	switch {
	case err4 == nil && err6 == nil:
		return Answer[netip.Addr]{
			Records: slices.Concat(six.Records, four.Records), Secure: four.Secure && six.Secure,
			TTL: min(four.TTL, six.TTL), Name: four.Name,
		}, nil
	case err4 == nil:
		return four, nil
	case err6 == nil:
		return six, nil
	case errors.Is(err6, ErrTemporary):
		return six, err6
	}
	four.Secure = four.Secure && six.Secure
	return four, err4
}

// TXT is Resolver's.
func (c *Client) TXT(ctx context.Context, name string) (Answer[string], error) {
	return look(ctx, c, name, dns.TypeTXT, func(rr dns.RR) (string, bool) {
		return unescape(strings.Join(rr.(*dns.TXT).Txt, "")), true
	})
}

// unescape undoes the library's presentation form of bytes: \" \\ \DDD.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b = append(b, s[i])
		case i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]):
			b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+(s[i+3]-'0'))
			i += 3
		default:
			b = append(b, s[i+1])
			i++
		}
	}
	return string(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// TLSA is Resolver's.
func (c *Client) TLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return look(ctx, c, name, dns.TypeTLSA, func(rr dns.RR) (TLSA, bool) {
		r := rr.(*dns.TLSA)
		data, err := hex.DecodeString(r.Certificate)
		return TLSA{r.Usage, r.Selector, r.MatchingType, data}, err == nil
	})
}

// PTR is Resolver's.
func (c *Client) PTR(ctx context.Context, addr netip.Addr) (Answer[string], error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return Answer[string]{}, fmt.Errorf("%v: %w", addr, ErrNotFound)
	}
	return look(ctx, c, name, dns.TypePTR, func(rr dns.RR) (string, bool) {
		return strings.ToLower(unfqdn(rr.(*dns.PTR).Ptr)), true
	})
}
