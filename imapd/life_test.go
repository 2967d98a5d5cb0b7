package imapd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailsrv/internal/wire"
)

// pipeConn is one end of a net.Pipe that says it comes from loopback, and counts its writes.
type pipeConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *pipeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c *pipeConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// serve runs a session over a pipe, without a listener: inside a synctest bubble nothing real may be waited for.
func (w *world) serve(ctx context.Context) (*client, *pipeConn, <-chan struct{}) {
	near, far := net.Pipe()
	server := &pipeConn{Conn: far}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = server.Close() }()
		newSession(ctx, w.srv, server, false).serve()
	}()
	w.t.Cleanup(func() {
		_ = near.Close()
		<-ended
	})
	return newClient(w.t, "A", near), server, ended
}

// inBubble runs f with faked time, and a world that has no listeners.
func inBubble(t *testing.T, change func(*Options), f func(t *testing.T, w *world)) {
	testAuth() // its clock and goroutines are the real ones
	synctest.Test(t, func(t *testing.T) {
		o := Options{Store: newStore(t), Auth: testAuth(), Hostname: "mx.example.test"}
		o.Trusted = wire.Networks{loopback}
		if change != nil {
			change(&o)
		}
		f(t, &world{t: t, srv: New(o), store: o.Store})
	})
}

// TestIdleLife: IDLE sends something every two minutes, so that no NAT forgets it, and ends with the session's idle time.
func TestIdleLife(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c, _, ended := w.serve(t.Context())
		c.patience = time.Hour
		c.greet("alice")
		c.ok("SELECT INBOX")
		c.send("IDLE", "\r\n")
		if l := c.line(); l != "+ idling" {
			t.Fatal(l)
		}
		began := time.Now()
		for i := 1; i <= 5; i++ {
			if l := c.line(); l != "* OK Still here" || time.Since(began) != time.Duration(i)*2*time.Minute {
				t.Fatalf("after %v: %s", time.Since(began), l)
			}
		}
		w.mail("alice", "INBOX", nil, "Subject: a\r\n\r\n")
		if l := c.line(); l != "* 1 EXISTS" || time.Since(began) != 10*time.Minute {
			t.Fatalf("after %v: %s", time.Since(began), l)
		}
		for {
			l := c.line()
			if strings.HasPrefix(l, "* BYE Autologout") {
				break
			} else if l != "* OK Still here" && l != "* 1 RECENT" {
				t.Fatal(l)
			}
		}
		if time.Since(began) != 35*time.Minute {
			t.Fatalf("logged out after %v", time.Since(began))
		}
		<-ended
	})
}

// TestIdleHours: a client that renews its IDLE in time stays for ever.
func TestIdleHours(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c, _, ended := w.serve(t.Context())
		c.patience = time.Hour
		c.greet("alice")
		for range 100 {
			c.send("IDLE", "\r\n")
			c.line()
			time.AfterFunc(29*time.Minute, func() { c.raw("DONE\r\n") })
			if _, tagged := c.rest(); !strings.HasPrefix(tagged, "OK") {
				t.Fatal(tagged)
			}
		}
		c.ok("LOGOUT")
		_ = c.conn.Close()
		<-ended
	})
}

// TestTimeouts: who says nothing, or says it too slowly, is told so and let go.
func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(c *client)
		want string
		by   time.Duration
	}{
		{"silence before login", func(c *client) { c.line() }, "* BYE Login took too long", 2 * time.Minute},
		{"commands before login", func(c *client) {
			c.line()
			for range 11 {
				c.ok("NOOP")
				time.Sleep(10 * time.Second)
			}
		}, "* BYE Login took too long", 2 * time.Minute},
		{"an octet at a time before login", func(c *client) {
			c.line()
			for range 11 {
				c.raw("A")
				time.Sleep(10 * time.Second)
			}
		}, "* BYE Login took too long", 2 * time.Minute},
		{"silence in SASL", func(c *client) { c.line(); c.send("AUTHENTICATE PLAIN", "\r\n"); c.line() }, "* BYE Login took too long", 2 * time.Minute},
		{"silence after login", func(c *client) { c.greet("alice") }, "* BYE Autologout: idle for too long", 35 * time.Minute},
		{"half a command", func(c *client) { c.greet("alice"); c.raw("a NO") }, "* BYE Autologout: idle for too long", 5 * time.Minute},
		{"a literal drop by drop", func(c *client) {
			c.greet("alice")
			c.raw("a APPEND INBOX {1000+}\r\n")
			for range 4 {
				c.raw("x")
				time.Sleep(time.Minute)
			}
		}, "* BYE Autologout: idle for too long", 5 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, w *world) {
				began := time.Now()
				client, _, ended := w.serve(t.Context())
				client.patience = time.Hour
				c.do(client)
				if l := client.line(); l != c.want || time.Since(began) != c.by {
					t.Errorf("after %v: %s", time.Since(began), l)
				}
				<-ended
			})
		})
	}
}

// TestShutdown: sessions that wait say BYE at once; one in the middle of a command finishes it.
func TestShutdown(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(c *client)
		then func(t *testing.T, c *client)
	}{
		{"before login", func(c *client) { c.line() }, nil},
		{"after login", func(c *client) { c.greet("alice") }, nil},
		{"in IDLE", func(c *client) { c.greet("alice"); c.ok("SELECT INBOX"); c.send("IDLE", "\r\n"); c.line() }, nil},
		{"in SASL", func(c *client) { c.line(); c.send("AUTHENTICATE PLAIN", "\r\n"); c.line() }, nil},
		{"in APPEND", func(c *client) { c.greet("alice"); c.send("APPEND INBOX {5}", "\r\n"); c.line() }, func(t *testing.T, c *client) {
			c.raw("abcde\r\n")
			if _, tagged := c.rest(); !strings.HasPrefix(tagged, "OK [APPENDUID ") {
				t.Error(tagged)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, w *world) {
				ctx, cancel := context.WithCancel(t.Context())
				client, _, ended := w.serve(ctx)
				c.do(client)
				began := time.Now()
				synctest.Wait()
				cancel()
				synctest.Wait()
				if c.then != nil {
					c.then(t, client)
				}
				if l := client.line(); l != "* BYE Server is shutting down" || time.Since(began) > 0 {
					t.Errorf("after %v: %s", time.Since(began), l)
				}
				<-ended
			})
		})
	}
}

// TestOneWrite: a command's responses leave in one write, or one for every 64 KiB.
func TestOneWrite(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c, conn, ended := w.serve(t.Context())
		c.greet("alice")
		for i := range 300 {
			w.mail("alice", "INBOX", nil, fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 1000)))
		}
		for _, step := range []struct {
			command string
			most    int64
		}{
			{"SELECT INBOX", 1},
			{"NOOP", 1},
			{"FETCH 1:* (FLAGS UID)", 1},
			{"FETCH 1:* BODY.PEEK[]", 6},
			{"FOO", 1},
		} {
			before := conn.writes.Load()
			c.do(step.command)
			if n := conn.writes.Load() - before; n > step.most {
				t.Errorf("%s: %d writes", step.command, n)
			}
		}
		_ = c.conn.Close()
		<-ended
	})
}

// TestClientGone: a client that goes away in the middle of anything ends its session, and what it had begun is not done.
func TestClientGone(t *testing.T) {
	for _, last := range []string{"", "a", "a APPEND INBOX {10+}\r\nabc", "a IDLE\r\n", "a EXPUNGE", "a AUTHENTICATE PLAIN\r\n", "a STORE 1 FLAGS ({3+}\r\n"} {
		inBubble(t, nil, func(t *testing.T, w *world) {
			w.mail("alice", "INBOX", []string{`\Deleted`}, "a\r\n\r\n")
			c, _, ended := w.serve(t.Context())
			c.greet("alice")
			c.ok("SELECT INBOX")
			go func() { _, _ = io.Copy(io.Discard, c.conn) }()
			c.raw(last)
			synctest.Wait()
			_ = c.conn.Close()
			<-ended
			a, err := w.store.Account("alice@example.test")
			if err != nil {
				t.Fatal(err)
			}
			defer a.Release()
			if mb, err := a.Mailbox("INBOX"); err != nil || mb.Messages != 1 {
				t.Errorf("%q: %d messages, %v", last, mb.Messages, err)
			}
		})
	}
}

// TestNobodyReads: a client that sends commands and reads no answers is let go, and nothing waits for it for ever.
func TestNobodyReads(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c, _, ended := w.serve(t.Context())
		c.greet("alice")
		c.raw("a NOOP\r\n")
		began := time.Now()
		<-ended
		if time.Since(began) > 2*commandTimeout {
			t.Errorf("after %v", time.Since(began))
		}
	})
}

// TestServer: Serve, ServeTLS, Shutdown and limits, through wire.Server.
func TestServer(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Limits.PerAddress = 2 })
	a, b := w.dial("A", false), w.dial("B", true)
	a.greet("alice")
	b.greet("alice")
	c := w.dial("C", false).greet("bob")
	d := w.dial("D", false)
	if l := d.line(); !strings.HasPrefix(l, "* BYE [LIMIT]") {
		t.Error(l)
	}
	_ = d.conn.Close()
	c.ok("LOGOUT")
	_ = c.conn.Close()
	done := make(chan error)
	go func() { done <- w.srv.Shutdown(t.Context()) }()
	for _, c := range []*client{a, b} {
		if l := c.line(); l != "* BYE Server is shutting down" {
			t.Error(l)
		}
		_ = c.conn.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := w.srv.Serve(nilListener{}); !errors.Is(err, wire.ErrServerClosed) {
		t.Error(err)
	}
}

type nilListener struct{ net.Listener }

func (nilListener) Close() error { return nil }

// TestImapclient: go-imap's client understands us.
func TestImapclient(t *testing.T) {
	w := newWorld(t, nil)
	conn, err := net.Dial("tcp", w.plain)
	if err != nil {
		t.Fatal(err)
	}
	c := imapclient.New(conn, nil)
	defer func() { _ = c.Close() }()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("login", c.Login("alice@example.test", "secret").Wait())
	text := "Subject: hello\r\n\r\nworld\r\n"
	appending := c.Append("INBOX", int64(len(text)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagFlagged}})
	_, err = io.WriteString(appending, text)
	must("append", err)
	must("append", appending.Close())
	data, err := appending.Wait()
	must("append", err)
	box, err := c.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait()
	must("select", err)
	if data.UID != 1 || box.NumMessages != 1 || box.UIDNext != 2 || box.HighestModSeq == 0 || box.UIDValidity != data.UIDValidity {
		t.Errorf("append %+v, select %+v", data, box)
	}
	stored, err := c.Store(imap.UIDSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagSeen}}, nil).Collect()
	must("store", err)
	if len(stored) != 1 || stored[0].UID != 1 || len(stored[0].Flags) < 2 {
		t.Errorf("store: %+v", stored)
	}
	section := &imap.FetchItemBodySection{}
	got, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	must("fetch", err)
	if len(got) != 1 || string(got[0].FindBodySection(section)) != text {
		t.Errorf("fetch: %+v", got)
	}
	found, err := c.UIDSearch(&imap.SearchCriteria{Flag: []imap.Flag{imap.FlagFlagged}}, nil).Wait()
	must("search", err)
	if len(found.AllUIDs()) != 1 {
		t.Errorf("search: %+v", found)
	}
	moved, err := c.Move(imap.SeqSetNum(1), "Trash").Wait()
	must("move", err)
	if moved.DestUIDs.String() != "1" {
		t.Errorf("move: %+v", moved)
	}
	idle, err := c.Idle()
	must("idle", err)
	must("idle", idle.Close())
	must("idle", idle.Wait())
	must("logout", c.Logout().Wait())
}
