package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// msmtp submits a mail that lacks what programs that call sendmail leave out.
func TestMsmtp(t *testing.T) {
	needs(t, "msmtp")
	s := start(t, options{})
	config := s.write("msmtprc", fmt.Sprintf(`
defaults
auth on
user %s
password "%s"
host 127.0.0.1
from %s
tls on
tls_certcheck off
account starttls
port %s
account implicit
port %s
tls_starttls off
`, address("alice"), password, address("alice"), s.port("submission"), s.port("submissions")))
	for _, account := range []string{"starttls", "implicit"} {
		mail := s.write("mail", "To: "+address("bob")+"\nSubject: by msmtp "+account+"\n\nline\n.\n..\nend\n")
		s.do(nil, "sh", "-c", fmt.Sprintf("msmtp -C %s -a %s -t < %s", config, account, mail)).want(0)
		s.arrived("bob", "INBOX", "Subject: by msmtp "+account, "\r\n\r\nline\r\n.\r\n..\r\nend\r\n", "\r\nMessage-ID: <", "\r\nDate: ", "From: ")
	}
	s.do(nil, "sh", "-c", fmt.Sprintf("echo hi | msmtp -C %s -a implicit nobody@%s", config, domain)).want(65, `550 5\.1\.1`)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	wrong := s.write("wrongrc", strings.ReplaceAll(string(text), password, "wrong"))
	s.do(nil, "sh", "-c", fmt.Sprintf("echo hi | msmtp -C %s -a implicit %s", wrong, address("bob"))).want(77, `535 5\.7\.8`)
}

// mutt opens the INBOX, reads a mail, flags it, deletes another, copies a third into a folder, and quits.
func TestMutt(t *testing.T) {
	needs(t, "mutt", "script")
	s := start(t, options{})
	c := s.imap("alice")
	for _, subject := range []string{"first", "second", "third"} {
		c.append("INBOX", "", message("someone@remote.test", address("alice"), subject, "text of "+subject+"\r\n"))
	}
	out := filepath.Join(s.dir, "seen")
	config := s.write("muttrc", fmt.Sprintf(`
set imap_user="%s" imap_pass="%s" certificate_file="%s" ssl_verify_host=no
set folder="imaps://%s/" spoolfile="imaps://%s/INBOX" header_cache="" message_cachedir=""
set quit=yes delete=yes move=no confirmappend=no confirmcreate=no wait_key=no sort=mailbox-order copy=no
set smtp_url="" sendmail=true
`, address("alice"), password, s.certificate(), s.addr("imaps"), s.addr("imaps")))
	push := fmt.Sprintf("<first-entry><pipe-message>cat >%s<enter><flag-message><first-entry><next-entry><delete-message>"+
		"<search>third<enter><copy-message><kill-line>=Archive<enter><quit>", out)
	s.do([]string{"TERM=xterm"}, "script", "-qec", fmt.Sprintf("mutt -n -F %s -e 'push \"%s\"'", config, push), "/dev/null").want(0)

	if seen, err := os.ReadFile(out); err != nil || !strings.Contains(string(seen), "Subject: first") || !strings.Contains(string(seen), "text of first") {
		t.Errorf("mutt read %q: %v", seen, err)
	}
	c.do("SELECT INBOX")
	if got := c.uids("FLAGGED SUBJECT first"); len(got) != 1 {
		t.Errorf("flagged: %q", got)
	}
	if got := c.uids("SUBJECT second"); len(got) != 0 {
		t.Errorf("deleted, still there: %q", got)
	}
	if got := s.texts("alice", "Archive"); len(got) != 1 || !strings.Contains(got[0], "text of third") {
		t.Errorf("copied: %q", got)
	}
}

// mutt works on the Maildir itself while the server runs, and on it the server sees what mutt did.
func TestMuttOnMaildir(t *testing.T) {
	needs(t, "mutt", "script")
	s := start(t, options{})
	c := s.imap("alice")
	for _, subject := range []string{"first", "second"} {
		c.append("INBOX", "", message("someone@remote.test", address("alice"), subject, "text of "+subject+"\r\n"))
	}
	c.do("LOGOUT")
	config := s.write("muttrc", fmt.Sprintf("set folder=%q quit=yes delete=yes move=no wait_key=no sort=mailbox-order mbox_type=Maildir\n", s.dir))
	maildir := filepath.Join(s.data(), "accounts", domain, "alice", "Maildir")
	push := "<first-entry><flag-message><next-entry><delete-message><quit>"
	s.do([]string{"TERM=xterm"}, "script", "-qec", fmt.Sprintf("mutt -n -F %s -f %s -e 'push \"%s\"'", config, maildir, push), "/dev/null").want(0)
	c = s.imap("alice")
	s.await("what mutt did to the Maildir", func() bool {
		c.do("SELECT INBOX")
		return len(c.uids("FLAGGED SUBJECT first")) == 1 && len(c.uids("SUBJECT second")) == 0
	})
}

// Thunderbird, by its own programming interfaces: see thunderbird/thunderbird.py.
func TestThunderbird(t *testing.T) {
	needs(t, "thunderbird", "python3")
	driver, err := filepath.Abs("thunderbird/thunderbird.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []struct{ tls, imap, smtp string }{
		{"starttls", "imap", "submission"},
		{"implicit", "imaps", "submissions"},
	} {
		t.Run(mode.tls, func(t *testing.T) {
			s := start(t, options{accounts: []string{"tb", "peer"}})
			got := s.doFor(5*time.Minute, nil, "python3", driver, "--imap", s.addr(mode.imap), "--smtp", s.addr(mode.smtp), "--tls", mode.tls, "--deliver", s.addr("smtp"),
				"--user", address("tb"), "--password", password, "--peer", address("peer"), "--peer-password", password, "--many", "300").
				want(0, `^\d+ passed, 0 failed`)
			t.Logf("%s", got.out)
			for line := range strings.Lines(got.out) {
				// BYE answers LOGOUT.
				if strings.HasPrefix(line, "server said:") && !strings.HasPrefix(line, "server said: * BYE") {
					t.Error(strings.TrimSpace(line))
				}
			}
		})
	}
}
