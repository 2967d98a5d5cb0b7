package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// imapConn is a client that knows next to nothing, so that nothing stands between the test and the wire.
type imapConn struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	tags int
}

// dialIMAP connects to a service ("imap", "imaps"), without login.
func (s *server) dialIMAP(service string) *imapConn {
	s.t.Helper()
	c := &imapConn{t: s.t, conn: s.dial(service)}
	if service == "imaps" {
		c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	}
	c.in = bufio.NewReader(c.conn)
	if greeting := c.line(); !strings.HasPrefix(greeting, "* OK ") {
		s.t.Fatalf("greeting: %q", greeting)
	}
	return c
}

func (s *server) dial(service string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr(service))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	return conn
}

// imap connects and logs in.
func (s *server) imap(local string) *imapConn {
	s.t.Helper()
	c := s.dialIMAP("imaps")
	c.do("LOGIN %s {%d+}\r\n%s", local+"@"+s.domain, len(password), password)
	return c
}

// line reads one line with the literals in it, without the last CRLF.
func (c *imapConn) line() string {
	c.t.Helper()
	line, err := c.readLine()
	if err != nil {
		c.t.Fatalf("reading from the server: %v after %q", err, line)
	}
	return line
}

var literalEnd = regexp.MustCompile(`\{(\d+)\+?\}\r\n$`)

var literalStart = regexp.MustCompile(`\{(\d+)\}\r\n`)

func (c *imapConn) readLine() (string, error) {
	var b strings.Builder
	for {
		part, err := c.in.ReadString('\n')
		b.WriteString(part)
		if err != nil {
			return b.String(), err
		}
		found := literalEnd.FindStringSubmatch(part)
		if found == nil {
			return strings.TrimSuffix(b.String(), "\r\n"), nil
		}
		n, err := strconv.ParseInt(found[1], 10, 64)
		if err == nil {
			_, err = io.CopyN(&b, c.in, n)
		}
		if err != nil {
			return b.String(), err
		}
	}
}

func (c *imapConn) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// try sends a command and returns the untagged lines and the tagged answer ("OK …").
func (c *imapConn) try(format string, args ...any) (untagged []string, tagged string) {
	c.t.Helper()
	c.tags++
	tag := fmt.Sprintf("t%d", c.tags)
	c.send("%s %s\r\n", tag, fmt.Sprintf(format, args...))
	for {
		line := c.line()
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			return untagged, rest
		}
		untagged = append(untagged, line)
	}
}

// do is try for what must succeed.
func (c *imapConn) do(format string, args ...any) []string {
	c.t.Helper()
	untagged, tagged := c.try(format, args...)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Fatalf("%.100s: %s", fmt.Sprintf(format, args...), tagged)
	}
	return untagged
}

// until reads untagged lines until one matches.
func (c *imapConn) until(pattern string) string {
	c.t.Helper()
	for {
		if line := c.line(); regexp.MustCompile(pattern).MatchString(line) {
			return line
		}
	}
}

// idle begins an IDLE; done ends it.
func (c *imapConn) idle() {
	c.t.Helper()
	c.tags++
	c.send("t%d IDLE\r\n", c.tags)
	c.until(`^\+ `)
}

func (c *imapConn) done() {
	c.t.Helper()
	c.send("DONE\r\n")
	c.until(fmt.Sprintf(`^t%d OK`, c.tags))
}

// uids searches the selected mailbox.
func (c *imapConn) uids(criteria string, args ...any) []string {
	c.t.Helper()
	for _, line := range c.do("UID SEARCH %s", fmt.Sprintf(criteria, args...)) {
		if rest, ok := strings.CutPrefix(line, "* SEARCH"); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

// append files a message.
func (c *imapConn) append(mailbox, flags, text string) {
	c.t.Helper()
	c.do("APPEND %s (%s) {%d+}\r\n%s", mailbox, flags, len(text), text)
}

// texts returns the whole messages of a mailbox, in order.
func (s *server) texts(local, mailbox string) []string {
	s.t.Helper()
	c := s.imap(local)
	defer c.conn.Close()
	c.do("EXAMINE %s", mailbox)
	var texts []string
	for _, line := range c.do("UID FETCH 1:* (BODY.PEEK[])") {
		if at := literalStart.FindStringSubmatchIndex(line); at != nil {
			n, _ := strconv.Atoi(line[at[2]:at[3]])
			texts = append(texts, line[at[1]:at[1]+n])
		}
	}
	return texts
}

// arrived waits for the one message of a mailbox that contains all of parts.
func (s *server) arrived(local, mailbox string, parts ...string) string {
	s.t.Helper()
	var found string
	s.await(fmt.Sprintf("mail with %q in %s of %s", parts, mailbox, local), func() bool {
		found = ""
		for _, text := range s.texts(local, mailbox) {
			if containsAll(text, parts) {
				found = text
			}
		}
		return found != ""
	})
	return found
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// message composes one.
func message(from, to, subject, body string) string {
	return fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%d@client.test>\r\n\r\n%s", from, to, subject,
		time.Now().Format(time.RFC1123Z), time.Now().UnixNano(), body)
}
