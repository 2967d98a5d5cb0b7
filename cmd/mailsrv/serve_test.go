package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/internal/tlsconf"
)

// The demo on a fresh clone: everything listens, the sample mails are there once, and a second start has the same data.
func TestDemo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	r := h.start()
	for _, want := range []string{"swaks --server " + r.addr("smtp"), "Thunderbird", "mbsync", "course client to " + r.addr("legacy"), "carol@example.test"} {
		if !strings.Contains(r.table, want) {
			t.Errorf("the table lacks %q:\n%s", want, r.table)
		}
	}
	for service, greeting := range map[string]string{"smtp": "220 mx.example.test", "submission": "220 ", "submissions": "220 ",
		"lmtp": "220 ", "imap": "* OK ", "imaps": "* OK "} {
		r.dial(service).expect(greeting)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "mailsrv_build_info"} {
		resp, err := http.Get("http://" + r.addr("http") + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %.100s", path, resp.Status, body)
		}
	}
	for _, name := range []string{"alice", "bob@example.test", "Carol@EXAMPLE.test"} {
		if !r.login(name, "secret") {
			t.Errorf("%s cannot log in", name)
		}
	}
	if r.login("alice", "Secret") {
		t.Error("a wrong password opens")
	}
	mails := r.subjects("alice", "secret")
	if len(mails) != 5 || mails[3] != "Lunch on Thursday?" {
		t.Errorf("sample mails: %q", mails)
	}
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, r.logged())
	}
	if strings.Contains(r.logged(), "level=ERROR") || strings.Contains(r.logged(), "level=WARN") || strings.Contains(r.logged(), "secret") {
		t.Errorf("log:\n%s", r.logged())
	}

	again := h.start()
	if got := again.subjects("alice", "secret"); !slices.Equal(got, mails) {
		t.Errorf("second start: %q", got)
	}
	fingerprint := func(r *running) string { _, fp, _ := strings.Cut(r.table, "certificate SHA-256"); return fp }
	if fingerprint(again) != fingerprint(r) {
		t.Error("second start: another certificate")
	}
	if code := again.end(syscall.SIGINT); code != 0 {
		t.Errorf("exit %d on SIGINT", code)
	}
}

// SIGTERM with clients connected: they hear of it, and what was acknowledged is there at the next start.
func TestShutdownWithClients(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	r := h.start()
	idle, smtp := r.dial("imaps"), r.dial("smtp")
	idle.expect("* OK")
	idle.say("a LOGIN bob secret", "a OK")
	idle.say("b SELECT INBOX", "b OK")
	idle.say("c IDLE", "+")
	smtp.expect("220 ")
	r.send("bob@example.test", "just before the end")
	idle.expect("* 1 EXISTS")
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, r.logged())
	}
	idle.expect("* BYE")
	smtp.expect("421 ")
	if _, err := os.Stat(filepath.Join(h.dir, "demo-data", socketName)); err == nil {
		t.Error("the control socket is left behind")
	}
	if got := h.start().subjects("bob", "secret"); !slices.Equal(got, []string{"just before the end"}) {
		t.Errorf("after the restart: %q", got)
	}
}

// The server outlives the program that reads its log.
func TestLogReaderEnds(t *testing.T) {
	t.Parallel()
	r := newHouse(t, demoConfig(t, "")).start()
	r.mu.Lock()
	r.deaf = true
	r.mu.Unlock()
	for _, subject := range []string{"one", "two", "three"} { // a line of log for each
		r.send("bob@example.test", subject)
	}
	if got := r.subjects("bob", "secret"); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q", got)
	}
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// After kill -9 the stale socket disturbs neither commands nor the next start, and acknowledged mail is there.
func TestKill(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	r := h.start()
	r.send("bob@example.test", "survives")
	r.end(syscall.SIGKILL)
	if _, err := os.Stat(filepath.Join(h.dir, "demo-data", socketName)); err != nil {
		t.Fatal("no stale socket to test with")
	}
	h.must("pw\n", "user", "add", "dave@example.test", "-password-stdin")
	r = h.start()
	if !r.login("dave@example.test", "pw") {
		t.Error("an account added beside a stale socket is lost")
	}
	if got := r.subjects("bob", "secret"); !slices.Equal(got, []string{"survives"}) {
		t.Errorf("after the kill: %q", got)
	}
	if got := r.subjects("alice", "secret"); len(got) != 5 {
		t.Errorf("sample mails after the kill: %q", got)
	}
}

func TestRunningTwice(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	r := h.start()
	out, code := h.run("", "-config", "mailsrv.toml")
	if code != 1 || !strings.Contains(out, "mailsrv: data: ./demo-data is in use by another mailsrv: stop it") || strings.Count(out, "\n") != 1 {
		t.Errorf("exit %d: %s", code, out)
	}
	if out := h.must("", "user", "list"); !strings.Contains(out, "alice@example.test") {
		t.Errorf("the first server's control socket is gone: %s", out)
	}
	if !r.login("alice", "secret") {
		t.Error("the first server suffered")
	}
}

// All ports that cannot be had are told at once, and nothing was begun.
func TestPortsTaken(t *testing.T) {
	t.Parallel()
	var taken []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		taken = append(taken, l.Addr().String())
	}
	config := strings.Replace(demoConfig(t, ""), `imap = ["127.0.0.1:0"]`, `imap = ["`+taken[0]+`"]`, 1)
	config = strings.Replace(config, `smtp = ["127.0.0.1:0"]`, `smtp = ["`+taken[1]+`"]`, 1)
	h := newHouse(t, config)
	out, code := h.run("", "-config", "mailsrv.toml")
	for _, want := range []string{
		"mailsrv: listen: smtp " + taken[1] + ": address already in use: stop what listens there, or write another port\n",
		"mailsrv: listen: imap " + taken[0] + ": address already in use: stop what listens there, or write another port\n",
	} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("exit %d, without %q:\n%s", code, want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, "demo-data", socketName)); err == nil {
		t.Error("the control socket is left behind")
	}
	out, code = h.run("", "-config", "mailsrv.toml", "check")
	if code != 1 || !strings.Contains(out, "!!  listen       imap "+taken[0]+": address already in use") || !strings.Contains(out, "2 things to look at") {
		t.Errorf("check: exit %d\n%s", code, out)
	}
}

// A bad configuration ends with 2, all problems, and nothing made.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	h := newHouse(t, strings.Replace(demoConfig(t, "colour = 1\n"), "hostname", "hostnam", 1))
	for _, args := range [][]string{{}, {"user", "list"}, {"check"}} {
		out, code := h.run("", append([]string{"-config", "mailsrv.toml"}, args...)...)
		if code != 2 || !strings.Contains(out, "hostnam: unknown key: did you mean hostname?") || !strings.Contains(out, "limits.colour: unknown key") {
			t.Errorf("%v: exit %d: %s", args, code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, "demo-data")); err == nil {
		t.Error("the data folder was made")
	}
}

// A changed password holds at once, for the clients that were remembered too; so does everything else that commands change.
func TestRunningServerSeesChanges(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	r := h.start()
	h.must("first\n", "user", "add", "dave@example.test", "-password-stdin")
	for range 2 { // the second is remembered
		if !r.login("dave@example.test", "first") {
			t.Fatal("the new account cannot log in")
		}
	}
	h.must("second\n", "user", "passwd", "dave@example.test", "-password-stdin")
	if r.login("dave@example.test", "first") || !r.login("dave@example.test", "second") {
		t.Error("the old password still opens, or the new one does not")
	}
	h.must("", "alias", "add", "team@example.test", "dave@example.test", "bob@example.test")
	r.send("team@example.test", "for all")
	if got := r.subjects("dave@example.test", "second"); !slices.Equal(got, []string{"for all"}) {
		t.Errorf("dave has %q", got)
	}
	out := h.must("", "user", "del", "dave@example.test", "-purge")
	if !strings.Contains(out, "removed its mail") || !strings.Contains(out, "but alias team@example.test: target dave@example.test") {
		t.Errorf("user del: %s", out)
	}
	if r.login("dave@example.test", "second") {
		t.Error("a removed account logs in")
	}
	r.send("team@example.test", "for the rest")
	if got := r.subjects("bob", "secret"); !slices.Equal(got, []string{"for all", "for the rest"}) {
		t.Errorf("bob has %q", got)
	}
	for _, secret := range []string{"first", "second", "secret"} {
		if strings.Contains(r.logged(), secret) {
			t.Errorf("the log has a password:\n%s", r.logged())
		}
	}
}

// Every way that an address leads to somebody, from the wire to the INBOX: tags, aliases, groups, the catch-all, roles, domains and
// names in any script and any spelling. One copy for each of them, and a login with such a name.
func TestAddresses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, strings.Replace(demoConfig(t, ""), "demo = true", "demo = true\npostmaster = \"carol@example.test\"", 1)+`
[[domain]]
name = "bücher.example"
catch_all = "bob@example.test"
subaddress = "+-"
[[account]]
address = "jörg@bücher.example"
password = "secret"
[[alias]]
address = "büro@bücher.example"
to = ["jörg@bücher.example", "bob@example.test"]
[[group]]
address = "lesekreis@bücher.example"
members = ["büro@bücher.example", "jörg@xn--bcher-kva.example"]
`)
	r := h.start()
	for i, to := range []string{
		"jörg@bücher.example", "JÖRG@BÜCHER.example", "jo\u0308rg@xn--bcher-kva.example", "jörg+tag@bücher.example", "Jörg-tag@XN--BCHER-KVA.example",
		`"jörg"@bücher.example`,
	} {
		r.send(to, fmt.Sprintf("jörg %d", i))
	}
	r.send("büro+x@bücher.example", "büro")
	r.send("lesekreis@bücher.example", "lesekreis")
	r.send("irgendwer@bücher.example", "catch-all")
	for _, to := range []string{"postmaster", "Postmaster@example.test", "abuse@bücher.example"} {
		r.send(to, "role "+to)
	}
	jörg := fmt.Sprintf("{%d+}\r\nJÖRG@bücher.example", len("JÖRG@bücher.example"))
	for user, want := range map[string][]string{
		jörg:                 {"jörg 0", "jörg 1", "jörg 2", "jörg 3", "jörg 4", "jörg 5", "büro", "lesekreis"},
		"bob@example.test":   {"büro", "lesekreis", "catch-all"},
		"carol@example.test": {"role postmaster", "role Postmaster@example.test", "role abuse@bücher.example"},
	} {
		if got := r.subjects(user, "secret"); !slices.Equal(got, want) {
			t.Errorf("%q has %q, want %q", user, got, want)
		}
	}
}

// The control socket is for the server's user only, and works however long the data folder's path is.
func TestControlSocket(t *testing.T) {
	long := "./demo-data/" + strings.Repeat("long/", 40) + "data"
	h := newHouse(t, strings.Replace(demoConfig(t, ""), "./demo-data", long, 1))
	r := h.start()
	info, err := os.Stat(filepath.Join(h.dir, long, socketName))
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Fatalf("%v %v", info, err)
	}
	if out := h.must("", "user", "list"); !strings.Contains(out, "alice@example.test") {
		t.Error(out)
	}
	if !strings.Contains(r.logged(), `do="user list"`) {
		t.Error("the server was not asked")
	}
	t.Chdir(h.dir)
	path, release, err := shortSocketPath(long, socketName)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	for _, body := range []string{"", "nonsense", "[]", strings.Repeat("x", 2*maxRequest), `{"do":"` + strings.Repeat("x", maxRequest) + `"}`} {
		resp, err := client.Post("http://x/", "", strings.NewReader(body))
		if err != nil {
			continue // cut off in the middle of a flood: fine too
		}
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20q: %s", body, resp.Status)
		}
		resp.Body.Close()
	}
	if _, err := askServer(long, request{Do: "fly"}); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Error(err)
	}
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// SIGHUP takes a renewed certificate; a broken one leaves the old in use.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, strings.Replace(demoConfig(t, ""), `mode = "self-signed"`, "mode = \"files\"\ncert = \"cert.pem\"\nkey = \"cert.pem\"", 1))
	renew := func() string {
		dir := t.TempDir()
		certs, err := tlsconf.Load(tlsconf.Options{Dir: dir, Hostname: "mx.example.test", FS: disk.OS()})
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(filepath.Join(dir, "self-signed.pem"))
		if err != nil {
			t.Fatal(err)
		}
		h.write("cert.pem", string(pem))
		return certs.Fingerprint()
	}
	first := renew()
	r := h.start()
	seen := func() string {
		c, err := tls.Dial("tcp", r.addr("imaps"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return tlsconf.Fingerprint(c.ConnectionState().PeerCertificates[0])
	}
	reload := func(logs string) {
		before := strings.Count(r.logged(), logs)
		if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); strings.Count(r.logged(), logs) == before; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %q in\n%s", logs, r.logged())
			}
		}
	}
	if seen() != first {
		t.Error("not the certificate of the file")
	}
	second := renew()
	reload("the certificate was read again")
	if seen() != second {
		t.Error("SIGHUP did not take the new certificate")
	}
	h.write("cert.pem", "rubbish")
	reload("could not be read again")
	if seen() != second {
		t.Error("a broken file replaced a good certificate")
	}
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, "[log]\nformat = \"json\"\nlevel = \"debug\"\n"))
	r := h.start()
	r.login("alice", "wrong")
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(r.logged()), "\n") {
		if !strings.HasPrefix(line, `{"time":`) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if !strings.Contains(r.logged(), `"msg":"login failed"`) || strings.Contains(r.logged(), "wrong") {
		t.Errorf("log:\n%s", r.logged())
	}
}
