package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/directory"
	"mailsrv/storage"
)

var seed = directory.Seed{
	Domains: []directory.Domain{{Name: "example.test"}, {Name: "caught.test", CatchAll: "bob@example.test"}},
	Accounts: []directory.SeedAccount{
		{Account: directory.Account{Address: "alice@example.test"}, Password: "x"},
		{Account: directory.Account{Address: "bob@example.test"}, Password: "x"},
		{Account: directory.Account{Address: "carol@example.test"}, Password: "x"},
		{Account: directory.Account{Address: "one@example.test", QuotaMessages: 1}, Password: "x"},
		{Account: directory.Account{Address: "tiny@example.test", QuotaBytes: 10}, Password: "x"},
		{Account: directory.Account{Address: "gone@example.test", Disabled: true}, Password: "x"},
	},
	Aliases: []directory.Alias{
		{Address: "both@example.test", Targets: []string{"alice@example.test", "bob@example.test"}},
		{Address: "away@example.test", Targets: []string{"x@far.test"}},
		{Address: "mixed@example.test", Targets: []string{"alice@example.test", "x@far.test"}},
		{Address: "withfull@example.test", Targets: []string{"tiny@example.test", "alice@example.test"}},
	},
	Groups: []directory.Group{
		{Address: "club@example.test", Members: []string{"alice@example.test", "bob@example.test"}, Private: true},
	},
}

type counts struct {
	mu sync.Mutex
	by map[string]int
}

func (c *counts) Delivered(result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by[result]++
}

// house is a deliverer over a real directory and store; accounts are checked when the test ends.
type house struct {
	*Deliverer
	t      *testing.T
	store  *storage.Store
	counts counts
	now    time.Time
}

func newHouse(t *testing.T, change func(*Options)) *house {
	t.Helper()
	dir, err := directory.Open(nil, seed, directory.WithHashParams(directory.HashParams{Memory: 64, Time: 1, Lanes: 1}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(storage.Options{Dir: t.TempDir(), Reserve: 1,
		Quota: func(a string) storage.Quota { return QuotaOf(dir, a) }})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, store: s, counts: counts{by: map[string]int{}}, now: time.Unix(1_700_000_000, 0).UTC()}
	o := Options{Directory: dir, Store: s, Hostname: "mx.example.test", MaxHops: 3, Meter: &h.counts,
		Now: func() time.Time { return h.now }}
	if change != nil {
		change(&o)
	}
	h.Deliverer = New(o)
	t.Cleanup(h.close)
	return h
}

func (h *house) close() {
	all, err := h.store.Addresses()
	if err != nil {
		h.t.Error(err)
	}
	for _, address := range all {
		a, err := h.store.Account(address)
		if err != nil {
			h.t.Error(err)
			continue
		}
		problems, err := a.Check()
		if err != nil || len(problems) > 0 {
			h.t.Errorf("%s: %v, %v", address, problems, err)
		}
		a.Release()
	}
	if err := h.store.Close(); err != nil {
		h.t.Error(err)
	}
}

// inbox counts an account's messages in INBOX; 0 if it has no account yet.
func (h *house) inbox(address string) int {
	h.t.Helper()
	a, err := h.store.Account(address)
	if errors.Is(err, storage.ErrNoAccount) {
		return 0
	}
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Release()
	m, err := a.Mailbox("INBOX")
	if err != nil {
		h.t.Fatal(err)
	}
	return int(m.Messages)
}

func (h *house) message(env *Envelope, text string) *storage.Incoming {
	h.t.Helper()
	in, err := h.store.Incoming()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { in.Close() })
	if _, err := io.WriteString(in, h.Trace(env)+text); err != nil {
		h.t.Fatal(err)
	}
	if err := in.Seal(); err != nil {
		h.t.Fatal(err)
	}
	return in
}

func envelope(to ...string) *Envelope {
	env := &Envelope{ID: NewID(), Sender: "someone@else.test", Origin: Origin{Service: "smtp", Protocol: "ESMTP"}}
	for _, a := range to {
		env.Recipients = append(env.Recipients, Recipient{Address: a})
	}
	return env
}

const text = "Subject: x\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"

// send delivers and returns the statuses, "ok" for nil.
func (h *house) send(env *Envelope, text string) []string {
	h.t.Helper()
	var all []string
	for _, err := range h.Deliver(h.t.Context(), env, h.message(env, text)) {
		all = append(all, status(err))
	}
	return all
}

func status(err error) string {
	var e *Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return fmt.Sprintf("%d %s", e.Code, e.Status)
	}
	return "not an *Error: " + err.Error()
}

func TestCheckRecipient(t *testing.T) {
	h := newHouse(t, nil)
	alice := Origin{Service: "submission", Account: "alice@example.test"}
	stranger := Origin{Service: "smtp"}
	for _, test := range []struct {
		origin Origin
		sender string
		to     string
		size   int64
		want   string
	}{
		{stranger, "", "alice@example.test", 0, "ok"},
		{stranger, "", "ALICE+tag@Example.TEST", 0, "ok"},
		{stranger, "", "postmaster", 0, "ok"},
		{stranger, "", "PostMaster@example.test", 0, "ok"},
		{stranger, "", "abuse@example.test", 0, "ok"},
		{stranger, "", "nobody@example.test", 0, "550 5.1.1"},
		{stranger, "", "anybody@caught.test", 0, "ok"},
		{stranger, "", "gone@example.test", 0, "550 5.2.1"},
		{stranger, "", "x@far.test", 0, "550 5.7.1"},
		{stranger, "", "x@[192.0.2.1]", 0, "550 5.7.1"},
		{alice, "alice@example.test", "x@far.test", 0, "550 5.7.1"},
		{stranger, "", "away@example.test", 0, "550 5.7.1"},
		{stranger, "", "mixed@example.test", 0, "550 5.7.1"},
		{stranger, "", "tiny@example.test", 10, "ok"},
		{stranger, "", "tiny@example.test", 11, "452 4.2.2"},
		{stranger, "", "withfull@example.test", 11, "ok"},
		{stranger, "alice@example.test", "club@example.test", 0, "550 5.7.1"},
		{stranger, "alice@example.test", "club+x@example.test", 0, "550 5.7.1"},
		{alice, "alice@example.test", "club@example.test", 0, "ok"},
		{alice, "", "club@example.test", 0, "ok"},
		{Origin{Service: "submission", Account: "carol@example.test"}, "alice@example.test", "club@example.test", 0, "550 5.7.1"},
		{Origin{Service: "lmtp"}, "alice@example.test", "club@example.test", 0, "ok"},
		{Origin{Service: "lmtp"}, "carol@example.test", "club@example.test", 0, "550 5.7.1"},
	} {
		env := &Envelope{Sender: test.sender, Origin: test.origin}
		err := h.CheckRecipient(t.Context(), env, Recipient{Address: test.to}, test.size)
		if got := status(err); got != test.want {
			t.Errorf("%s to %s: got %s (%v), want %s", test.origin.Service, test.to, got, err, test.want)
		}
	}
}

func TestCheckSender(t *testing.T) {
	h := newHouse(t, nil)
	for _, test := range []struct{ account, sender, want string }{
		{"alice@example.test", "alice@example.test", "ok"},
		{"alice@example.test", "Alice+list@example.test", "ok"},
		{"alice@example.test", "both@example.test", "ok"},
		{"alice@example.test", "", "ok"},
		{"alice@example.test", "carol@example.test", "550 5.7.1"},
		{"alice@example.test", "alice@far.test", "550 5.7.1"},
		{"carol@example.test", "both@example.test", "550 5.7.1"},
		{"", "alice@example.test", "ok"}, // what a stranger claims is for mailauth
	} {
		err := h.CheckSender(t.Context(), &Envelope{Sender: test.sender, Origin: Origin{Account: test.account}}, 0)
		if got := status(err); got != test.want {
			t.Errorf("%s as %s: got %s, want %s", test.account, test.sender, got, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), "<"+test.sender+">") {
			t.Errorf("%v does not name the address", err)
		}
	}
	if got := status(h.CheckSender(t.Context(), &Envelope{}, 1<<60)); got != "452 4.3.1" {
		t.Errorf("an exabyte: %s", got)
	}
}

func TestDeliver(t *testing.T) {
	h := newHouse(t, nil)
	// alice by four ways, bob by two: one copy each.
	env := envelope("alice@example.test", "both@example.test", "Alice+x@example.test", "alice@example.test", "any@caught.test")
	if got := h.send(env, text); !slices.Equal(got, []string{"ok", "ok", "ok", "ok", "ok"}) {
		t.Fatal(got)
	}
	if a, b := h.inbox("alice@example.test"), h.inbox("bob@example.test"); a != 1 || b != 1 {
		t.Errorf("alice has %d, bob %d", a, b)
	}
	if h.counts.by["filed"] != 5 {
		t.Error(h.counts.by)
	}
	// What went out of existence since RCPT.
	got := h.send(envelope("nobody@example.test", "bob@example.test", "x@far.test"), text)
	if !slices.Equal(got, []string{"550 5.1.1", "ok", "550 5.7.1"}) || h.inbox("bob@example.test") != 2 {
		t.Error(got)
	}
}

func TestDeliverOverQuota(t *testing.T) {
	h := newHouse(t, nil)
	if got := h.send(envelope("one@example.test"), text); got[0] != "ok" {
		t.Fatal(got)
	}
	if got := status(h.CheckRecipient(t.Context(), envelope(), Recipient{Address: "one@example.test"}, 0)); got != "452 4.2.2" {
		t.Error(got)
	}
	env := envelope("one@example.test", "alice@example.test", "withfull@example.test")
	want := []string{"452 4.2.2", "ok", "452 4.2.2"}
	for try := range 3 { // each try with trace headers of its own
		h.now = h.now.Add(time.Minute)
		env.ID = NewID()
		if got := h.send(env, text); !slices.Equal(got, want) {
			t.Errorf("try %d: %v", try, got)
		}
		if n := h.inbox("alice@example.test"); n != 1 {
			t.Errorf("try %d: alice has %d copies", try, n)
		}
	}
	// Another message is another message, and after a day the same one is too.
	h.send(env, text+"more\r\n")
	h.now = h.now.Add(25 * time.Hour)
	h.send(env, text)
	if n := h.inbox("alice@example.test"); n != 3 {
		t.Errorf("alice has %d", n)
	}
}

func TestHops(t *testing.T) {
	h := newHouse(t, nil)
	hop := "Received: by x\r\n"
	// Our own is one.
	if got := h.send(envelope("alice@example.test"), hop+hop+text); got[0] != "ok" {
		t.Error(got)
	}
	if got := h.send(envelope("alice@example.test", "bob@example.test"), hop+hop+"RECEIVED:\r\n x\r\n"+text); got[0] != "554 5.4.6" ||
		got[1] != "554 5.4.6" {
		t.Error(got)
	}
	// Only the header counts.
	if got := h.send(envelope("alice@example.test"), text+strings.Repeat(hop, 10)); got[0] != "ok" {
		t.Error(got)
	}
}

// trouble is a store that fails for some.
type trouble struct {
	mail
	errs map[string]error
}

func (s trouble) File(account, mailbox string, in *storage.Incoming) error {
	switch err := s.errs[account]; {
	case err == errPanic:
		panic("a bug in storage")
	case err != nil:
		return fmt.Errorf("append: %w", err)
	}
	return s.mail.File(account, mailbox, in)
}

var errPanic = errors.New("panic")

func TestStoreTrouble(t *testing.T) {
	h := newHouse(t, nil)
	h.mail = trouble{h.mail, map[string]error{
		"alice@example.test": storage.ErrDiskFull,
		"bob@example.test":   errors.New("I/O error"),
		"one@example.test":   errPanic,
	}}
	got := h.send(envelope("alice@example.test", "bob@example.test", "carol@example.test", "one@example.test"), text)
	if !slices.Equal(got, []string{"452 4.3.1", "451 4.3.0", "ok", "451 4.3.0"}) {
		t.Error(got)
	}
	for _, err := range h.Deliver(t.Context(), envelope("bob@example.test"), h.message(envelope(), text)) {
		if strings.Contains(err.Error(), "I/O") {
			t.Errorf("%v tells what is inside", err)
		}
	}
}

// queueing is a queue that takes, or not.
type queueing struct {
	err  error
	got  []Onward
	told []Recipient
}

func (q *queueing) Delivered(_ context.Context, _ *Envelope, _ *storage.Incoming, to []Recipient) error {
	q.told = append(q.told, to...)
	return q.err
}

func (q *queueing) Enqueue(_ context.Context, _ *Envelope, _ *storage.Incoming, to []Onward) error {
	if q.err == nil {
		q.got = append(q.got, to...)
	}
	return q.err
}

func TestQueue(t *testing.T) {
	q := &queueing{}
	h := newHouse(t, func(o *Options) { o.Queue = q })
	env := envelope("mixed@example.test", "away@example.test", "y@far.test")
	env.Origin.Account = "alice@example.test"
	if got := h.send(env, text); !slices.Equal(got, []string{"ok", "ok", "ok"}) || h.inbox("alice@example.test") != 1 {
		t.Error(got)
	}
	if len(q.got) != 2 || q.got[0].Address != "x@far.test" || q.got[0].For.Address != "mixed@example.test" ||
		q.got[1].Address != "y@far.test" {
		t.Error(q.got)
	}
	env.Origin.Account = ""
	if got := h.send(env, text); !slices.Equal(got, []string{"ok", "ok", "550 5.7.1"}) {
		t.Error("a stranger:", got)
	}
	q.err = errors.New("system.db is gone")
	if got := h.send(envelope("mixed@example.test", "bob@example.test"), text); !slices.Equal(got, []string{"451 4.3.0", "ok"}) {
		t.Error(got)
	}
}

// FUTURERELEASE (RFC 4865): nobody has it before its time, here or elsewhere, and aliases are followed when it has come.
func TestReleaseLater(t *testing.T) {
	q := &queueing{}
	h := newHouse(t, func(o *Options) { o.Queue = q })
	env := envelope("alice@example.test", "mixed@example.test", "nobody@example.test")
	env.ReleaseAt = h.now.Add(time.Minute)
	if got := h.send(env, text); !slices.Equal(got, []string{"ok", "ok", "550 5.1.1"}) || h.inbox("alice@example.test") != 0 {
		t.Error(got, h.inbox("alice@example.test"))
	}
	if len(q.got) != 2 || q.got[0].Address != "alice@example.test" || q.got[1].Address != "mixed@example.test" {
		t.Error(q.got)
	}
	h.now = env.ReleaseAt
	if h.send(env, text); h.inbox("alice@example.test") != 1 {
		t.Error("not delivered when its time had come")
	}
}

// The sender sends all of it again because one mailbox is full: what went elsewhere does not go there twice.
func TestOnwardOnce(t *testing.T) {
	q := &queueing{}
	h := newHouse(t, func(o *Options) { o.Queue = q })
	for range 2 {
		got := h.send(envelope("away@example.test", "tiny@example.test"), text)
		if !slices.Equal(got, []string{"ok", "452 4.2.2"}) || len(q.got) != 1 {
			t.Error(got, q.got)
		}
	}
	if h.send(envelope("away@example.test"), strings.Replace(text, "Subject", "X-Subject", 1)); len(q.got) != 2 {
		t.Error("another message was taken for the same", q.got)
	}
}

// RFC 3461 section 4.1: who asks for it hears of a delivery to a mailbox here, once it is there.
func TestSuccessNotice(t *testing.T) {
	q := &queueing{}
	h := newHouse(t, func(o *Options) { o.Queue = q })
	env := envelope("alice@example.test", "bob@example.test", "tiny@example.test", "away@example.test", "both@example.test")
	for i := range env.Recipients {
		if i != 1 {
			env.Recipients[i].Notify = []string{"FAILURE", "SUCCESS"}
		}
	}
	h.send(env, text)
	var told []string
	for _, r := range q.told {
		told = append(told, r.Address)
	}
	if !slices.Equal(told, []string{"alice@example.test", "both@example.test"}) {
		t.Error(told)
	}
	q.told = nil
	env.Sender = ""
	h.send(env, text)
	if len(q.told) > 0 {
		t.Error("the null sender was told")
	}
}

func TestConcurrentDelivery(t *testing.T) {
	h := newHouse(t, nil)
	const n = 20
	messages := make([]*storage.Incoming, n)
	for i := range messages {
		messages[i] = h.message(envelope(), text)
	}
	var wg sync.WaitGroup
	for _, in := range messages {
		wg.Go(func() {
			for _, err := range h.Deliver(t.Context(), envelope("both@example.test", "carol@example.test"), in) {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, a := range []string{"alice@example.test", "bob@example.test", "carol@example.test"} {
		if got := h.inbox(a); got != n {
			t.Errorf("%s has %d", a, got)
		}
	}
}

func TestReceived(t *testing.T) {
	h := newHouse(t, nil)
	env := envelope("alice@example.test")
	env.ID = "0id"
	env.Origin = Origin{Hello: "client.test", Addr: netip.MustParseAddr("::ffff:192.0.2.1"), Protocol: "ESMTPS",
		TLS: "TLS 1.3 TLS_AES_128_GCM_SHA256"}
	want := "Return-Path: <someone@else.test>\r\n" +
		"Received: from client.test ([192.0.2.1])\r\n\t(using TLS 1.3 TLS_AES_128_GCM_SHA256)\r\n" +
		"\tby mx.example.test with ESMTPS id 0id\r\n\tfor <alice@example.test>;\r\n" +
		"\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
	if got := h.Trace(env); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	env.Recipients = append(env.Recipients, Recipient{Address: "bob@example.test"})
	env.Sender, env.Origin = "", Origin{Hello: "evil (\r\nX: y", Addr: netip.MustParseAddr("2001:db8::1")}
	got := h.Trace(env)
	if strings.Contains(got, "for <") || !strings.HasPrefix(got, "Return-Path: <>\r\n") ||
		!strings.Contains(got, "from evilX:y ([IPv6:2001:db8::1])") {
		t.Errorf("%q", got)
	}
	for line := range strings.Lines(got) {
		if !regexp.MustCompile(`^([A-Za-z-]+: |\t)[ -~]*\r\n$`).MatchString(line) {
			t.Errorf("%q", line)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for range 10_000 {
		id := NewID()
		if len(id) != 16 || seen[id] || id[:11] < last {
			t.Fatalf("%q after %q", id, last)
		}
		seen[id], last = true, id[:11]
	}
}
