package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/disk"
	"mailsrv/internal/queue"
	"mailsrv/storage"
	"mailsrv/storage/kv/kvtest"
)

// mailbox is where notices to alice come.
type mailbox struct {
	mu   sync.Mutex
	mail []string
}

func (*mailbox) Here(address string) bool { return strings.HasSuffix(address, "@us.test") }

func (m *mailbox) Deliver(_ context.Context, _ *delivery.Envelope, message io.Reader) error {
	text, err := io.ReadAll(message)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mail = append(m.mail, string(text))
	return err
}

// about lists the notices that name an address, as the Action each gives it.
func (m *mailbox) about(address string) (actions []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range m.mail {
		if _, group, ok := strings.Cut(text, "Final-Recipient: rfc822; "+address+"\r\n"); ok {
			_, action, _ := strings.Cut(group, "Action: ")
			action, _, _ = strings.Cut(action, "\r\n")
			_, status, _ := strings.Cut(group, "Status: ")
			status, _, _ = strings.Cut(status, "\r\n")
			actions = append(actions, action+" "+status)
		}
	}
	return actions
}

// neighbour is a server that takes mail as its habits allow.
type neighbour struct {
	mu    sync.Mutex
	taken int
	// before is asked at each RCPT and DATA; an answer that is not empty is given instead of ours, "cut" hangs up.
	before func(verb string) string
}

func (h *neighbour) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken
}

func (h *neighbour) serve(c net.Conn) {
	in := bufio.NewReader(c)
	say := func(text string) { _, _ = io.WriteString(c, text+"\r\n") }
	say("220 hello")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		odd := ""
		if h.before != nil && (verb == "RCPT" || verb == "DATA") {
			odd = h.before(verb)
		}
		switch {
		case odd != "" && odd != "cut":
			say(odd)
		case verb == "DATA":
			say("354 go on")
			for line != ".\r\n" {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
			}
			if odd == "cut" {
				return // after the final dot
			}
			h.mu.Lock()
			h.taken++
			h.mu.Unlock()
			say("250 taken")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// TestDaysOfRetry: the queue and the relay together, six days with every kind of neighbour. What can arrive does, once; for
// all else the sender hears what happened, in time.
func TestDaysOfRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		cuts := 0
		hosts := map[string]*neighbour{
			"good.test": {},
			"busy.test": {before: func(string) string {
				if time.Since(began) < time.Hour {
					return "451 4.3.2 come back later"
				}
				return ""
			}},
			"cut.test": {before: func(verb string) string {
				if verb == "DATA" {
					if cuts++; cuts == 1 {
						return "cut"
					}
				}
				return ""
			}},
			"gone.test": {before: func(string) string { return "550 5.1.1 no such person" }},
			"late.test": nil, // nobody there for two days
			"dead.test": nil, // nor ever
		}
		n := 0
		for domain, h := range hosts {
			n++
			at := fmt.Sprintf("192.0.2.%d", 100+n)
			w.dns.exchange(domain, 10, "mx."+domain, at)
			if h != nil {
				w.serve(at, h.serve)
			}
			if domain == "late.test" {
				hosts[domain] = &neighbour{}
				time.AfterFunc(48*time.Hour, func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.serve(at, hosts[domain].serve)
				})
			}
		}

		fs, inbox := disk.NewCrashable(), &mailbox{}
		dir := t.TempDir() // the store's lock is a real file
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		store, err := storage.Open(storage.Options{Dir: dir, FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		db, err := kvtest.OpenSnapshot(fs, dir+"/system.db")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		r := w.relay(nil)
		q, err := queue.Open(queue.Options{DB: db, Dir: dir + "/queue", FS: fs, Hostname: "us.test", Transport: r, Local: inbox})
		if err != nil {
			t.Fatal(err)
		}
		q.Start()
		in, err := store.Incoming()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(in, "From: alice@us.test\r\nSubject: hello\r\n\r\nHello.\r\n")
		if err := in.Seal(); err != nil {
			t.Fatal(err)
		}
		env := &delivery.Envelope{ID: delivery.NewID(), Sender: "alice@us.test"}
		var to []delivery.Onward
		for domain := range hosts {
			to = append(to, delivery.Onward{Address: "you@" + domain, For: delivery.Recipient{Address: "you@" + domain}})
		}
		if err := q.Enqueue(t.Context(), env, in, to); err != nil {
			t.Fatal(err)
		}
		in.Close()

		after := func(d time.Duration, want map[string]string) {
			t.Helper()
			time.Sleep(time.Until(began.Add(d)))
			for domain, say := range want {
				if got := fmt.Sprint(hosts[domain].count0(), inbox.about("you@"+domain)); got != say {
					t.Errorf("after %v, %s: %s, want %s", d, domain, got, say)
				}
			}
		}
		after(time.Minute, map[string]string{"good.test": "1 []", "gone.test": "0 [failed 5.1.1]", "dead.test": "0 []", "busy.test": "0 []"})
		after(3*time.Hour, map[string]string{"good.test": "1 []", "busy.test": "1 []", "cut.test": "1 []", "dead.test": "0 []"})
		after(8*time.Hour, map[string]string{"dead.test": "0 [delayed 4.4.1]", "late.test": "0 [delayed 4.4.1]"})
		after(6*24*time.Hour, map[string]string{"good.test": "1 []", "busy.test": "1 []", "cut.test": "1 []", "gone.test": "0 [failed 5.1.1]",
			"late.test": "1 [delayed 4.4.1]", "dead.test": "0 [delayed 4.4.1 failed 4.4.7]"})
		left := 0
		if err := q.List(queue.Selection{}, func(queue.Item) bool { left++; return true }); err != nil || left != 0 {
			t.Errorf("%d recipients are still queued, %v", left, err)
		}
		if err := q.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// count0 is count of a host that may not be there.
func (h *neighbour) count0() int {
	if h == nil {
		return 0
	}
	return h.count()
}
