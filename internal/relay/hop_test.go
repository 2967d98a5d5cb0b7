package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/resolve"
)

// order is the hosts of a destination as they would be tried.
func order(h *hop) string {
	var names []string
	for _, one := range h.hosts {
		names = append(names, one.name)
	}
	return strings.Join(names, " ")
}

func TestFindHop(t *testing.T) {
	w := newWorld(t)
	d := w.dns
	d.exchange("order.test", 20, "c.order.test", "192.0.2.3")
	d.exchange("order.test", 10, "a.order.test", "192.0.2.1")
	d.exchange("order.test", 10, "b.order.test", "192.0.2.2")
	d.host("plain.test", "192.0.2.9", "2001:db8::9")
	d.exchange("null.test", 0, "")
	d.exchange("seminull.test", 0, "")
	d.exchange("seminull.test", 5, "a.order.test")
	d.fail["MX broken.test"] = true
	d.exchange("ours.test", 10, "US.test", "192.0.2.10")
	d.exchange("backup.test", 5, "a.order.test")
	d.exchange("backup.test", 10, "us.test")
	d.exchange("backup.test", 10, "b.order.test")
	d.exchange("backup.test", 20, "c.order.test")
	d.exchange("byaddr.test", 10, "other-name.test", "198.51.100.25")
	d.exchange("byaddr6.test", 10, "other-name6.test", "2001:db8:ffff::25")
	d.alias["alias.test"] = "order.test"
	r := w.relay(func(o *Options) {
		o.Own = []netip.AddrPort{netip.MustParseAddrPort("198.51.100.25:25"), netip.MustParseAddrPort("[2001:db8:ffff::25]:25"), netip.MustParseAddrPort("192.0.2.1:2525")}
	})
	for _, test := range []struct{ destination, want string }{
		{"order.test", "a.order.test b.order.test c.order.test"},
		{"plain.test", "plain.test"},
		{"nothing.test", "nothing.test"},
		{"seminull.test", "a.order.test"},
		{"backup.test", "a.order.test"},
		{"alias.test", "a.order.test b.order.test c.order.test"},
		{"null.test", "failed 556 5.1.10 null.test takes no mail"},
		{"broken.test", "deferred 0 4.4.3 broken.test MX"},
		{"ours.test", "failed 0 5.4.6 mail for ours.test loops"},
		{"byaddr.test", "failed 0 5.4.6"},
		{"byaddr6.test", "failed 0 5.4.6"},
		{"[192.0.2.7]", ""},
		{"[ipv6:2001:db8::7]", ""},
		{"[198.51.100.25]", "failed 0 5.4.6"},
		{"[2001:db8::7]", "failed 0 5.1.2"},
		{"[ipv6:192.0.2.7]", "failed 0 5.1.2"},
		{"[192.0.2.7", "failed 0 5.1.2"},
		{"[]", "failed 0 5.1.2"},
	} {
		h, f := r.findHop(t.Context(), test.destination)
		got := order(h)
		if f != nil {
			got = brief(f.outcome())
		}
		if got != test.want && (f == nil || !strings.HasPrefix(got, test.want)) {
			t.Errorf("%s: %q, want %q", test.destination, got, test.want)
		}
	}
}

// Of equals each comes first as often.
func TestEqualsAreShuffled(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		w.dns.exchange("many.test", 10, fmt.Sprintf("mx%d.test", i), "192.0.2.1")
	}
	w.dns.exchange("many.test", 5, "first.test", "192.0.2.1")
	r := w.relay(nil)
	r.shuffle = rand.New(rand.NewPCG(1, 2)).Shuffle
	seen := map[string]int{}
	for range 400 {
		h, _ := r.findHop(t.Context(), "many.test")
		if h.hosts[0].name != "first.test" {
			t.Fatal(order(h))
		}
		seen[h.hosts[1].name]++
	}
	for i := range 4 {
		if n := seen[fmt.Sprintf("mx%d.test", i)]; n < 60 || n > 140 {
			t.Errorf("mx%d first %d of 400 times", i, n)
		}
	}
}

func TestManyHostsAreBounded(t *testing.T) {
	w := newWorld(t)
	for i := range 500 {
		w.dns.mx["wide.test"] = append(w.dns.mx["wide.test"], resolve.MX{Preference: uint16(i), Host: fmt.Sprintf("mx%d.test", i)})
	}
	for i := range 100 {
		w.dns.host("deep.test", fmt.Sprintf("192.0.2.%d", i+1))
	}
	r := w.relay(nil)
	if h, _ := r.findHop(t.Context(), "wide.test"); len(h.hosts) != maxHosts || h.hosts[0].name != "mx0.test" {
		t.Errorf("%d hosts", len(h.hosts))
	}
	want(t, try(t, r, mail(hi, "a@deep.test"))[0], "deferred 0 4.4.1 cannot connect: connection refused")
	if len(w.dialled) != maxAddresses {
		t.Errorf("%d addresses tried", len(w.dialled))
	}
}

func TestNoAddress(t *testing.T) {
	w := newWorld(t)
	w.dns.exchange("gone.test", 10, "gone-mx.test")
	w.dns.exchange("half.test", 10, "gone-mx.test")
	w.dns.exchange("half.test", 20, "slow-mx.test")
	w.dns.fail["A slow-mx.test"] = true
	w.dns.host("zero.test", "0.0.0.0", "224.0.0.1", "::")
	r := w.relay(nil)
	for to, prefix := range map[string]string{
		"a@nothing.test": "failed 0 5.1.2 nothing.test does not exist", "a@gone.test": "failed 0 5.4.4 gone-mx.test",
		"a@half.test": "deferred 0 4.4.3", "a@zero.test": "deferred 0 4.4.4",
	} {
		want(t, try(t, r, mail(hi, to))[0], prefix)
	}
}

const plainServer = `
	S: 220 hello
	C* EHLO
	S: 250 me
	C* MAIL
	S: 250 ok
	C* RCPT
	S: 250 ok
	C: DATA
	S: 354 go
	D: *
	S: 250 taken
`

func TestRaceIPv6First(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("both.test", "192.0.2.1", "2001:db8::1")
		w.serve("192.0.2.1", w.script(nil, plainServer))
		w.serve("2001:db8::1", w.script(nil, plainServer))
		out := try(t, w.relay(nil), mail(hi, "a@both.test"))
		want(t, out[0], "delivered 250 2.0.0 taken")
		if out[0].Remote != "both.test [2001:db8::1]:25" || len(w.dialled) != 1 {
			t.Errorf("%s, %v", out[0].Remote, w.dialled)
		}
	})
}

// An IPv6 that answers nothing costs a quarter of a second, one that refuses costs nothing.
func TestRaceBrokenIPv6(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.dns.host("both.test", "192.0.2.1", "2001:db8::1")
			w.serve("192.0.2.1", w.script(nil, plainServer))
			cancelled := false
			r := w.relay(func(o *Options) {
				o.Dial = func(ctx ctxType, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
					if to.Addr().Is6() && !refuse {
						<-ctx.Done()
						cancelled = true
						return nil, ctx.Err()
					}
					return w.dial(ctx, local, to)
				}
			})
			start := time.Now()
			out := try(t, r, mail(hi, "a@both.test"))
			want(t, out[0], "delivered")
			expected := map[bool]time.Duration{false: 250 * time.Millisecond, true: 0}[refuse]
			if took := time.Since(start); took != expected || cancelled == refuse || out[0].Connect != expected {
				t.Errorf("refuse %v: took %v, connect %v, cancelled %v", refuse, took, out[0].Connect, cancelled)
			}
		})
	}
}

func TestNextAddressAndNextHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.exchange("p.test", 10, "mx1.test", "192.0.2.1", "192.0.2.2")
		w.dns.exchange("p.test", 20, "mx2.test", "192.0.2.3")
		w.dns.exchange("p.test", 30, "mx3.test", "192.0.2.4")
		w.serve("192.0.2.1", w.script(nil, "S: 421 4.3.2 not now\n X:"))
		w.serve("192.0.2.2", w.script(nil, "S: 554 5.7.1 not you\nC: QUIT\nS: 221 bye\nX:"))
		w.serve("192.0.2.3", w.script(nil, "S: 220 hi\nC* EHLO\nX:"))
		w.serve("192.0.2.4", w.script(nil, plainServer))
		r := w.relay(nil)
		out := try(t, r, mail(hi, "a@p.test"))
		want(t, out[0], "delivered")
		if out[0].Remote != "mx3.test [192.0.2.4]:25" {
			t.Error(out[0].Remote)
		}
	})
}

// All refuse for good: so do we. One that may pass: later.
func TestAllGreetingsRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.exchange("p.test", 10, "mx1.test", "192.0.2.1")
		w.dns.exchange("q.test", 10, "mx1.test")
		w.dns.exchange("q.test", 20, "mx2.test", "192.0.2.2")
		w.serve("192.0.2.1", w.script(nil, "S: 554-5.7.1 you are\nS: 554 5.7.1 on a list\nC: QUIT\nS: 221 bye\nX:"))
		r := w.relay(nil)
		out := try(t, r, mail(hi, "a@p.test"))
		want(t, out[0], "failed 554 5.7.1 you are on a list")
		if out[0].Remote != "mx1.test [192.0.2.1]:25" {
			t.Error(out[0].Remote)
		}
		out = try(t, r, mail(hi, "a@q.test"))
		want(t, out[0], "deferred 0 4.4.1 cannot connect")
		if out[0].Wait <= 0 {
			t.Error("a destination that cannot be reached is not left alone")
		}
	})
}

// The attempt ends with its context, whatever the other side does.
func TestAttemptEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.exchange("p.test", 10, "mx1.test", "192.0.2.1")
		w.dns.exchange("p.test", 20, "mx2.test", "192.0.2.2")
		w.serve("192.0.2.1", w.script(nil, "S: 220 hi\nC* EHLO\nW: 1h"))
		w.serve("192.0.2.2", w.script(nil, "S: 220 hi"))
		r := w.relay(nil)
		ctx, cancel := contextFor(t, 30*time.Second)
		defer cancel()
		start := time.Now()
		out := r.Attempt(ctx, "p.test", mail(hi, "a@p.test"))
		want(t, out[0], "deferred 0 4.4.2 no answer in time while waiting for the answer to EHLO")
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("took %v", took)
		}
		if len(w.dialled) != 1 {
			t.Errorf("dialled %v", w.dialled)
		}
	})
}
