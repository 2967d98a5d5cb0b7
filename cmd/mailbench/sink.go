package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sink is an SMTP server that takes everything and keeps a count: where a relay's mail goes while it is measured.
type sink struct {
	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
	count atomic.Int64 // messages acknowledged
}

func startSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{l: l, conns: map[net.Conn]bool{}}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.done {
				c.Close()
			} else {
				s.conns[c] = true
				s.wg.Go(func() { s.serve(c) })
			}
			s.mu.Unlock()
		}
	})
	return s, nil
}

func (s *sink) port() string {
	_, port, _ := net.SplitHostPort(s.l.Addr().String())
	return port
}

func (s *sink) close() {
	s.l.Close()
	s.mu.Lock()
	s.done = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// serve answers one connection; what is pipelined gets its answers in one write.
func (s *sink) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	fmt.Fprint(w, "220 sink.bench.test\r\n")
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(strings.TrimSpace(line)[:min(4, len(strings.TrimSpace(line)))]); verb {
		case "EHLO":
			fmt.Fprint(w, "250-sink.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n")
		case "DATA":
			fmt.Fprint(w, "354 go on\r\n")
			if w.Flush() != nil || discardData(r) != nil {
				return
			}
			s.count.Add(1)
			fmt.Fprint(w, "250 2.0.0 taken\r\n")
		case "QUIT":
			fmt.Fprint(w, "221 2.0.0 bye\r\n")
			w.Flush()
			return
		default:
			fmt.Fprint(w, "250 2.0.0 ok\r\n")
		}
	}
}

// discardData reads to the line that is a dot.
func discardData(r *bufio.Reader) error {
	for whole := true; ; {
		line, err := r.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			whole = false
			continue
		case err != nil:
			return err
		case whole && bytes.Equal(line, []byte(".\r\n")):
			return nil
		}
		whole = true
	}
}

// relay submits Messages mails for another domain and ends when the sink has them all: durable in, and out again.
func (b *Bench) relay() (Result, error) {
	if b.sink == nil || b.Submission == "" {
		return Result{}, fmt.Errorf("relay runs in a comparison only")
	}
	mails := make([]Mail, b.Messages)
	var total int64
	for i := range mails {
		mails[i] = b.Mail.Mail(i)
		total += int64(len(mails[i].Body))
	}
	before := b.sink.count.Load()
	begin := time.Now()
	took, _, err := parallel(b, b.Messages,
		func(w int) (*smtpConn, error) {
			s, err := dialSMTP(b.Submission, false)
			if err == nil && b.Login {
				err = s.auth(b.user(w), b.Password)
			}
			return s, err
		},
		func(s *smtpConn, i int) error {
			from := s.user
			if from == "" {
				from = "sender@bench.test"
			}
			return s.send(from, []string{fmt.Sprintf("r%d@sink.test", i%50)}, ownFrom(mails[i].Body, from))
		},
		(*smtpConn).close)
	if err != nil {
		return Result{}, err
	}
	for b.sink.count.Load() < before+int64(b.Messages) {
		if time.Since(begin) > 2*time.Minute {
			return Result{}, fmt.Errorf("relay: only %d of %d mails left", b.sink.count.Load()-before, b.Messages)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if n := b.sink.count.Load() - before; n > int64(b.Messages) {
		return Result{}, fmt.Errorf("relay: %d mails sent, %d came", b.Messages, n)
	}
	return summarize("relay", b.Target, took, time.Since(begin), total), nil
}

// ownFrom puts the sender into the From field: a submission server checks that it is the account's own.
func ownFrom(body []byte, from string) []byte {
	at := bytes.Index(body, []byte("\r\nFrom: "))
	end := at + 2 + bytes.Index(body[at+2:], []byte("\r\n"))
	return bytes.Join([][]byte{body[:at], []byte("\r\nFrom: <" + from + ">"), body[end:]}, nil)
}

// auth logs in by PLAIN, in clear: loopback only.
func (s *smtpConn) auth(user, password string) error {
	s.user = user
	return s.say(235, "AUTH PLAIN %s\r\n", b64("\x00"+user+"\x00"+password))
}
