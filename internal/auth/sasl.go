package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"

	"mailsrv/internal/directory"
)

// ErrBadResponse is a response that the mechanism's grammar does not allow: the client's fault, no failed login.
var ErrBadResponse = errors.New("malformed authentication response")

// maxResponse bounds one decoded client response: two names and a password of full length.
const maxResponse = 3 * directory.MaxPassword

// exchange is one SASL conversation.
type exchange struct {
	ctx  context.Context
	a    *Authenticator
	peer Peer
	done func(directory.Account)
}

// The mechanisms we speak, best first, as they are offered. Another one is another row.
var mechanisms = []struct {
	name  string
	begin func(*exchange) sasl.Server
}{
	{"PLAIN", (*exchange).plain},
	{"LOGIN", (*exchange).login},
}

// Mechanisms lists the SASL mechanisms offered to the peer: none if it may not authenticate yet.
func (a *Authenticator) Mechanisms(p Peer) []string {
	if !a.MayAuthenticate(p) {
		return nil
	}
	var names []string
	for _, m := range mechanisms {
		names = append(names, m.name)
	}
	return names
}

// Server begins a SASL exchange. done is called with the account when the exchange has succeeded; a PLAIN
// authorization identity other than the user's own address is refused. ErrMechanism, ErrPlaintext. The server's Next takes nil
// where the client sent no initial response, and fails with ErrCredentials, ErrThrottled, ErrBadResponse or the context's error.
func (a *Authenticator) Server(ctx context.Context, p Peer, mechanism string, done func(directory.Account)) (sasl.Server, error) {
	if !a.MayAuthenticate(p) {
		return nil, ErrPlaintext
	}
	for _, m := range mechanisms {
		if strings.EqualFold(m.name, mechanism) {
			return &bounded{Server: m.begin(&exchange{ctx, a, p, done})}, nil
		}
	}
	return nil, ErrMechanism
}

// password ends an exchange that has a user name and a password.
func (x *exchange) password(user, password string) (directory.Account, error) {
	return x.a.Password(x.ctx, x.peer, user, password)
}

// plain is RFC 4616.
func (x *exchange) plain() sasl.Server {
	return sasl.NewPlainServer(func(identity, user, password string) error {
		account, err := x.password(user, password)
		if err != nil {
			return err
		}
		// Acting for somebody else is nobody's right here. Said only to who knows a password.
		if identity != "" {
			if own, err := directory.Canonical(x.a.complete(identity)); err != nil || own != account.Address {
				return fmt.Errorf("%w: not allowed to act as %.100q", ErrCredentials, identity)
			}
		}
		x.done(account)
		return nil
	})
}

// loginServer is LOGIN (draft-murchison-sasl-login-00): obsolete, and still the only one that some clients speak.
type loginServer struct {
	x     *exchange
	state int // 0: nothing asked, 1: user name asked, 2: password asked, 3: over
	user  string
}

func (x *exchange) login() sasl.Server { return &loginServer{x: x} }

// Next asks for the name, unless it came as initial response (as Outlook and go-sasl do), then for the password.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case l.state == 0 && response == nil:
		l.state = 1
		return []byte("Username:"), false, nil
	case l.state <= 1:
		l.state = 2
		l.user = string(response)
		return []byte("Password:"), false, nil
	case l.state == 2:
		l.state = 3
		account, err := l.x.password(l.user, string(response))
		if err != nil {
			return nil, true, err
		}
		l.x.done(account)
		return nil, true, nil
	}
	return nil, true, sasl.ErrUnexpectedClientResponse
}

// bounded refuses what no mechanism needs, ends the exchange at the first error, and gives the library's errors our name.
type bounded struct {
	sasl.Server
	over bool
}

func (b *bounded) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case b.over:
		err = sasl.ErrUnexpectedClientResponse
	case len(response) > maxResponse:
		err = fmt.Errorf("longer than %d octets", maxResponse)
	default:
		challenge, done, err = b.Server.Next(response)
	}
	b.over = done || err != nil
	known := err == nil
	for _, e := range []error{ErrCredentials, ErrThrottled, ErrPlaintext, context.Canceled, context.DeadlineExceeded} {
		known = known || errors.Is(err, e)
	}
	if !known {
		err = fmt.Errorf("%w: %v", ErrBadResponse, err)
	}
	return challenge, b.over, err
}
