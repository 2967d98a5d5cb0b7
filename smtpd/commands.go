package smtpd

import (
	"context"
	"fmt"
	"strings"
)

// command is one verb: what must be true before it runs, checked in one place, and what it does.
type command struct {
	run   func(s *session, ctx context.Context, arg string) reply
	needs need
}

// need is a set of conditions, each with its own answer.
type need int

const (
	bare    need = 1 << iota // no argument
	greeted                  // EHLO, LHLO or HELO before
	login                    // on submission: authenticated before
	inMail                   // MAIL accepted before
	whole                    // no message begun with BDAT
	onSMTP                   // not on LMTP
	onLMTP                   // only there
)

// commands is the language spoken here, on one screen.
var commands = map[string]command{
	"HELO":     {(*session).helo, onSMTP},
	"EHLO":     {(*session).ehlo, onSMTP},
	"LHLO":     {(*session).ehlo, onLMTP},
	"STARTTLS": {(*session).startTLS, bare},
	"AUTH":     {(*session).login, greeted | onSMTP},
	"MAIL":     {(*session).mail, greeted | login | whole},
	"RCPT":     {(*session).rcpt, greeted | login | inMail | whole},
	"DATA":     {(*session).data, greeted | login | inMail | whole | bare},
	"BDAT":     {(*session).bdat, 0}, // asks what it needs after it has read its chunk
	"RSET":     {(*session).rset, bare},
	"NOOP":     {(*session).noop, 0}, // may have an argument (RFC 5321 section 4.1.1.9)
	"VRFY":     {(*session).vrfy, 0},
	"HELP":     {(*session).help, 0},
	"QUIT":     {(*session).quit, bare},
	"EXPN":     {(*session).unimplemented, 0},
	"TURN":     {(*session).unimplemented, 0},
	"ETRN":     {(*session).unimplemented, 0},
	"SEND":     {(*session).unimplemented, 0},
	"SOML":     {(*session).unimplemented, 0},
	"SAML":     {(*session).unimplemented, 0},
}

// foreign are the words of other protocols: web pages that are made to send mail, scanners, and header lines of a message
// that is sent though DATA was refused (Postfix's smtpd_forbidden_commands has the same idea).
var foreign = map[string]bool{
	"GET": true, "POST": true, "PUT": true, "HEAD": true, "DELETE": true, "OPTIONS": true, "PATCH": true, "TRACE": true,
	"CONNECT": true, "PRI": true, "HOST:": true, "USER-AGENT:": true, "CONTENT-TYPE:": true, "CONTENT-LENGTH:": true,
}

// dispatch runs one command line.
func (s *session) dispatch(ctx context.Context, line string) reply {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	c, known := commands[verb]
	if !known {
		if foreign[verb] {
			s.log.Info("not SMTP", "verb", oneLine(verb))
			return notSMTP
		}
		return unknownCommand
	}
	arg = strings.TrimSpace(arg)
	if r, ok := s.refuses(c.needs, arg); ok {
		return r
	}
	return c.run(s, ctx, arg)
}

// refuses reports what a command lacks.
func (s *session) refuses(n need, arg string) (r reply, refused bool) {
	switch {
	case n&onSMTP != 0 && s.srv.service == LMTP:
		return sayLHLO, true
	case n&onLMTP != 0 && s.srv.service != LMTP:
		return notLMTP, true
	case n&greeted != 0 && s.hello == "":
		return sayHelloFirst, true
	case n&login != 0 && s.srv.service.submits() && s.account == "":
		return s.loginFirst(), true
	case n&inMail != 0 && s.tx == nil:
		return mailFirst, true
	case n&whole != 0 && s.sending():
		return chunksBegun, true
	case n&bare != 0 && arg != "":
		return noArguments, true
	}
	return reply{}, false
}

// loginFirst tells the client what to do next (RFC 4954 section 6, RFC 3207 section 4).
func (s *session) loginFirst() reply {
	if s.tls == "" && s.srv.tls != nil && len(s.mechanisms()) == 0 {
		return needTLS
	}
	return needLogin
}

func (s *session) helo(_ context.Context, arg string) reply {
	r, ok := s.greet(arg)
	if !ok {
		return r
	}
	return reply{code: 250, text: s.srv.hostname}
}

func (s *session) ehlo(_ context.Context, arg string) reply {
	r, ok := s.greet(arg)
	if !ok {
		return r
	}
	s.extended = true
	lines := []string{
		s.srv.hostname,
		"PIPELINING",
		fmt.Sprintf("SIZE %d", s.srv.limits.MessageSize),
		"8BITMIME",
		"BINARYMIME",
		"CHUNKING",
		"SMTPUTF8",
		"ENHANCEDSTATUSCODES",
		"DSN",
		fmt.Sprintf("LIMITS RCPTMAX=%d", s.srv.limits.Recipients),
	}
	lines = append(lines, s.offered().lines()...)
	if s.tls != "" {
		lines = append(lines, "REQUIRETLS")
	} else if s.srv.tls != nil {
		lines = append(lines, "STARTTLS")
	}
	if m := s.mechanisms(); len(m) > 0 {
		lines = append(lines, "AUTH "+strings.Join(m, " "))
	}
	return reply{code: 250, text: strings.Join(append(lines, "HELP"), "\n")}
}

// greet takes the client's name and forgets the transaction (RFC 5321 section 4.1.4).
func (s *session) greet(arg string) (reply, bool) {
	name, _, _ := strings.Cut(arg, " ")
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return helloArgument, false
	}
	s.drop()
	s.hello, s.extended = name, false
	return reply{}, true
}

func (s *session) rset(context.Context, string) reply {
	s.drop()
	return ok
}

func (s *session) noop(context.Context, string) reply          { return ok }
func (s *session) vrfy(context.Context, string) reply          { return cannotVerify }
func (s *session) unimplemented(context.Context, string) reply { return notImplemented }
func (s *session) quit(context.Context, string) reply          { return bye }

func (s *session) help(context.Context, string) reply {
	if s.srv.service == LMTP {
		return helpLMTP
	}
	return help
}
