package legacyd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/disk"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

func TestIdleSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(o *Options) { o.IdleTimeout = 5 * time.Minute })
		c := h.dial("127.0.0.1").enter("alice@example.test")
		time.Sleep(4 * time.Minute)
		c.send(2, "null")
		c.expect(2, "[]")
		start := time.Now()
		_ = c.conn.SetDeadline(time.Time{})
		if b, err := io.ReadAll(c.r); len(b) != 0 || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		if d := time.Since(start); d != 5*time.Minute {
			t.Errorf("ended after %v", d)
		}
		synctest.Wait()
		h.dial("127.0.0.1").enter("alice@example.test")
	})
}

// A client may dribble its bytes, but not for ever.
func TestDribbledFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.dial("127.0.0.1")
		for _, b := range raw(0, 30, `{"name": "alice@example.test"}`) {
			c.raw([]byte{b})
			time.Sleep(100 * time.Millisecond)
		}
		c.expect(0, `"OK"`)
		start := time.Now()
		for _, b := range raw(2, 4, "null") {
			if _, err := c.conn.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Minute)
		}
		if d := time.Since(start); d > 3*time.Minute {
			t.Errorf("a byte a minute went on for %v", d)
		}
		synctest.Wait()
		h.dial("127.0.0.1").enter("alice@example.test")
	})
}

func TestClientThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.dial("127.0.0.1").enter("alice@example.test")
		c.send(2, "null") // its reply is never read
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := h.meter.count("closed"); n != 1 {
			t.Error("still holding its session")
		}
		h.dial("127.0.0.1").enter("alice@example.test")
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deliver := make(chan struct{})
		h := newHouse(t, func(o *Options) { o.Deliverer = slow{o.Deliverer, deliver} })
		idle := h.dial("127.0.0.1").enter("bob@example.test")
		busy := h.dial("127.0.0.1").enter("alice@example.test")
		busy.send(1, `{"to": "carol@example.test", "header": "h", "text": "t"}`)
		synctest.Wait()
		done := make(chan error)
		go func() { done <- h.server.Shutdown(t.Context()) }()
		idle.expectClosed()
		close(deliver)
		busy.expect(0, `"OK"`) // what was begun is finished and acknowledged
		busy.expectClosed()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := <-h.served; !errors.Is(err, wire.ErrServerClosed) {
			t.Error(err)
		}
		if got := h.flags("carol@example.test"); got != "1" {
			t.Errorf("carol holds %q", got)
		}
	})
}

// slow is a Deliverer that waits.
type slow struct {
	Deliverer
	wait chan struct{}
}

func (s slow) Deliver(ctx context.Context, env *delivery.Envelope, in *storage.Incoming) []error {
	<-s.wait
	if ctx.Err() != nil {
		return []error{&delivery.Error{Code: 451, Status: "4.3.0", Text: "cut", Cause: ctx.Err()}}
	}
	return s.Deliverer.Deliver(ctx, env, in)
}

func TestConnectionLimits(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Limits = wire.Limits{Total: 3, PerAddress: 2} })
	h.dial("127.0.0.1").enter("alice@example.test")
	h.dial("127.0.0.1").enter("bob@example.test")
	c := h.dial("127.0.0.1")
	c.expect(-2, `"Too many connections from your address"`)
	c.expectClosed()
	h.dial("127.0.0.2").enter("carol@example.test")
	h.dial("127.0.0.3").expect(-2, `"Too many connections, try again later"`)
}

// A failing disk costs an answer, never mail or the session.
func TestStorageTrouble(t *testing.T) {
	var failing atomic.Bool
	faulty := disk.NewFaulty(disk.OS(), func(op, path string) error {
		if failing.Load() && (op == "write" || op == "create" || op == "sync" || op == "link") {
			return &fs.PathError{Op: op, Path: path, Err: syscall.ENOSPC}
		}
		return nil
	})
	h := newHouseOn(t, faulty, nil)
	h.arrive("alice@example.test", fromX("s", "t"))
	h.with("bob@example.test", func(*storage.Account, storage.MailboxID) {})
	c := h.dial("127.0.0.1").enter("alice@example.test")
	failing.Store(true)
	if kind, body := c.ask(1, `{"to": "bob@example.test", "header": "h", "text": "t"}`); kind != -2 || !strings.Contains(body, "disk space") {
		t.Errorf("%d %s", kind, body)
	}
	if kind, body := c.ask(3, `{"index": "1"}`); kind != 3 {
		t.Errorf("reading on a full disk: %d %s", kind, body)
	}
	failing.Store(false)
	if kind, body := c.ask(1, `{"to": "bob@example.test", "header": "h", "text": "t"}`); kind != 0 {
		t.Errorf("afterwards: %d %s", kind, body)
	}
	if got := h.flags("bob@example.test"); got != "1" {
		t.Errorf("bob holds %q", got)
	}
}

// course-mail.md, what the client cannot do: a reply is one write, header and body together. One read of a pipe returns what one
// write wrote.
func TestReplyIsOneWrite(t *testing.T) {
	h := newHouse(t, nil)
	long := strings.Repeat("a line of a long text\n", 20_000)
	h.arrive("alice@example.test", fromX("short", "t"))
	h.arrive("alice@example.test", fromX("long", long))
	c := h.dial("127.0.0.1").enter("alice@example.test")
	buf := make([]byte, 2*len(long))
	for _, ask := range []string{"\x00\x00\x00\x02\x00\x00\x00\x04null", "\x00\x00\x00\x03\x00\x00\x00\x0b{\"index\":2}", "\x00\x00\x00\x09\x00\x00\x00\x00"} {
		c.raw([]byte(ask))
		n, err := c.conn.Read(buf)
		if err != nil || n < headerSize || n != headerSize+int(binary.BigEndian.Uint32(buf[4:])) {
			t.Errorf("%q: the first write has %d bytes, %v: % x", ask, n, err, buf[:min(n, 16)])
		}
	}
}

// An account that is closed to the protocol, or taken away, while a session has it.
func TestAccountGoesAway(t *testing.T) {
	h := newHouse(t, nil)
	a := h.dial("127.0.0.1").enter("new@auto.test")
	if err := h.directory.RemoveAccount("new@auto.test"); err != nil {
		t.Fatal(err)
	}
	a.send(2, "null")
	a.expect(-2, `"Access denied"`)
	if err := h.store.Remove("new@auto.test"); err != nil {
		t.Fatal(err)
	}
	a.send(2, "null")
	a.expect(-2, `"Access denied"`)
	// Its name is no longer taken, and made again it is empty.
	a.send(5, "null")
	a.expectClosed()
	h.dial("127.0.0.1").enter("new@auto.test")
}

// Many sessions at once: only one of those that want an address gets it, no mail is lost, every id is given once.
func TestManySessions(t *testing.T) {
	h := newHouse(t, nil)
	var entered atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		c := h.dial("127.0.0.1")
		all.Go(func() {
			if kind, _ := c.ask(0, `{"name": "carol@example.test"}`); kind == 0 {
				entered.Add(1)
			}
		})
	}
	all.Wait()
	if entered.Load() != 1 {
		t.Errorf("%d sessions are carol", entered.Load())
	}
	const senders, each = 6, 10
	for i := range senders {
		c := h.dial("127.0.0.1").enter(fmt.Sprintf("sender%d@auto.test", i))
		all.Go(func() {
			for n := range each {
				if kind, body := c.ask(1, fmt.Sprintf(`{"to": "bob@example.test", "header": "%d.%d", "text": "t"}`, i, n)); kind != 0 {
					t.Errorf("%d %s", kind, body)
				}
			}
		})
	}
	reader := h.dial("127.0.0.1").enter("bob@example.test")
	seen := map[string]storage.UID{}
	all.Go(func() { // reads and deletes while they arrive
		for len(seen) < senders*each {
			for _, m := range listed(t, reader, 64<<10) {
				if other, twice := seen[m.Header]; twice {
					t.Errorf("%s has the ids %d and %d", m.Header, other, m.ID)
				}
				seen[m.Header] = m.ID
				if kind, body := reader.ask(4, fmt.Sprintf(`{"index": %d}`, m.ID)); kind != 0 {
					t.Errorf("%d %s", kind, body)
				}
			}
		}
	})
	all.Wait()
	if got := h.flags("bob@example.test"); got != "" {
		t.Errorf("bob holds %q", got)
	}
}

// The published client's way over real TCP: struct, json, two plain recvs.
func TestPythonClient(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	h := newHouse(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.server.Serve(l) }()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	out, err := exec.Command(python, "testdata/client.py", host, port).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := h.flags("bob@example.test"); got != `2 \Seen` {
		t.Errorf("bob holds %q", got)
	}
}

// A client that sends all of a frame that is too long before it reads must still hear why.
func TestTooLongFrameOverTCP(t *testing.T) {
	h := newHouse(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.server.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.send(1, strings.Repeat("x", 3<<20))
	c.expect(-2, `"Body length 3145728 is above the limit of 1048576 bytes"`)
	c.expectClosed()
}

// Who has not entered is heard, not kept.
func TestLongFramesBeforeEntry(t *testing.T) {
	c := newHouse(t, nil).dial("127.0.0.1")
	c.send(1, `{"text": "`+strings.Repeat("x", 900<<10)+`"}`)
	c.expect(-2, `"Enter a mailbox first"`)
	c.send(0, `{"name": "`+strings.Repeat("x", 20<<10)+`"}`)
	c.expect(-2, `"Request body is longer than 16384 bytes"`)
	c.enter("alice@example.test")
	c.send(1, `{"to": "bob@example.test", "header": "h", "text": "`+strings.Repeat("x", 900<<10)+`"}`)
	c.expect(0, `"OK"`)
}

// FuzzSession sends rubbish before and after an entry. Whatever comes, replies are whole frames of valid JSON, the server
// lives, and the address is free again.
func FuzzSession(f *testing.F) {
	f.Add(raw(2, 4, "null"), false)
	f.Add(append(raw(0, 30, `{"name": "alice@example.test"}`), raw(5, 4, "null")...), false)
	f.Add(raw(1, 58, `{"to": "bob@example.test", "header": "h\n", "text": "\ud800"}`), true)
	f.Add(raw(3, 15, `{"index": 1e99}`), true)
	f.Add(append(raw(4, 14, `{"index": "1"}`), 0xff, 0xff), true)
	f.Add(raw(2, -1, ""), true)
	f.Add(raw(2, 1<<31-1, ""), true)
	h := newHouse(f, func(o *Options) { o.MaxFrame = 4096 })
	f.Fuzz(func(t *testing.T, in []byte, entered bool) {
		c := h.connect(t, "127.0.0.1")
		defer c.conn.Close()
		if entered {
			c.enter("carol@example.test")
		}
		go func() {
			_, _ = c.conn.Write(in)
			// Fills up a frame that was begun; then it is a header that announces too much, which ends the session.
			_, _ = c.conn.Write(bytes.Repeat([]byte(" "), 4096+2*headerSize))
		}()
		for {
			kind, body, ok := c.recvLoose()
			if !ok {
				break
			}
			if (kind != -2 && kind != 0 && kind != 2 && kind != 3) || !validJSON(body) {
				t.Fatalf("%d %q", kind, body)
			}
		}
		if h.meter.count("panic") > 0 {
			t.Fatal("panic")
		}
	})
}
