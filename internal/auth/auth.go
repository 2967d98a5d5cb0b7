// Package auth decides who may: SASL mechanisms, remembered passwords and throttling, over package directory.
//
// A login passes, in this order: what is remembered (remember.go), the wait that earlier failures have earned
// (throttle.go), then argon2, a bounded number at a time and once for equal logins at the same time (check.go). sasl.go
// is the conversation around it; another mechanism (SCRAM) is another row in its table.
package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"mailsrv/internal/directory"
)

// Errors: every failed login is ErrCredentials, whatever was wrong; ErrThrottled when the peer has to wait so long that
// the connection is not worth holding; ErrPlaintext when TLS is needed first.
var (
	ErrCredentials = errors.New("authentication failed")
	ErrThrottled   = errors.New("too many failed logins, try again later")
	ErrPlaintext   = errors.New("encryption required for authentication")
	ErrMechanism   = errors.New("unknown authentication mechanism")
)

// Peer is who asks.
type Peer struct {
	Addr    netip.Addr
	TLS     bool
	Trusted bool   // in trusted_networks: no throttling
	Service string // "imap", "submission", "legacy", for the log
}

// Options of an Authenticator. Zero values: see each field.
type Options struct {
	// AllowPlaintextLoopback lets loopback peers log in without TLS. Others never can.
	AllowPlaintextLoopback bool
	Remember               time.Duration // how long a verified password is remembered; 0 is 5 minutes, negative not at all
	Parallel               int           // argon2 runs at once, each with directory.HashParams.Memory; 0 is one per CPU, at most 8
	Now                    func() time.Time
	Sleep                  func(context.Context, time.Duration) error // nil sleeps, or ends early with the context's error
	Logger                 *slog.Logger                               // nil discards
	Meter                  Meter                                      // nil: none
}

// Meter hears of logins, for metrics; observe.Metrics is one.
type Meter interface {
	Login(service string, ok bool)
}

type noMeter struct{}

func (noMeter) Login(string, bool) {}

// Directory is what auth asks of the directory.
type Directory interface {
	Account(address string) (directory.Account, bool)
	Domains() []directory.Domain
	CheckPassword(address, password string) (directory.Account, bool)
	Epoch(address string) uint64
}

// New makes an Authenticator.
func New(d *directory.Directory, o Options) *Authenticator { return newAuthenticator(d, o) }

func newAuthenticator(d Directory, o Options) *Authenticator {
	if o.Remember == 0 {
		o.Remember = 5 * time.Minute
	}
	if o.Parallel <= 0 {
		o.Parallel = min(runtime.GOMAXPROCS(0), 8)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = noMeter{}
	}
	return &Authenticator{
		directory: d,
		o:         o,
		memory:    newMemory(o.Remember),
		throttle:  newThrottle(),
		slots:     make(chan struct{}, o.Parallel),
		flights:   flights{m: make(map[secretKey]*flight)},
	}
}

// Authenticator is safe for use by several goroutines. It starts none.
type Authenticator struct {
	directory Directory
	o         Options
	memory    *memory
	throttle  *throttle
	slots     chan struct{} // one for each argon2 that may run
	flights   flights
}

// MayAuthenticate reports whether the peer's connection is good enough for a login (TLS, or loopback where allowed).
func (a *Authenticator) MayAuthenticate(p Peer) bool {
	return p.TLS || a.o.AllowPlaintextLoopback && p.Addr.Unmap().IsLoopback()
}

// Epoch is a number that a session keeps from its login: when it has become another one, the account's password was changed,
// or the account disabled or removed, and the session is to end. 0 is that of accounts nobody may use.
func (a *Authenticator) Epoch(address string) uint64 {
	if account, ok := a.directory.Account(address); !ok || account.Disabled {
		return 0
	}
	return a.directory.Epoch(address)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
