package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The demo of the README, on other ports: it tells how to connect, has mail for alice, and keeps it all when started again.
func TestDemo(t *testing.T) {
	wanted(t)
	s := &server{t: t, dir: t.TempDir(), binary: built(t, "mailsrv", true), ports: freePorts(t, services...)}
	text, err := os.ReadFile("../testdata/demo.toml")
	if err != nil {
		t.Fatal(err)
	}
	demo := string(text)
	for service, port := range map[string]string{"smtp": "2525", "submission": "2587", "submissions": "2465", "lmtp": "2424", "imap": "2143",
		"imaps": "2993", "legacy": "2345", "http": "2080"} {
		if strings.Count(demo, "127.0.0.1:"+port) != 1 {
			t.Errorf("the demo's %s is not on port %s", service, port)
		}
		demo = strings.ReplaceAll(demo, ":"+port+`"`, ":"+s.port(service)+`"`)
	}
	s.config = s.write("demo.toml", demo)
	s.run()
	t.Cleanup(func() { s.stop(); s.checkLog() })
	s.await("the demo's table", func() bool { return strings.Contains(s.logged(), "certificate SHA-256") })
	for _, service := range services {
		if !strings.Contains(s.logged(), s.addr(service)) {
			t.Errorf("the demo does not tell that %s is on %s", service, s.addr(service))
		}
	}
	for _, word := range []string{"swaks", "Thunderbird", "alice@" + domain, "secret", "entry"} {
		if !strings.Contains(s.logged(), word) {
			t.Errorf("the demo does not tell of %s", word)
		}
	}
	count := func() string {
		c := s.dialIMAP("imaps")
		c.do("LOGIN alice@%s secret", domain)
		return strings.Join(c.do("STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY)"), "")
	}
	before := count()
	if strings.Contains(before, "MESSAGES 0") {
		t.Errorf("alice has no sample mail: %s", before)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "demo-data", "accounts", domain, "alice", "Maildir", "cur")); err != nil {
		t.Error(err)
	}
	s.stop()
	s.run()
	if after := count(); after != before {
		t.Errorf("started again: %s, before %s", after, before)
	}
	var mails []courseMail
	s.course("somebody.new").call(2, nil, &mails) // auto_create, as the course server did
}

// The subcommands, with the server running (over its socket) and stopped (on its data).
func TestCommands(t *testing.T) {
	s := start(t, options{})
	command := func(stdin, args string) outcome {
		t.Helper()
		return s.do(nil, "sh", "-c", fmt.Sprintf("printf '%%s' '%s' | %s -config %s %s", stdin, s.binary, s.config, args))
	}
	login := func(local, password string) string {
		c := s.dialIMAP("imaps")
		_, answer := c.try("LOGIN %s \"%s\"", address(local), password)
		return answer
	}
	if info, err := os.Stat(filepath.Join(s.data(), "mailsrv.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the control socket: %v %v", info, err)
	}
	for _, running := range []bool{true, false} {
		name := map[bool]string{true: "dora", false: "emil"}[running]
		if !running {
			s.stop()
		}
		command("first pass\n", "user add "+address(name)+" -password-stdin").want(0)
		command("first pass\n", "user add "+address(name)+" -password-stdin").want(1, `already|exists`)
		command("x\n", "user add x@elsewhere.test -password-stdin").want(1, `elsewhere\.test`)
		command("", "user list").want(0, name+"@", `alice@`)
		command("", "alias add team-"+address(name)+" "+address(name)+" "+address("bob")).want(0)
		command("", "alias list").want(0, "team-"+name)
		command("", "version").want(0, `^mailsrv \S+`)
		command("", "nonsense").want(2, `nonsense`)
		command("", "user del "+address("nobody")).want(1, `nobody`)
		if !running {
			command("", "check").want(0)
			s.run()
		}
		if answer := login(name, "first pass"); !strings.HasPrefix(answer, "OK") {
			t.Errorf("login of the new user: %s", answer)
		}
		s.do(nil, "curl", "-sS", "smtp://"+s.addr("smtp"), "--mail-from", "a@remote.test", "--mail-rcpt", "team-"+address(name), "-T",
			s.write("mail", message("a@remote.test", "team", "to the team of "+name, "x\r\n"))).want(0)
		s.arrived("bob", "INBOX", "Subject: to the team of "+name)
		if !running {
			s.stop()
		}
		command("second pass\n", "user passwd "+address(name)+" -password-stdin").want(0)
		command("", "alias del team-"+address(name)).want(0)
		if !running {
			s.run()
		}
		if first, second := login(name, "first pass"), login(name, "second pass"); !strings.HasPrefix(first, "NO") || !strings.HasPrefix(second, "OK") {
			t.Errorf("after the password was changed, the old one: %s, the new one: %s", first, second)
		}
		command("", "user del "+address(name)).want(0)
		if answer := login(name, "second pass"); !strings.HasPrefix(answer, "NO") {
			t.Errorf("after the user was removed: %s", answer)
		}
	}
	second := s.do(nil, s.binary, "-config", s.config)
	if second.code == 0 || !strings.Contains(second.out, "in use") {
		t.Errorf("a second server on the same data ended with %d: %s", second.code, second.out)
	}
	bad := s.write("bad.toml", "hostname = 5\nnonsense = true\n")
	s.do(nil, s.binary, "-config", bad).want(2, `bad\.toml:1: hostname: `, `bad\.toml:2: nonsense: `)
}
