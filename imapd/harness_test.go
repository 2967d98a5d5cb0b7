package imapd

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/directory"
	"mailsrv/internal/wire"
	"mailsrv/storage"
	"mailsrv/storage/kv"
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// testTLS is one self-signed certificate for all tests.
var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// testAuth is one directory for all tests, so that each password costs one argon2: alice, bob and carol@example.test, all
// with the password "secret"; loopback may log in without TLS.
var testAuth = sync.OnceValue(func() *auth.Authenticator {
	dir, err := os.MkdirTemp("", "imapd-test")
	if err != nil {
		panic(err)
	}
	db, err := kv.OpenBolt(dir + "/system.db")
	if err != nil {
		panic(err)
	}
	_ = os.RemoveAll(dir) // the open file is enough
	seed := directory.Seed{Domains: []directory.Domain{{Name: "example.test"}}}
	for _, who := range []string{"alice", "bob", "carol"} {
		a := directory.Account{Address: who + "@example.test", Declared: true}
		seed.Accounts = append(seed.Accounts, directory.SeedAccount{Account: a, Password: "secret"})
	}
	d, err := directory.Open(db, seed)
	if err != nil {
		panic(err)
	}
	return auth.New(d, auth.Options{
		AllowPlaintextLoopback: true, Remember: time.Hour,
		Sleep: func(context.Context, time.Duration) error { return nil },
	})
})

// world is a server with an empty store for one test.
type world struct {
	t     testing.TB
	srv   *Server
	store *storage.Store
	plain string // addresses
	tls   string
}

// newWorld starts a server on loopback; everything ends, and the store is checked, with the test.
func newWorld(t testing.TB, change func(*Options)) *world {
	t.Helper()
	store := newStore(t)
	o := Options{Store: store, Auth: testAuth(), TLS: testTLS(), Hostname: "mx.example.test", MaxMessage: 1 << 20}
	o.Trusted = wire.Networks{loopback}
	if testing.Verbose() && os.Getenv("IMAPD_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if change != nil {
		change(&o)
	}
	w := &world{t: t, srv: New(o), store: store}
	w.plain = w.listen(w.srv.Serve)
	w.tls = w.listen(w.srv.ServeTLS)
	t.Cleanup(func() { _ = w.srv.Close() })
	return w
}

// newStore makes a store with alice, bob and carol.
func newStore(t testing.TB) *storage.Store { return newStoreWith(t, storage.Options{}) }

func newStoreWith(t testing.TB, o storage.Options) *storage.Store {
	t.Helper()
	o.Dir, o.Hostname = scratch(t), "mx.example.test"
	store, err := storage.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkStore(t, store)
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	for _, who := range []string{"alice", "bob", "carol"} {
		if err := store.Create(who + "@example.test"); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// scratch is a directory in memory if there is one: nobody pulls the plug on these tests, and syncing takes their time.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "imapd-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// checkStore is the file system check of the store, after every test.
func checkStore(t testing.TB, store *storage.Store) {
	addresses, err := store.Addresses()
	if err != nil {
		t.Error(err)
	}
	for _, who := range addresses {
		a, err := store.Account(who)
		if err != nil {
			t.Errorf("%s: %v", who, err)
			continue
		}
		problems, err := a.Check()
		if err != nil {
			t.Errorf("check %s: %v", who, err)
		}
		for _, p := range problems {
			t.Errorf("%s: %v", who, p)
		}
		a.Release()
	}
}

func (w *world) listen(serve func(net.Listener) error) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = serve(l) }()
	return l.Addr().String()
}

// mail files a message straight into the store.
func (w *world) mail(who, mailbox string, flags []string, body string) {
	w.t.Helper()
	w.append(who, mailbox, body, storage.NewMessage{Flags: flags})
}

func (w *world) append(who, mailbox, body string, msg storage.NewMessage) {
	w.t.Helper()
	a, err := w.store.Account(who + "@example.test")
	if err != nil {
		w.t.Fatal(err)
	}
	defer a.Release()
	in, err := w.store.Incoming()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	_, err = io.WriteString(in, body)
	if err == nil {
		err = in.Seal()
	}
	if err == nil {
		msg.Incoming = in
		_, err = a.Append(mailbox, msg)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// client is one connection of a test.
type client struct {
	t    testing.TB
	name string
	conn net.Conn
	r    *bufio.Reader
	tags int
	tag  string // of the command whose responses are being read; "" when its tagged one was read
	seen []string

	idles    bool          // the last command was IDLE
	patience time.Duration // how long an answer may take; 0 is testTimeout
}

const testTimeout = 20 * time.Second

func (w *world) dial(name string, secure bool) *client {
	w.t.Helper()
	addr := w.plain
	if secure {
		addr = w.tls
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	return newClient(w.t, name, conn)
}

func newClient(t testing.TB, name string, conn net.Conn) *client {
	c := &client{t: t, name: name}
	c.use(conn)
	return c
}

func (c *client) use(conn net.Conn) { c.conn, c.r = conn, bufio.NewReader(conn) }

// startTLS is the client's side after STARTTLS's OK.
func (c *client) startTLS() { c.use(tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})) }

// send begins a command; the client makes the tag.
func (c *client) send(command, end string) {
	c.tags++
	c.tag = fmt.Sprintf("%s%d", strings.ToLower(c.name), c.tags)
	c.seen = nil
	c.raw(c.tag + " " + command + end)
}

func (c *client) raw(text string) {
	c.t.Helper()
	_ = c.conn.SetWriteDeadline(time.Now().Add(testTimeout))
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatalf("%s: write: %v", c.name, err)
	}
}

// line reads one response with the literals in it; "EOF" when the connection is closed.
func (c *client) line() string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(cmp.Or(c.patience, testTimeout)))
	var all strings.Builder
	for {
		text, err := c.r.ReadString('\n')
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				c.t.Fatalf("%s: no answer; so far: %q", c.name, append(c.seen, all.String()+text))
			}
			return "EOF"
		}
		if !strings.HasSuffix(text, "\r\n") {
			c.t.Fatalf("%s: a line without CRLF: %q", c.name, text)
		}
		all.WriteString(text)
		l := announcedLiteral([]byte(strings.TrimSuffix(text, "\r\n")))
		if !l.announced {
			break
		}
		buf := make([]byte, l.size)
		if _, err := io.ReadFull(c.r, buf); err != nil {
			c.t.Fatalf("%s: literal cut off: %v", c.name, err)
		}
		all.Write(buf)
	}
	text := strings.TrimSuffix(all.String(), "\r\n")
	c.seen = append(c.seen, text)
	return text
}

// do runs a command and returns its untagged responses and the tagged one without its tag.
func (c *client) do(command string) (untagged []string, tagged string) {
	c.t.Helper()
	c.send(command, "\r\n")
	return c.rest()
}

// rest reads to the tagged response.
func (c *client) rest() (untagged []string, tagged string) {
	c.t.Helper()
	for {
		l := c.line()
		if rest, found := strings.CutPrefix(l, c.tag+" "); found {
			c.tag = ""
			return untagged, rest
		}
		if l == "EOF" {
			return untagged, l
		}
		untagged = append(untagged, l)
	}
}

// ok is do for a command that must succeed.
func (c *client) ok(command string) []string {
	c.t.Helper()
	untagged, tagged := c.do(command)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Fatalf("%s: %s: %s", c.name, command, tagged)
	}
	return untagged
}

// greet reads the greeting and logs in.
func (c *client) greet(who string) *client {
	c.t.Helper()
	if l := c.line(); !strings.HasPrefix(l, "* OK ") {
		c.t.Fatalf("greeting: %s", l)
	}
	c.ok("LOGIN " + who + "@example.test secret")
	return c
}

// file files testdata/mail/name.eml with a fixed internal date.
func (w *world) file(who, mailbox string, flags []string, name string) {
	w.t.Helper()
	raw, err := os.ReadFile("testdata/mail/" + name + ".eml")
	if err != nil {
		w.t.Fatal(err)
	}
	w.append(who, mailbox, string(raw), storage.NewMessage{Flags: flags, InternalDate: time.Date(2026, 11, 2, 23, 30, 0, 0, time.UTC)})
}
