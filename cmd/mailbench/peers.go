package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Peer is one server of a comparison, as peers.toml names it.
type Peer struct {
	Name   string `toml:"name"`
	Kind   string `toml:"kind"`   // "mailsrv", "dovecot", or "postfix" (in front of a Dovecot of its own)
	Format string `toml:"format"` // dovecot's mailbox format: "maildir", "sdbox", "mdbox"
	Binary string `toml:"binary"` // mailsrv's; empty: built from this tree
}

const (
	benchDomain   = "example.test"
	benchPassword = "secret"
)

// server is a running Peer.
type server struct {
	Peer
	dir              string
	smtp, lmtp, imap string
	submission       string // takes mail for other domains and hands it to the sink
	login            bool   // after AUTH
	version          string
	roots            []int // processes; their descendants count too
	stop             []func()
}

func (s *server) close() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
}

// start runs the peer in a fresh folder on loopback, with the defaults its makers chose for durability.
func (p Peer) start(dir, sink string, users []string) (*server, error) {
	s := &server{Peer: p, dir: filepath.Join(dir, p.Name)}
	// Other users' processes (dovenull, postfix) have to reach their files below it.
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	starters := map[string]func(*server, string, []string) error{"mailsrv": startMailsrv, "dovecot": startDovecot, "postfix": startPostfix}
	begin, ok := starters[p.Kind]
	if !ok {
		return nil, fmt.Errorf("peer %q: no kind %q; there are mailsrv, dovecot, postfix", p.Name, p.Kind)
	}
	if err := begin(s, sink, users); err != nil {
		s.close()
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	for _, addr := range []string{s.smtp, s.lmtp, s.imap} {
		if err := awaitListener(addr); err != nil {
			s.close()
			return nil, fmt.Errorf("start %s: %w (its log is in %s)", p.Name, err, s.dir)
		}
	}
	return s, nil
}

func awaitListener(addr string) error {
	if addr == "" {
		return nil
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// freePort is one that nobody listened on a moment ago.
func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// spawn starts a program whose output goes to dir/output, and ends it by SIGTERM when the comparison is over.
func (s *server) spawn(name string, args ...string) error {
	out, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	s.roots = append(s.roots, cmd.Process.Pid)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	s.stop = append(s.stop, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	return nil
}

func startMailsrv(s *server, sink string, users []string) error {
	bin := s.Binary
	if bin == "" {
		bin = filepath.Join(s.dir, "mailsrv-binary")
		if out, err := exec.Command("go", "build", "-o", bin, "./cmd/mailsrv").CombinedOutput(); err != nil {
			return fmt.Errorf("build ./cmd/mailsrv (run from the repository's top, or set binary): %w: %s", err, out)
		}
	}
	conf := filepath.Join(s.dir, "mailsrv.toml")
	s.smtp, s.lmtp, s.imap = "127.0.0.1:"+freePort(), "127.0.0.1:"+freePort(), "127.0.0.1:"+freePort()
	s.submission, s.login = "127.0.0.1:"+freePort(), true
	var b strings.Builder
	fmt.Fprintf(&b, "hostname = \"mx.%s\"\ndata = %q\n[listen]\nsmtp = [%q]\nlmtp = [%q]\nimap = [%q]\nsubmission = [%q]\n[log]\nlevel = \"warn\"\n[[domain]]\nname = %q\n[[route]]\ndomain = \"*\"\nhost = \"127.0.0.1:%s\"\ntls = \"none\"\n",
		benchDomain, filepath.Join(s.dir, "data"), s.smtp, s.lmtp, s.imap, s.submission, benchDomain, sink)
	if err := os.WriteFile(conf, []byte(b.String()), 0o644); err != nil {
		return err
	}
	hash := exec.Command(bin, "-config", conf, "user", "hash", "-password-stdin")
	hash.Stdin = strings.NewReader(benchPassword + "\n")
	line, err := hash.Output()
	if err != nil {
		return fmt.Errorf("mailsrv user hash: %w", err)
	}
	for _, u := range users {
		fmt.Fprintf(&b, "[[account]]\naddress = %q\npassword_hash = %q\n", u, bytes.TrimSpace(line))
	}
	if err := os.WriteFile(conf, []byte(b.String()), 0o644); err != nil {
		return err
	}
	if v, err := exec.Command(bin, "version").Output(); err == nil {
		s.version = strings.TrimSpace(string(v))
	}
	return s.spawn(bin, "-config", conf)
}

// dovecotConf is for Debian's 2.3: durability as it is by default (mail_fsync = optimized: messages are synced before the
// answer, flag changes are not), any user with one password, no TLS.
const dovecotConf = `base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
protocols = imap lmtp
ssl = no
disable_plaintext_auth = no
listen = 127.0.0.1
mail_location = {format}:{dir}/mail/%u
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
mail_max_userip_connections = 100000
default_client_limit = 20000
default_process_limit = 4000
passdb {
  driver = static
  args = password={password}
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home={dir}/mail/%u
}
service imap-login {
  inet_listener imap {
    port = {imap}
  }
  inet_listener imaps {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = {lmtp}
  }
}
namespace inbox {
  inbox = yes
}
`

func startDovecot(s *server, _ string, _ []string) error {
	if s.Format == "" {
		s.Format = "maildir"
	}
	mail := filepath.Join(s.dir, "mail")
	if err := os.MkdirAll(mail, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("chown", "nobody:nogroup", mail).CombinedOutput(); err != nil {
		return fmt.Errorf("chown: %w: %s", err, out)
	}
	imap, lmtp := freePort(), freePort()
	s.imap, s.lmtp = "127.0.0.1:"+imap, "127.0.0.1:"+lmtp
	conf := filepath.Join(s.dir, "dovecot.conf")
	text := strings.NewReplacer("{dir}", s.dir, "{format}", s.Format, "{password}", benchPassword, "{imap}", imap, "{lmtp}", lmtp).Replace(dovecotConf)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	if v, err := exec.Command("dovecot", "--version").Output(); err == nil {
		s.version = "Dovecot " + strings.TrimSpace(string(v))
	}
	return s.spawn("dovecot", "-F", "-c", conf)
}

// startPostfix runs Debian's Postfix, unconfigured but for where it listens, what is local and whom it hands mail to: a
// Dovecot with LMTP.
func startPostfix(s *server, sink string, users []string) error {
	behind, err := Peer{Name: "dovecot", Kind: "dovecot", Format: s.Format}.start(s.dir, sink, users)
	if err != nil {
		return err
	}
	s.stop = append(s.stop, behind.close)
	s.imap, s.roots = behind.imap, behind.roots
	port := freePort()
	s.smtp = "127.0.0.1:" + port
	s.submission = s.smtp
	conf := filepath.Join(s.dir, "conf")
	for _, d := range []string{conf, filepath.Join(s.dir, "queue"), filepath.Join(s.dir, "lib")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(s.dir, "lib")).CombinedOutput(); err != nil {
		return fmt.Errorf("chown: %w: %s", err, out)
	}
	main := strings.NewReplacer("{dir}", s.dir, "{lmtp}", behind.lmtp, "{domain}", benchDomain, "{sink}", sink).Replace(`compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/lib
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = /var/log/mailbench-postfix.log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.{domain}
mydestination =
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = static:ok
virtual_transport = lmtp:inet:{lmtp}
smtpd_client_connection_count_limit = 0
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
`)
	master := strings.ReplaceAll(masterCF, "{port}", port)
	if err := errors.Join(os.WriteFile(filepath.Join(conf, "main.cf"), []byte(main), 0o644),
		os.WriteFile(filepath.Join(conf, "master.cf"), []byte(master), 0o644)); err != nil {
		return err
	}
	if v, err := exec.Command("postconf", "-c", conf, "-h", "mail_version").Output(); err == nil {
		s.version = "Postfix " + strings.TrimSpace(string(v)) + " → " + behind.version
	}
	// An instance that is not Debian's own has to be allowed by hand; MAIL_CONFIG is what its programs look at.
	start := exec.Command("postfix", "-c", conf, "start")
	start.Env = append(os.Environ(), "MAIL_CONFIG="+conf)
	if out, err := start.CombinedOutput(); err != nil {
		return fmt.Errorf("postfix start: %w: %s", err, out)
	}
	s.stop = append(s.stop, func() { _ = exec.Command("postfix", "-c", conf, "stop").Run() })
	pid, err := os.ReadFile(filepath.Join(s.dir, "queue", "pid", "master.pid"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	s.roots = append(s.roots, n)
	return err
}

const masterCF = `127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// syncs counts fsync, fdatasync and their kin of the peer's processes while fn runs, with strace. It slows the peer down, so
// nothing is timed meanwhile. -1 if strace is not there.
func (s *server) syncs(fn func() error) (int, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return -1, fn()
	}
	args := []string{"-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync", "-o", filepath.Join(s.dir, "strace")}
	for _, pid := range tree(s.roots) {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.Command("strace", args...)
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		return -1, err
	}
	time.Sleep(time.Second) // strace says nowhere when it has attached to all
	err := fn()
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if err != nil {
		return -1, err
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "strace"))
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "sync") && !strings.Contains(line, "resumed>") {
			n++
		}
	}
	return n, err
}
