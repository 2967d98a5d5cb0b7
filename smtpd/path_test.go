package smtpd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

func TestPaths(t *testing.T) {
	for in, want := range map[string]string{ // "" is refused
		`<a@b.test>`:                             `a@b.test`,
		`<A.b+c@B.Test>`:                         `A.b+c@B.Test`,
		`<@x.test,@y.test:a@b.test>`:             `a@b.test`,
		`<"a"@b.test>`:                           `a@b.test`,
		`<"a b"@b.test>`:                         `"a b"@b.test`,
		`<"a\"b"@b.test>`:                        `"a\"b"@b.test`,
		`<"a\b"@b.test>`:                         `ab@b.test`,
		`<"a@x"@b.test>`:                         `"a@x"@b.test`,
		`<"a>"@b.test>`:                          `"a>"@b.test`,
		`<a..b.@b.test>`:                         `a..b.@b.test`, // QUIRK
		`<a@[192.0.2.1]>`:                        `a@[192.0.2.1]`,
		`<a@[IPv6:2001:db8::1]>`:                 `a@[IPv6:2001:db8::1]`,
		`<jürgen@müller.test>`:                   `jürgen@müller.test`,
		`<a_b@under_score.test>`:                 `a_b@under_score.test`,
		`<` + strings.Repeat("a", 255) + `@b.c>`: strings.Repeat("a", 255) + `@b.c`,
		`<` + strings.Repeat("a", 256) + `@b.c>`: "",
		`<a@` + strings.Repeat("b", 64) + `.c>`:  "",
		`<a@` + strings.Repeat("b.", 128) + `c>`: "",
		`<a@b.test`:                              "",
		`a@b.test>`:                              "",
		`<a@>`:                                   "",
		`<@b.test>`:                              "",
		`<a b@c.test>`:                           "",
		`<a@b c.test>`:                           "",
		`<a@b@c.test>`:                           "",
		`<a@-b.test>`:                            "",
		`<a@b..test>`:                            "",
		`<a@b.test.>`:                            "",
		`<""@b.test>`:                            "",
		`<"a@b.test>`:                            "",
		`<"a\`:                                   "",
		"<\"a\tb\"@c.test>":                      "",
		`<a@[]>`:                                 "",
		`<a@[1>`:                                 "",
		"<a\xff@b.test>":                         "",
		"<a@b\xff.test>":                         "",
		`<@x.test:>`:                             "",
		`<@:a@b.test>`:                           "",
		`<a>`:                                    "",
		`< a@b.test>`:                            "",
		``:                                       "",
		`<a,b@c.test>`:                           "",
		`<a@b.test,c>`:                           "",
	} {
		got, rest, good := parsePath(in, false)
		if good != (want != "") || got != want || rest != "" {
			t.Errorf("%q: got %q, %q, %v; want %q", in, got, rest, good, want)
		}
	}
	if got, rest, good := parsePath("<> SIZE=1", false); got != "" || rest != " SIZE=1" || !good {
		t.Error("null path", got, rest, good)
	}
	if got, _, good := parsePath("<postmaster>", true); got != "postmaster" || !good {
		t.Error("postmaster", got, good)
	}
}

// A path that was understood is understood again, and can be put into an answer or a header.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"<a@b.test>", `<@x:"a\"b"@c> SIZE=1`, "<>", "<jürgen@[IPv6:::1]>", "<postmaster>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, rest, good := parsePath(s, true)
		if !good {
			return
		}
		if !strings.HasSuffix(s, rest) || strings.ContainsAny(a, "\r\n\x00") {
			t.Fatalf("%q: %q, %q", s, a, rest)
		}
		again, rest, good := parsePath("<"+a+">", true)
		if !good || rest != "" || again != a {
			t.Fatalf("%q: %q is read as %q, %v", s, a, again, good)
		}
	})
}

func TestParameters(t *testing.T) {
	o, r := mailParameters(" size=12 BODY=binarymime SMTPUTF8 RET=full ENVID=a+2Bb+20 AUTH=a+40b REQUIRETLS", offers{tls: true})
	if r != nil || o.Size != 12 || o.Body != smtp.BodyBinaryMIME || !o.UTF8 || o.Return != smtp.DSNReturnFull ||
		o.EnvelopeID != "a+b " || *o.Auth != "a@b" || !o.RequireTLS {
		t.Errorf("%+v, %v", o, r)
	}
	for in, want := range map[string]string{
		"NOTIFY=NEVER":                             "NEVER",
		"notify=delay,SUCCESS":                     "DELAY,SUCCESS",
		"ORCPT=rfc822;a+2Bb@c":                     "rfc822;a+b@c",
		"ORCPT=UTF-8;j\\x{FC}rgen@c":               "utf-8;jürgen@c",
		"ORCPT=utf-8;jürgen@c":                     "utf-8;jürgen@c",
		"ORCPT=x400;/C=de":                         "", // = must be +3D
		"ORCPT=x400;/C+3Dde":                       "x400;/C=de",
		"ORCPT=rfc822;a+0Ab":                       "",
		"ORCPT=rfc822;a+4":                         "",
		"ORCPT=rfc822;a+2b":                        "", // capitals only
		"ORCPT=;a":                                 "",
		"ORCPT=rfc822;":                            "",
		"ORCPT=utf-8;\\x{A}":                       "",
		"ORCPT=utf-8;\\x{0A}":                      "",
		"ORCPT=utf-8;\\x{D800}":                    "",
		"ORCPT=utf-8;\\x{1234567}":                 "",
		"ORCPT=utf-8;a\\b":                         "",
		"NOTIFY=":                                  "",
		"NOTIFY=DELAY,DELAY":                       "",
		"NOTIFY=SOMETIMES":                         "",
		"ORCPT=rfc822;" + strings.Repeat("a", 501): "",
	} {
		o, r := rcptParameters(" " + in)
		got := ""
		if o.OriginalRecipient != "" {
			got = string(o.OriginalRecipientType) + ";" + o.OriginalRecipient
		}
		for i, n := range o.Notify {
			if i > 0 {
				got += ","
			}
			got += string(n)
		}
		if (r == nil) != (want != "") || r == nil && got != want {
			t.Errorf("%s: got %q, %v; want %q", in, got, r, want)
		}
	}
}

func FuzzParameters(f *testing.F) {
	for _, s := range []string{" SIZE=1 ENVID=a+2B", " NOTIFY=NEVER ORCPT=utf-8;\\x{FC}", " AUTH=<> BODY=7BIT", " X"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, r := mailParameters(s, offers{tls: true, deliverBy: true, submit: true})
		if r == nil && (m.Size < 0 || strings.ContainsAny(m.EnvelopeID, "\r\n\x00") || len(m.EnvelopeID) > maxEnvelopeID) {
			t.Fatalf("%q: %+v", s, m)
		}
		o, r := rcptParameters(s)
		if r == nil && (strings.ContainsAny(o.OriginalRecipient, "\r\n\x00") || len(o.OriginalRecipient) > maxOriginal) {
			t.Fatalf("%q: %+v", s, o)
		}
		if r != nil && strings.ContainsAny(string(r.appendTo(nil)[:len(r.appendTo(nil))-2]), "\r\n") {
			t.Fatalf("%q: %q", s, r)
		}
	})
}

// Whatever is said, the session answers or hangs up, keeps no message open, and every answer is well-formed.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\na: b\r\n\r\n.\r\nQUIT\r\n",
		"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<late@example.test>\r\nBDAT 3\r\na\r\nBDAT 0 LAST\r\n",
		"EHLO c\r\nAUTH PLAIN\r\nAGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=\r\nMAIL FROM:<alice@example.test>\r\n" +
			"RCPT TO:<bob@example.test>\r\nDATA\r\nx: y\nBcc: z\n\nhi\r.\r\n.\r\n",
		"AUTH LOGIN =\r\n*\r\nVRFY\r\nHELP\r\nNOOP\r\nRSET\r\n",
	} {
		for kind := range 3 {
			f.Add(s, kind)
		}
	}
	f.Fuzz(func(t *testing.T, s string, kind int) {
		service := []Service{SMTP, Submission, LMTP}[uint(kind)%3]
		post := &fakePost{}
		srv := newServer(Options{Service: service, Hostname: "h", Limits: Limits{MessageSize: 1000}}, post, fakeAuth{plain: true})
		conn := &tape{in: strings.NewReader(s)}
		if strings.Contains(s, "panic") || strings.Contains(s, "crash") {
			return // our fake's bugs
		}
		srv.handle(t.Context(), conn)
		if post.spools() != 0 {
			t.Fatal("a message is open")
		}
		for line := range strings.Lines(conn.out.String()) {
			if len(line) < 6 || !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(line[:len(line)-2], "\r\n\x00") ||
				strings.IndexByte("2345", line[0]) < 0 || len(line) > 512 {
				t.Fatalf("%q", line)
			}
		}
	})
}

// String is for failing tests.
func (r reply) String() string { return fmt.Sprintf("%d %s %s", r.code, r.status, r.text) }

// MT-PRIORITY (RFC 6710), BY (RFC 2852), HOLDFOR and HOLDUNTIL (RFC 4865), where they were offered and where not.
func TestWishes(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]string{
		"MT-PRIORITY=9":                       "9",
		"mt-priority=-9":                      "-9",
		"MT-PRIORITY=0":                       "0",
		"MT-PRIORITY=10":                      "",
		"MT-PRIORITY=+1":                      "",
		"MT-PRIORITY=01":                      "",
		"MT-PRIORITY=-0":                      "",
		"MT-PRIORITY":                         "",
		"BY=60;R":                             "0 by 03:05:05",
		"by=60;rt":                            "0 by 03:05:05 trace",
		"BY=-5;N":                             "0 by 03:04:00 notify",
		"BY=0;NT":                             "0 by 03:04:05 notify trace",
		"BY=0;R":                              "",
		"BY=-1;R":                             "",
		"BY=60":                               "",
		"BY=60;":                              "",
		"BY=60;T":                             "",
		"BY=60;RR":                            "",
		"BY=+60;R":                            "",
		"BY=1000000000;R":                     "",
		"HOLDFOR=60":                          "0 release 03:05:05",
		"HOLDFOR=0":                           "",
		"HOLDFOR=-1":                          "",
		"HOLDFOR=31536001":                    "",
		"HOLDFOR=99999999999999999999":        "",
		"HOLDUNTIL=2026-01-02T05:00:00Z":      "0 release 05:00:00",
		"HOLDUNTIL=2026-01-02t06:00:00+01:00": "0 release 05:00:00",
		"HOLDUNTIL=2027-01-03T05:00:00Z":      "",
		"HOLDUNTIL=tomorrow":                  "",
		"HOLDFOR=60 HOLDUNTIL=2026-01-02T05:00:00Z": "",
		"HOLDFOR=60 BY=60;R":                        "", // back before it may leave
		"HOLDFOR=60 BY=61;R":                        "0 release 03:05:05 by 03:05:06",
		"HOLDFOR=60 BY=1;N":                         "0 release 03:05:05 by 03:04:06 notify",
	} {
		o, r := mailParameters(" "+in, offers{deliverBy: true, submit: true, now: now})
		got := strconv.Itoa(o.priority)
		if !o.release.IsZero() {
			got += " release " + o.release.UTC().Format(time.TimeOnly)
		}
		if !o.by.IsZero() {
			got += " by " + o.by.Format(time.TimeOnly)
		}
		if o.byNotify {
			got += " notify"
		}
		if o.byTraced {
			got += " trace"
		}
		if (r == nil) != (want != "") || r == nil && got != want || r != nil && r.code != 501 {
			t.Errorf("%s: %q, %v, want %q", in, got, r, want)
		}
		if _, r := mailParameters(" "+in, offers{now: now}); r == nil || r.code != 555 {
			t.Errorf("%s is taken where it was not offered: %v", in, r)
		}
	}
}
