package queue

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
	"mailsrv/storage/kv/kvtest"
)

// world is the other side: a Transport that answers as it is told, and keeps what it was given.
type world struct {
	mu     sync.Mutex
	answer func(destination string, m *Outgoing, r Recipient) Outcome // nil: takes everything
	hold   func(ctx context.Context, destination string)              // before answering; nil: no wait
	got    []sent
	active map[string]int
	most   map[string]int // attempts at a time
	order  []string       // destinations, as they were tried
}

type sent struct {
	when       time.Time
	id, to     string
	sender     string
	body       string
	outgoing   Outgoing
	answer     Outcome
	recipients int
}

func (w *world) Destination(_, recipient string) string { return domainOf(recipient) }

func (w *world) Attempt(ctx context.Context, destination string, m *Outgoing) []Outcome {
	w.mu.Lock()
	if w.active == nil {
		w.active, w.most = map[string]int{}, map[string]int{}
	}
	w.active[destination]++
	w.most[destination] = max(w.most[destination], w.active[destination])
	w.order = append(w.order, destination)
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		hold(ctx, destination)
	}
	body, err := io.ReadAll(io.NewSectionReader(m.Message, 0, m.Size))
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active[destination]--
	var all []Outcome
	for _, r := range m.Recipients {
		o := Outcome{Verdict: Delivered, Code: 250, Status: "2.0.0", Text: "ok", Remote: "mx." + destination + " [192.0.2.1]:25"}
		if w.answer != nil {
			o = w.answer(destination, m, r)
		}
		all = append(all, o)
		w.got = append(w.got, sent{time.Now(), m.ID, r.Address, m.Sender, string(body), *m, o, len(m.Recipients)})
	}
	return all
}

// all are the attempts, and tried the destinations in their order; peak is how many ran at a time.
func (w *world) all() []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

func (w *world) tried() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.order)
}

func (w *world) peak(destination string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most[destination]
}

// says changes the answers.
func (w *world) says(answer func(string, *Outgoing, Recipient) Outcome) {
	w.mu.Lock()
	w.answer = answer
	w.mu.Unlock()
}

// tries are the attempts at an address.
func (w *world) tries(to string) (all []sent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.got {
		if s.to == to {
			all = append(all, s)
		}
	}
	return all
}

// took are the messages delivered to an address.
func (w *world) took(to string) (all []sent) {
	for _, s := range w.tries(to) {
		if s.answer.Verdict == Delivered {
			all = append(all, s)
		}
	}
	return all
}

// people are the mailboxes here.
type people struct {
	mu   sync.Mutex
	got  map[string][]string
	from map[string]string // the last one's sender
	fail func(to string) error
}

func (p *people) Here(address string) bool {
	return address == postmaster || strings.HasSuffix(address, "@here.test")
}

func (p *people) Deliver(_ context.Context, env *delivery.Envelope, message io.Reader) error {
	to := env.Recipients[0].Address
	body, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		if err := p.fail(to); err != nil {
			return err
		}
	}
	if p.got == nil {
		p.got, p.from = map[string][]string{}, map[string]string{}
	}
	p.got[to], p.from[to] = append(p.got[to], string(body)), env.Sender
	return nil
}

func (p *people) inbox(of string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got[of])
}

func (p *people) lastFrom(to string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.from[to]
}

// house is a queue under test.
type house struct {
	*Queue
	t      testing.TB
	fs     disk.FS
	kv     kv.DB
	world  *world
	people *people
	log    *bytes.Buffer
	change func(*Options)
}

// newHouse opens a queue in memory. It is checked and closed by close, which the test calls: inside of a synctest bubble
// cleanups come too late.
func newHouse(t testing.TB, change func(*Options)) *house {
	t.Helper()
	h := &house{t: t, fs: disk.NewCrashable(), world: &world{}, people: &people{}, log: &bytes.Buffer{}, change: change}
	if err := h.fs.MkdirAll("/data/tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.kv, err = kvtest.OpenSnapshot(h.fs, "/data/system.db"); err != nil {
		h.t.Fatal(err)
	}
	h.Queue, err = Open(h.options())
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) options() Options {
	o := Options{DB: h.kv, Dir: "/data/queue", FS: h.fs, Hostname: "mx.here.test", Transport: h.world, Local: h.people,
		Logger: slog.New(slog.NewTextHandler(lockedWriter{w: h.log}, nil))}
	if h.change != nil {
		h.change(&o)
	}
	return o
}

var logLock sync.Mutex

type lockedWriter struct{ w io.Writer }

func (l lockedWriter) Write(p []byte) (int, error) {
	logLock.Lock()
	defer logLock.Unlock()
	return l.w.Write(p)
}

func (h *house) logged() string {
	logLock.Lock()
	defer logLock.Unlock()
	return h.log.String()
}

// close ends the queue in order and checks what must hold.
func (h *house) close() {
	h.t.Helper()
	h.stop()
	if err := h.kv.Close(); err != nil {
		h.t.Error(err)
	}
}

func (h *house) stop() {
	h.t.Helper()
	if err := h.Shutdown(context.Background()); err != nil {
		h.t.Error(err)
	}
	check(h.t, h.Queue)
}

// restart is an orderly end and a new beginning.
func (h *house) restart() {
	h.t.Helper()
	h.close()
	h.open()
	h.Start()
}

// letter is a source.
type letter struct {
	*strings.Reader
	path string
}

func (l letter) Path() string { return l.path }

var letters atomic.Int64

// write makes a sealed message as the store does.
func (h *house) write(text string) (letter, error) {
	path := fmt.Sprintf("/data/tmp/%d", letters.Add(1))
	f, err := h.fs.Create(path, 0o600)
	if err == nil {
		_, err = io.WriteString(f, text)
	}
	if err == nil {
		err = f.Sync()
	}
	if f != nil {
		f.Close()
	}
	return letter{strings.NewReader(text), path}, err
}

const sample = "Return-Path: <alice@here.test>\r\nReceived: from x\r\n\tby y; now\r\nFrom: alice@here.test\r\nSubject: Hi\r\n" +
	"Message-ID: <1@here.test>\r\n\r\nHello\r\n"

// send enqueues the sample and returns its ID.
func (h *house) send(sender string, to ...string) string {
	h.t.Helper()
	return h.sendAs(&delivery.Envelope{Sender: sender}, to...)
}

func (h *house) sendAs(env *delivery.Envelope, to ...string) string {
	h.t.Helper()
	if err := h.trySend(env, sample, to...); err != nil {
		h.t.Fatal(err)
	}
	return env.ID
}

func (h *house) trySend(env *delivery.Envelope, text string, to ...string) error {
	h.t.Helper()
	env.ID = delivery.NewID()
	in, err := h.write(text)
	if err != nil {
		return err
	}
	defer h.fs.Remove(in.path)
	var onward []delivery.Onward
	for _, a := range to {
		r := delivery.Recipient{Address: a}
		if i := slices.IndexFunc(env.Recipients, func(r delivery.Recipient) bool { return r.Address == a }); i >= 0 {
			r = env.Recipients[i]
		}
		onward = append(onward, delivery.Onward{Address: a, For: r})
	}
	return h.enqueue(context.Background(), env, in, onward)
}

// items lists the queue.
func (h *house) items() (all []Item) {
	h.t.Helper()
	if err := h.List(Selection{"all"}, func(i Item) bool { all = append(all, i); return true }); err != nil {
		h.t.Error(err)
	}
	return all
}

// bubble runs a test on a fake clock.
func bubble(t *testing.T, change func(*Options), fn func(h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, change)
		h.Start()
		fn(h)
		h.close()
	})
}

// check is what must hold whenever nothing is under way: format.go says so.
func check(t testing.TB, q *Queue) {
	t.Helper()
	files := map[string]bool{}
	if err := q.files.each(func(id, _ string) error { files[id] = true; return nil }); err != nil {
		t.Error(err)
	}
	if len(q.scheduler.claimed) > 0 {
		t.Errorf("claims are left: %v", q.scheduler.claimed)
	}
	err := q.db.View(func(r kv.Reader) error {
		due, timers := map[string]bool{}, map[string]bool{}
		collect := func(prefix string, into map[string]bool) {
			r.Scan([]byte(prefix), after([]byte(prefix)), func(k, _ []byte) bool { into[string(k)] = true; return true })
		}
		collect(prefixDue, due)
		collect(prefixTimer, timers)
		messages := 0
		r.Scan([]byte(prefixMessage), after([]byte(prefixMessage)), func(k, v []byte) bool {
			messages++
			m, err := decodeMessage(string(k[len(prefixMessage):]), v)
			if err != nil {
				t.Error(err)
				return true
			}
			open, count := 0, 0
			err = eachRecipient(r, m.id, func(one *recipient) {
				count++
				if one.state.open() {
					open++
				}
				key := string(keyDue(one.destination, m.class(), one.due, m.id, one.n))
				if due[key] != (one.state == queued) {
					t.Errorf("%s/%d is %v, due key: %v", m.id, one.n, one.state, due[key])
				}
				delete(due, key)
			})
			if err != nil || open != m.open || count != m.count || open == 0 {
				t.Errorf("%s: open %d of %d, entry says %d of %d, %v", m.id, open, count, m.open, m.count, err)
			}
			if !timers[string(keyTimer(m.timer, m.id))] {
				t.Errorf("%s has no timer", m.id)
			}
			delete(timers, string(keyTimer(m.timer, m.id)))
			if !files[m.id] {
				t.Errorf("%s has no file", m.id)
			}
			delete(files, m.id)
			return true
		})
		for k := range due {
			t.Errorf("stray due key %q", k)
		}
		for k := range timers {
			t.Errorf("stray timer %q", k)
		}
		for id := range files {
			t.Errorf("stray file %s", id)
		}
		if n := q.Stats().Messages; n != messages {
			t.Errorf("%d messages counted, %d there", n, messages)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
