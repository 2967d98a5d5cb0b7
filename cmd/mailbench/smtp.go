package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// smtpConn is an SMTP or LMTP client that says just what a benchmark needs and checks every answer.
type smtpConn struct {
	c    net.Conn
	r    *bufio.Reader
	lmtp bool
	user string // logged in, if any
}

const answerTimeout = 60 * time.Second

func dialSMTP(addr string, lmtp bool) (*smtpConn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	s := &smtpConn{c: c, r: bufio.NewReader(c), lmtp: lmtp}
	hello := "EHLO"
	if lmtp {
		hello = "LHLO"
	}
	if _, err := s.expect(220); err != nil {
		c.Close()
		return nil, err
	}
	if err := s.say(250, "%s bench.test\r\n", hello); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (s *smtpConn) say(code int, format string, a ...any) error {
	if _, err := fmt.Fprintf(s.c, format, a...); err != nil {
		return err
	}
	_, err := s.expect(code)
	return err
}

// expect reads one reply, with its continuation lines.
func (s *smtpConn) expect(code int) (string, error) {
	s.c.SetReadDeadline(time.Now().Add(answerTimeout))
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 {
			return "", fmt.Errorf("answer %q is no SMTP reply", line)
		}
		if line[3] == '-' {
			continue
		}
		if got, _ := strconv.Atoi(line[:3]); got != code {
			return "", fmt.Errorf("wanted %d, got %q", code, strings.TrimSpace(line))
		}
		return line, nil
	}
}

// send delivers one message and returns when every recipient's delivery is acknowledged. The envelope is pipelined, as
// every real client does it.
func (s *smtpConn) send(from string, rcpts []string, body []byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "MAIL FROM:<%s>\r\n", from)
	for _, r := range rcpts {
		fmt.Fprintf(&b, "RCPT TO:<%s>\r\n", r)
	}
	b.WriteString("DATA\r\n")
	if _, err := s.c.Write(b.Bytes()); err != nil {
		return err
	}
	for range 1 + len(rcpts) {
		if _, err := s.expect(250); err != nil {
			return err
		}
	}
	if _, err := s.expect(354); err != nil {
		return err
	}
	b.Reset()
	for line := range bytes.Lines(body) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.Write(line)
	}
	b.WriteString(".\r\n")
	if _, err := s.c.Write(b.Bytes()); err != nil {
		return err
	}
	answers := 1
	if s.lmtp {
		answers = len(rcpts)
	}
	for range answers {
		if _, err := s.expect(250); err != nil {
			return err
		}
	}
	return nil
}

func (s *smtpConn) close() {
	fmt.Fprintf(s.c, "QUIT\r\n")
	s.c.Close()
}
