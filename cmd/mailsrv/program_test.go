package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is the program as well: what it is told by this variable to be.
const beMailsrv = "MAILSRV_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(beMailsrv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience bounds every wait: longer than anything takes on a busy machine.
const patience = time.Minute

// house is a folder with a configuration, in which the program is run.
type house struct {
	t   *testing.T
	dir string
}

// demoConfig is testdata/demo.toml on free ports, with cheap hashes and a short end, and more behind it.
func demoConfig(t *testing.T, more string) string {
	t.Helper()
	data, err := os.ReadFile("../../testdata/demo.toml")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(string(data), "127.0.0.1:0") +
		"\n[auth]\nargon2_memory = \"8 KiB\"\nargon2_passes = 1\n[limits]\nshutdown_timeout = \"10s\"\n" + more
}

func newHouse(t *testing.T, config string) *house {
	t.Helper()
	h := &house{t, t.TempDir()}
	h.write("mailsrv.toml", config)
	return h
}

func (h *house) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), beMailsrv+"=1", "CREDENTIALS_DIRECTORY=")
	return cmd
}

// run runs the program to its end: what it printed (both streams) and its exit code.
func (h *house) run(stdin string, args ...string) (output string, code int) {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must runs a command on the house's configuration that has to succeed.
func (h *house) must(stdin string, args ...string) string {
	h.t.Helper()
	out, code := h.run(stdin, append([]string{"-config", "mailsrv.toml"}, args...)...)
	if code != 0 {
		h.t.Fatalf("mailsrv %s: exit %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// running is a server under test.
type running struct {
	h     *house
	cmd   *exec.Cmd
	table string // what it printed when it was ready
	err   error
	ended chan struct{}

	mu   sync.Mutex
	log  bytes.Buffer
	deaf bool // standard error is closed at the next line
}

// start runs the server until it is ready; it is killed with the test at the latest.
func (h *house) start() *running {
	h.t.Helper()
	r := &running{h: h, cmd: h.command("-config", "mailsrv.toml"), ended: make(chan struct{})}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	r.cmd.Stderr = r
	if err := r.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	lines := make(chan string, 64)
	go func() { // until the process has ended
		s := bufio.NewScanner(stdout)
		for s.Scan() {
			lines <- s.Text()
		}
		close(lines)
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	for timeout := time.After(patience); ; {
		select {
		case line, ok := <-lines:
			if !ok {
				<-r.ended
				h.t.Fatalf("the server ended: %v\n%s", r.err, r.logged())
			}
			r.table += line + "\n"
			if strings.Contains(line, "certificate SHA-256") {
				go func() { // the rest is nobody's; until the process has ended
					for range lines {
					}
				}()
				return r
			}
		case <-timeout:
			h.t.Fatalf("the server is not ready\n%s", r.logged())
		}
	}
}

// Write is the server's standard error.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deaf {
		return 0, io.ErrClosedPipe
	}
	return r.log.Write(p)
}

func (r *running) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// end sends a signal and returns the exit code.
func (r *running) end(sig syscall.Signal) int {
	r.h.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.h.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.h.t.Fatalf("the server does not end\n%s", r.logged())
	}
	return r.cmd.ProcessState.ExitCode()
}

// addr is where a service listens, by the printed table.
func (r *running) addr(service string) string {
	r.h.t.Helper()
	m := regexp.MustCompile(`(?m)^  ` + service + `\s+(\S+)`).FindStringSubmatch(r.table)
	if m == nil {
		r.h.t.Fatalf("no %s in\n%s", service, r.table)
	}
	return m[1]
}

// talk is a line conversation with a service.
type talk struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (r *running) dial(service string) *talk {
	t := r.h.t
	t.Helper()
	var c net.Conn
	var err error
	if service == "imaps" || service == "submissions" {
		c, err = tls.Dial("tcp", r.addr(service), &tls.Config{InsecureSkipVerify: true})
	} else {
		c, err = net.Dial("tcp", r.addr(service))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &talk{t, c, bufio.NewReader(c)}
}

// expect reads lines until one begins with the prefix, and returns what it read.
func (c *talk) expect(prefix string) string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			c.t.Fatalf("no %q but %q: %v", prefix, all.String(), err)
		}
		if strings.HasPrefix(line, prefix) {
			return all.String()
		}
	}
}

// say sends a line and waits for an answer.
func (c *talk) say(line, prefix string) string {
	c.t.Helper()
	if _, err := io.WriteString(c, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.expect(prefix)
}

// login tries to log in by IMAP.
func (r *running) login(user, password string) bool {
	r.h.t.Helper()
	c := r.dial("imaps")
	defer c.Close()
	c.expect("* OK")
	return strings.HasPrefix(c.say(fmt.Sprintf("a LOGIN %s %s", user, password), "a "), "a OK")
}

// send delivers a message by SMTP.
func (r *running) send(to, subject string) {
	r.h.t.Helper()
	c := r.dial("smtp")
	defer c.Close()
	c.expect("220 ")
	c.say("EHLO client.example", "250 ")
	c.say("MAIL FROM:<x@client.example> SMTPUTF8", "250 ")
	c.say("RCPT TO:<"+to+">", "250 ")
	c.say("DATA", "354 ")
	c.say("Subject: "+subject+"\r\nFrom: x@client.example\r\n\r\nHello\r\n.", "250 ")
}

// subjects lists what is in an INBOX.
func (r *running) subjects(user, password string) []string {
	r.h.t.Helper()
	c := r.dial("imaps")
	defer c.Close()
	c.expect("* OK")
	c.say("a LOGIN "+user+" "+password, "a OK")
	c.say("b SELECT INBOX", "b OK")
	all := c.say("c UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]", "c OK")
	var subjects []string
	for _, m := range regexp.MustCompile(`(?m)^Subject: (.*)\r$`).FindAllStringSubmatch(all, -1) {
		subjects = append(subjects, m[1])
	}
	return subjects
}
