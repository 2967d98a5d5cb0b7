package e2e

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/resolve/resolvetest"
)

// A small internet on loopback: every host has an address of its own and takes mail at port 25, as MX records cannot name
// another. The addresses differ from run to run, so that two runs do not meet. The DNS is ours; Postfix and Exim, who ask
// the system's, are told their neighbours by hand.
var (
	oneAt     = loopback(1) // one.test: mailsrv, from which most of the mail is sent
	twoAt     = loopback(2) // two.test: another mailsrv
	postfixAt = loopback(3) // post.test
	eximAt    = loopback(4) // exim.test
	roughAt   = loopback(5) // rough.test: a server that misbehaves
	deadAt    = loopback(6) // dead.test: nobody is there until somebody comes
)

func loopback(host int) string {
	return fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()>>8%250, os.Getpid()%256, host)
}

// rootOnly skips a test where port 25 and other users' files cannot be had.
func rootOnly(t *testing.T) {
	t.Helper()
	wanted(t)
	if os.Getuid() != 0 {
		t.Skip("needs root for port 25 of loopback addresses")
	}
}

// smallInternet is the DNS with all hosts in it.
func smallInternet(t *testing.T) *resolvetest.Server {
	dns := resolvetest.New(t)
	for domain, addr := range map[string]string{"one.test": oneAt, "two.test": twoAt, "post.test": postfixAt, "exim.test": eximAt,
		"rough.test": roughAt, "dead.test": deadAt} {
		dns.Add(domain+". 300 IN MX 10 mx."+domain+".", "mx."+domain+". 300 IN A "+addr)
	}
	dns.Add("nomail.test. 300 IN MX 0 .")
	return dns
}

// sendsBy is the configuration that has a server ask our DNS.
func sendsBy(dns *resolvetest.Server) string { return fmt.Sprintf("[dns]\nserver = %q\n", dns.Addr()) }

// submits hands a mail over as a person's client does.
func (s *server) submits(from, subject string, to ...string) {
	s.t.Helper()
	s.submitsWith("", from, subject, to...)
}

// submitsWith is submits with parameters of MAIL.
func (s *server) submitsWith(parameters, from, subject string, to ...string) {
	s.t.Helper()
	c, err := smtp.Dial(s.addr("submission"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	steps := []func() error{
		func() error { return c.StartTLS(&tls.Config{InsecureSkipVerify: true}) },
		func() error { return c.Auth(smtp.PlainAuth("", from+"@"+s.domain, password, "127.0.0.1")) },
		func() error {
			if parameters == "" {
				return c.Mail(from + "@" + s.domain)
			}
			id, err := c.Text.Cmd("MAIL FROM:<%s@%s> BODY=8BITMIME %s", from, s.domain, parameters)
			if err != nil {
				return err
			}
			c.Text.StartResponse(id)
			defer c.Text.EndResponse(id)
			_, _, err = c.Text.ReadResponse(250)
			return err
		},
	}
	for _, rcpt := range to {
		steps = append(steps, func() error { return c.Rcpt(rcpt) })
	}
	steps = append(steps, func() error {
		w, err := c.Data()
		if err != nil {
			return err
		}
		fmt.Fprint(w, message(from+"@"+s.domain, strings.Join(to, ", "), subject, "A line.\r\n.A line with a dot.\r\nGrüße.\r\n"))
		return w.Close()
	}, c.Quit)
	for i, step := range steps {
		if err := step(); err != nil {
			s.t.Fatalf("submission of %q to %v, step %d: %v", subject, to, i, err)
		}
	}
}

// queue runs a queue subcommand of the running server.
func (s *server) queue(args ...string) string {
	s.t.Helper()
	return s.do(nil, s.binary, append([]string{"-config", s.config, "queue"}, args...)...).want(0).out
}

// queueIDs lists the queue IDs of lines that contain text.
func (s *server) queueIDs(text string) []string {
	s.t.Helper()
	var ids []string
	for line := range strings.Lines(s.queue("list")) {
		if f := strings.Fields(line); strings.Contains(line, text) && len(f) > 1 {
			ids = append(ids, f[0])
		}
	}
	return ids
}

// rough is a server that does what its recipients' names say.
type rough struct {
	mu       sync.Mutex
	tries    map[string]int    // by recipient
	taken    map[string]int    // acknowledged, by recipient
	messages map[string]string // by recipient
}

func startRough(t *testing.T, addr string) *rough {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &rough{tries: map[string]int{}, taken: map[string]int{}, messages: map[string]string{}}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				r.serve(c)
			})
		}
	})
	return r
}

func (r *rough) try(rcpt string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries[rcpt]++
	return r.tries[rcpt]
}

func (r *rough) acknowledged(rcpt string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken[rcpt]
}

func (r *rough) serve(c net.Conn) {
	in := bufio.NewReader(c)
	rcpt := ""
	fmt.Fprint(c, "220 rough.test\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		switch verb {
		case "EHLO":
			// STARTTLS is offered and then fails, as behind a box that strips it.
			fmt.Fprint(c, "250-rough.test\r\n250-STARTTLS\r\n250 SIZE 1000000\r\n")
		case "STARTTLS":
			fmt.Fprint(c, "454 4.7.0 TLS not available today\r\n")
		case "RCPT":
			_, rest, _ := strings.Cut(line, "<")
			rcpt, _, _ = strings.Cut(rest, "@")
			switch n := r.try(rcpt); {
			case rcpt == "unknown":
				fmt.Fprint(c, "550-5.1.1 We never heard of such a person.\r\n550 5.1.1 Ask at the desk (code 7).\r\n")
			case rcpt == "busy" && n < 3:
				fmt.Fprint(c, "451 4.3.2 come again later\r\n")
			default:
				fmt.Fprint(c, "250 ok\r\n")
			}
		case "DATA":
			fmt.Fprint(c, "354 go on\r\n")
			var text strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(line)
			}
			if rcpt == "cut" && r.try("cut-data") == 1 {
				return // after the final dot, before the answer
			}
			r.mu.Lock()
			r.taken[rcpt]++
			r.messages[rcpt] = text.String()
			r.mu.Unlock()
			fmt.Fprint(c, "250 2.0.0 taken\r\n")
		case "QUIT":
			fmt.Fprint(c, "221 bye\r\n")
			return
		default:
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

// dsn waits for a delivery status notification with all of parts.
func (s *server) dsn(local string, parts ...string) string {
	s.t.Helper()
	return s.arrived(local, "INBOX", append([]string{"multipart/report", "message/delivery-status"}, parts...)...)
}

func TestMailBetweenServers(t *testing.T) {
	rootOnly(t)
	dns := smallInternet(t)
	one := start(t, options{domain: "one.test", world: oneAt + ":25", tables: sendsBy(dns)})
	two := start(t, options{domain: "two.test", world: twoAt + ":25", tables: sendsBy(dns)})
	rough := startRough(t, roughAt+":25")

	t.Run("there and back", func(t *testing.T) {
		one.submits("alice", "from one", "bob@two.test", "carol@two.test")
		text := two.arrived("bob", "INBOX", "Subject: from one", ".A line with a dot.", "Grüße.")
		if !containsAll(text, []string{"Return-Path: <alice@one.test>", "by mx.two.test with ESMTPS", "by mx.one.test with UTF8SMTPSA"}) {
			t.Errorf("trace headers:\n%s", text)
		}
		two.arrived("carol", "INBOX", "Subject: from one")
		two.submits("bob", "from two", "alice@one.test")
		one.arrived("alice", "INBOX", "Subject: from two")
	})

	t.Run("bounces", func(t *testing.T) {
		one.submits("alice", "nobody there", "nobody@two.test")
		one.dsn("alice", "Subject: nobody there", "Final-Recipient: rfc822; nobody@two.test", "Status: 5.1.1", "Action: failed", "Remote-MTA: dns;", "mx.two.test")
		one.submits("alice", "null mx", "x@nomail.test")
		one.dsn("alice", "Subject: null mx", "Status: 5.1.10")
		one.submits("alice", "no domain", "x@nowhere.test")
		one.dsn("alice", "Subject: no domain", "Status: 5.1.2")
		one.submits("alice", "their words", "unknown@rough.test")
		one.dsn("alice", "Subject: their words", "We never heard of such a person.", "Ask at the desk (code 7).")
	})

	t.Run("trouble on the way", func(t *testing.T) {
		one.submits("alice", "stripped", "plain@rough.test")
		one.await("mail to a server that strips TLS", func() bool { return rough.acknowledged("plain") == 1 })
		one.submits("alice", "busy", "busy@rough.test")
		one.submits("alice", "cut", "cut@rough.test")
		one.await("both in the queue", func() bool {
			return len(one.queueIDs("busy@rough.test")) == 1 && len(one.queueIDs("cut@rough.test")) == 1
		})
		one.await("both taken", func() bool {
			for _, id := range append(one.queueIDs("busy@rough.test"), one.queueIDs("cut@rough.test")...) {
				one.do(nil, one.binary, "-config", one.config, "queue", "retry", id)
			}
			return rough.acknowledged("busy") == 1 && rough.acknowledged("cut") == 1
		})
		one.await("an empty queue", func() bool { return len(one.queueIDs("@rough.test")) == 0 })
	})

	t.Run("an alias leads on", func(t *testing.T) {
		one.do(nil, one.binary, "-config", one.config, "alias", "add", "team@one.test", "bob@one.test", "bob@two.test").want(0)
		two.submits("alice", "to the team", "team@one.test")
		one.arrived("bob", "INBOX", "Subject: to the team")
		two.arrived("bob", "INBOX", "Subject: to the team")
	})

	t.Run("killed with a full queue", func(t *testing.T) {
		for i := range 20 {
			one.submits("alice", fmt.Sprintf("patient %d", i), fmt.Sprintf("p%d@dead.test", i))
		}
		one.kill()
		one.run()
		if got := len(one.queueIDs("@dead.test")); got != 20 {
			t.Fatalf("after the kill %d of 20 are queued:\n%s", got, one.queue("list"))
		}
		dead := startRough(t, deadAt+":25")
		one.await("all delivered", func() bool {
			for _, id := range one.queueIDs("@dead.test") {
				one.do(nil, one.binary, "-config", one.config, "queue", "retry", id)
			}
			return len(one.queueIDs("@dead.test")) == 0
		})
		for i := range 20 {
			if got := dead.acknowledged(fmt.Sprintf("p%d", i)); got != 1 {
				t.Errorf("mail %d came %d times", i, got)
			}
		}
	})
}

// TestDANE: a TLSA record of a signed zone decides; the right one lets mail through verified, a wrong one holds it.
func TestDANE(t *testing.T) {
	rootOnly(t)
	dns := smallInternet(t)
	one := start(t, options{domain: "one.test", world: oneAt + ":25", tables: sendsBy(dns)})
	two := start(t, options{domain: "two.test", world: twoAt + ":25", tables: sendsBy(dns)})
	dns.Secure("two.test", "mx.two.test", "_25._tcp.mx.two.test")
	tlsa := func(digest []byte) {
		dns.Remove("_25._tcp.mx.two.test")
		dns.Add("_25._tcp.mx.two.test. 1 IN TLSA 3 1 1 " + hex.EncodeToString(digest))
	}
	tlsa(make([]byte, 32))
	one.submits("alice", "not to a stranger", "bob@two.test")
	one.await("the mail held back", func() bool { return strings.Contains(one.queue("show", one.queueIDs("bob@two.test")[0]), "4.7") })
	if texts := two.texts("bob", "INBOX"); len(texts) != 0 {
		t.Fatalf("a wrong TLSA record did not hold the mail:\n%s", texts)
	}
	one.submits("alice", "for the record", "carol@one.test") // others go on

	c, err := net.Dial("tcp", two.world)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := smtp.NewClient(c, "mx.two.test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	state, _ := conn.TLSConnectionState()
	digest := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	tlsa(digest[:])
	time.Sleep(1100 * time.Millisecond) // the record's time to live, which the resolver may use to the full
	one.await("the mail let go", func() bool {
		for _, id := range one.queueIDs("bob@two.test") {
			one.do(nil, one.binary, "-config", one.config, "queue", "retry", id)
		}
		return len(one.queueIDs("bob@two.test")) == 0
	})
	two.arrived("bob", "INBOX", "Subject: not to a stranger")

	// REQUIRETLS (RFC 8689) from the client through both servers, and back where nobody vouches.
	one.submitsWith("REQUIRETLS RET=FULL", "alice", "only with TLS", "carol@two.test")
	two.arrived("carol", "INBOX", "Subject: only with TLS")
	one.submitsWith("REQUIRETLS RET=FULL", "alice", "nor to anybody", "anybody@rough.test")
	if bounce := one.dsn("alice", "Subject: nor to anybody", "Status: 5.7.30"); strings.Contains(bounce, "A line with a dot") {
		t.Errorf("the bounce has the body that was to be kept secret:\n%s", bounce)
	}
	if !strings.Contains(one.logged(), "dane") {
		t.Errorf("no attempt's log line says dane:\n%s", tail(one.logged(), 3000))
	}
}

// maildirHas waits for a mail in a foreign server's Maildir.
func (s *server) maildirHas(dir, text string) {
	s.t.Helper()
	s.await("mail with "+text+" in "+dir, func() bool {
		for _, file := range glob(s.t, dir, "new/*") {
			if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), text) {
				return true
			}
		}
		return false
	})
}

// relaysThrough has a foreign server relay a mail of its own domain to ours, over SMTP from loopback.
func (s *server) relaysThrough(addr, from, to, subject string) {
	s.t.Helper()
	if err := smtp.SendMail(addr, nil, from, []string{to}, []byte(message(from, to, subject, "Across.\r\n"))); err != nil {
		s.t.Fatalf("%s to %s: %v", from, to, err)
	}
}

func TestPostfixNeighbour(t *testing.T) {
	rootOnly(t)
	needs(t, "postfix")
	dns := smallInternet(t)
	one := start(t, options{domain: "one.test", world: oneAt + ":25", tables: sendsBy(dns)})
	dir := neighbour(t)
	conf := filepath.Join(dir, "conf")
	for _, d := range []string{conf, filepath.Join(dir, "queue"), filepath.Join(dir, "lib"), filepath.Join(dir, "mail")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chown(t, "postfix", filepath.Join(dir, "lib"))
	nobody := chown(t, "nobody", filepath.Join(dir, "mail"))
	mustWrite(t, filepath.Join(conf, "main.cf"), strings.NewReplacer("{dir}", dir, "{uid}", nobody.Uid, "{gid}", nobody.Gid).Replace(`compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/lib
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = /var/log/mailsrv-e2e-postfix.log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_bind_address = `+postfixAt+`
myhostname = mx.post.test
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = post.test
virtual_mailbox_maps = inline:{ {paul@post.test=paul/} }
virtual_mailbox_base = {dir}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
transport_maps = inline:{ {one.test=smtp:[`+oneAt+`]:25} }
smtp_tls_security_level = may
smtputf8_enable = yes
`))
	mustWrite(t, filepath.Join(conf, "master.cf"), postfixAt+`:25 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`)
	begin := exec.Command("postfix", "-c", conf, "start")
	begin.Env = append(os.Environ(), "MAIL_CONFIG="+conf)
	if out, err := begin.CombinedOutput(); err != nil {
		logged, _ := os.ReadFile("/var/log/mailsrv-e2e-postfix.log")
		t.Fatalf("postfix start: %v\n%s%s", err, out, logged)
	}
	t.Cleanup(func() { _ = exec.Command("postfix", "-c", conf, "stop").Run() })

	one.submits("alice", "to Postfix", "paul@post.test")
	one.maildirHas(filepath.Join(dir, "mail", "paul"), "Subject: to Postfix")
	one.submits("alice", "not at Postfix", "nobody@post.test")
	one.dsn("alice", "Subject: not at Postfix", "Status: 5.1.1", "mx.post.test")
	one.relaysThrough(postfixAt+":25", "paul@post.test", "alice@one.test", "from Postfix")
	text := one.arrived("alice", "INBOX", "Subject: from Postfix")
	if !containsAll(text, []string{"Return-Path: <paul@post.test>", "from mx.post.test", "with UTF8SMTPS"}) {
		t.Errorf("trace headers:\n%s", text)
	}
	// What we refuse, Postfix bounces to its own sender.
	one.relaysThrough(postfixAt+":25", "paul@post.test", "nobody@one.test", "refused")
	one.maildirHas(filepath.Join(dir, "mail", "paul"), "550 5.1.1")
}

// eximBinary is Debian's, unpacked by make tools: its package cannot be installed beside Postfix's.
func eximBinary(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("exim4"); err == nil {
		return path
	}
	path, err := filepath.Abs("../bin/peers/usr/sbin/exim4")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if os.Getenv("MAILSRV_E2E") == "require" {
			t.Fatal("exim4 is not there: make tools")
		}
		t.Skip("exim4 is not there: make tools")
	}
	return path
}

func TestEximNeighbour(t *testing.T) {
	rootOnly(t)
	exim := eximBinary(t)
	dns := smallInternet(t)
	one := start(t, options{domain: "one.test", world: oneAt + ":25", tables: sendsBy(dns)})
	dir := neighbour(t)
	for _, d := range []string{"spool", "mail", "log"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		chown(t, "Debian-exim", filepath.Join(dir, d))
	}
	conf := filepath.Join(dir, "exim.conf")
	mustWrite(t, conf, strings.NewReplacer("{dir}", dir, "{exim}", exim).Replace(`primary_hostname = mx.exim.test
spool_directory = {dir}/spool
log_file_path = {dir}/log/%slog
local_interfaces = `+eximAt+`
daemon_smtp_ports = 25
exim_path = {exim}
domainlist local_domains = exim.test
hostlist relay_from_hosts = 127.0.0.0/8
acl_smtp_rcpt = rcpt
host_lookup =
rfc1413_query_timeout = 0s
never_users =
tls_advertise_hosts =
begin acl
rcpt:
  accept domains = +local_domains
         local_parts = eva
  deny   domains = +local_domains
         message = 550 no such person here
  accept hosts = +relay_from_hosts
  deny
begin routers
local:
  driver = accept
  domains = +local_domains
  transport = maildir
one:
  driver = manualroute
  domains = one.test
  route_list = one.test `+oneAt+`
  self = send
  transport = out
begin transports
maildir:
  driver = appendfile
  directory = {dir}/mail/eva
  maildir_format
  create_directory
  user = Debian-exim
out:
  driver = smtp
  interface = `+eximAt+`
  hosts_try_dane =
  allow_localhost
begin retry
* * F,1h,1m
`))
	if err := os.Chmod(conf, 0o644); err != nil { // Debian-exim reads it too
		t.Fatal(err)
	}
	cmd := exec.Command(exim, "-C", conf, "-bdf", "-q1m")
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("exim: %s\n%s", out, read(t, filepath.Join(dir, "log", "mainlog")))
		}
	})
	one.await("Exim", func() bool {
		c, err := net.Dial("tcp", eximAt+":25")
		if err == nil {
			c.Close()
		}
		return err == nil
	})

	one.submits("alice", "to Exim", "eva@exim.test")
	one.maildirHas(filepath.Join(dir, "mail", "eva"), "Subject: to Exim")
	one.submits("alice", "not at Exim", "nobody@exim.test")
	one.dsn("alice", "Subject: not at Exim", "no such person here")
	one.relaysThrough(eximAt+":25", "eva@exim.test", "alice@one.test", "from Exim")
	one.arrived("alice", "INBOX", "Subject: from Exim", "from mx.exim.test")
}

// lockedBuffer is a bytes.Buffer for a process and its test.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// neighbour is a folder that other users can reach.
func neighbour(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailsrv-neighbour-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func chown(t *testing.T, name, path string) *user.User {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", u.Uid+":"+u.Gid, path).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	return u
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Logf("%v", err)
	}
	return string(data)
}
