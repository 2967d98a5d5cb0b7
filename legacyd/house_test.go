package legacyd

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/disk"
	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// house is a server over a real store, a directory in memory and real delivery, reached through pipes or TCP.
type house struct {
	t         testing.TB
	store     *storage.Store
	directory *directory.Directory
	server    *Server
	listener  *pipes
	meter     *meter
	queue     outbox
	served    chan error
}

// outbox is a queue that only remembers for whom it took mail.
type outbox struct {
	mu    sync.Mutex
	taken []string
}

func (o *outbox) Enqueue(_ context.Context, _ *delivery.Envelope, _ *storage.Incoming, to []delivery.Onward) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range to {
		o.taken = append(o.taken, t.Address)
	}
	return nil
}

func (o *outbox) Delivered(context.Context, *delivery.Envelope, *storage.Incoming, []delivery.Recipient) error {
	return nil
}

func (o *outbox) list() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.taken, ", ")
}

// seed is who lives in the house: alice, bob and carol with passwords, open to the protocol; dora, who is not; eve, who is
// disabled; an alias, a private group, an alias elsewhere, a small mailbox; a second domain where entry makes accounts.
var seed = directory.Seed{
	Domains: []directory.Domain{
		{Name: "example.test"},
		{Name: "xn--e1afmkfd.test", Legacy: true},
		{Name: "auto.test", AutoCreate: true},
	},
	Accounts: []directory.SeedAccount{
		{Account: directory.Account{Address: "alice@example.test", Legacy: true}, Password: "secret"},
		{Account: directory.Account{Address: "bob@example.test", Legacy: true}, Password: "secret"},
		{Account: directory.Account{Address: "carol@example.test", Legacy: true}, Password: "secret"},
		{Account: directory.Account{Address: "dora@example.test"}, Password: "secret"},
		{Account: directory.Account{Address: "eve@example.test", Legacy: true, Disabled: true}, Password: "secret"},
		{Account: directory.Account{Address: "small@example.test", Legacy: true, QuotaMessages: 1}, Password: "secret"},
		{Account: directory.Account{Address: "юра@пример.test"}, Password: "secret"},
	},
	Aliases: []directory.Alias{
		{Address: "both@example.test", Targets: []string{"alice@example.test", "bob@example.test"}},
		{Address: "away@example.test", Targets: []string{"someone@elsewhere.test"}},
		{Address: "taken@auto.test", Targets: []string{"alice@example.test"}},
	},
	Groups: []directory.Group{
		{Address: "board@example.test", Members: []string{"bob@example.test", "carol@example.test"}, Private: true},
	},
}

// cheap keeps argon2 out of the tests' time.
var cheap = directory.HashParams{Memory: 64, Time: 1, Lanes: 1}

func newHouse(t testing.TB, change func(*Options)) *house {
	t.Helper()
	return newHouseOn(t, nil, change)
}

func newHouseOn(t testing.TB, fs disk.FS, change func(*Options)) *house {
	t.Helper()
	h := &house{t: t, listener: newPipes(), meter: &meter{}, served: make(chan error, 1)}
	var err error
	if h.directory, err = directory.Open(nil, seed, directory.WithHashParams(cheap)); err != nil {
		t.Fatal(err)
	}
	h.store, err = storage.Open(storage.Options{
		Dir: t.TempDir(), FS: fs, Hostname: "mx.example.test",
		Quota: func(a string) storage.Quota { return delivery.QuotaOf(h.directory, a) },
	})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Store: h.store, Directory: h.directory, Hostname: "mx.example.test", Meter: h.meter,
		Auth: auth.New(h.directory, auth.Options{Sleep: func(context.Context, time.Duration) error { return nil }}),
		Deliverer: delivery.New(delivery.Options{
			Directory: h.directory, Store: h.store, Hostname: "mx.example.test", Queue: &h.queue,
		}),
		Trusted: wire.Networks{netip.MustParsePrefix("127.0.0.0/8")},
	}
	if change != nil {
		change(&o)
	}
	h.server = New(o)
	go func() { h.served <- h.server.Serve(h.listener) }()
	t.Cleanup(h.close)
	return h
}

func (h *house) close() {
	_ = h.server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.server.Shutdown(ctx); err != nil {
		h.t.Errorf("sessions do not end: %v", err)
	}
	h.server.mu.Lock()
	if n := len(h.server.here); n != 0 {
		h.t.Errorf("%d addresses still claimed", n)
	}
	h.server.mu.Unlock()
	if n := h.meter.count("panic"); n != 0 {
		h.t.Errorf("%d panics", n)
	}
	h.check()
	if err := h.store.Close(); err != nil {
		h.t.Error(err)
	}
}

// check runs the store's own checker over all accounts.
func (h *house) check() {
	all, err := h.store.Addresses()
	if err != nil {
		h.t.Error(err)
	}
	for _, address := range all {
		h.with(address, func(a *storage.Account, _ storage.MailboxID) {
			problems, err := a.Check()
			if err != nil || len(problems) > 0 {
				h.t.Errorf("%s: %v, %v", address, problems, err)
			}
		})
	}
}

// with opens an account, which is made if nobody has yet.
func (h *house) with(address string, fn func(a *storage.Account, inbox storage.MailboxID)) {
	h.t.Helper()
	a, inbox, err := h.server.openInbox(address)
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Release()
	fn(a, inbox)
}

// arrive files a message as another protocol would.
func (h *house) arrive(address, text string) {
	h.t.Helper()
	in, err := h.store.Incoming()
	if err != nil {
		h.t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		h.t.Fatal(err)
	}
	if err := in.Seal(); err != nil {
		h.t.Fatal(err)
	}
	h.with(address, func(a *storage.Account, _ storage.MailboxID) {
		if _, err := a.Append("INBOX", storage.NewMessage{Incoming: in}); err != nil {
			h.t.Fatal(err)
		}
	})
}

// flags spells the INBOX: "1 \Seen, 3".
func (h *house) flags(address string) string {
	h.t.Helper()
	var out []string
	h.with(address, func(a *storage.Account, inbox storage.MailboxID) {
		v, err := a.View(inbox)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, r := range v.Rows(0, v.Len()) {
			out = append(out, strings.TrimSpace(fmt.Sprint(r.UID, " ", strings.Join(a.FlagNames(r.Flags), " "))))
		}
	})
	return strings.Join(out, ", ")
}

// pipes is a listener whose clients are net.Pipes with an address of their choice: for synctest, and for peers outside
// the trusted networks.
type pipes struct {
	ch     chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{ch: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

// client is the other end: every read and write has a deadline, so that a test fails rather than hangs.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (h *house) dial(from string) *client {
	c := h.connect(h.t, from)
	h.t.Cleanup(func() { c.conn.Close() })
	return c
}

// connect is dial for one who closes the connection.
func (h *house) connect(t testing.TB, from string) *client {
	mine, its := net.Pipe()
	h.listener.ch <- addressed{its, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 4711))}
	return &client{t: t, conn: mine, r: bufio.NewReader(mine)}
}

func (c *client) raw(b []byte) {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

func (c *client) send(kind int32, body string) {
	c.t.Helper()
	c.raw(raw(kind, int32(len(body)), body))
}

// recvLoose is recv for a connection that may be cut anywhere.
func (c *client) recvLoose() (kind int32, body string, ok bool) {
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	var header [8]byte
	if _, err := io.ReadFull(c.r, header[:]); err != nil {
		return 0, "", false
	}
	b := make([]byte, binary.BigEndian.Uint32(header[4:]))
	if _, err := io.ReadFull(c.r, b); err != nil {
		return 0, "", false
	}
	return int32(binary.BigEndian.Uint32(header[:4])), string(b), true
}

func validJSON(s string) bool { return json.Valid([]byte(s)) }

// recv returns a reply; ok is false at the end of the connection.
func (c *client) recv() (kind int32, body string, ok bool) {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	var header [8]byte
	if n, err := io.ReadFull(c.r, header[:]); err != nil {
		if err != io.EOF {
			c.t.Fatalf("reading a reply's header: %v after %q", err, header[:n])
		}
		return 0, "", false
	}
	b := make([]byte, binary.BigEndian.Uint32(header[4:]))
	if _, err := io.ReadFull(c.r, b); err != nil {
		c.t.Fatalf("reading a reply's body: %v", err)
	}
	return int32(binary.BigEndian.Uint32(header[:4])), string(b), true
}

// expect reads a reply and compares it byte by byte.
func (c *client) expect(kind int32, body string) {
	c.t.Helper()
	k, b, ok := c.recv()
	if !ok || k != kind || b != body {
		c.t.Errorf("got %d %s (open: %v)\nwant %d %s", k, b, ok, kind, body)
	}
}

func (c *client) expectClosed() {
	c.t.Helper()
	if k, b, ok := c.recv(); ok {
		c.t.Errorf("got %d %s, want the end", k, b)
	}
}

// ask sends a request and returns the reply.
func (c *client) ask(kind int32, body string) (int32, string) {
	c.t.Helper()
	c.send(kind, body)
	k, b, _ := c.recv()
	return k, b
}

func (c *client) enter(address string) *client {
	c.t.Helper()
	c.send(0, fmt.Sprintf(`{"name": %q}`, address))
	c.expect(0, `"OK"`)
	return c
}

type meter struct {
	mu sync.Mutex
	n  map[string]int
}

func (m *meter) add(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n == nil {
		m.n = make(map[string]int)
	}
	m.n[what]++
}

func (m *meter) count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n[what]
}

func (m *meter) ConnectionOpened(string)           { m.add("opened") }
func (m *meter) ConnectionClosed(string)           { m.add("closed") }
func (m *meter) ConnectionRefused(_, r string)     { m.add("refused " + r) }
func (m *meter) ConnectionPanicked(string)         { m.add("panic") }
func (m *meter) Login(_ string, ok bool)           { m.add(fmt.Sprint("login ", ok)) }
func (m *meter) MessageAccepted(_ string, _ int64) { m.add("accepted") }
func (m *meter) MessageRefused(_, status string)   { m.add("refused " + status) }
