package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// imapConn is an IMAP client for measuring: it reads every response to its end, literals included, and hands each
// untagged one to a callback without keeping it.
type imapConn struct {
	c   net.Conn
	r   *bufio.Reader
	tag int
	buf []byte
}

func dialIMAP(addr string, implicitTLS bool) (*imapConn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if implicitTLS {
		// The servers under test have certificates of their own making; what is measured is their speed.
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	i := &imapConn{c: c, r: bufio.NewReaderSize(c, 64<<10)}
	if line, err := i.response(); err != nil || !strings.HasPrefix(string(line), "* OK") {
		c.Close()
		return nil, fmt.Errorf("greeting %q: %w", line, err)
	}
	return i, nil
}

func (i *imapConn) close() { i.c.Close() }

// response reads one response: a line, with the literals it announces and the lines that follow them.
func (i *imapConn) response() ([]byte, error) {
	i.c.SetReadDeadline(time.Now().Add(answerTimeout))
	i.buf = i.buf[:0]
	for {
		start := len(i.buf)
		for {
			part, err := i.r.ReadSlice('\n')
			i.buf = append(i.buf, part...)
			if err == bufio.ErrBufferFull {
				continue
			}
			if err != nil {
				return i.buf, err
			}
			break
		}
		line := strings.TrimRight(string(i.buf[max(start, len(i.buf)-32):]), "\r\n")
		if !strings.HasSuffix(line, "}") {
			return i.buf, nil
		}
		open := strings.LastIndexByte(line, '{')
		n, err := strconv.Atoi(line[open+1 : len(line)-1])
		if open < 0 || err != nil {
			return i.buf, nil
		}
		at := len(i.buf)
		i.buf = append(i.buf, make([]byte, n)...)
		if _, err := io.ReadFull(i.r, i.buf[at:]); err != nil {
			return i.buf, err
		}
	}
}

// do sends a command and gives each untagged response to each (may be nil) until the tagged OK.
func (i *imapConn) do(each func(resp []byte) error, format string, a ...any) error {
	i.tag++
	tag := "t" + strconv.Itoa(i.tag)
	if _, err := fmt.Fprintf(i.c, tag+" "+format+"\r\n", a...); err != nil {
		return err
	}
	return i.finish(tag, each)
}

func (i *imapConn) finish(tag string, each func([]byte) error) error {
	var failed error
	for {
		resp, err := i.response()
		if err != nil {
			return err
		}
		if rest, ok := strings.CutPrefix(string(resp[:min(len(resp), 512)]), tag+" "); ok {
			if !strings.HasPrefix(rest, "OK") {
				return fmt.Errorf("answer %q", strings.TrimSpace(rest))
			}
			return failed
		}
		if each != nil && failed == nil {
			failed = each(resp)
		}
	}
}

func (i *imapConn) login(user, password string) error {
	return i.do(nil, "LOGIN %q %q", user, password)
}

// selectMailbox returns the number of messages.
func (i *imapConn) selectMailbox(name string) (int, error) {
	exists := -1
	err := i.do(func(r []byte) error {
		var n int
		var word string
		if c, _ := fmt.Sscanf(string(r), "* %d %s", &n, &word); c == 2 && word == "EXISTS" {
			exists = n
		}
		return nil
	}, "SELECT %q", name)
	if err == nil && exists < 0 {
		err = fmt.Errorf("SELECT without EXISTS")
	}
	return exists, err
}

// append files a message, waiting for the continuation as a plain client does, or with LITERAL+.
func (i *imapConn) append(mailbox string, body []byte, nonSync bool) error {
	i.tag++
	tag := "t" + strconv.Itoa(i.tag)
	plus := ""
	if nonSync {
		plus = "+"
	}
	head := fmt.Sprintf("%s APPEND %q {%d%s}\r\n", tag, mailbox, len(body), plus)
	if nonSync {
		if _, err := i.c.Write(append(append([]byte(head), body...), '\r', '\n')); err != nil {
			return err
		}
		return i.finish(tag, nil)
	}
	if _, err := io.WriteString(i.c, head); err != nil {
		return err
	}
	for {
		r, err := i.response()
		if err != nil {
			return err
		}
		if r[0] == '+' {
			break
		}
		if strings.HasPrefix(string(r), tag) {
			return fmt.Errorf("APPEND refused: %q", r)
		}
	}
	if _, err := i.c.Write(append(append([]byte(nil), body...), '\r', '\n')); err != nil {
		return err
	}
	return i.finish(tag, nil)
}
