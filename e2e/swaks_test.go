package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// swaks delivers by every way in, and is refused what must be refused. Its exit codes: 0 accepted, 23 MAIL, 24 all RCPT,
// 26 DATA, 28 login refused.
func TestSwaks(t *testing.T) {
	needs(t, "swaks")
	s := start(t, options{limits: `message_size = "1 MiB"`})
	login := []string{"--auth-user", address("alice"), "--auth-password", password}
	big := s.write("big", strings.Repeat(strings.Repeat("x", 70)+"\n", 20_000))
	dots := s.write("dots", ".\n..\n.x\nFrom here\nend\n")
	for i, test := range []struct {
		name    string
		service string
		to      string
		args    []string
		code    int
		says    []string
		arrives []string // in the first recipient's INBOX
	}{
		{"plain", "smtp", "bob", nil, 0, []string{`^<\*\*? +250.*2\.\d\.\d|^<-  250`}, []string{"Return-Path: <sender@remote.test>", "Received: from"}},
		{"starttls", "smtp", "bob", []string{"--tls"}, 0, []string{`TLS started with cipher TLSv1\.3`}, []string{"Received: from"}},
		{"several recipients", "smtp", "bob,carol", nil, 0, nil, []string{"Return-Path:"}},
		{"subaddress", "smtp", "bob+tag", nil, 0, nil, []string{"Return-Path:"}},
		{"upper case domain", "smtp", "Bob@EXAMPLE.TEST", nil, 0, nil, []string{"Return-Path:"}},
		{"pipelining", "smtp", "bob,carol", []string{"--pipeline"}, 0, []string{`250.PIPELINING`}, []string{"Return-Path:"}},
		{"bounce sender", "smtp", "bob", []string{"--from", "<>"}, 0, nil, []string{"Return-Path: <>"}},
		{"postmaster", "smtp", "postmaster@" + domain, nil, 0, nil, nil},
		{"submission, starttls, plain", "submission", "bob", append([]string{"--tls", "--auth", "PLAIN", "--from", address("alice")}, login...), 0,
			[]string{`^<~\*? +235 2\.7\.0`}, []string{"From: "}},
		{"submission, starttls, login", "submission", "bob", append([]string{"--tls", "--auth", "LOGIN", "--from", address("alice")}, login...), 0, nil, []string{"From: "}},
		{"submissions, pipelining", "submissions", "bob,carol", append([]string{"--tlsc", "--pipeline", "--from", address("alice")}, login...), 0, nil, []string{"From: "}},
		{"submission, loopback, without tls", "submission", "bob", append([]string{"--auth", "PLAIN", "--from", address("alice")}, login...), 0, nil, []string{"From: "}},
		{"lmtp", "lmtp", "bob,carol", []string{"--protocol", "LMTP"}, 0, nil, []string{"Return-Path:"}},
		{"dots and From", "smtp", "bob", []string{"--body", "@" + dots}, 0, nil, []string{"\r\n\r\n.\r\n..\r\n.x\r\nFrom here\r\nend\r\n"}},
		{"non-ASCII addresses", "smtp", "bob", []string{"--from", "jörg@dömäin.test> SMTPUTF8 ENVID=x"}, 0, []string{`250.SMTPUTF8`}, []string{"Return-Path: <jörg@"}},
		{"8 bit body", "smtp", "bob", []string{"--body", "Grüße, привет, 你好", "--add-header", "Content-Type: text/plain; charset=utf-8", "--add-header",
			"Content-Transfer-Encoding: 8bit"}, 0, []string{`250.8BITMIME`}, []string{"Grüße, привет, 你好"}},

		{"wrong password", "submission", "bob", []string{"--tls", "--auth", "PLAIN", "--auth-user", address("alice"), "--auth-password", "wrong"}, 28, []string{`535 5\.7\.8`}, nil},
		{"unknown user", "submission", "bob", []string{"--tls", "--auth", "PLAIN", "--auth-user", address("nobody"), "--auth-password", "wrong"}, 28, []string{`535 5\.7\.8`}, nil},
		{"submission without login", "submission", "bob", []string{"--tls"}, 23, []string{`530 5\.7\.0`}, nil},
		{"bad recipient", "smtp", "nobody", nil, 24, []string{`550 5\.1\.1`}, nil},
		{"one bad recipient", "smtp", "bob,nobody", nil, 0, []string{`550 5\.1\.1`}, []string{"Return-Path:"}},
		{"bad recipient, pipelining", "smtp", "nobody", []string{"--pipeline"}, 24, []string{`550 5\.1\.1`}, nil},
		{"lmtp, one bad recipient", "lmtp", "bob,nobody", []string{"--protocol", "LMTP"}, 0, []string{`550 5\.1\.1`}, []string{"Return-Path:"}},
		{"relaying", "smtp", "someone@remote.test", nil, 24, []string{`550 5\.7\.1`}, nil},
		{"remote recipient", "submission", "someone@remote.test", append([]string{"--tls", "--from", address("alice")}, login...), 0, []string{`250 2\.`}, nil},
		{"oversized", "smtp", "bob", []string{"--body", "@" + big}, 26, []string{`55[24] 5\.3\.4`}, nil},
		{"no such recipient syntax", "smtp", "bob@@", nil, 24, []string{` 50[01] 5\.|553 5\.1\.3`}, nil},
		{"non-ASCII address unannounced", "smtp", "bob", []string{"--from", "jörg@remote.test"}, 23, []string{` 55[03] 5\.6\.7| 50\d `}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.t = t
			subject := fmt.Sprintf("swaks %d %s", i, test.name)
			to := recipients(test.to)
			args := []string{"--server", "127.0.0.1", "--port", s.port(test.service), "--to", strings.Join(to, ","), "--header", "Subject: " + subject}
			if !slices.Contains(test.args, "--from") {
				args = append(args, "--from", "sender@remote.test")
			}
			s.do(nil, "swaks", append(args, test.args...)...).want(test.code, test.says...)
			for _, r := range to {
				local, _, _ := strings.Cut(strings.ToLower(r), "@")
				local, _, _ = strings.Cut(local, "+")
				if test.arrives != nil && local != "nobody" {
					s.arrived(local, "INBOX", append([]string{"Subject: " + subject}, test.arrives...)...)
				}
			}
			if test.arrives == nil && test.code != 0 {
				for _, text := range s.texts("bob", "INBOX") {
					if strings.Contains(text, subject+"\r\n") {
						t.Error("refused, yet it arrived")
					}
				}
			}
		})
	}
	s.t = t
}

// recipients adds the domain to local parts.
func recipients(list string) []string {
	to := strings.Split(list, ",")
	for i, r := range to {
		if !strings.Contains(r, "@") {
			to[i] = address(r)
		}
	}
	return to
}

// An account over its quota: a temporary refusal at RCPT, for nobody else.
func TestSwaksQuota(t *testing.T) {
	needs(t, "swaks")
	s := start(t, options{tables: fmt.Sprintf("[[account]]\naddress = \"full@%s\"\npassword_file = \"password\"\nquota_messages = 1\n", domain)})
	send := func(to string) outcome {
		return s.do(nil, "swaks", "--server", s.addr("smtp"), "--from", "a@remote.test", "--to", strings.Join(recipients(to), ","), "--body", "text")
	}
	send("full").want(0)
	send("full,bob").want(0, `452 4\.2\.2`)
	if n := len(s.texts("full", "INBOX")); n != 1 {
		t.Errorf("%d mails in the full mailbox, want 1", n)
	}
	if n := len(s.texts("bob", "INBOX")); n != 1 {
		t.Errorf("%d mails in the other's mailbox, want 1", n)
	}
}
