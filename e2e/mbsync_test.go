package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mbsync keeps a Maildir and the account alike, in both directions: new mail, flags, a folder, an expunge.
func TestMbsync(t *testing.T) {
	needs(t, "mbsync")
	s := start(t, options{})
	local := filepath.Join(s.dir, "local")
	if err := os.Mkdir(local, 0o700); err != nil {
		t.Fatal(err)
	}
	config := s.write("mbsyncrc", fmt.Sprintf(`
IMAPAccount a
Host 127.0.0.1
Port %s
User %s
Pass "%s"
SSLType IMAPS
CertificateFile %s

IMAPStore remote
Account a

MaildirStore local
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel c
Far :remote:
Near :local:
Patterns *
Create Both
Remove Both
Expunge Both
CopyArrivalDate yes
SyncState *
`, s.port("imaps"), address("alice"), password, s.certificate(), local, local))
	sync := func() { t.Helper(); s.do(nil, "mbsync", "-c", config, "-a", "-V").want(0) }

	c := s.imap("alice")
	for i := range 3 {
		c.append("INBOX", "", message("a@remote.test", address("alice"), fmt.Sprintf("far %d", i), "text\r\n"))
	}
	c.do("CREATE Projekte/K&AOQ-se")
	c.append("Projekte/K&AOQ-se", `\Seen \Flagged`, message("a@remote.test", address("alice"), "in a folder", "text\r\n"))
	sync()
	far := glob(t, local, "INBOX/*/*")
	if len(far) != 3 {
		t.Fatalf("after the first sync the INBOX here has %q", far)
	}
	folder := glob(t, local, "Projekte/K*/cur/*")
	if len(folder) != 1 || !strings.HasSuffix(folder[0], ":2,FS") {
		t.Fatalf("the folder here has %q", folder)
	}

	// Here: a new mail, a flag, a removal, a new folder with a mail. There: a flag, an expunge.
	t.Log("changes on both sides")
	mustWrite(t, filepath.Join(local, "INBOX/new/1.near.h"), strings.ReplaceAll(message("me@near.test", address("alice"), "near", "from here\r\n"), "\r\n", "\n"))
	first := containing(t, far, "far 0")
	rename(t, first, filepath.Join(local, "INBOX/cur", strings.SplitN(filepath.Base(first), ":", 2)[0]+":2,RS"))
	second := containing(t, far, "far 1")
	rename(t, second, filepath.Join(local, "INBOX/cur", strings.SplitN(filepath.Base(second), ":", 2)[0]+":2,T"))
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(local, "Neu", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, filepath.Join(local, "Neu/cur/2.near.h:2,S"), strings.ReplaceAll(message("me@near.test", address("alice"), "near too", "text\r\n"), "\r\n", "\n"))
	c.do("SELECT Projekte/K&AOQ-se")
	c.do(`STORE 1 -FLAGS (\Flagged)`)
	c.do("SELECT INBOX")
	c.do(`UID STORE %s +FLAGS (\Deleted)`, strings.Join(c.uids(`SUBJECT "far 2"`), ","))
	c.do("EXPUNGE")
	sync()

	if got := c.uids(`ANSWERED SEEN SUBJECT "far 0"`); len(got) != 1 {
		t.Errorf("the flags set here did not arrive there: %q", got)
	}
	if got := c.uids(`SUBJECT "far 1"`); len(got) != 0 {
		t.Errorf("removed here, still there: %q", got)
	}
	if got := c.uids(`SUBJECT "near" TEXT "from here"`); len(got) != 1 {
		t.Errorf("new here, there: %q", got)
	}
	c.do("SELECT Neu")
	if got := c.uids(`SEEN SUBJECT "near too"`); len(got) != 1 {
		t.Errorf("the folder made here, there: %q", got)
	}
	if left := glob(t, local, "INBOX/*/*"); len(left) != 2 {
		t.Errorf("after all the INBOX here has %q", left)
	}
	if folder = glob(t, local, "Projekte/K*/cur/*"); len(folder) != 1 || !strings.HasSuffix(folder[0], ":2,S") {
		t.Errorf("the folder here has %q", folder)
	}

	before := s.texts("alice", "INBOX")
	sync() // nothing to do now, and nothing done
	if after := s.texts("alice", "INBOX"); strings.Join(before, "") != strings.Join(after, "") {
		t.Errorf("a sync without changes changed the INBOX")
	}
}

// certificate returns the server's own, in PEM, for clients that pin.
func (s *server) certificate() string {
	s.t.Helper()
	for _, path := range append(glob(s.t, s.data(), "tls/*.pem"), glob(s.t, s.data(), "tls/*.crt")...) {
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), "BEGIN CERTIFICATE") {
			return path
		}
	}
	s.t.Fatal("no certificate in the data folder's tls")
	return ""
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func containing(t *testing.T, files []string, text string) string {
	t.Helper()
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil && strings.Contains(string(data), text) {
			return name
		}
	}
	t.Fatalf("no file of %q has %q in it", files, text)
	return ""
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
