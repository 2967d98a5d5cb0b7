package smtpd

import (
	"bytes"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestAnswersAreDocumented holds docs/smtp-answers.md against the source, both ways.
func TestAnswersAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/smtp-answers.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d{3}(?: [245]\.\d+\.\d+)?) \|`).FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	given := map[string]string{}
	literal := regexp.MustCompile(`(?i)code: (\d{3}),\s*(?:status: "([\d.]+)")?`)
	short := regexp.MustCompile(`\be\((\d{3}), "([\d.]+)"`)
	for _, file := range []string{"reply.go", "session.go", "commands.go", "data.go", "auth.go",
		"../internal/delivery/check.go", "../internal/delivery/deliver.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, re := range []*regexp.Regexp{literal, short} {
			for _, m := range re.FindAllStringSubmatch(string(source), -1) {
				given[strings.TrimSpace(m[1]+" "+m[2])] = file
			}
		}
	}
	for answer, file := range given {
		if !documented[answer] {
			t.Errorf("%s, given in %s, is not documented", answer, file)
		}
	}
	for answer := range documented {
		if given[answer] == "" {
			t.Errorf("%s is documented and never given", answer)
		}
	}
	if len(given) < 40 {
		t.Errorf("only %d answers found in the source", len(given))
	}
}

// One line for each message and refusal, and nothing in it that is nobody's business.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	post := &fakePost{}
	o := Options{Service: Submission, TLS: testTLS(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Trusted: loopback}
	srv, addr := start(t, o, post, fakeAuth{plain: true})
	c := dial(t, addr)
	c.expect("220")
	c.say("EHLO c", "250")
	c.say("AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=", "235")
	c.say("MAIL FROM:<alice@example.test>", "250")
	c.say("RCPT TO:<bob@example.test>", "250")
	c.say("RCPT TO:<no\u00a0body@example.test>", "553")
	c.say("RCPT TO:<nobody@example.test>", "550")
	c.say("DATA", "354")
	c.send("Subject: confidential\r\n\r\nprivate\r\n.\r\n")
	c.expect("250")
	c.say("MAIL FROM:<alice@example.test>", "250")
	c.say("RCPT TO:<late@example.test>", "250")
	c.say("DATA", "354")
	c.send("Subject: confidential\r\n\r\nprivate\r\n.\r\n")
	c.expect("452")
	c.say("QUIT", "221")
	c.ended()
	srv.Close()
	if err := srv.Shutdown(t.Context()); err != nil { // the session has ended: the log is ours
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	wants := []string{
		`msg=refused service=submission peer=127.0.0.1 verb=RCPT id=\w{16} from=alice@example.test code=550 status=5.1.1 .*nobody`,
		`msg=accepted service=submission peer=127.0.0.1 id=\w{16} from=alice@example.test recipients=1 size=\d+ account=alice`,
		`msg=refused .* id=\w{16} from=alice@example.test recipients=1 .*verb=DATA code=452 status=4.2.2`,
	}
	if len(lines) != len(wants) {
		t.Fatalf("%d lines:\n%s", len(lines), log.String())
	}
	for i, want := range wants {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("%s\nshould match %s", lines[i], want)
		}
	}
	for _, secret := range []string{"confidential", "private", "secret", "AGFsaWNl"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
}
