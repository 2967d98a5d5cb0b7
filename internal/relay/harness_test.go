package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/queue"
	"mailsrv/internal/resolve"
)

// stream is one direction of a connection in memory, with room for everything, as a test in a synctest bubble wants it.
type stream struct {
	mu       sync.Mutex
	cond     *sync.Cond
	buf      []byte
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

func newStream() *stream { s := &stream{}; s.cond = sync.NewCond(&s.mu); return s }

func (s *stream) expired() bool { return !s.deadline.IsZero() && !time.Now().Before(s.deadline) }

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 || s.expired() {
		switch {
		case s.expired():
			return 0, os.ErrDeadlineExceeded
		case s.closed:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	s.buf = append(s.buf, p...)
	s.cond.Broadcast()
	return len(p), nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.cond.Broadcast()
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.timer != nil {
		s.timer.Stop()
	}
	if !t.IsZero() && !s.closed {
		s.timer = time.AfterFunc(time.Until(t), s.cond.Broadcast)
	}
	s.cond.Broadcast()
}

// memConn is one end.
type memConn struct {
	in, out       *stream
	local, remote net.Addr
	stuck         bool // writes block until their deadline: the other side takes nothing
	wmu           sync.Mutex
	wdeadline     time.Time
}

func (c *memConn) Read(p []byte) (int, error) { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error) {
	if c.stuck {
		c.wmu.Lock()
		d := time.Until(c.wdeadline)
		c.wmu.Unlock()
		time.Sleep(d)
		return 0, os.ErrDeadlineExceeded
	}
	return c.out.write(p)
}
func (c *memConn) Close() error                       { c.in.close(); c.out.close(); return nil }
func (c *memConn) LocalAddr() net.Addr                { return c.local }
func (c *memConn) RemoteAddr() net.Addr               { return c.remote }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { return nil }
func (c *memConn) SetDeadline(t time.Time) error {
	c.wmu.Lock()
	c.wdeadline = t
	c.wmu.Unlock()
	c.in.setDeadline(t)
	return nil
}

// world is an internet in memory: names, and servers behind addresses.
type world struct {
	over    bool // no connections any more
	t       *testing.T
	dns     *names
	ca      *authority
	mu      sync.Mutex
	servers map[netip.AddrPort]func(c net.Conn)
	dialled []string
	wg      sync.WaitGroup
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dns: newNames(), ca: newAuthority(t, "test CA"), servers: map[netip.AddrPort]func(net.Conn){}}
}

// serve puts a server behind "ip" (port 25) or "ip:port".
func (w *world) serve(at string, handle func(c net.Conn)) {
	if !strings.Contains(at, ":") || strings.HasPrefix(at, "2001:") {
		at = net.JoinHostPort(at, "25")
	}
	w.servers[netip.MustParseAddrPort(at)] = handle
}

func (w *world) dial(ctx context.Context, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialled = append(w.dialled, to.String())
	handle := w.servers[to]
	if handle == nil || w.over {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	if !local.IsValid() {
		local = netip.MustParseAddr("198.51.100.1")
	}
	a, b := newStream(), newStream()
	here := net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 4711))
	there := net.TCPAddrFromAddrPort(to)
	client := &memConn{in: a, out: b, local: here, remote: there}
	server := &memConn{in: b, out: a, local: there, remote: here}
	w.wg.Go(func() {
		defer server.Close()
		handle(server)
	})
	return client, nil
}

// end waits for the servers. net/http may still be dialling for a request that was given up: from now on in vain.
func (w *world) end() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.wg.Wait()
}

// relay makes a Relay in this world, closed with the test. The order of equals is that of the records.
func (w *world) relay(change func(o *Options)) *Relay {
	o := Options{Hostname: "us.test", Resolver: w.dns, Roots: w.ca.pool, Dial: w.dial}
	if change != nil {
		change(&o)
	}
	r := New(o)
	r.shuffle = func(int, func(i, j int)) {}
	w.t.Cleanup(func() {
		r.Close()
		w.end()
	})
	return r
}

// names is a resolve.Resolver of records.
type names struct {
	mu     sync.Mutex
	mx     map[string][]resolve.MX
	addr   map[string][]netip.Addr
	txt    map[string][]string
	tlsa   map[string][]resolve.TLSA
	alias  map[string]string
	fail   map[string]bool // "MX name"
	secure bool
}

func newNames() *names {
	return &names{mx: map[string][]resolve.MX{}, addr: map[string][]netip.Addr{}, txt: map[string][]string{},
		tlsa: map[string][]resolve.TLSA{}, alias: map[string]string{}, fail: map[string]bool{}}
}

// host gives a name addresses.
func (n *names) host(name string, addrs ...string) {
	for _, a := range addrs {
		n.addr[name] = append(n.addr[name], netip.MustParseAddr(a))
	}
}

// exchange gives a domain an MX with one address.
func (n *names) exchange(domain string, preference uint16, host string, addrs ...string) {
	n.mx[domain] = append(n.mx[domain], resolve.MX{Preference: preference, Host: host})
	n.host(host, addrs...)
}

func record[T any](n *names, kind, name string, all map[string][]T) (resolve.Answer[T], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	end := name
	if to := n.alias[name]; to != "" {
		end = to
	}
	a := resolve.Answer[T]{Records: slices.Clone(all[end]), Secure: n.secure, TTL: time.Minute, Name: end}
	if n.fail[kind+" "+name] {
		return a, fmt.Errorf("%s %s: %w", name, kind, resolve.ErrTemporary)
	}
	if len(a.Records) == 0 {
		return a, fmt.Errorf("%s %s: %w", name, kind, resolve.ErrNotFound)
	}
	return a, nil
}

func (n *names) MX(_ context.Context, name string) (resolve.Answer[resolve.MX], error) {
	return record(n, "MX", name, n.mx)
}
func (n *names) Addresses(_ context.Context, name string) (resolve.Answer[netip.Addr], error) {
	return record(n, "A", name, n.addr)
}
func (n *names) TXT(_ context.Context, name string) (resolve.Answer[string], error) {
	return record(n, "TXT", name, n.txt)
}
func (n *names) TLSA(_ context.Context, name string) (resolve.Answer[resolve.TLSA], error) {
	return record(n, "TLSA", name, n.tlsa)
}
func (n *names) PTR(context.Context, netip.Addr) (resolve.Answer[string], error) {
	return resolve.Answer[string]{}, resolve.ErrNotFound
}

// authority makes certificates, valid for a year around the bubble's time.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB, name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue makes a certificate with its chain; until is how long from now it is valid.
func (a *authority) issue(until time.Duration, names ...string) tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().Add(until)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

// script plays a server from a transcript, a line each:
//
//	S: 220 hello       say a line; \r \n \0 \xNN as in Go
//	S+ 250 hal         say it without a line end
//	C: EHLO us.test    expect a line
//	C* RCPT TO:        expect a line that begins so
//	D: text\r\n        expect exactly this up to the final dot, stuffed
//	N: 4096            expect as many octets, whatever they are
//	W: 5m              wait
//	T: old             go over to TLS; of 1999
//	X:                 close
//
// At its end the connection is closed, after QUIT if the client says so.
func (w *world) script(cert *tls.Certificate, text string) func(net.Conn) {
	return func(c net.Conn) {
		p := &player{w: w, c: c, br: bufio.NewReader(c), cert: cert}
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !p.step(line[:2], strings.TrimPrefix(line[2:], " ")) {
				return
			}
		}
		if line, err := p.br.ReadString('\n'); err == nil && line != "QUIT\r\n" {
			w.t.Errorf("after the script: %q", line)
		} else if err == nil {
			_, _ = io.WriteString(p.c, "221 bye\r\n")
		}
	}
}

type player struct {
	w    *world
	c    net.Conn
	br   *bufio.Reader
	cert *tls.Certificate
}

func unquote(s string) string {
	return strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00", `\xff`, "\xff", `\xe4`, "\xe4").Replace(s)
}

// step reports whether to go on.
func (p *player) step(kind, arg string) bool {
	switch kind {
	case "S:":
		_, _ = io.WriteString(p.c, unquote(arg)+"\r\n")
	case "S+":
		_, _ = io.WriteString(p.c, unquote(arg))
	case "C:", "C*":
		got, err := p.br.ReadString('\n')
		if want := unquote(arg); err != nil || kind == "C:" && got != want+"\r\n" || !strings.HasPrefix(got, want) {
			p.w.t.Errorf("server: got %q, %v; want %q", got, err, want)
			return false
		}
	case "D:":
		var got bytes.Buffer
		for !strings.HasSuffix("\r\n"+got.String(), "\r\n.\r\n") {
			line, err := p.br.ReadString('\n')
			got.WriteString(line)
			if err != nil {
				p.w.t.Errorf("server: data %q: %v", got.String(), err)
				return false
			}
		}
		if data := strings.TrimSuffix(got.String(), ".\r\n"); arg != "*" && data != unquote(arg) {
			p.w.t.Errorf("server: data %q, want %q", data, unquote(arg))
		}
	case "N:":
		var n int64
		_, _ = fmt.Sscan(arg, &n)
		if _, err := io.CopyN(io.Discard, p.br, n); err != nil {
			p.w.t.Errorf("server: %d octets: %v", n, err)
			return false
		}
	case "W:":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
	case "T:":
		conf := &tls.Config{Certificates: []tls.Certificate{*p.cert}}
		if arg == "old" {
			conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
			conf.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}
		tc := tls.Server(p.c, conf)
		if err := tc.Handshake(); err != nil {
			return false // the client does not like us: its outcome says why
		}
		p.c, p.br = tc, bufio.NewReader(tc)
	case "X:":
		return false
	default:
		p.w.t.Errorf("script: %q", kind)
	}
	return true
}

// mail is a message to some, from a@us.test unless changed.
func mail(text string, to ...string) *queue.Outgoing {
	m := &queue.Outgoing{ID: "Q1", Sender: "a@us.test", Message: strings.NewReader(text), Size: int64(len(text)), Body: "7BIT"}
	for _, a := range to {
		m.Recipients = append(m.Recipients, queue.Recipient{Address: a})
	}
	return m
}

const hi = "Subject: hi\r\n\r\nhi\r\n"

// try attempts m to its first recipient's destination.
func try(t *testing.T, r *Relay, m *queue.Outgoing) []queue.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	defer cancel()
	out := r.Attempt(ctx, r.Destination(m.Sender, m.Recipients[0].Address), m)
	if len(out) != len(m.Recipients) {
		t.Fatalf("%d outcomes for %d recipients", len(out), len(m.Recipients))
	}
	return out
}

// brief is an outcome in a line: "delivered 250 2.0.0 text".
func brief(o queue.Outcome) string {
	v := map[queue.Verdict]string{queue.Deferred: "deferred", queue.Delivered: "delivered", queue.Failed: "failed"}[o.Verdict]
	return strings.TrimSpace(fmt.Sprintf("%s %d %s %s", v, o.Code, o.Status, o.Text))
}

func want(t *testing.T, o queue.Outcome, prefix string) {
	t.Helper()
	if got := brief(o); !strings.HasPrefix(got, prefix) {
		t.Errorf("outcome %q, want %q …", got, prefix)
	}
}

type ctxType = context.Context

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

type (
	addrType     = netip.Addr
	addrPortType = netip.AddrPort
)

func itoaPort(p uint16) string { return fmt.Sprint(p) }
func hexOf(b []byte) string    { return fmt.Sprintf("%x", b) }
