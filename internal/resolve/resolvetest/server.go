// Package resolvetest is a DNS server on loopback for tests: a recursive resolver's answers, made of records that the test
// writes, with AD bits, failures and silence on demand.
package resolvetest

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Server answers over UDP and TCP on one port. All methods may be called while it serves.
type Server struct {
	addr string
	udp  *dns.Server
	tcp  *dns.Server

	mu      sync.Mutex
	records map[string][]dns.RR // by name, lower case, with final dot
	secure  map[string]bool     // names whose answers have the AD bit
	rcodes  map[string]int      // by "name type" or "name": the answer's code
	silent  map[string]bool     // no answer
	short   map[string]bool     // truncated over UDP
	noEDNS  bool
	asked   map[string]int // "name type net" → how often
}

// New starts a Server on a free port of 127.0.0.1; it ends with the test.
func New(t testing.TB) *Server { return NewAt(t, "127.0.0.1:0") }

// NewAt starts a Server at an address of this machine.
func NewAt(t testing.TB, addr string) *Server {
	t.Helper()
	s := &Server{
		records: map[string][]dns.RR{}, secure: map[string]bool{}, rcodes: map[string]int{},
		silent: map[string]bool{}, short: map[string]bool{}, asked: map[string]int{},
	}
	pc, l := listen(t, addr)
	s.addr = pc.LocalAddr().String()
	s.udp = &dns.Server{PacketConn: pc, Handler: s.handler("udp")}
	s.tcp = &dns.Server{Listener: l, Handler: s.handler("tcp")}
	var wg sync.WaitGroup
	for _, server := range []*dns.Server{s.udp, s.tcp} {
		ready := make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		wg.Go(func() { _ = server.ActivateAndServe() }) // ends with Shutdown
		<-ready
	}
	t.Cleanup(func() {
		_ = s.udp.Shutdown()
		_ = s.tcp.Shutdown()
		wg.Wait()
	})
	return s
}

// listen finds a port that is free for both.
func listen(t testing.TB, addr string) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port for a DNS server")
	return nil, nil
}

// Addr is "127.0.0.1:port": [dns] server, resolve.Options.Server.
func (s *Server) Addr() string { return s.addr }

// Add adds records as in a zone file, with full names: "partner.test. 300 IN MX 10 mx.partner.test." It panics on one that is
// none.
func (s *Server) Add(records ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil || rr == nil {
			panic("no record: " + text)
		}
		name := strings.ToLower(rr.Header().Name)
		s.records[name] = append(s.records[name], rr)
	}
}

// AddPTR gives an address a name.
func (s *Server) AddPTR(addr netip.Addr, name string) {
	reverse, err := dns.ReverseAddr(addr.String())
	if err != nil {
		panic(err)
	}
	s.Add(reverse + " 300 IN PTR " + dns.Fqdn(name))
}

// Remove drops all records of a name.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, key(name))
}

// Secure sets the AD bit of answers for names. An answer over a CNAME has it if all its names have.
func (s *Server) Secure(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.secure[key(n)] = true
	}
}

// Fail has questions for a name answered with a code such as dns.RcodeServerFailure; kind is a type such as "MX", "" for all.
// dns.RcodeSuccess ends it.
func (s *Server) Fail(name, kind string, rcode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rcode == dns.RcodeSuccess {
		delete(s.rcodes, key(name)+kind)
		return
	}
	s.rcodes[key(name)+kind] = rcode
}

// Silence leaves questions for a name unanswered.
func (s *Server) Silence(name string, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[key(name)] = silent
}

// Truncate has the client come back over TCP for a name.
func (s *Server) Truncate(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short[key(name)] = true
}

// NoEDNS has questions with EDNS answered FORMERR, as very old servers do.
func (s *Server) NoEDNS() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noEDNS = true
}

// Asked is how often a question came, over "udp" or "tcp".
func (s *Server) Asked(name, kind, network string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key(name)+kind+network]
}

func key(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func (s *Server) handler(network string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		if reply := s.reply(q, network); reply != nil {
			_ = w.WriteMsg(reply) // a client that is gone
		}
	}
}

func (s *Server) reply(q *dns.Msg, network string) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(q.Question) != 1 {
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
	}
	name, kind := key(q.Question[0].Name), q.Question[0].Qtype
	s.asked[name+dns.TypeToString[kind]+network]++
	if s.silent[name] {
		return nil
	}
	for _, k := range []string{name + dns.TypeToString[kind], name} {
		if code, ok := s.rcodes[k]; ok {
			return new(dns.Msg).SetRcode(q, code)
		}
	}
	if s.noEDNS && q.IsEdns0() != nil {
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
	}
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	m.AuthenticatedData = s.answer(m, name, kind)
	if network == "udp" && s.short[name] {
		m.Truncated, m.Answer = true, nil
	}
	return m
}

// answer follows CNAMEs, and reports whether all names are secure.
func (s *Server) answer(m *dns.Msg, name string, kind uint16) (secure bool) {
	secure = true
	for range 20 {
		secure = secure && s.secure[name]
		next := ""
		found := false
		for _, rr := range s.records[name] {
			if rr.Header().Rrtype == kind {
				m.Answer = append(m.Answer, dns.Copy(rr))
				found = true
			} else if c, ok := rr.(*dns.CNAME); ok {
				m.Answer = append(m.Answer, dns.Copy(rr))
				next = key(c.Target)
			}
		}
		if found || next == "" {
			break
		}
		name = next
	}
	if len(s.records[name]) == 0 {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 || m.Rcode != dns.RcodeSuccess {
		for _, rr := range s.records["."] { // a SOA for negative answers, if the test wrote one
			if rr.Header().Rrtype == dns.TypeSOA {
				m.Ns = append(m.Ns, dns.Copy(rr))
			}
		}
	}
	return secure
}
