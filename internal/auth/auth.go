// Package auth decides who may: SASL mechanisms, remembered passwords and throttling, over package directory.
package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/emersion/go-sasl"

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
	Remember               time.Duration // how long a verified password is remembered; 0 is 5 minutes
	Now                    func() time.Time
	Sleep                  func(context.Context, time.Duration) error
	Logger                 *slog.Logger
}

// New makes an Authenticator.
func New(d *directory.Directory, o Options) *Authenticator { panic("auth room") }

// Authenticator is safe for use by several goroutines.
type Authenticator struct{}

// MayAuthenticate reports whether the peer's connection is good enough for a login (TLS, or loopback where allowed).
func (a *Authenticator) MayAuthenticate(p Peer) bool { panic("auth room") }

// Mechanisms lists the SASL mechanisms offered to the peer: none if it may not authenticate yet.
func (a *Authenticator) Mechanisms(p Peer) []string { panic("auth room") }

// Password checks a user name (an address; a bare local part is completed with the only domain if there is one) and
// password. It takes the same time for an unknown user and a wrong password, and longer after failures from the same
// address or network (none for Trusted peers).
func (a *Authenticator) Password(ctx context.Context, p Peer, user, password string) (directory.Account, error) {
	panic("auth room")
}

// Server begins a SASL exchange. done is called with the account when the exchange has succeeded; a PLAIN
// authorization identity other than the user's own address is refused. ErrMechanism, ErrPlaintext.
func (a *Authenticator) Server(ctx context.Context, p Peer, mechanism string, done func(directory.Account)) (sasl.Server, error) {
	panic("auth room")
}
