package queue

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/delivery"
)

const (
	sender = "alice@here.test"
	far    = "bob@far.test"
)

func refuse(code int, status, text string) func(string, *Outgoing, Recipient) Outcome {
	return func(destination string, _ *Outgoing, _ Recipient) Outcome {
		o := Outcome{Verdict: Failed, Code: code, Status: status, Text: text, Remote: "mx." + destination + " [192.0.2.1]:25"}
		if code < 500 {
			o.Verdict = Deferred
		}
		return o
	}
}

func TestDelivered(t *testing.T) {
	bubble(t, nil, func(h *house) {
		id := h.send(sender, far, "carl@far.test", "dora@else.test")
		synctest.Wait()
		got := h.world.took(far)
		if len(got) != 1 || got[0].id != id || got[0].recipients != 2 || got[0].sender != sender {
			t.Fatalf("%+v", got)
		}
		if !strings.HasPrefix(got[0].body, "Received: ") || !strings.HasSuffix(got[0].body, "\r\nHello\r\n") {
			t.Errorf("sent:\n%s", got[0].body)
		}
		if items := h.items(); len(items) > 0 || h.Stats().Messages != 0 {
			t.Errorf("still there: %v", items)
		}
		if boxes := h.people.inbox(sender); len(boxes) > 0 {
			t.Errorf("a notice nobody asked for:\n%s", boxes[0])
		}
		if n := strings.Count(h.logged(), "msg=attempt"); n != 3 {
			t.Errorf("%d lines for 3 attempts:\n%s", n, h.logged())
		}
	})
}

// Five days of a server that is down: tries at growing distances, one word after four hours, the bounce at the end.
func TestFiveDays(t *testing.T) {
	bubble(t, nil, func(h *house) {
		h.world.says(refuse(451, "4.3.0", "not now"))
		began := time.Now()
		h.send(sender, far)
		time.Sleep(3 * time.Hour)
		if n := len(h.people.inbox(sender)); n != 0 {
			t.Errorf("%d notices after three hours", n)
		}
		time.Sleep(90 * time.Minute)
		if boxes := h.people.inbox(sender); len(boxes) != 1 || !strings.Contains(boxes[0], "Action: delayed") ||
			!strings.Contains(boxes[0], "Will-Retry-Until") {
			t.Fatalf("after 4.5 hours: %d notices %v", len(boxes), boxes)
		}
		h.restart()
		time.Sleep(5*24*time.Hour - 5*time.Hour)
		if n := len(h.people.inbox(sender)); n != 1 {
			t.Errorf("%d notices just before five days", n)
		}
		time.Sleep(time.Hour)
		boxes := h.people.inbox(sender)
		if len(boxes) != 2 || !strings.Contains(boxes[1], "Action: failed") || !strings.Contains(boxes[1], "Status: 4.4.7") ||
			!strings.Contains(boxes[1], "451 not now") {
			t.Fatalf("after five days: %d notices\n%s", len(boxes), boxes[len(boxes)-1])
		}
		if items := h.items(); len(items) > 0 {
			t.Errorf("still there: %v", items)
		}
		tries := h.world.tries(far)
		if len(tries) < 30 || len(tries) > 50 {
			t.Errorf("%d tries", len(tries))
		}
		for i := 1; i < len(tries); i++ {
			gap, want := tries[i].when.Sub(tries[i-1].when), min(5*time.Minute<<min(i-1, 10), 4*time.Hour)
			if gap < want*8/10-time.Second || gap > want*12/10+2*time.Second {
				t.Errorf("try %d came after %v, want about %v", i, gap, want)
			}
		}
		if first := tries[0].when.Sub(began); first > time.Second {
			t.Errorf("the first try came after %v", first)
		}
	})
}

// A hundred messages for a host that is down: few attempts, and yet each message has its notice and its end.
func TestUnreachable(t *testing.T) {
	bubble(t, nil, func(h *house) {
		h.world.answer = func(string, *Outgoing, Recipient) Outcome {
			return Outcome{Status: "4.4.1", Text: "connection refused", Wait: 5 * time.Minute}
		}
		for range 100 {
			h.send(sender, far)
		}
		time.Sleep(4*time.Hour + 10*time.Minute)
		if n := len(h.people.inbox(sender)); n != 100 {
			t.Errorf("%d notices of delay, want 100", n)
		}
		if n := len(h.world.tries(far)); n > 40 {
			t.Errorf("%d attempts in four hours at a host that is down", n)
		}
		time.Sleep(5 * 24 * time.Hour)
		boxes := h.people.inbox(sender)
		if len(boxes) != 200 || len(h.items()) > 0 {
			t.Fatalf("%d notices, %d recipients left", len(boxes), len(h.items()))
		}
		for _, b := range boxes[100:] {
			if !strings.Contains(b, "connection refused") {
				t.Fatalf("no reason told:\n%s", b)
			}
		}
	})
}

// A destination that recovers gets all of its mail soon.
func TestRecovers(t *testing.T) {
	bubble(t, nil, func(h *house) {
		down := true
		h.world.answer = func(destination string, m *Outgoing, r Recipient) Outcome {
			if down {
				return Outcome{Status: "4.4.1", Text: "timeout", Wait: time.Minute}
			}
			return Outcome{Verdict: Delivered, Code: 250}
		}
		for range 60 {
			h.send(sender, far)
		}
		time.Sleep(time.Hour)
		h.world.mu.Lock()
		down = false
		h.world.mu.Unlock()
		time.Sleep(90 * time.Minute)
		if n := len(h.world.took(far)); n != 60 {
			t.Errorf("%d delivered of 60", n)
		}
	})
}

func TestFailed(t *testing.T) {
	tests := []struct {
		name    string
		sender  string
		notify  []string
		code    int
		onward  bool
		here    string // who hears
		action  string
		nothing bool
	}{
		{name: "bounce", sender: sender, code: 550, here: sender, action: "Action: failed"},
		{name: "never", sender: sender, notify: []string{"NEVER"}, code: 550, here: sender, nothing: true},
		{name: "success only", sender: sender, notify: []string{"SUCCESS"}, code: 550, here: sender, nothing: true},
		{name: "null sender", sender: "", code: 550, here: postmaster, nothing: true},
		{name: "success", sender: sender, notify: []string{"SUCCESS", "FAILURE"}, code: 250, here: sender, action: "Action: relayed"},
		{name: "the next server tells", sender: sender, notify: []string{"SUCCESS"}, code: 250, onward: true, here: sender, nothing: true},
		{name: "success unasked", sender: sender, notify: []string{"FAILURE"}, code: 250, here: sender, nothing: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, nil, func(h *house) {
				h.world.answer = func(string, *Outgoing, Recipient) Outcome {
					o := Outcome{Code: test.code, Remote: "mx.far.test", Onward: test.onward, Verdict: Failed}
					if test.code < 300 {
						o.Verdict = Delivered
					}
					return o
				}
				h.sendAs(&delivery.Envelope{Sender: test.sender, Recipients: []delivery.Recipient{{Address: far, Notify: test.notify}}}, far)
				time.Sleep(time.Minute)
				boxes := h.people.inbox(test.here)
				if test.nothing && len(boxes) > 0 || !test.nothing && (len(boxes) != 1 || !strings.Contains(boxes[0], test.action)) {
					t.Errorf("%d notices: %v", len(boxes), boxes)
				}
				if len(h.items()) > 0 {
					t.Errorf("still there: %v", h.items())
				}
			})
		})
	}
}

// A bounce goes to another server like any mail, and if that refuses it the postmaster hears; if he cannot, it ends there.
func TestDoubleBounce(t *testing.T) {
	for _, full := range []bool{false, true} {
		bubble(t, nil, func(h *house) {
			h.world.says(refuse(550, "5.1.1", "no such user"))
			if full {
				h.people.fail = func(string) error { return &delivery.Error{Code: 550, Status: "5.1.1", Text: "nobody"} }
			}
			h.send("forged@far.test", "bob@else.test")
			time.Sleep(time.Minute)
			bounces := h.world.tries("forged@far.test")
			if len(bounces) != 1 || bounces[0].sender != "" || !strings.Contains(bounces[0].body, "bob@else.test") ||
				!slices.Equal(bounces[0].outgoing.Recipients[0].Notify, []string{"NEVER"}) {
				t.Fatalf("%+v", bounces)
			}
			boxes := h.people.inbox(postmaster)
			if !full && (len(boxes) != 1 || !strings.Contains(boxes[0], "forged@far.test")) || full && len(boxes) > 0 {
				t.Errorf("the postmaster has %d: %v", len(boxes), boxes)
			}
			if len(h.items()) > 0 {
				t.Errorf("still there: %v", h.items())
			}
		})
	}
}

// The sender's mailbox is full when the bounce comes: it is tried again like all mail.
func TestNoticeTriedAgain(t *testing.T) {
	bubble(t, nil, func(h *house) {
		full := true
		h.people.fail = func(string) error {
			if full {
				return &delivery.Error{Code: 452, Status: "4.2.2", Text: "mailbox is full"}
			}
			return nil
		}
		h.world.says(refuse(550, "5.7.1", "no"))
		h.send(sender, far)
		time.Sleep(time.Hour)
		if n := len(h.items()); n != 1 {
			t.Fatalf("%d in the queue", n)
		}
		h.people.mu.Lock()
		full = false
		h.people.mu.Unlock()
		time.Sleep(5 * time.Hour)
		if n := len(h.people.inbox(sender)); n != 1 {
			t.Errorf("%d notices", n)
		}
	})
}

func TestLifetimes(t *testing.T) {
	policy := func(o *Options) {
		o.Policy.Domain = func(domain string) DomainPolicy {
			if domain == "quick.test" {
				return DomainPolicy{Lifetime: 2 * time.Hour, DelayNotice: -1}
			}
			return DomainPolicy{}
		}
	}
	bubble(t, policy, func(h *house) {
		h.world.says(refuse(450, "4.2.0", "later"))
		h.send(sender, "bob@quick.test")
		h.send("", far)
		time.Sleep(2*time.Hour + 5*time.Minute)
		if boxes := h.people.inbox(sender); len(boxes) != 1 || !strings.Contains(boxes[0], "Action: failed") {
			t.Errorf("after the domain's lifetime: %v", boxes)
		}
		time.Sleep(45 * time.Hour)
		if n := len(h.items()); n != 1 {
			t.Errorf("mail from the null sender is gone early")
		}
		time.Sleep(time.Hour + 10*time.Minute)
		if n := len(h.items()); n != 0 {
			t.Errorf("mail from the null sender is still there after two days")
		}
	})
}

func TestPriorityReleaseDeadline(t *testing.T) {
	policy := func(o *Options) { o.Policy.PerDestination = 1 }
	bubble(t, policy, func(h *house) {
		h.world.hold = func(context.Context, string) { time.Sleep(time.Second) }
		h.send(sender, "first@far.test")
		synctest.Wait()
		for _, p := range []int{-3, 0, 9, 4} {
			h.sendAs(&delivery.Envelope{Sender: sender, Priority: p}, fmt.Sprintf("p%d@far.test", p))
		}
		h.sendAs(&delivery.Envelope{Sender: sender, ReleaseAt: time.Now().Add(10 * time.Hour)}, "later@far.test")
		time.Sleep(time.Minute)
		var order []string
		for _, s := range h.world.all()[1:] { // the first went before the others came
			order = append(order, s.to)
		}
		if want := []string{"p9@far.test", "p4@far.test", "p0@far.test", "p-3@far.test"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		h.restart()
		time.Sleep(9 * time.Hour)
		if n := len(h.world.tries("later@far.test")); n != 0 {
			t.Error("released early")
		}
		time.Sleep(time.Hour)
		if n := len(h.world.tries("later@far.test")); n != 1 {
			t.Errorf("%d tries after the release", n)
		}

		h.world.says(refuse(450, "4.2.0", "later"))
		h.sendAs(&delivery.Envelope{Sender: sender, DeliverBy: time.Now().Add(20 * time.Minute)}, "return@far.test")
		h.sendAs(&delivery.Envelope{Sender: sender, DeliverBy: time.Now().Add(20 * time.Minute), DeliverByNotify: true}, "notify@far.test")
		time.Sleep(25 * time.Minute)
		boxes := strings.Join(h.people.inbox(sender), "\n")
		if len(h.people.inbox(sender)) != 2 || !strings.Contains(boxes, "return@far.test\r\nAction: failed") ||
			!strings.Contains(boxes, "notify@far.test\r\nAction: delayed") {
			t.Errorf("at the deadline:\n%s", boxes)
		}
	})
}

// Who set a deadline hears when the message goes where nobody watches it, and, with a trace, each time it is handed on (RFC
// 2852). Mail to people here that was not to come before its time comes from its sender.
func TestDeadlineHandedOn(t *testing.T) {
	bubble(t, nil, func(h *house) {
		accepted := Outcome{Verdict: Delivered, Code: 250, Status: "2.0.0", Text: "ok"}
		by := time.Now().Add(time.Hour)
		for i, one := range []struct {
			takes, notify, trace bool
			never                []string
			told                 bool
		}{
			{notify: true, told: true},
			{notify: true, never: []string{"NEVER"}},
			{notify: true, takes: true},
			{notify: true, takes: true, trace: true, told: true},
			{takes: true},
		} {
			to := fmt.Sprintf("b%d@far.test", i)
			accepted.TakesBy, accepted.Onward = one.takes, true
			h.world.says(func(string, *Outgoing, Recipient) Outcome { return accepted })
			before := len(h.people.inbox(sender))
			h.sendAs(&delivery.Envelope{Sender: sender, DeliverBy: by, DeliverByNotify: one.notify, DeliverByTrace: one.trace,
				Recipients: []delivery.Recipient{{Address: to, Notify: one.never}}}, to)
			time.Sleep(time.Second)
			told := h.people.inbox(sender)[before:]
			if (len(told) == 1) != one.told || one.told && (!strings.Contains(told[0], to+"\r\nAction: relayed") ||
				!strings.Contains(told[0], "Deliver-By-Date: ")) {
				t.Errorf("%+v: %q", one, told)
			}
		}
		h.sendAs(&delivery.Envelope{Sender: sender, ReleaseAt: time.Now().Add(time.Hour)}, "carol@here.test")
		time.Sleep(59 * time.Minute)
		if n := len(h.people.inbox("carol@here.test")); n != 0 {
			t.Error("came before its time")
		}
		time.Sleep(2 * time.Minute)
		if n := len(h.people.inbox("carol@here.test")); n != 1 || h.people.lastFrom("carol@here.test") != sender {
			t.Errorf("%d came, from %q", n, h.people.lastFrom("carol@here.test"))
		}
	})
}

// A notice about a message is as urgent as it, and asks for TLS as it did (RFC 6710 section 4.2, RFC 8689 section 5).
func TestNoticeTakesAfterItsMessage(t *testing.T) {
	bubble(t, nil, func(h *house) {
		var notice *Outgoing
		h.world.says(func(destination string, m *Outgoing, r Recipient) Outcome {
			if m.Sender == "" {
				notice = m
				return Outcome{Verdict: Delivered}
			}
			return refuse(550, "5.7.1", "no")(destination, m, r)
		})
		h.sendAs(&delivery.Envelope{Sender: "eve@elsewhere.test", Priority: 7, RequireTLS: true}, "bob@far.test")
		time.Sleep(time.Minute)
		synctest.Wait()
		if notice == nil || notice.Priority != 7 || !notice.RequireTLS {
			t.Errorf("%+v", notice)
		}
	})
}

// Each destination has its turn, whatever another's backlog is; and no more attempts than allowed run at a time.
func TestFair(t *testing.T) {
	policy := func(o *Options) { o.Policy.PerDestination, o.Policy.Workers = 3, 4 }
	bubble(t, policy, func(h *house) {
		h.world.hold = func(context.Context, string) { time.Sleep(time.Second) }
		for range 100 {
			h.send(sender, "x@big.test")
		}
		for i := range 10 {
			h.send(sender, fmt.Sprintf("x@small%d.test", i))
		}
		time.Sleep(15 * time.Second)
		small := 0
		for _, s := range h.world.all() {
			if strings.Contains(s.to, "small") {
				small++
			}
		}
		if small != 10 {
			t.Errorf("%d of 10 small destinations had their turn", small)
		}
		time.Sleep(time.Minute)
		if n := len(h.world.took("x@big.test")); n != 100 {
			t.Errorf("%d delivered of 100", n)
		}
		if n := h.world.peak("big.test"); n != 3 {
			t.Errorf("%d at a time to one destination, allowed are 3", n)
		}
	})
}

// Concurrency falls when a destination answers 4xx and rises again.
func TestAdapts(t *testing.T) {
	bubble(t, nil, func(h *house) {
		busy := true
		h.world.hold = func(context.Context, string) { time.Sleep(time.Second) }
		h.world.answer = func(d string, m *Outgoing, r Recipient) Outcome {
			if busy {
				return Outcome{Code: 451, Text: "busy", Remote: "mx"}
			}
			return Outcome{Verdict: Delivered}
		}
		for range 200 {
			h.send(sender, far)
		}
		time.Sleep(30 * time.Second)
		h.world.mu.Lock()
		active := h.world.active["far.test"]
		busy = false
		h.world.mu.Unlock()
		if active > 1 {
			t.Errorf("%d at a time to a destination that is busy", active)
		}
		time.Sleep(20 * time.Minute)
		if n := len(h.world.took(far)); n != 200 {
			t.Errorf("%d delivered", n)
		}
		if n := h.world.peak("far.test"); n != 20 {
			t.Errorf("at most %d at a time after it recovered, want 20", n)
		}
	})
}

// A backlog is not run through a server that answers 4xx to everything, however fast it does; when it recovers, so do we.
func TestPace(t *testing.T) {
	bubble(t, nil, func(h *house) {
		h.world.says(refuse(451, "4.3.2", "busy"))
		for range 500 {
			h.send(sender, far)
		}
		time.Sleep(4 * time.Minute) // less than the first wait of any
		if n := len(h.world.tries(far)); n < 10 || n > 60 {
			t.Errorf("%d tries in four minutes at a server that is busy", n)
		}
		h.world.says(nil)
		time.Sleep(time.Minute)
		if n := len(h.world.took(far)); n < 400 {
			t.Errorf("%d of 500 delivered in the minute after it recovered", n)
		}
		time.Sleep(10 * time.Minute)
		if n := len(h.world.took(far)); n != 500 {
			t.Errorf("%d of 500 delivered", n)
		}
	})
}

func TestAdministration(t *testing.T) {
	bubble(t, nil, func(h *house) {
		h.world.says(refuse(450, "4.2.0", "later"))
		a := h.send(sender, far, "carl@far.test", "dora@else.test")
		b := h.send("eve@else.test", far)
		time.Sleep(time.Second)
		count := func(n int, err error, want int) {
			t.Helper()
			if n != want || err != nil {
				t.Errorf("%d, %v; want %d", n, err, want)
			}
		}
		n, err := h.Hold(Selection{far})
		count(n, err, 2)
		n, err = h.Retry(Selection{"all"})
		count(n, err, 2)
		time.Sleep(time.Second)
		if n := len(h.world.tries(far)); n != 2 {
			t.Errorf("%d tries at who is held", n)
		}
		if n := len(h.world.tries("dora@else.test")); n != 2 {
			t.Errorf("%d tries at who is retried", n)
		}
		d, err := h.Show(a)
		if err != nil || len(d.Recipients) != 3 || d.Recipients[0].State != "held" || len(d.Recipients[2].History) != 2 ||
			d.Recipients[2].History[0].Reply != "later" || d.Sender != sender {
			t.Errorf("%+v, %v", d, err)
		}
		time.Sleep(10 * 24 * time.Hour)
		if n := len(h.items()); n != 4 { // what is held does not expire; the others' ends are kept with theirs
			t.Errorf("%d items after ten days: %v", n, h.items())
		}
		n, err = h.Drop(Selection{a})
		count(n, err, 1)
		if _, err := h.Show(a); err == nil {
			t.Error("dropped and still shown")
		}
		if _, err := h.Drop(Selection{a}); err == nil {
			t.Error("what is gone can be dropped")
		}
		if _, err := h.Drop(Selection{"nonsense"}); err == nil {
			t.Error("nonsense selects something")
		}
		h.world.says(nil)
		n, err = h.Release(Selection{"from:eve@else.test"})
		count(n, err, 1)
		time.Sleep(time.Second)
		if got := h.world.took(far); len(got) != 1 || got[0].id != b {
			t.Errorf("%+v", got)
		}
	})
}

// A clock that goes mad costs nobody a message.
func TestClockJumps(t *testing.T) {
	var offset atomic.Int64
	clock := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) } }
	for _, jump := range []time.Duration{30 * 24 * time.Hour, -30 * 24 * time.Hour, 300 * time.Hour * 24 * 30} {
		for _, down := range []bool{false, true} {
			offset.Store(0)
			bubble(t, clock, func(h *house) {
				h.world.says(refuse(451, "4.3.0", "not now"))
				h.send(sender, far)
				time.Sleep(time.Hour)
				if down {
					h.close()
				}
				offset.Store(int64(jump))
				if down {
					h.open()
					h.Start()
				}
				time.Sleep(time.Hour)
				h.send(sender, "carl@far.test")
				time.Sleep(time.Hour)
				if n := len(h.items()); n < 2 {
					t.Fatalf("jump %v: %d in the queue", jump, n)
				}
				offset.Store(0)
				time.Sleep(time.Hour)
				h.world.says(nil)
				time.Sleep(5 * time.Hour)
				if a, b := len(h.world.took(far)), len(h.world.took("carl@far.test")); a != 1 || b != 1 {
					t.Errorf("jump %v, down %v: delivered %d and %d times", jump, down, a, b)
				}
				for _, b := range h.people.inbox(sender) {
					if strings.Contains(b, "Action: failed") {
						t.Errorf("jump %v: bounced", jump)
					}
				}
			})
		}
	}
}

func TestSuppressed(t *testing.T) {
	bubble(t, nil, func(h *house) {
		h.world.answer = func(d string, m *Outgoing, r Recipient) Outcome {
			if strings.HasPrefix(strings.ToLower(r.Address), "nobody") {
				return Outcome{Verdict: Failed, Code: 550, Status: "5.1.1", Text: "no such user", Remote: "mx.far.test"}
			}
			return Outcome{Verdict: Delivered}
		}
		h.send(sender, "Nobody@far.test", far)
		h.send(sender, "nobody@far.test", far)
		time.Sleep(time.Minute)
		h.send(sender, "nobody@FAR.test")
		time.Sleep(time.Minute)
		tries := len(h.world.tries("nobody@far.test")) + len(h.world.tries("nobody@FAR.test")) + len(h.world.tries("Nobody@far.test"))
		boxes := h.people.inbox(sender)
		if tries > 2 || len(boxes) != 3 || !strings.Contains(boxes[2], "no such user") {
			t.Errorf("%d tries, %d bounces\n%s", tries, len(boxes), h.logged())
		}
		if n := h.Stats().Suppressed; n != 1 {
			t.Errorf("%d on the list", n)
		}
		time.Sleep(3 * 24 * time.Hour)
		before := len(h.world.all())
		h.send(sender, "nobody@far.test")
		time.Sleep(time.Minute)
		if len(h.world.all()) != before+1 {
			t.Error("still suppressed after three days")
		}

		if err := h.Suppress("stop@far.test", "they asked us to", 0); err != nil {
			t.Fatal(err)
		}
		h.send(sender, "stop@far.test")
		time.Sleep(time.Minute)
		boxes = h.people.inbox(sender)
		if len(h.world.tries("stop@far.test")) > 0 || !strings.Contains(boxes[len(boxes)-1], "they asked us to") {
			t.Error("mail went to an address on the list")
		}
		if err := h.Unsuppress("stop@FAR.test"); err != nil {
			t.Error(err)
		}
		if err := h.Unsuppress("stop@far.test"); err == nil {
			t.Error("removed twice")
		}
		h.send(sender, "stop@far.test")
		time.Sleep(time.Minute)
		if len(h.world.took("stop@far.test")) != 1 {
			t.Error("taken off the list and not delivered")
		}
	})
}

// Routes have changed while mail waited: it goes where they lead now.
func TestRoutesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.send(sender, far)
		h.close()
		h.change = func(o *Options) { o.Transport = smarthost{h.world} }
		h.open()
		h.Start()
		time.Sleep(time.Second)
		if got := h.world.tried(); !slices.Equal(got, []string{"smarthost"}) {
			t.Errorf("tried %v", got)
		}
		h.close()
	})
}

type smarthost struct{ *world }

func (smarthost) Destination(_, _ string) string { return "smarthost" }

// A message whose file is gone bounces, and what is in the folder without an entry goes.
func TestLostAndFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		id := h.send(sender, far)
		if err := h.fs.Remove(h.files.path(id)); err != nil {
			t.Fatal(err)
		}
		if err := h.files.write("0000000000000000", func(io.Writer) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := h.files.write("not-ours", func(io.Writer) error { return nil }); err != nil {
			t.Fatal(err)
		}
		h.open()
		h.Start()
		time.Sleep(time.Second)
		if boxes := h.people.inbox(sender); len(boxes) != 1 || !strings.Contains(boxes[0], "lost") {
			t.Errorf("%v", boxes)
		}
		if _, err := h.files.open("0000000000000000"); err == nil {
			t.Error("a leftover was kept")
		}
		if _, err := h.fs.Stat(h.files.path("not-ours")); err != nil {
			t.Error("somebody else's file was removed")
		}
		h.fs.Remove(h.files.path("not-ours"))
		if !strings.Contains(h.logged(), "is gone") {
			t.Error("not told of")
		}
		h.close()
	})
}

// A message that mutt has moved to cur is found and sent.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		id := h.send(sender, far)
		if err := h.fs.Rename(h.files.path(id), "/data/queue/cur/"+id+":2,S"); err != nil {
			t.Fatal(err)
		}
		h.open()
		h.Start()
		time.Sleep(time.Second)
		if len(h.world.took(far)) != 1 {
			t.Error("not sent")
		}
		h.close()
	})
}

// Shutdown waits for what is under way, and cuts it when it may wait no longer; what is cut stays due.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.world.hold = func(ctx context.Context, _ string) {
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
		}
		h.world.answer = func(string, *Outgoing, Recipient) Outcome { return Outcome{Text: "cut"} }
		h.Start()
		h.send(sender, far)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Shutdown(ctx); err == nil {
			t.Error("nothing had to be cut")
		}
		if items := h.items(); len(items) != 1 || items[0].Attempts != 0 {
			t.Errorf("%+v", items)
		}
		h.send(sender, far) // taken in all the same
		check(t, h.Queue)
	})
}
