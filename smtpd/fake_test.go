package smtpd

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
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// fakePost knows alice, bob and carol @example.test; full@ has no room, late@ has none once the message is there, and
// panic@ is a bug.
type fakePost struct {
	mu        sync.Mutex
	delivered []letter
	open      int // spools begun and not closed
	room      error
	hold      chan struct{} // if set, Deliver waits for it
}

type letter struct {
	env  delivery.Envelope
	text string
}

func (p *fakePost) Room(int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.room != nil {
		return delivery.Refusal(p.room)
	}
	return nil
}

func (p *fakePost) CheckSender(_ context.Context, env *delivery.Envelope, size int64) error {
	if env.Sender != "" {
		if err := p.CheckFrom(env, env.Sender); err != nil {
			return err
		}
	}
	return p.Room(size)
}

func (p *fakePost) CheckFrom(env *delivery.Envelope, address string) error {
	if env.Origin.Account == "" || strings.EqualFold(env.Origin.Account, address) {
		return nil
	}
	return &delivery.Error{Code: 550, Status: "5.7.1", Text: "<" + address + ">: may not"}
}

func (p *fakePost) CheckRecipient(_ context.Context, env *delivery.Envelope, r delivery.Recipient, _ int64) error {
	e := func(code int, status string) error {
		return &delivery.Error{Code: code, Status: status, Text: "<" + r.Address + ">: no"}
	}
	local, domain, _ := strings.Cut(r.Address, "@")
	switch {
	case strings.EqualFold(r.Address, "postmaster"):
		return nil
	case domain != "example.test":
		return e(550, "5.7.1")
	case local == "full":
		return e(452, "4.2.2")
	case local == "panic":
		panic("a bug at RCPT")
	case strings.Contains("alice bob carol late crash jürgen", local):
		return nil
	}
	return e(550, "5.1.1")
}

func (p *fakePost) CheckHops(header []byte) error {
	if bytes.Count(header, []byte("Received:")) > 3 {
		return &delivery.Error{Code: 554, Status: "5.4.6", Text: "going in circles"}
	}
	return nil
}

func (p *fakePost) Trace(env *delivery.Envelope) string {
	return "Return-Path: <" + env.Sender + ">\r\nReceived: with " + env.Origin.Protocol + "\r\n"
}

func (p *fakePost) Incoming() (spool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open++
	return &fakeSpool{post: p}, nil
}

func (p *fakePost) Deliver(ctx context.Context, env *delivery.Envelope, in spool) []error {
	if p.hold != nil {
		<-p.hold
	}
	results := make([]error, len(env.Recipients))
	for i, r := range env.Recipients {
		switch local, _, _ := strings.Cut(r.Address, "@"); local {
		case "late":
			results[i] = &delivery.Error{Code: 452, Status: "4.2.2", Text: "<" + r.Address + ">: mailbox is full"}
		case "crash":
			panic("a bug at delivery")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered = append(p.delivered, letter{*env, in.(*fakeSpool).String()})
	return results
}

func (p *fakePost) letters() []letter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]letter(nil), p.delivered...)
}

func (p *fakePost) letter(i int) (letter, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.delivered) {
		return letter{}, false
	}
	return p.delivered[i], true
}

func (p *fakePost) last(t *testing.T) letter {
	t.Helper()
	all := p.letters()
	if len(all) == 0 {
		t.Fatal("nothing was delivered")
	}
	return all[len(all)-1]
}

func (p *fakePost) spools() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *fakePost) setRoom(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room = err
}

type fakeSpool struct {
	bytes.Buffer
	post   *fakePost
	closed bool
}

func (s *fakeSpool) Seal() error { return nil }
func (s *fakeSpool) Size() int64 { return int64(s.Len()) }
func (s *fakeSpool) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("fill the disk")) {
		return 0, storage.ErrDiskFull
	}
	return s.Buffer.Write(p)
}

func (s *fakeSpool) Close() error {
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	if !s.closed {
		s.post.open--
	}
	s.closed = true
	return nil
}

// fakeAuth knows alice's password and wants TLS unless plain is set.
type fakeAuth struct{ plain bool }

func (a fakeAuth) Mechanisms(p auth.Peer) []string {
	if p.TLS || a.plain {
		return []string{"PLAIN", "LOGIN"}
	}
	return nil
}

func (fakeAuth) Epoch(string) uint64 { return 1 }

func (a fakeAuth) Server(_ context.Context, p auth.Peer, mechanism string, done func(directory.Account)) (sasl.Server, error) {
	if a.Mechanisms(p) == nil {
		return nil, auth.ErrPlaintext
	}
	if mechanism != "PLAIN" {
		return nil, auth.ErrMechanism
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		switch {
		case user == "throttled":
			return auth.ErrThrottled
		case user == "crash":
			panic("a bug at login")
		case user != "alice@example.test" || password != "secret":
			return auth.ErrCredentials
		}
		done(directory.Account{Address: "alice@example.test"})
		return nil
	}), nil
}

// start serves on a loopback socket until the test ends; afterwards no spool may be open.
func start(t testing.TB, o Options, p *fakePost, a authenticator) (*Server, string) {
	t.Helper()
	if o.Hostname == "" {
		o.Hostname = "mx.example.test"
	}
	s := newServer(o, p, a)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("sessions that do not end: %v", err)
		}
		if err := <-done; !errors.Is(err, wire.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		if n := p.spools(); n != 0 {
			t.Errorf("%d messages left open", n)
		}
	})
	return s, l.Addr().String()
}

var loopback = wire.Networks{netip.MustParsePrefix("127.0.0.0/8")}

var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.example.test"},
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.example.test"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})
