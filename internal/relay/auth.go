package relay

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/emersion/go-sasl"
)

// auth logs in with what the server offers, PLAIN before LOGIN. A refused login is our side's mistake, and
// temporary: people's mail must not bounce because a password changed.
func (s *session) auth(route *Route) *failure {
	mechs := strings.Fields(strings.ToUpper(s.ext["AUTH"]))
	if s.tls == "" && (route.SOCKS != "" || !s.overLoopback()) {
		return tempFailure("auth", "4.7.11", "the route for %s has a login, and this connection no TLS to keep it secret", route.Domain)
	}
	var client sasl.Client
	for _, m := range mechs {
		if m == "PLAIN" {
			client = sasl.NewPlainClient("", route.Username, route.Password)
			break
		}
		if m == "LOGIN" {
			client = &loginClient{route.Username, route.Password}
		}
	}
	if client == nil {
		return tempFailure("auth", "4.7.0",
			"the route for %s has a login, and the server offers no way for it that is known here (AUTH %s)",
			route.Domain, strings.Join(mechs, " "))
	}
	r, err := s.authExchange(client)
	if err != nil {
		return broken("auth", "logging in", err)
	}
	if r.code != 235 {
		f := refusal("auth", r)
		if f.permanent {
			f.permanent, f.status = false, "4"+f.status[1:]
		}
		f.text = "login refused: " + withoutLogin(f.text, route)
		return f
	}
	return nil
}

// withoutLogin takes a route's password out of a server's words, which go into the log, the history and bounces: some servers
// say back what they did not like.
func withoutLogin(text string, route *Route) string {
	encoded := base64.StdEncoding.EncodeToString
	for _, secret := range []string{
		encoded([]byte("\x00" + route.Username + "\x00" + route.Password)), encoded([]byte(route.Password)), route.Password,
	} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return text
}

// loginClient is LOGIN (draft-murchison-sasl-login): the name, then the password, whatever words the server asks for them with
// (the library insists on "Password:"), and no initial response, which old servers do not know.
type loginClient []string

func (l *loginClient) Start() (mech string, initial []byte, err error) { return "LOGIN", nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	if len(*l) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	answer := (*l)[0]
	*l = (*l)[1:]
	return []byte(answer), nil
}

func (s *session) overLoopback() bool {
	a, ok := s.c.RemoteAddr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// authExchange is RFC 4954 section 4.
func (s *session) authExchange(client sasl.Client) (*reply, error) {
	mech, initial, err := client.Start()
	if err != nil {
		return nil, err
	}
	line := "AUTH " + mech
	if initial != nil {
		line += " " + cmp.Or(base64.StdEncoding.EncodeToString(initial), "=") // empty, and there
	}
	for range 10 { // no mechanism has more steps
		r, err := s.command(s.r.o.Timeouts.Hello, line)
		if err != nil || r.code != 334 {
			return r, err
		}
		challenge, err := unbase64(r.text())
		if err != nil {
			return nil, fmt.Errorf("a challenge that is no base64: %w", err)
		}
		response, err := client.Next(challenge)
		if err != nil {
			return nil, err
		}
		line = base64.StdEncoding.EncodeToString(response)
	}
	return nil, errors.New("a login that does not end")
}

func unbase64(s string) ([]byte, error) { return base64.StdEncoding.DecodeString(strings.TrimSpace(s)) }
