package smtpd

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"

	"mailsrv/internal/auth"
	"mailsrv/internal/directory"
)

// mechanisms lists what EHLO offers: nothing on port 25 and LMTP, nothing without TLS where auth wants it first.
func (s *session) mechanisms() []string {
	if s.srv.auth == nil || s.account != "" {
		return nil
	}
	return s.srv.auth.Mechanisms(s.authPeer())
}

// login is AUTH (RFC 4954).
func (s *session) login(ctx context.Context, arg string) reply {
	mechanism, initial, hasInitial := strings.Cut(arg, " ")
	switch {
	case s.srv.auth == nil:
		return authNotOffered
	case s.account != "":
		return authTwice
	case s.tx != nil:
		return authInMail
	case mechanism == "":
		return authSyntax
	}
	var who directory.Account
	exchange, err := s.srv.auth.Server(ctx, s.authPeer(), strings.ToUpper(mechanism),
		func(a directory.Account) { who = a })
	if err != nil {
		return s.loginFailed(err)
	}
	var response []byte
	if hasInitial {
		var good bool
		if response, good = unbase64(strings.TrimSpace(initial)); !good {
			return authBase64
		}
	}
	if r, done := s.converse(exchange, response); !done {
		return r
	}
	if who.Address == "" { // a mechanism that ends without having told who it was
		return s.loginFailed(auth.ErrCredentials)
	}
	s.account, s.epoch = who.Address, s.srv.auth.Epoch(who.Address)
	return loggedIn
}

// converse carries the exchange to its end; done means that it succeeded.
func (s *session) converse(exchange sasl.Server, response []byte) (r reply, done bool) {
	for {
		challenge, done, err := exchange.Next(response)
		if err != nil {
			return s.loginFailed(err), false
		}
		if done {
			return reply{}, true
		}
		s.say(reply{code: 334, text: base64.StdEncoding.EncodeToString(challenge)})
		line, err := s.readLine(saslLine)
		switch {
		case err == errLongLine:
			return authLongLine, false
		case err != nil:
			return s.unread(err), false
		case line == "*":
			return authCancelled, false
		}
		var good bool
		if response, good = unbase64(line); !good {
			return authBase64, false
		}
	}
}

// unbase64 decodes a response; "=" is the empty one (RFC 4954 section 4), which is not nil: nil is none.
func unbase64(s string) ([]byte, bool) {
	if s == "" || s == "=" {
		return []byte{}, true
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// loginFailed answers, and ends the connection when it has failed too often. Package auth has logged who and why.
func (s *session) loginFailed(err error) reply {
	switch {
	case errors.Is(err, auth.ErrMechanism):
		return authMechanism
	case errors.Is(err, auth.ErrPlaintext):
		return authNeedsTLS
	case errors.Is(err, auth.ErrThrottled):
		return authThrottled
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return authTrouble
	}
	s.logins++
	if s.logins >= s.srv.limits.Logins {
		r := authThrottled
		r.cause = err
		return r
	}
	r := authFailed
	r.cause = err
	return r
}
