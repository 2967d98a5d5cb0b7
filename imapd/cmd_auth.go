package imapd

// Commands before login: STARTTLS, AUTHENTICATE, LOGIN.

import (
	"encoding/base64"
	"errors"

	"github.com/emersion/go-sasl"

	"mailsrv/internal/auth"
	"mailsrv/internal/directory"
)

// starttls (RFC 9051 section 6.2.1): everything after the tagged OK is TLS.
func (s *session) starttls() reply {
	switch {
	case !s.in.End():
		return s.in.Refusal()
	case s.tls:
		return bad("TLS is on already")
	case s.srv.o.TLS == nil:
		return bad("TLS is not available")
	}
	s.after = s.upgrade
	return ok("", "Begin TLS negotiation now")
}

// login (RFC 9051 section 6.2.3).
func (s *session) login() reply {
	s.in.SP()
	user := s.in.AString()
	s.in.SP()
	password := s.in.AString()
	if !s.in.End() {
		return s.in.Refusal()
	}
	if loginDisabled(s) {
		return no("PRIVACYREQUIRED", "Log in is disabled here: use TLS first")
	}
	a, err := s.srv.o.Auth.Password(s.ctx, s.authPeer(), user, password)
	if err != nil {
		return s.loginFailed(err)
	}
	return s.welcome(a, "LOGIN")
}

// authenticate runs a SASL exchange (RFC 9051 section 6.2.2), with an initial response if the client sends one (RFC 4959).
func (s *session) authenticate() reply {
	s.in.SP()
	mechanism := s.in.Keyword()
	var response []byte // nil: there is none; empty: there is an empty one, "="
	if !s.in.AtEnd() {
		s.in.SP()
		response = s.decodeSASL(s.in.Base64())
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	if s.srv.o.Auth == nil {
		return no("PRIVACYREQUIRED", "Log in is disabled here")
	}
	var account directory.Account
	mech, err := s.srv.o.Auth.Server(s.ctx, s.authPeer(), mechanism, func(a directory.Account) { account = a })
	switch {
	case errors.Is(err, auth.ErrMechanism):
		return no("CANNOT", "Unknown authentication mechanism")
	case err != nil:
		return s.loginFailed(err)
	}
	if refusal, done := s.saslExchange(mech, response); !done {
		return refusal
	}
	if account.Address == "" {
		return s.loginFailed(auth.ErrCredentials)
	}
	return s.welcome(account, mechanism)
}

// decodeSASL undoes the base64 of a response; "=" is the empty initial response of RFC 4959.
func (s *session) decodeSASL(text string) []byte {
	if text == "=" {
		return []byte{}
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		s.in.fail("Invalid base64")
	}
	return b
}

// saslExchange passes challenges and responses until the mechanism is done.
func (s *session) saslExchange(mech sasl.Server, response []byte) (refusal reply, done bool) {
	for {
		challenge, done, err := mech.Next(response)
		if err != nil {
			return s.loginFailed(err), false
		}
		if done && challenge == nil {
			return reply{}, true
		}
		// "+ " with nothing behind it is the empty challenge.
		s.out.Raw("+ ").Raw(base64.StdEncoding.EncodeToString(challenge)).CRLF()
		if err := s.out.Flush(); err != nil {
			s.enter(logout)
			return reply{}, false
		}
		stop := s.interruptible()
		line, err := s.in.answerLine()
		stop()
		switch {
		case err != nil:
			s.lost(err)
			return reply{}, false
		case line == "*":
			return bad("Authentication cancelled"), false
		}
		if response = s.decodeAnswer(line); s.in.Failed() {
			return s.in.Refusal(), false
		}
		if done { // the mechanism's last word was a challenge; the answer to it is empty
			return reply{}, true
		}
	}
}

// decodeAnswer undoes the base64 of a response line; an empty line is an empty response.
func (s *session) decodeAnswer(line string) []byte {
	if s.in.Failed() || line == "" {
		return []byte{}
	}
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		s.in.fail("Invalid base64")
	}
	return b
}

// loginFailed answers a failed login. The client never hears why beyond these four.
func (s *session) loginFailed(err error) reply {
	r := no("AUTHENTICATIONFAILED", "Authentication failed")
	switch {
	case errors.Is(err, auth.ErrPlaintext):
		return no("PRIVACYREQUIRED", "Log in is disabled here: use TLS first")
	case errors.Is(err, auth.ErrThrottled):
		r = no("UNAVAILABLE", "Too many failed logins, try again later")
		r.hangup = true
	case errors.Is(err, sasl.ErrUnexpectedClientResponse):
		r = bad("Invalid SASL response")
	case !errors.Is(err, auth.ErrCredentials):
		// A mechanism's own complaint about a malformed response: the client's fault, or ours.
		s.log.Info("SASL exchange failed", "err", err)
	}
	if s.fails++; s.fails >= maxLoginFails {
		r.hangup = true
	}
	return r
}
