package smtpd

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// client is the other end of a conversation, as raw as the test wants it.
type client struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cl := &client{t: t}
	cl.over(c)
	t.Cleanup(func() { cl.c.Close() })
	return cl
}

func (c *client) over(conn net.Conn) {
	c.c, c.r = conn, bufio.NewReaderSize(conn, 64<<10)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
}

func (c *client) startTLS() {
	c.t.Helper()
	t := tls.Client(c.c, &tls.Config{InsecureSkipVerify: true})
	if err := t.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.over(t)
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := c.c.Write([]byte(s)); err != nil {
		c.t.Fatalf("send %.60q: %v", s, err)
	}
}

// reply reads one reply; the lines of a longer one are joined by " | ", their codes left out.
func (c *client) reply() (string, error) {
	var all []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSuffix(line, "\r\n")
		if len(line) < 4 {
			return "", fmt.Errorf("not a reply: %q", line)
		}
		if len(all) == 0 {
			all = append(all, line[:3]+" "+line[4:])
		} else {
			all = append(all, line[4:])
		}
		if line[3] == ' ' {
			return strings.Join(all, " | "), nil
		}
	}
}

// expect reads one reply that begins with want.
func (c *client) expect(want string) string {
	c.t.Helper()
	got, err := c.reply()
	if err != nil || !strings.HasPrefix(got, want) {
		c.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	return got
}

// say sends a line and expects a reply.
func (c *client) say(line, want string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	got, err := c.reply()
	if err != nil || !strings.HasPrefix(got, want) {
		c.t.Fatalf("%.80q: got %q, %v; want %q", line, got, err, want)
	}
	return got
}

// ended expects that the server closes the connection.
func (c *client) ended() {
	c.t.Helper()
	if got, err := c.reply(); err == nil {
		c.t.Fatalf("got %q, want the end", got)
	}
}
