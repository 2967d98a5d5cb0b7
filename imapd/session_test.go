package imapd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// scriptConn plays a client that has sent everything already, and keeps the answers.
type scriptConn struct {
	io.Reader
	bytes.Buffer
	addr net.IP
}

func (c *scriptConn) Read(p []byte) (int, error)       { return c.Reader.Read(p) }
func (c *scriptConn) Write(p []byte) (int, error)      { return c.Buffer.Write(p) }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return nil }
func (c *scriptConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: c.addr, Port: 1} }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// converse runs a session over what the client sends, and returns the responses.
func converse(o Options, script io.Reader, from string, prepare func(*session)) []string {
	c := &scriptConn{Reader: script, addr: net.ParseIP(from)}
	s := newSession(context.Background(), New(o), c, false)
	if prepare != nil {
		prepare(s)
	}
	s.serve()
	lines := strings.Split(c.Buffer.String(), "\r\n")
	return lines[:len(lines)-1]
}

// TestPrivacyRequired: no login over a plain connection from afar (RFC 9051 section 11.1), and none without TLS at all.
func TestPrivacyRequired(t *testing.T) {
	script := "a LOGIN alice@example.test secret\r\nb AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=\r\nc CAPABILITY\r\n"
	for _, o := range []Options{{Auth: testAuth(), TLS: testTLS()}, {Auth: testAuth()}, {}} {
		got := converse(o, strings.NewReader(script), "192.0.2.1", nil)
		if len(got) != 5 || !strings.Contains(got[0], "LOGINDISABLED") || strings.Contains(got[0], "AUTH=") ||
			strings.Contains(got[0], "STARTTLS") != (o.TLS != nil) ||
			!strings.HasPrefix(got[1], "a NO [PRIVACYREQUIRED]") || !strings.HasPrefix(got[2], "b NO [PRIVACYREQUIRED]") ||
			!strings.Contains(got[3], "LOGINDISABLED") {
			t.Errorf("%q", got)
		}
	}
}

// TestOverQuota: APPEND and COPY hear of the quota by its code (RFC 9208).
func TestOverQuota(t *testing.T) {
	w := newWorld(t, nil)
	store := newStoreWith(t, storage.Options{Quota: func(string) storage.Quota { return storage.Quota{Messages: 2} }})
	w.store, w.srv.o.Store = store, store
	c := w.dial("A", false).greet("alice")
	c.ok("APPEND INBOX {3+}\r\na\r\n")
	c.ok("APPEND INBOX {3+}\r\na\r\n")
	c.ok("SELECT INBOX")
	for _, command := range []string{"APPEND INBOX {3+}\r\na\r\n", "APPEND INBOX {3+}\r\na\r\n", "COPY 1 Sent"} {
		if _, tagged := c.do(command); !strings.HasPrefix(tagged, "NO [OVERQUOTA]") {
			t.Errorf("%s: %s", command, tagged)
		}
	}
	c.ok("MOVE 1 Sent")
}

// TestLog: one line for a login, one for a logout, with the session in both and no secret in any.
func TestLog(t *testing.T) {
	var out lockedBuffer
	o := Options{Store: newStore(t), Auth: testAuth(), Trusted: wire.Networks{loopback}}
	o.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	converse(o, strings.NewReader("a LOGIN alice@example.test swordfish\r\na LOGIN alice@example.test {6+}\r\nsecret\r\n"+
		"b ID (\"name\" \"x\\\"y\")\r\nc LOGOUT\r\n"), "127.0.0.1", nil)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	count := map[string]int{}
	for _, l := range lines {
		for _, word := range []string{"msg=login", "msg=logout", "secret", "swordfish"} {
			if strings.Contains(l, word) {
				count[word]++
			}
		}
		if !strings.Contains(l, "session=") || !strings.Contains(l, "peer=127.0.0.1") {
			t.Errorf("a line that does not say whose: %s", l)
		}
	}
	if count["msg=login"] != 1 || count["msg=logout"] != 1 || count["secret"]+count["swordfish"] != 0 {
		t.Errorf("%s", out.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// TestStrangersMemoryWhole: fifty strangers who send without end, one AAAA…, leave the whole server small.
func TestStrangersMemoryWhole(t *testing.T) {
	w := newWorld(t, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for i := range 50 {
		start := []string{"", "a LOGIN ", "a LOGIN {4096+}\r\n", "a LOGIN \"", "a {60000+}\r\n"}[i%5]
		wg.Go(func() {
			conn, err := net.Dial("tcp", w.plain)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, start+strings.Repeat("A", 60000))
			// All hang here at once, with as much as they can make the server hold.
			_, _ = bufio.NewReader(conn).ReadString('\n')
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// FuzzSession: no input makes a logged-in session panic or hang, and all it says is well-formed.
func FuzzSession(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var script strings.Builder
		script.WriteString("a SELECT INBOX\r\n")
		for line := range strings.Lines(string(text)) {
			if m := scriptLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil && m[2][0] == '>' {
				if script.WriteString(map[string]string{">": "a ", ">>": ""}[m[2]] + unescape(m[3]) + "\r\n"); script.Len() > 3000 {
					break
				}
			}
		}
		f.Add([]byte(script.String()))
	}
	store := newStore(f)
	w := &world{t: f, store: store}
	for range 3 {
		w.mail("alice", "INBOX", nil, "Subject: a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n")
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		got := converse(Options{Store: store}, bytes.NewReader(script), "127.0.0.1", func(s *session) {
			a, err := store.Account("alice@example.test")
			if err != nil {
				t.Fatal(err)
			}
			s.account = a
			s.enter(authenticated)
		})
		checkResponses(t, strings.Join(got, "\r\n")+"\r\n")
	})
}

// checkResponses holds what a server said against the outermost grammar: lines, literals, and what a response begins with.
func checkResponses(t *testing.T, all string) {
	t.Helper()
	for first := true; all != ""; {
		line, rest, found := strings.Cut(all, "\r\n")
		if !found || strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("not a line: %q", line)
		}
		word, _, _ := strings.Cut(line, " ")
		if first && word != "*" && word != "+" && (word == "" || strings.ContainsFunc(word, func(c rune) bool { return !isAStringChar(byte(c)) })) {
			t.Fatalf("not a response: %q", line)
		}
		first = true
		if l := announcedLiteral([]byte(line)); l.announced && !strings.Contains(line, " BAD ") && !strings.Contains(line, " NO ") {
			rest, first = rest[l.size:], false
		}
		all = rest
	}
}

// TestKeywordLimit: an account has so many keywords and no more; PERMANENTFLAGS says when new ones cannot be made.
func TestKeywordLimit(t *testing.T) {
	w := newWorld(t, nil)
	w.mail("alice", "INBOX", nil, "a\r\n\r\n")
	c := w.dial("A", false).greet("alice")
	c.ok("SELECT INBOX")
	for i := range storage.MaxKeywords {
		c.ok(fmt.Sprintf("STORE 1 +FLAGS.SILENT (Key%d)", i))
	}
	for _, command := range []string{"STORE 1 +FLAGS (OneMore)", "APPEND INBOX (OneMore) {3+}\r\na\r\n"} {
		if _, tagged := c.do(command); !strings.HasPrefix(tagged, "NO [LIMIT]") {
			t.Errorf("%s: %s", command, tagged)
		}
	}
	for _, l := range c.ok("SELECT INBOX") {
		if strings.Contains(l, "PERMANENTFLAGS") && (strings.Contains(l, `\*`) || !strings.Contains(l, "Key55")) {
			t.Error(l)
		}
	}
	c.ok("STORE 1 -FLAGS (key0 key55)")
}

// TestPipeline: commands sent at once are answered in order, each after the one before it.
func TestPipeline(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial("A", true).greet("alice")
	var script, want strings.Builder
	for i := range 200 {
		fmt.Fprintf(&script, "x%d APPEND Sent {5+}\r\na\r\n\r\n\r\ny%d STATUS Sent (MESSAGES)\r\n", i, i)
		fmt.Fprintf(&want, "x%d OK\n* STATUS \"Sent\" (MESSAGES %d)\ny%d OK\n", i, i+1, i)
	}
	go c.raw(script.String())
	for line := range strings.Lines(want.String()) {
		if got := c.line(); !strings.HasPrefix(got, strings.TrimSuffix(line, "\n")) {
			t.Fatalf("%s, should be %s", got, line)
		}
	}
}
