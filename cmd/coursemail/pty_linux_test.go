package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is the program on a pseudo-terminal, and what it has shown.
type screen struct {
	t     *testing.T
	cmd   *exec.Cmd
	pty   *os.File
	began unix.Termios // the terminal's modes before the program
	all   string       // since the start
	fresh string       // since the last see
}

func onTerminal(t *testing.T, args ...string) *screen {
	t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	pty := os.NewFile(uintptr(master), "ptmx") // non-blocking: with deadlines
	t.Cleanup(func() { pty.Close() })
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 200}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	s := &screen{t: t, cmd: program(args...), pty: pty}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s.began = s.modes()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// see waits until text is shown.
func (s *screen) see(text string) {
	s.t.Helper()
	for !strings.Contains(s.fresh, text) {
		if !s.read() {
			s.t.Fatalf("waiting for %q, got %q", text, s.fresh)
		}
	}
	_, s.fresh, _ = strings.Cut(s.fresh, text)
}

func (s *screen) read() bool {
	b := make([]byte, 4096)
	_ = s.pty.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := s.pty.Read(b)
	s.all += string(b[:n])
	s.fresh += string(b[:n])
	return err == nil
}

func (s *screen) key(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.pty, keys); err != nil {
		s.t.Fatal(err)
	}
}

// end waits for the program's exit and returns all that a person could read.
func (s *screen) end(code int) string {
	s.t.Helper()
	for s.read() { // until the terminal has no other side
	}
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit %d, want %d; on the screen: %q", got, code, s.all)
	}
	return regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]").ReplaceAllString(strings.ReplaceAll(s.all, "\r\n", "\n"), "")
}

// The lab's sample, against a server that answers as the lab's did: letter for letter what the lab shows.
func TestSampleOfTheLab(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.txt")
	if err != nil {
		t.Fatal(err)
	}
	ok := frame(0, `"OK"`)
	server := newLab(t, ok, ok, frame(2, `[{"id": 1, "source": "test1@mail.ru", "destination": "test2@email.tu", "header": "hello", "text": "world"}]`))
	s := onTerminal(t, server.host, server.port)
	for _, step := range [][2]string{{"команду: ", "entry test2@email.tu"}, {"команду: ", "send test1@mail.ru"}, {"заголовок письма: ", "test header"},
		{"текст письма: ", "some text"}, {"команду: ", "mailbox"}, {"команду: ", "quit"}} {
		s.see(step[0])
		s.key(step[1] + "\r")
	}
	if got := s.end(exitOK); got != string(sample) {
		t.Errorf("on the screen\n%s\nwant\n%s", got, sample)
	}
	want := []string{`0 {"name":"test2@email.tu"}`, `1 {"to":"test1@mail.ru","header":"test header","text":"some text"}`, "2 null", "5 null"}
	if got := server.heard(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the server got %q", got)
	}
}

func TestEditing(t *testing.T) {
	host, port := legacy(t, nil, true)
	s := onTerminal(t, "-lang", "en", host, port)
	s.see("Command: ")
	s.key("en\tалa@example.test\x1b[D\x1b[D") // Tab completes; two to the left, within the address
	s.key("\x01\x0b")                         // to the start, and away with the line
	s.key("mailbox\r")
	s.see("Enter a mailbox first")
	s.see("Command: ")
	s.key("send b\r") // a person is not asked for the mail of a wrong command
	s.see("Enter a mailbox first")
	s.see("Command: ")
	s.key("en\talice@example.tesX\x7ft\r")
	s.see("Success.")
	s.see("Command: ")
	s.key("send alice@example.test\r")
	s.see("Header: ")
	s.key("Привте\x7f\x7fет\r")
	s.see("Text: ")
	s.key("a\r")
	s.see("Success.")
	s.see("Command: ")
	s.key("\x1b[A\x1b[A\x1b[A\r") // history: the send again
	s.see("Header: ")
	s.key("\x04") // ^D: no mail, and goodbye
	s.see("Disconnected")
	s.end(exitOK)
	piped(t, "entry alice@example.test\nmailbox\n", host, port).want(t,
		"Success.\nMailbox\nid : 1\nsource : alice@example.test\ndestination : alice@example.test\nheader : Привет\ntext : a\n\n", "", exitOK)
}

func TestPersonsPassword(t *testing.T) {
	host, port := legacy(t, nil, false)
	s := onTerminal(t, "-lang", "en", "-password", host, port)
	s.see("Command: ")
	s.key("entry alice@example.test\r")
	s.see("Password: ")
	s.key("secret\r")
	s.see("Success.")
	s.see("Command: ")
	s.key("quit\r")
	if shown := s.end(exitOK); strings.Contains(shown, "secret") {
		t.Errorf("the password was shown: %q", shown)
	}
}

func TestTerminalIsLeftAsItWas(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"terminated": syscall.SIGTERM, "killed from the keyboard of another": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			host, port := legacy(t, nil, true)
			s := onTerminal(t, host, port)
			s.see("команду: ")
			if s.modes() == s.began {
				t.Fatal("the terminal is not raw while a line is edited")
			}
			if err := s.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = s.cmd.Wait()
			if got := s.cmd.ProcessState.ExitCode(); got != 128+int(signal) || s.modes() != s.began {
				t.Errorf("exit %d, modes %v, before %v", got, s.modes(), s.began)
			}
		})
	}
}

func TestStrangersMailOnATerminal(t *testing.T) {
	server := newLab(t, frame(0, `"OK"`), frame(3, `{"text": "\u001b]0;owned\u0007"}`), frame(-2, `"\u001b[2J"`))
	s := onTerminal(t, server.host, server.port)
	for _, step := range [][2]string{{"команду: ", "entry a@b.c"}, {"команду: ", "open 1"}, {`text : \u001b]0;owned\u0007`, "del 1"}, {`Ошибка: \u001b[2J`, "quit"}} {
		s.see(step[0])
		s.key(step[1] + "\r")
	}
	s.end(exitOK)
}

func (s *screen) modes() unix.Termios {
	s.t.Helper()
	raw, err := s.pty.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	var modes *unix.Termios
	if e := raw.Control(func(fd uintptr) { modes, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }); e != nil || err != nil {
		s.t.Fatal(e, err)
	}
	return *modes
}
