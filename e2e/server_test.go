package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	domain   = "example.test"
	password = "secret pass-word"

	patience = 60 * time.Second // for one program, or for the server to do one thing
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "mailsrv-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// builds makes the server's binaries, once each.
var builds struct {
	sync.Mutex
	dir string
}

// built builds a command of this tree.
func built(t *testing.T, name string, race bool) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	out := filepath.Join(builds.dir, fmt.Sprintf("%s-race-%v", name, race))
	if _, err := os.Stat(out); err == nil {
		return out
	}
	args := []string{"build", "-o", out}
	if race {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "mailsrv/cmd/"+name)...)
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, text)
	}
	return out
}

// wanted skips the test unless end-to-end tests were asked for.
func wanted(t *testing.T) {
	t.Helper()
	if os.Getenv("MAILSRV_E2E") == "" {
		t.Skip("end-to-end tests run with MAILSRV_E2E=1 (leaving out programs that are not installed) or by make test")
	}
}

// needs skips the test, or fails it if everything is required, where a program is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	wanted(t)
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if os.Getenv("MAILSRV_E2E") == "require" {
			t.Fatalf("%s is not installed: make tools", program)
		}
		t.Skipf("%s is not installed: make tools", program)
	}
}

// server is one running mailsrv, which ends with the test.
type server struct {
	t      *testing.T
	dir    string
	config string
	binary string
	domain string
	ports  map[string]int
	world  string // where it takes mail from the world, if not on its own port of 127.0.0.1
	calm   func() // ends the witness of a hostile test

	mu     sync.Mutex
	log    bytes.Buffer
	cmd    *exec.Cmd
	exited chan error
}

var services = []string{"smtp", "submission", "submissions", "lmtp", "imap", "imaps", "legacy", "http"}

// options shape a server; zero values are the common case.
type options struct {
	accounts []string // local parts; nil is alice, bob and carol
	limits   string   // lines of [limits]
	tables   string   // further tables
	domain   string   // instead of domain
	world    string   // the address and port of smtp
	release  bool     // without the race detector, whose memory is many times that of the program
}

// start starts a server whose accounts all have the same password and are open to the course protocol.
func start(t *testing.T, o options) *server {
	t.Helper()
	wanted(t)
	s := &server{t: t, dir: t.TempDir(), binary: built(t, "mailsrv", !o.release), ports: freePorts(t, services...), domain: domain,
		world: o.world}
	if o.domain != "" {
		s.domain = o.domain
	}
	s.config = s.write("mailsrv.toml", s.toml(o))
	s.run()
	t.Cleanup(func() {
		if s.cmd != nil {
			s.stop()
		}
		s.checkLog()
	})
	return s
}

func (s *server) toml(o options) string {
	if o.accounts == nil {
		o.accounts = []string{"alice", "bob", "carol"}
	}
	secret := s.write("password", password+"\n")
	var b strings.Builder
	fmt.Fprintf(&b, "hostname = \"mx.%s\"\ndata = %q\n\n[listen]\n", s.domain, s.data())
	for _, name := range services {
		fmt.Fprintf(&b, "%s = [%q]\n", name, s.addr(name))
	}
	fmt.Fprintf(&b, "\n[tls]\nmode = \"self-signed\"\n\n[limits]\n%s\n\n%s\n\n[[domain]]\nname = %q\n", o.limits, o.tables, s.domain)
	for _, local := range o.accounts {
		fmt.Fprintf(&b, "\n[[account]]\naddress = %q\npassword_file = %q\nlegacy = true\n", local+"@"+s.domain, secret)
	}
	return b.String()
}

func address(local string) string { return local + "@" + domain }

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// write puts a file into the server's folder and returns its path.
func (s *server) write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func freePorts(t *testing.T, names ...string) map[string]int {
	t.Helper()
	ports := map[string]int{}
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only when all are found, so that none comes twice
		ports[name] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// port is a service's port as programs want it on their command line.
func (s *server) port(service string) string { return strconv.Itoa(s.ports[service]) }

func (s *server) addr(service string) string {
	if service == "smtp" && s.world != "" {
		return s.world
	}
	return "127.0.0.1:" + s.port(service)
}

// run starts the process and waits until every listener answers.
func (s *server) run() {
	s.t.Helper()
	s.cmd = exec.Command(s.binary, "-config", s.config)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1")
	s.cmd.Stdout, s.cmd.Stderr = (*serverLog)(s), (*serverLog)(s)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan error, 1)
	s.exited = exited
	go func() { exited <- cmd.Wait() }()
	for _, name := range services {
		s.await("listener "+name, func() bool {
			c, err := net.DialTimeout("tcp", s.addr(name), time.Second)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

// await looks until cond is true. A server that ends meanwhile fails the test at once.
func (s *server) await(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-s.exited:
			s.cmd = nil
			s.t.Fatalf("%s: the server ended: %v\n%s", what, err, s.logged())
		default:
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: waited in vain\n%s", what, tail(s.logged(), 4000))
		}
	}
}

// stop ends the server as a service manager does. It must end well, and soon.
func (s *server) stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
}

// kill ends it as a power loss of the process: no handler runs.
func (s *server) kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

func (s *server) end(signal syscall.Signal) {
	s.t.Helper()
	cmd := s.cmd
	s.cmd = nil
	cmd.Process.Signal(signal)
	select {
	case err := <-s.exited:
		var exit *exec.ExitError
		if signal == syscall.SIGTERM && err != nil || signal == syscall.SIGKILL && !errors.As(err, &exit) {
			s.t.Errorf("ended by %v: %v\n%s", signal, err, tail(s.logged(), 8000))
		}
	case <-time.After(patience):
		cmd.Process.Kill()
		<-s.exited
		s.t.Errorf("still running %v after %v", patience, signal)
	}
}

// serverLog collects what the process writes.
type serverLog server

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (s *server) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

var alarming = regexp.MustCompile(`(?m)^.*(\bpanic|DATA RACE|level=ERROR|fatal error).*$`)

// checkLog fails the test for what no client may bring about.
func (s *server) checkLog() {
	log := s.logged()
	if found := alarming.FindString(log); found != "" {
		s.t.Errorf("the log says: %s\n%s", found, tail(log, 8000))
	}
	if s.t.Failed() && testing.Verbose() {
		s.t.Logf("the server's log ends:\n%s", tail(log, 4000))
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// memory returns how much the process holds and has held at most, in bytes.
func (s *server) memory() (now, peak int64) {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			peak = kib << 10
		}
	}
	return now, peak
}

// outcome is how a program ended.
type outcome struct {
	t    *testing.T
	what string
	out  string // both streams
	code int
}

// do runs a program to its end in the server's folder, with env ("A=b") added.
func (s *server) do(env []string, name string, args ...string) outcome {
	s.t.Helper()
	return s.doFor(patience, env, name, args...)
}

func (s *server) doFor(patience time.Duration, env []string, name string, args ...string) outcome {
	s.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, append(os.Environ(), env...), &out, &out
	cmd.Env = append(cmd.Env, "HOME="+s.dir, "LC_ALL=C.UTF-8")
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	began := time.Now()
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		s.t.Fatalf("%s did not end in %v:\n%s", name, patience, tail(out.String(), 4000))
	}
	if took := time.Since(began); took > 10*time.Second {
		s.t.Logf("%s took %v: %.200q", name, took.Round(time.Millisecond), args)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v", name, err)
	}
	return outcome{s.t, name, out.String(), cmd.ProcessState.ExitCode()}
}

// want checks the exit code, and that the output matches every pattern.
func (o outcome) want(code int, patterns ...string) outcome {
	o.t.Helper()
	if o.code != code {
		o.t.Errorf("%s ended with %d, want %d:\n%s", o.what, o.code, code, tail(o.out, 4000))
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(o.out) {
			o.t.Errorf("%s did not say %q:\n%s", o.what, pattern, tail(o.out, 4000))
		}
	}
	return o
}
