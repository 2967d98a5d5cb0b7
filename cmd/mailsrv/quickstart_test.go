package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// What quickstart writes runs: the server starts with it, the account can log in, and the records it printed are those
// that check asks for.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "")
	if err := os.Remove(filepath.Join(h.dir, "mailsrv.toml")); err != nil {
		t.Fatal(err)
	}
	printed, code := h.run("first password\n", "quickstart", "Me@Example.Org", "-password-stdin")
	if code != 0 || strings.Contains(printed, "first password") {
		t.Fatalf("exit %d\n%s", code, printed)
	}
	file := filepath.Join(h.dir, "mailsrv.toml")
	if !strings.HasSuffix(printed, ";   mailsrv -config "+file+" check\n;   mailsrv -config "+file+"\n") {
		t.Errorf("the next two commands:\n%s", printed)
	}
	for _, path := range []string{"mailsrv.toml", "data/dkim/example.org/*-rsa.key", "data/dkim/example.org/*-ed25519.key"} {
		found, err := filepath.Glob(filepath.Join(h.dir, path))
		if err != nil || len(found) != 1 {
			t.Fatal(path, found, err)
		}
		if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(path, info.Mode(), err)
		}
	}

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	serves := zoneServer(t, printed)
	h.write("mailsrv.toml", regexp.MustCompile(`"[\d.]*:\d+"`).ReplaceAllString(string(text), `"127.0.0.1:0"`)+
		"\n[dns]\nserver = \""+serves+"\"\n")
	r := h.start()
	if !r.login("me@example.org", `"first password"`) || r.login("me@example.org", "other") {
		t.Error("the login")
	}
	r.send("postmaster@example.org", "hello")
	if got := r.subjects("me@example.org", `"first password"`); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, r.logged())
	}

	out, code := h.run("", "-config", "mailsrv.toml", "check")
	for _, want := range []string{"ok  mx           example.org comes to mail.example.org\n", "-rsa._domainkey.example.org is published, and signs\n",
		"-ed25519._domainkey.example.org is published, and signs\n", "ok  dmarc ", "ok  tls-rpt ", "--  mta-sts "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code == exitMistake { // else it depends on whether this machine has an address for the world
		t.Errorf("exit %d", code)
	}

	again, code := h.run("", "quickstart", "me@example.org")
	if code != exitMistake || !strings.Contains(again, "is there already, and nothing is overwritten") {
		t.Errorf("exit %d: %s", code, again)
	}
}

// zoneServer is a DNS of what is in a fragment of a zone file; names that are not there are not there.
func zoneServer(t *testing.T, zone string) (address string) {
	t.Helper()
	records := make(map[string][]dns.RR)
	for line := range strings.Lines(zone) {
		if line = strings.TrimSpace(line); line == "" || line[0] == ';' {
			continue
		}
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		name := strings.ToLower(rr.Header().Name)
		records[name] = append(records[name], rr)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		all, known := records[strings.ToLower(q.Question[0].Name)]
		for _, rr := range all {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(1232)
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: answer}, {Listener: tcp, Handler: answer}} {
		go s.ActivateAndServe() // until the end of the test
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return udp.LocalAddr().String()
}

// A start that fails leaves nothing behind, and a bad address nothing at all.
func TestQuickstartMistakes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "")
	for _, c := range []struct {
		args, stdin, want string
		code              int
	}{
		{"quickstart", "", "usage:", exitMistake},
		{"quickstart postmaster -dir d", "", "has no domain", exitMistake},
		{"quickstart not@an@address -dir d", "", "", exitMistake},
		{"quickstart me@example.org -dir d -hostname not_a_name!", "", "", exitMistake},
		{"quickstart me@example.org -dir d -password-stdin", "\n", "the password is empty", exitMistake},
		{"quickstart me@example.org", "", "mailsrv.toml is there already", exitMistake},
		{"quickstart me@example.org -dir mailsrv.toml/x", "", "not a directory", exitMistake},
	} {
		out, code := h.run(c.stdin, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d: %s", c.args, code, out)
		}
	}
	if left, err := os.ReadDir(h.dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Without a terminal and without a word about it the password is made, and shown once.
	out, code := h.run("", "quickstart", "me@example.org", "-dir", "new/er")
	shown := regexp.MustCompile(`shown only now: ([A-Z2-7]{26})\n`).FindStringSubmatch(out)
	if code != 0 || len(shown) != 2 {
		t.Errorf("exit %d\n%s", code, out)
	}
}
