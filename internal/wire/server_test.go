package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose clients are net.Pipes with an address of their choice, so that tests run in a synctest bubble.
type pipes struct {
	ch     chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{ch: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

// dial connects from an address and returns the client's end.
func (l *pipes) dial(from string) net.Conn {
	client, server := net.Pipe()
	l.ch <- addressed{server, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 4711))}
	return client
}

type meter struct {
	mu  sync.Mutex
	got map[string]int
}

func (m *meter) count(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.got == nil {
		m.got = map[string]int{}
	}
	m.got[s]++
}
func (m *meter) ConnectionOpened(s string)     { m.count("opened " + s) }
func (m *meter) ConnectionClosed(s string)     { m.count("closed " + s) }
func (m *meter) ConnectionRefused(s, r string) { m.count("refused " + s + " " + r) }
func (m *meter) ConnectionPanicked(s string)   { m.count("panicked " + s) }

func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	return string(b)
}

func echo(_ context.Context, c net.Conn) { _, _ = io.Copy(c, c) }

func refuseWords(c net.Conn, perAddress bool) {
	if perAddress {
		_, _ = io.WriteString(c, "too many from you")
		return
	}
	_, _ = io.WriteString(c, "too many")
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newPipes(), &meter{}
		s := &Server{
			Name: "x", Handle: echo, Refuse: refuseWords, Meter: m,
			Limits: Limits{Total: 5, PerAddress: 2, Exempt: Networks{netip.MustParsePrefix("127.0.0.0/8")}},
		}
		go func() { _ = s.Serve(l) }()

		one, two := l.dial("192.0.2.1"), l.dial("::ffff:192.0.2.1")
		if got := readAll(t, l.dial("192.0.2.1")); got != "too many from you" {
			t.Errorf("third from one address: %q", got)
		}
		l.dial("127.0.0.1") // exempt from the limit for one address
		l.dial("127.0.0.1")
		l.dial("127.0.0.1")
		if got := readAll(t, l.dial("127.0.0.1")); got != "too many" {
			t.Errorf("sixth in all, exempt: %q", got)
		}
		one.Close()
		two.Close()
		synctest.Wait()
		l.dial("2001:db8::1")
		l.dial("2001:db8::2")
		synctest.Wait()
		if n := s.Connections(); n != 5 {
			t.Errorf("%d connections, want 5", n)
		}
		if got := readAll(t, l.dial("2001:db8::3")); got != "too many" {
			t.Errorf("over the total: %q", got)
		}
		_ = s.Close()
		synctest.Wait()
		if m.got["opened x"] != 7 || m.got["closed x"] != 7 || m.got["refused x address"] != 1 || m.got["refused x total"] != 2 {
			t.Errorf("meter: %v", m.got)
		}
		if len(s.census.by) != 0 || s.census.total != 0 {
			t.Errorf("places not given back: %v %d", s.census.by, s.census.total)
		}
	})
}

func TestPerAddressCountsIPv6Networks(t *testing.T) {
	s := census{limits: Limits{PerAddress: 1}}
	for _, c := range []struct {
		addr string
		want verdict
	}{
		{"2001:db8::1", admitted}, {"2001:db8::ffff:2", tooManyFromAddress}, {"2001:db8:0:1::1", admitted},
		{"192.0.2.1", admitted}, {"192.0.2.2", admitted}, {"::ffff:192.0.2.2", tooManyFromAddress},
	} {
		if got := s.enter(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: %v, want %v", c.addr, got, c.want)
		}
	}
	for range 3 {
		if got := s.enter(netip.Addr{}); got != admitted {
			t.Error("a peer without an address was counted")
		}
	}
}

// A refused client that neither reads nor closes must not hold up the next one.
func TestRefusalBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := &Server{Handle: echo, Refuse: refuseWords, Limits: Limits{PerAddress: 1}}
		go func() { _ = s.Serve(l) }()
		l.dial("192.0.2.1")
		for range 3 * refuseSlots {
			l.dial("192.0.2.1") // never reads
		}
		c := l.dial("192.0.2.2")
		go func() { _, _ = c.Write([]byte("hi")) }()
		b := make([]byte, 2)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi" {
			t.Fatalf("%q, %v", b, err)
		}
		c.Close()
		_ = s.Close()
		_ = s.Shutdown(t.Context()) // waits for the refusals' two seconds
	})
}

func TestPanicStaysWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		l, m := newPipes(), &meter{}
		s := &Server{Name: "x", Meter: m, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
			Handle: func(ctx context.Context, c net.Conn) {
				b := make([]byte, 1)
				_, _ = c.Read(b)
				if b[0] == '!' {
					explode()
				}
				_, _ = c.Write(b)
			}}
		go func() { _ = s.Serve(l) }()
		good, bad := l.dial("192.0.2.1"), l.dial("192.0.2.2")
		_, _ = bad.Write([]byte("!"))
		if got := readAll(t, bad); got != "" {
			t.Errorf("got %q", got)
		}
		_, _ = good.Write([]byte("a"))
		if got := readAll(t, good); got != "a" {
			t.Errorf("the other connection: %q", got)
		}
		synctest.Wait()
		if out := logged.String(); !strings.Contains(out, "explode") || !strings.Contains(out, "192.0.2.2") {
			t.Errorf("no stack or no peer in the log: %s", out)
		}
		if m.got["panicked x"] != 1 || m.got["closed x"] != 2 {
			t.Errorf("meter: %v", m.got)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func explode() { panic("boom") }

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l1, l2 := newPipes(), newPipes()
		release := make(chan struct{})
		s := &Server{Handle: func(ctx context.Context, c net.Conn) {
			<-ctx.Done()
			<-release
			_, _ = io.WriteString(c, "bye")
		}}
		errs := make(chan error, 2)
		go func() { errs <- s.Serve(l1) }()
		go func() { errs <- s.Serve(l2) }()
		c := l1.dial("192.0.2.1")
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Shutdown with a handler that does not end: %v", err)
		}
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve: %v", err)
			}
		}
		close(release)
		if got := readAll(t, c); got != "bye" {
			t.Errorf("got %q", got)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("second Shutdown: %v", err)
		}
		if err := s.Serve(newPipes()); !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}

func TestCloseCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := &Server{Handle: echo}
		go func() { _ = s.Serve(l) }()
		c := l.dial("192.0.2.1")
		synctest.Wait()
		_ = s.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
		// The bubble fails the test if the handler's goroutine does not end.
	})
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := &Server{Handle: echo}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		start := time.Now()
		for range 12 {
			l.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		c := l.dial("192.0.2.1")
		if waited := time.Since(start); waited < 3*time.Second || waited > 10*time.Second {
			t.Errorf("12 failures were waited out in %v", waited)
		}
		c.Close()
		broken := errors.New("broken")
		l.errs <- broken
		if err := <-served; !errors.Is(err, broken) {
			t.Errorf("a lasting error: %v", err)
		}
		// Shutdown does not wait for a pause to end.
		l = newPipes()
		go func() { served <- s.Serve(l) }()
		l.errs <- syscall.ENFILE
		synctest.Wait()
		start = time.Now()
		_ = s.Shutdown(t.Context())
		if err := <-served; !errors.Is(err, ErrServerClosed) || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "t"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// Half-open TLS, on real sockets: many connections that never say hello, and one that is served nevertheless.
func TestHalfOpenTLSBlocksNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Name: "x", TLS: certificate(t), Handle: echo, Refuse: refuseWords, Limits: Limits{Total: 21}}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for i := range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = c.Write([]byte{22, 3, 1}) // the first bytes of a ClientHello
		}
	}
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 2)
	if _, err := c.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi" {
		t.Fatalf("%q, %v", b, err)
	}
	// One over the total: its words come in TLS.
	over, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if got := readAll(t, over); got != "too many" {
		t.Errorf("refused in TLS with %q", got)
	}
	// Shutdown cuts the handshakes at once; the one that is served is waited for.
	over.Close()
	c.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
}

func TestSlowHandshakeIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newPipes(), &meter{}
		s := &Server{Name: "x", TLS: &tls.Config{}, Handle: echo, Meter: m}
		go func() { _ = s.Serve(l) }()
		start := time.Now()
		c := l.dial("192.0.2.1")
		if got := readAll(t, c); got != "" {
			t.Errorf("got %q", got)
		}
		if d := time.Since(start); d != 15*time.Second {
			t.Errorf("cut after %v", d)
		}
		synctest.Wait()
		if m.got["refused x handshake"] != 1 {
			t.Errorf("meter: %v", m.got)
		}
		_ = s.Close()
	})
}

func TestLimitListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(inner, Limits{Total: 1}, refuseWords)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	over := dial()
	// What the refused client sends unasked must not cost it the words (a reset would).
	_, _ = over.Write([]byte("EHLO me\r\n"))
	if got := readAll(t, over); got != "too many" {
		t.Errorf("got %q", got)
	}
	first.Close()
	first.Close() // gives one place back, not two
	dial()
	second := <-accepted
	if got := readAll(t, dial()); got != "too many" {
		t.Errorf("after one was closed twice: %q", got)
	}
	second.Close()
	l.Close()
	if _, open := <-accepted; open {
		t.Error("accepted after Close")
	}
}

func TestNetworks(t *testing.T) {
	n := Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	for a, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "fe80::1%eth0": true, "::1": false,
	} {
		if got := n.Contains(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
	if n.Contains(netip.Addr{}) {
		t.Error("contains no address")
	}
}
