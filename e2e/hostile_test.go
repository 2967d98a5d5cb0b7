package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How much the server may hold while it is attacked. Idle it holds about 30 MiB; one password check takes 19 more.
const memoryBound = 128 << 20

// hostile starts a server with short patience and a witness: sessions of other people that must go on as if nothing were.
func hostile(t *testing.T) *server {
	t.Helper()
	s := start(t, options{
		release: true,
		limits:  "message_size = \"8 MiB\"\nsmtp_idle = \"10s\"\nlogin_timeout = \"3s\"",
		tables:  "[legacy]\nidle_timeout = \"3s\"\n",
	})
	s.calm = sync.OnceFunc(s.witness())
	t.Cleanup(func() {
		s.calm()
		if _, peak := s.memory(); peak > memoryBound {
			t.Errorf("the server held %d MiB at most, %d are allowed", peak>>20, memoryBound>>20)
		} else {
			t.Logf("the server held %d MiB at most", peak>>20)
		}
	})
	return s
}

// witness works as carol until finish is called: IMAP session that stays, deliveries that arrive, each step within patience.
func (s *server) witness() (finish func()) {
	c := s.imap("carol")
	c.do("SELECT INBOX")
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		in := c.in
		for n := 0; ; n++ {
			select {
			case <-end:
				ended <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
			if err := s.witnessStep(c.conn, in, n); err != nil {
				ended <- fmt.Errorf("step %d: %w", n, err)
				return
			}
		}
	}()
	return func() {
		s.t.Helper()
		close(end)
		if err := <-ended; err != nil {
			s.t.Errorf("another session was disturbed: %v", err)
		}
	}
}

func (s *server) witnessStep(conn net.Conn, in *bufio.Reader, n int) error {
	conn.SetDeadline(time.Now().Add(patience / 3))
	smtp, err := net.Dial("tcp", s.addr("smtp"))
	if err != nil {
		return err
	}
	defer smtp.Close()
	smtp.SetDeadline(time.Now().Add(patience / 3))
	answers := bufio.NewReader(smtp)
	for _, line := range []string{"", "EHLO w.test\r\n", "MAIL FROM:<w@remote.test>\r\n", "RCPT TO:<" + address("carol") + ">\r\n", "DATA\r\n", "Subject: w\r\n\r\n.\r\n"} {
		if _, err := io.WriteString(smtp, line); err != nil {
			return err
		}
		if !positive(answers) {
			return fmt.Errorf("delivery: no positive answer to %q", line)
		}
	}
	fmt.Fprintf(conn, "w%d NOOP\r\n", n)
	for seen := false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		seen = seen || strings.HasSuffix(line, " EXISTS\r\n")
		if strings.HasPrefix(line, fmt.Sprintf("w%d ", n)) {
			if !seen || !strings.Contains(line, "OK") {
				return fmt.Errorf("NOOP after an arrival: told of it: %v, %q", seen, line)
			}
			return nil
		}
	}
}

// ends reads until the server closes the connection, and returns what it said. Failing that within patience is a fault.
func ends(t *testing.T, conn net.Conn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	said, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Errorf("still open after %v, having said %q", patience, tail(string(said), 200))
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return string(said) + reset
	}
	return string(said)
}

// reset stands in what a server said where the connection was cut hard.
const reset = "(reset)"

// Who says nothing, or too little to ever finish, is shown the door.
func TestSilentClients(t *testing.T) {
	t.Parallel() // it mostly waits
	s := hostile(t)
	hello := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3} // of a ClientHello that never ends
	var wg sync.WaitGroup
	quiet := func(name, service string, first []byte, farewell string) {
		wg.Go(func() {
			conn := s.dial(service)
			defer conn.Close()
			conn.Write(first)
			if said := ends(t, conn); !strings.Contains(said, farewell) {
				t.Errorf("%s: the server said %q, and not %q", name, tail(said, 200), farewell)
			}
		})
	}
	for range 20 {
		quiet("half a TLS handshake", "imaps", hello, "")
		quiet("half a TLS handshake", "submissions", hello, "")
	}
	quiet("nothing to imaps", "imaps", nil, "")
	quiet("nothing to submissions", "submissions", nil, "")
	quiet("nothing to smtp", "smtp", nil, "\r\n421 4.4.2")
	quiet("nothing to submission", "submission", nil, "\r\n421 4.4.2")
	quiet("nothing to lmtp", "lmtp", nil, "\r\n421 4.4.2")
	quiet("nothing to imap", "imap", nil, "* BYE")
	quiet("nothing to legacy", "legacy", nil, "")
	quiet("half a TLS handshake after STARTTLS", "smtp", append([]byte("EHLO x\r\nSTARTTLS\r\n"), hello...), "220")
	quiet("half a TLS handshake after STARTTLS", "imap", append([]byte("a STARTTLS\r\n"), hello...), "a OK")
	quiet("half a line to smtp", "smtp", []byte("EHL"), "421 4.4.2")
	quiet("half a mail", "smtp", []byte("EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<"+address("bob")+">\r\nDATA\r\nSubject: half\r\n\r\nte"), "354")
	quiet("half a literal", "imap", []byte("a LOGIN {20}\r\nabc"), "+ ")
	quiet("half a frame", "legacy", []byte{0, 0, 0, 0, 0, 0, 0, 99, '{'}, "")
	quiet("half a header", "legacy", []byte{0, 0, 0}, "")
	wg.Wait()
	if n := len(s.texts("bob", "INBOX")); n != 0 {
		t.Errorf("half a mail became %d whole ones", n)
	}
}

// One byte now and then must not keep a connection for ever: what counts is the line, not the byte.
func TestTricklingClients(t *testing.T) {
	t.Parallel()
	s := hostile(t)
	var wg sync.WaitGroup
	for _, service := range []string{"smtp", "submission", "lmtp", "imap", "imaps", "submissions", "legacy"} {
		wg.Go(func() {
			conn := s.dial(service)
			defer conn.Close()
			if service == "legacy" {
				conn.Write([]byte{0, 0, 0, 1, 0, 0, 3, 0xe8}) // a frame that needs 1,000 bytes more
			}
			closed := make(chan bool)
			go func() {
				defer close(closed)
				ends(t, conn)
			}()
			for range 120 {
				select {
				case <-closed:
					return
				case <-time.After(500 * time.Millisecond):
					conn.Write([]byte{0}) // fails once it is closed, as it should
				}
			}
			t.Errorf("%s: still open after a minute of a byte now and then", service)
			conn.Close()
			<-closed
		})
	}
	wg.Wait()
}

// A crowd of strangers, each in the middle of something that is as costly to hold as it may be. What one may hold, all of
// them may: the bound of hostile is on their sum.
func TestHostileCrowds(t *testing.T) {
	const crowd = 150
	s := hostile(t)
	mail := "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<" + address("bob") + ">\r\nDATA\r\n"
	part := "--b\r\nContent-Type: text/plain; name=" + strings.Repeat("n", 300) + "\r\nContent-ID: <a@b>\r\n\r\nx\r\n"
	for _, test := range []struct{ name, service, text string }{
		{"messages of thousands of parts", "smtp", mail + "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat(part, 4200)},
		{"headers of thousands of fields", "smtp", mail + strings.Repeat("a:\r\n", 60_000)},
		{"large headers", "smtp", mail + strings.Repeat("X-Long: "+strings.Repeat("x", 950)+"\r\n", 265)},
		{"a thousand long recipients", "smtp", "EHLO x\r\nMAIL FROM:<a@b.test>\r\n" +
			strings.Repeat("RCPT TO:<"+address("bob")+"> ORCPT=rfc822;"+strings.Repeat("x", 490)+"\r\n", 1000)},
		{"course frames before entry", "legacy", "\x00\x00\x00\x01\x00\x10\x00\x00" + strings.Repeat("x", 1<<20-1)},
		{"lines before login", "imap", "a LOGIN " + strings.Repeat("x", 65_000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var wg sync.WaitGroup
			conns := make([]net.Conn, crowd)
			for i := range conns {
				conns[i] = s.dial(test.service)
				defer conns[i].Close()
				wg.Go(func() {
					go io.Copy(io.Discard, conns[i])           // until it is closed
					_, _ = io.WriteString(conns[i], test.text) // or is hung up on, which holds nothing either
				})
			}
			wg.Wait()
			if now, _ := s.memory(); now > memoryBound {
				t.Errorf("holds %d MiB", now>>20)
			}
		})
	}
}

// A line of 100 MB, to everything that reads lines.
func TestHugeLines(t *testing.T) {
	s := hostile(t)
	mail := "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<" + address("bob") + ">\r\nDATA\r\n"
	login := fmt.Sprintf("a LOGIN %s \"%s\"\r\n", address("bob"), password)
	for _, test := range []struct{ name, service, before, after, want string }{
		{"smtp command", "smtp", "", "\r\nNOOP\r\n", "500 5"},
		{"smtp argument", "smtp", "EHLO ", "\r\nNOOP\r\n", "500 5"},
		{"mail text", "smtp", mail, "\r\n.\r\nNOOP\r\n", "5.3.4"},
		{"mail header", "smtp", mail + "X-Long: ", "\r\n\r\n.\r\nNOOP\r\n", "5.3.4"},
		{"lmtp command", "lmtp", "", "\r\nNOOP\r\n", "500 5"},
		{"imap before login", "imap", "", "\r\na NOOP\r\n", "* BYE"},
		{"imap login", "imap", "a LOGIN x ", "\r\na NOOP\r\n", "* BYE"},
		{"imap after login", "imap", login + "b SELECT ", "\r\nc NOOP\r\n", "b BAD"},
		{"imap quoted string", "imap", login + "b SELECT \"", "\"\r\nc NOOP\r\n", "b BAD"},
		{"imap list depth", "imap", login + "b SEARCH ((((((((((((((((((((", "\r\nc NOOP\r\n", "b BAD"},
		{"course frame", "legacy", "\x00\x00\x00\x01\x06\x00\x00\x00", "", "\xff\xff\xff\xfe"},
		{"http", "http", "GET /", " HTTP/1.1\r\n\r\n", "4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := s.dial(test.service)
			defer conn.Close()
			go func() {
				chunk := bytes.Repeat([]byte("x"), 1<<20)
				conn.Write([]byte(test.before))
				for range 100 {
					if _, err := conn.Write(chunk); err != nil {
						return // hung up on: an answer too
					}
				}
				io.WriteString(conn, test.after)
				conn.(*net.TCPConn).CloseWrite()
			}()
			// A server that hangs up while we write may have its answer lost in the reset, which must be the only reason.
			if said := ends(t, conn); !strings.Contains(said, test.want) && !strings.HasSuffix(said, reset) {
				t.Errorf("said %q, want %q", tail(said, 300), test.want)
			}
			if now, _ := s.memory(); now > memoryBound {
				t.Errorf("holds %d MiB", now>>20)
			}
		})
	}
}

// Announcements that no memory could honour.
func TestHugeLiterals(t *testing.T) {
	s := hostile(t)
	for _, size := range []string{"9223372036854775808", "18446744073709551616", "9223372036854775807", "4294967296", "99999999999999999999999999", "-1", "1e9", ""} {
		for _, form := range []string{"{%s}", "{%s+}", "~{%s}", "~{%s+}"} {
			literal := fmt.Sprintf(form, size)
			c := s.dialIMAP("imap")
			c.send("a LOGIN %s\r\n", literal)
			if line, err := c.readLine(); err == nil && !strings.HasPrefix(line, "a BAD") && !strings.HasPrefix(line, "a NO") && !strings.HasPrefix(line, "* BYE") {
				t.Errorf("LOGIN %s: %q", literal, line)
			}
			c.conn.Close()
			c = s.imap("bob")
			c.send("b APPEND INBOX %s\r\n", literal)
			if line, err := c.readLine(); err == nil && !strings.HasPrefix(line, "b BAD") && !strings.HasPrefix(line, "b NO") && !strings.HasPrefix(line, "* BYE") {
				t.Errorf("APPEND %s: %q", literal, line)
			}
			c.conn.Close()
		}
	}
	for _, size := range []string{"9223372036854775808", "99999999999999999999", "-1"} {
		conn := s.dial("smtp")
		fmt.Fprintf(conn, "EHLO x\r\nMAIL FROM:<a@b.test> SIZE=%s\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<%s>\r\nBDAT %s LAST\r\nQUIT\r\n", size, address("bob"), size)
		if said := ends(t, conn); strings.Count(said, "\r\n5") < 2 {
			t.Errorf("SIZE and BDAT %s: %q", size, said)
		}
	}
	for _, length := range []uint32{1 << 31, 1<<32 - 1, 1<<31 - 1, 1<<20 + 1} {
		conn := s.dial("legacy")
		conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, length))
		if said := ends(t, conn); !strings.HasPrefix(said, "\xff\xff\xff\xfe") {
			t.Errorf("frame of %d bytes: %q", length, said)
		}
	}
}

// NULs and other octets that do not belong.
func TestBinaryRubbish(t *testing.T) {
	s := hostile(t)
	rubbish := []string{"\x00\r\n", "\x00", "NOOP\x00\r\n", "a NOOP \x00\r\n", "\xff\xfe\xfd\r\n", "a \x80\r\n", "\r\n\r\n\r\n", "\n\n\n\n", "\r\r\r\r",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "MAIL FROM:<a\x00b@c>\r\n", "a LOGIN a\x00b c\r\n",
		"a LOGIN {3}\r\n\x00\x00\x00 {1}\r\nx\r\n", "EHLO \x00\r\n", "DATA\r\n", "a b c d e f\r\n", "* BAD\r\n", "+ OK\r\n", strings.Repeat("\x00", 10_000) + "\r\n",
		strings.Repeat("a\r\n", 5000)}
	for _, service := range services {
		for _, bytes := range rubbish {
			conn := s.dial(service)
			io.WriteString(conn, bytes)
			conn.(*net.TCPConn).CloseWrite()
			ends(t, conn)
			conn.Close()
		}
	}
	conn := s.dial("smtp")
	fmt.Fprintf(conn, "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<%s>\r\nDATA\r\nSubject: nul\x00\r\n\r\na\x00b\r\n.\r\nQUIT\r\n", address("bob"))
	ends(t, conn)
	c := s.imap("bob")
	if _, answer := c.try("APPEND INBOX {14+}\r\nA: b\r\n\r\nx\x00y\r\n"); strings.HasPrefix(answer, "BAD") {
		t.Logf("NUL in a literal: %s", answer)
	}
	c.do("NOOP") // whatever was said of the literal, it was not read as commands
	c.do("SELECT INBOX")
	c.do("FETCH 1:* (ENVELOPE BODYSTRUCTURE BODY.PEEK[])")
}

// Mail smuggled behind a dot that is not alone between CRLFs is refused on the ways in from outside, and is no second mail.
func TestSmuggling(t *testing.T) {
	s := hostile(t)
	for i, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r\n\x00.\r\n"} {
		conn := s.dial("smtp")
		fmt.Fprintf(conn, "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<%s>\r\nDATA\r\nSubject: outer %d\r\n\r\ntext%sMAIL FROM:<evil@b.test>\r\nRCPT TO:<%s>\r\n"+
			"DATA\r\nSubject: smuggled\r\n\r\ntext\r\n.\r\nQUIT\r\n", address("bob"), i, end, address("bob"))
		ends(t, conn)
	}
	for _, text := range s.texts("bob", "INBOX") {
		if strings.Contains(text, "Return-Path: <evil@b.test>") {
			t.Errorf("smuggled: %q", text)
		}
	}
}

// Messages made to hurt whoever parses them are stored, and read like any other.
func TestHostileMessages(t *testing.T) {
	s := hostile(t)
	var nested, flat, headers strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	nested.WriteString("Content-Type: text/plain\r\n\r\nthe middle\r\n")
	flat.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n")
	for i := range 20_000 {
		fmt.Fprintf(&flat, "--b\r\n\r\npart %d\r\n", i)
	}
	for i := range 50_000 {
		fmt.Fprintf(&headers, "X-%d: =?utf-8?B?%s?=\r\n", i, strings.Repeat("QUFB", 15))
	}
	rfc822 := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 1000)
	for name, text := range map[string]string{
		"nested":      "Subject: x\r\n" + nested.String(),
		"flat":        "Subject: x\r\n" + flat.String() + "--b--\r\n",
		"forwarded":   "Subject: x\r\n" + rfc822 + "Subject: innermost\r\n\r\ntext\r\n",
		"headers":     "Subject: x\r\n" + headers.String() + "\r\ntext\r\n",
		"one header":  "Subject: " + strings.Repeat("=?utf-8?Q?=C3=BC?= ", 50_000) + "\r\n\r\ntext\r\n",
		"folded":      "Subject: x\r\n" + strings.Repeat(" y\r\n", 200_000) + "\r\ntext\r\n",
		"addresses":   "To: " + strings.Repeat("\"a\" <b@c.test>,\r\n ", 100_000) + "d@e.test\r\n\r\ntext\r\n",
		"groups":      "To: " + strings.Repeat("g:", 100_000) + "\r\n\r\ntext\r\n",
		"comments":    "To: " + strings.Repeat("(", 200_000) + "\r\nDate: " + strings.Repeat("(", 200_000) + "\r\n\r\ntext\r\n",
		"parameters":  "Content-Type: text/plain" + strings.Repeat("; a*0*=''%C3%BC", 50_000) + "\r\n\r\ntext\r\n",
		"references":  "References: " + strings.Repeat("<a@b>\r\n ", 100_000) + "\r\n\r\ntext\r\n",
		"boundary":    "Content-Type: multipart/mixed; boundary=\"" + strings.Repeat("-", 5000) + "\"\r\n\r\n" + strings.Repeat("-", 1_000_000) + "\r\n",
		"no end":      "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat("!", 1_000_000),
		"encoded":     "Content-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat("=\r\n", 300_000),
		"only dots":   "\r\n" + strings.Repeat("..\r\n", 100_000),
		"no header":   strings.Repeat("x", 900) + "\r\n",
		"nothing":     "\r\n",
		"colons":      strings.Repeat(":", 900) + "\r\n\r\n",
		"8 bit names": "\xff\xfe: x\r\nSubject: \xc3\r\n\r\n\xff\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			c := s.imap("bob")
			c.do("CREATE %q", name)
			c.append(fmt.Sprintf("%q", name), "", text)
			conn := s.dial("smtp")
			fmt.Fprintf(conn, "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<%s>\r\nDATA\r\n%s\r\n.\r\nQUIT\r\n", address("bob"), strings.TrimSuffix(text, "\r\n"))
			t.Logf("smtp says %q", tail(ends(t, conn), 120))
			c.do("SELECT %q", name)
			for _, fetch := range []string{"ENVELOPE", "BODYSTRUCTURE", "BODY.PEEK[HEADER.FIELDS (SUBJECT TO)]", "BODY.PEEK[1.1.1.1.1.1.1.1.1.1]", "BINARY.SIZE[1]",
				"BODY.PEEK[1]", "BODY.PEEK[" + strings.Repeat("1.", 40) + "MIME]"} {
				if _, answer := c.try("FETCH 1 (%s)", fetch); strings.HasPrefix(answer, "BAD") {
					t.Errorf("FETCH %.60s: %s", fetch, answer)
				}
			}
			c.try("FETCH 1 BODY.PEEK[%sMIME]", strings.Repeat("1.", 2000)) // any answer will do
			for _, search := range []string{"TEXT nowhere", "SUBJECT x", "HEADER To x", "BODY middle", "SENTSINCE 1-Jan-2020"} {
				c.do("SEARCH %s", search)
			}
			c.do("CLOSE")
		})
	}
	s.t = t
	var mails []courseMail
	s.course("bob").call(2, nil, &mails)
	t.Logf("the course client lists %d of them", len(mails))
}

// Names that lead somewhere else, or that no file system likes.
func TestOddMailboxNames(t *testing.T) {
	s := hostile(t)
	c := s.imap("bob")
	names := []string{"..", ".", "/", "//", "a//b", "/a", "a/", "../x", "../../../../etc/passwd", "a/../b", "./a", "x/./y", "~root", "~", "cur", "new", "tmp", ".hidden",
		".Sent", "a.b", "a..b", "INBOX/x", "inbox/y", "INBOX.z", "inbox", "INBOX/../x", "*", "%", "a*b", "a%b", "&", "&-", "&AAA-", "&2D0-", "&AC8-", "&AOQ", "&AOQ-x",
		"a&b", "&&&&", "&!!-", "\\", "\"", " ", " a", "a ", "\t", "\x7f", "-", "--help", "$(id)", "`id`", ";rm", "|x", "CON", "a:b", "maildirfolder", "mailsrv-mailbox",
		"subscriptions", "index.db", strings.Repeat("x", 300), strings.Repeat("x", 5000), strings.Repeat("a/", 200) + "a", strings.Repeat("&AOQ-", 100), "\xff\xfe", "ä", "\x00",
		"a\x00b", "\r\n", "a\nb", ""}
	before := tree(t, s.dir, 3)
	created := 0
	for _, name := range names {
		_, answer := c.try("CREATE {%d+}\r\n%s", len(name), name)
		if strings.HasPrefix(answer, "OK") {
			created++
		}
		for _, command := range []string{"SELECT", "STATUS", "SUBSCRIBE", "LIST \"\"", "DELETE"} {
			after := ""
			if command == "STATUS" {
				after = " (MESSAGES)"
			}
			if command == "DELETE" && created%2 == 0 {
				continue // some stay
			}
			c.try("%s {%d+}\r\n%s%s", command, len(name), name, after)
		}
		c.try("RENAME {%d+}\r\n%s {%d+}\r\n%s2", len(name), name, len(name)+1, name)
		c.do("NOOP")
	}
	if created < 5 {
		t.Errorf("only %d of the names could be made", created)
	}
	c.do(`LIST "" "*"`)
	c.do(`LSUB "" "*"`)
	picture := s.picture("bob")
	if after := tree(t, s.dir, 3); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("something was made where it does not belong:\n%s\nbefore\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
	s.calm() // the witness would not survive this
	s.stop()
	s.run()
	if after := s.picture("bob"); after != picture {
		t.Errorf("after a restart\n%s\nbefore\n%s", after, picture)
	}
}

// tree lists what is below dir, depth levels down.
func tree(t *testing.T, dir string, depth int) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		names = append(names, path)
		if e.IsDir() && depth > 1 && e.Name() != "tmp" {
			names = append(names, tree(t, path, depth-1)...)
		}
	}
	return names
}

// 10,000 mailboxes are made, listed, and there after a restart; other accounts do not notice.
func TestManyMailboxes(t *testing.T) {
	s := hostile(t)
	const many = 10_000
	c := s.imap("bob")
	for from := 0; from < many; from += 100 {
		c.conn.SetDeadline(time.Now().Add(patience))
		for i := from; i < from+100; i++ {
			c.send("c%d CREATE box%d\r\n", i, i)
		}
		for i := from; i < from+100; i++ {
			c.until(fmt.Sprintf("^c%d OK", i))
		}
	}
	c.conn.SetDeadline(time.Now().Add(2 * patience))
	if n := len(c.do(`LIST "" "box*"`)); n != many {
		t.Errorf("LIST tells of %d mailboxes, want %d", n, many)
	}
	if n := len(c.do(`LIST "" "box%%" RETURN (STATUS (MESSAGES UIDNEXT))`)); n != 2*many {
		t.Errorf("LIST with STATUS has %d lines, want %d", n, 2*many)
	}
	c.append("box9999", "", "Subject: x\r\n\r\ntext\r\n")
	c.do("RENAME box9999 other9999")
	c.do("DELETE box5000")
	c.do("LOGOUT")
}
