package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"mailsrv/internal/resolve"
	"mailsrv/internal/resolve/resolvetest"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func client(t *testing.T, s *resolvetest.Server, change func(*resolve.Options)) (*resolve.Client, *clock) {
	t.Helper()
	clk := &clock{now: time.Unix(1e9, 0)}
	o := resolve.Options{Server: s.Addr(), Timeout: 100 * time.Millisecond, Tries: 2, Now: clk.Now}
	if change != nil {
		change(&o)
	}
	c, err := resolve.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c, clk
}

func TestRecords(t *testing.T) {
	s := resolvetest.New(t)
	s.Add("Partner.test. 300 IN MX 10 MX1.partner.test.", "partner.test. 200 IN MX 20 mx2.partner.test.",
		"null.test. 300 IN MX 0 .",
		"mx1.partner.test. 300 IN A 192.0.2.7", "mx1.partner.test. 100 IN AAAA 2001:db8::7",
		"four.test. 300 IN A 192.0.2.4", "six.test. 300 IN AAAA 2001:db8::6",
		"alias.test. 30 IN CNAME four.test.", "second.test. 300 IN CNAME alias.test.",
		`txt.test. 300 IN TXT "v=STS" "v1; id=1\"\\\228;"`, `txt.test. 300 IN TXT "other"`,
		"_25._tcp.mx1.partner.test. 300 IN TLSA 3 1 1 "+strings.Repeat("AB", 32))
	s.AddPTR(netip.MustParseAddr("192.0.2.7"), "mx1.partner.test")
	s.AddPTR(netip.MustParseAddr("2001:db8::7"), "mx1.partner.test")
	c, _ := client(t, s, nil)
	ctx := t.Context()

	mx, err := c.MX(ctx, "partner.test")
	if err != nil || !slices.Equal(mx.Records, []resolve.MX{{Preference: 10, Host: "mx1.partner.test"}, {Preference: 20, Host: "mx2.partner.test"}}) ||
		mx.TTL != 200*time.Second || mx.Secure || mx.Name != "partner.test" {
		t.Errorf("MX %+v, %v", mx, err)
	}
	if mx, err = c.MX(ctx, "NULL.test"); err != nil || len(mx.Records) != 1 || mx.Records[0].Host != "" {
		t.Errorf("null MX %+v, %v", mx, err)
	}
	for name, want := range map[string]string{
		"mx1.partner.test": "[2001:db8::7 192.0.2.7] mx1.partner.test", "four.test": "[192.0.2.4] four.test",
		"six.test": "[2001:db8::6] six.test", "alias.test": "[192.0.2.4] four.test", "second.test": "[192.0.2.4] four.test",
		"localhost": "[::1 127.0.0.1] localhost",
	} {
		a, err := c.Addresses(ctx, name)
		if got := fmt.Sprint(a.Records, " ", a.Name); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
	if txt, err := c.TXT(ctx, "txt.test"); err != nil || !slices.Equal(txt.Records, []string{"v=STSv1; id=1\"\\\xe4;", "other"}) {
		t.Errorf("TXT %q, %v", txt.Records, err)
	}
	if tlsa, err := c.TLSA(ctx, "_25._tcp.mx1.partner.test"); err != nil || len(tlsa.Records) != 1 || len(tlsa.Records[0].Data) != 32 ||
		tlsa.Records[0].Usage != 3 || tlsa.Records[0].Selector != 1 || tlsa.Records[0].Matching != 1 {
		t.Errorf("TLSA %+v, %v", tlsa, err)
	}
	for _, a := range []string{"192.0.2.7", "::ffff:192.0.2.7", "2001:db8::7"} {
		if ptr, err := c.PTR(ctx, netip.MustParseAddr(a)); err != nil || !slices.Equal(ptr.Records, []string{"mx1.partner.test"}) {
			t.Errorf("PTR %s: %+v, %v", a, ptr, err)
		}
	}
}

func TestErrors(t *testing.T) {
	s := resolvetest.New(t)
	s.Add("here.test. 300 IN A 192.0.2.1", "half.test. 300 IN A 192.0.2.2", "gone.test. 300 IN CNAME nowhere.test.",
		"loop1.test. 300 IN CNAME loop2.test.", "loop2.test. 300 IN CNAME loop1.test.")
	s.Fail("broken.test", "", dns.RcodeServerFailure)
	s.Fail("refused.test", "", dns.RcodeRefused)
	s.Fail("half.test", "AAAA", dns.RcodeServerFailure)
	s.Fail("none.test", "A", dns.RcodeServerFailure)
	s.Silence("silent.test", true)
	c, _ := client(t, s, nil)
	for _, test := range []struct {
		name string
		want error
	}{
		{"nothing.test", resolve.ErrNotFound}, {"here.test", resolve.ErrNotFound}, {"broken.test", resolve.ErrTemporary},
		{"refused.test", resolve.ErrTemporary}, {"silent.test", resolve.ErrTemporary}, {"gone.test", resolve.ErrNotFound},
		{"loop1.test", resolve.ErrNotFound}, {"", resolve.ErrNotFound}, {strings.Repeat("a", 64) + ".test", resolve.ErrNotFound},
		{strings.Repeat("a.", 130) + "test", resolve.ErrNotFound},
	} {
		if _, err := c.MX(t.Context(), test.name); !errors.Is(err, test.want) {
			t.Errorf("%.20q: %v, want %v", test.name, err, test.want)
		}
	}
	if a, err := c.Addresses(t.Context(), "half.test"); err != nil || len(a.Records) != 1 {
		t.Errorf("A without AAAA's answer: %+v, %v", a, err)
	}
	if _, err := c.Addresses(t.Context(), "none.test"); !errors.Is(err, resolve.ErrTemporary) {
		t.Errorf("A unknown, no AAAA: %v", err)
	}
	if n := s.Asked("silent.test", "MX", "udp"); n != 2 {
		t.Errorf("asked %d times, want 2 tries", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.MX(ctx, "other.test"); !errors.Is(err, resolve.ErrTemporary) || !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if _, err := resolve.New(resolve.Options{Server: "ns.test:53"}); err == nil {
		t.Error("a server without an address was taken")
	}
}

func TestCache(t *testing.T) {
	s := resolvetest.New(t)
	s.Add("a.test. 60 IN MX 1 mx.test.", ". 300 IN SOA ns. host. 1 2 3 4 30", "zero.test. 0 IN MX 1 mx.test.")
	s.Fail("bad.test", "", dns.RcodeServerFailure)
	c, clk := client(t, s, func(o *resolve.Options) { o.Tries = 1; o.Cache = 3 })
	ask := func(name string, asked int) {
		t.Helper()
		_, _ = c.MX(t.Context(), name)
		if n := s.Asked(name, "MX", "udp"); n != asked {
			t.Errorf("%s: asked %d times, want %d", name, n, asked)
		}
	}
	ask("a.test", 1)
	clk.add(59 * time.Second)
	ask("a.test", 1)
	if a, _ := c.MX(t.Context(), "A.TEST."); a.TTL != time.Second {
		t.Errorf("TTL left %v", a.TTL)
	}
	clk.add(time.Second)
	ask("a.test", 2)

	ask("no.test", 1)
	clk.add(29 * time.Second)
	ask("no.test", 1)
	clk.add(time.Second)
	ask("no.test", 2)

	ask("bad.test", 1)
	ask("bad.test", 1)
	clk.add(5 * time.Second)
	ask("bad.test", 2)

	ask("zero.test", 1)
	ask("zero.test", 2)
	for i := range 3 { // three more: the oldest go
		ask(fmt.Sprintf("n%d.test", i), 1)
	}
	ask("n2.test", 1)
	ask("no.test", 3)
}

// Who waits gets the answer of who asked; who asked and gave up spoils nothing for those who wait.
func TestOneQuestion(t *testing.T) {
	s := resolvetest.New(t)
	s.Add("a.test. 60 IN MX 1 mx.test.")
	s.Silence("a.test", true)
	c, _ := client(t, s, func(o *resolve.Options) { o.Timeout = 10 * time.Second })
	ctx, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.MX(ctx, "a.test"); !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up: %v", err)
		}
	})
	for s.Asked("a.test", "MX", "udp") == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		wg.Go(func() {
			if a, err := c.MX(t.Context(), "a.test"); err != nil || len(a.Records) != 1 {
				t.Errorf("who waited: %+v, %v", a, err)
			}
		})
	}
	s.Silence("a.test", false)
	giveUp()
	wg.Wait()
	if n := s.Asked("a.test", "MX", "udp"); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestTCPAndOldServers(t *testing.T) {
	s := resolvetest.New(t)
	for i := range 100 {
		s.Add(fmt.Sprintf("big.test. 60 IN MX %d mx%d.big.test.", i, i))
	}
	s.Truncate("big.test")
	c, _ := client(t, s, nil)
	if a, err := c.MX(t.Context(), "big.test"); err != nil || len(a.Records) != 100 || s.Asked("big.test", "MX", "tcp") != 1 {
		t.Errorf("%d records, %v", len(a.Records), err)
	}
	old := resolvetest.New(t)
	old.NoEDNS()
	old.Add("a.test. 60 IN MX 1 mx.test.")
	c, _ = client(t, old, nil)
	if a, err := c.MX(t.Context(), "a.test"); err != nil || len(a.Records) != 1 {
		t.Errorf("without EDNS: %+v, %v", a, err)
	}
}

func TestSecure(t *testing.T) {
	s := resolvetest.New(t)
	s.Add("a.test. 60 IN A 192.0.2.1", "a.test. 60 IN AAAA 2001:db8::1", "mix.test. 60 IN CNAME plain.test.", "plain.test. 60 IN A 192.0.2.2")
	s.Secure("a.test", "mix.test", "nothing.test")
	c, _ := client(t, s, nil)
	for name, want := range map[string]bool{"a.test": true, "mix.test": false, "plain.test": false, "nothing.test": true} {
		if a, _ := c.Addresses(t.Context(), name); a.Secure != want {
			t.Errorf("%s: secure %v", name, a.Secure)
		}
	}
}

// An AD bit from over the network proves nothing, unless the configuration says that the way is safe.
func TestTrust(t *testing.T) {
	for _, test := range []struct {
		server  string
		trusted bool
		want    bool
	}{{"127.0.0.1:53", false, true}, {"[::1]:53", false, true}, {"[::ffff:127.0.0.2]:53", false, true}, {"192.0.2.1:53", false, false}, {"192.0.2.1:53", true, true}} {
		c, err := resolve.New(resolve.Options{Server: test.server, Trusted: test.trusted})
		if err != nil {
			t.Fatal(err)
		}
		if got := resolve.Trusts(c, test.server); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# here\nsearch x.test\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions timeout:3 attempts:4\n")
	clk := &clock{now: time.Unix(1e9, 0)}
	c, err := resolve.New(resolve.Options{ResolvConf: file, Now: clk.Now})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		if got := config(c); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	check("[192.0.2.1:53 [2001:db8::1]:53] 3s 4")
	write("nameserver 127.0.0.53\n")
	check("[192.0.2.1:53 [2001:db8::1]:53] 3s 4")
	clk.add(2 * time.Minute)
	check("[127.0.0.53:53] 5s 2")
	os.Remove(file)
	clk.add(2 * time.Minute)
	check("[127.0.0.1:53] 5s 2")
}

// The second server is asked when the first does not know.
func TestNextServer(t *testing.T) {
	dead, alive := resolvetest.New(t), resolvetest.New(t)
	dead.Fail("a.test", "", dns.RcodeServerFailure)
	alive.Add("a.test. 60 IN MX 1 mx.test.")
	c, _ := client(t, dead, nil)
	resolve.SetServers(c, dead.Addr(), alive.Addr())
	if a, err := c.MX(t.Context(), "a.test"); err != nil || len(a.Records) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func config(c *resolve.Client) string {
	servers, timeout, tries := resolve.Config(c)
	return fmt.Sprint(servers, " ", timeout, " ", tries)
}
