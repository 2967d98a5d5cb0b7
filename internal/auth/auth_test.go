package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/directory"
)

// fakeDirectory has alice with a password; each check takes a second and is counted.
type fakeDirectory struct {
	mu       sync.Mutex
	password string
	epoch    uint64
	disabled bool
	checks   int
	running  int
	most     int
	domains  int
}

func (f *fakeDirectory) Domains() []directory.Domain {
	return []directory.Domain{{Name: "example.test"}, {Name: "second.test"}}[:f.domains]
}

func (f *fakeDirectory) Account(address string) (directory.Account, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return directory.Account{Address: "alice@example.test", Disabled: f.disabled}, address == "alice@example.test" && f.epoch != 0
}

func (f *fakeDirectory) Epoch(address string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if address != "alice@example.test" {
		return 0
	}
	return f.epoch
}

func (f *fakeDirectory) CheckPassword(address, password string) (directory.Account, bool) {
	f.mu.Lock()
	f.checks++
	f.running++
	f.most = max(f.most, f.running)
	ok := address == "alice@example.test" && password == f.password
	f.mu.Unlock()
	time.Sleep(time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	return directory.Account{Address: "alice@example.test"}, ok
}

func (f *fakeDirectory) set(password string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.password = password
	f.epoch++
}

func newFake() *fakeDirectory {
	return &fakeDirectory{password: "secret", epoch: 1, domains: 1}
}

func peer(addr string) Peer {
	return Peer{Addr: netip.MustParseAddr(addr), TLS: true, Service: "imap"}
}

var ctx = context.Background()

func TestMayAuthenticate(t *testing.T) { synctest.Test(t, testMayAuthenticate) }

func testMayAuthenticate(t *testing.T) {
	tests := []struct {
		addr       string
		tls, allow bool
		want       bool
	}{
		{"192.0.2.1", true, false, true},
		{"192.0.2.1", false, true, false},
		{"127.0.0.1", false, false, false},
		{"127.0.0.1", false, true, true},
		{"::1", false, true, true},
		{"::ffff:127.0.0.1", false, true, true},
		{"::ffff:192.0.2.1", false, true, false},
	}
	for _, tt := range tests {
		a := newAuthenticator(newFake(), Options{AllowPlaintextLoopback: tt.allow})
		p := Peer{Addr: netip.MustParseAddr(tt.addr), TLS: tt.tls, Trusted: true}
		_, errServer := a.Server(ctx, p, "PLAIN", nil)
		_, errPassword := a.Password(ctx, Peer{TLS: tt.tls, Addr: p.Addr}, "bob@example.test", "x")
		if a.MayAuthenticate(p) != tt.want || (len(a.Mechanisms(p)) > 0) != tt.want || (errServer == nil) != tt.want ||
			errors.Is(errPassword, ErrPlaintext) == tt.want {
			t.Errorf("%+v: %v %v %v %v", tt, a.MayAuthenticate(p), a.Mechanisms(p), errServer, errPassword)
		}
	}
	if a := newAuthenticator(newFake(), Options{AllowPlaintextLoopback: true}); a.MayAuthenticate(Peer{}) {
		t.Error("a peer without address is no loopback")
	}
}

func TestPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{})
		for _, tt := range []struct {
			user, password string
			want           error
		}{
			{"alice@example.test", "secret", nil},
			{"alice", "secret", nil},
			{"alice@example.test", "Secret", ErrCredentials},
			{"nobody@example.test", "secret", ErrCredentials},
			{"", "", ErrCredentials},
		} {
			began := time.Now()
			p := peer("192.0.2.1")
			p.Trusted = true
			account, err := a.Password(ctx, p, tt.user, tt.password)
			if !errors.Is(err, tt.want) || err == nil && account.Address != "alice@example.test" || err != nil && account.Address != "" {
				t.Errorf("%+v: %+v, %v", tt, account, err)
			}
			if took := time.Since(began); err != nil && took != time.Second {
				t.Errorf("%+v took %v", tt, took)
			}
		}
		f.domains = 2
		if _, err := a.Password(ctx, peer("192.0.2.9"), "alice", "secret"); !errors.Is(err, ErrCredentials) {
			t.Errorf("a bare name with two domains: %v", err)
		}
	})
}

// A client's ten connections cost one argon2, at once or one after the other.
func TestRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{})
		var wg sync.WaitGroup
		login := func(addr, password string, want error) {
			t.Helper()
			if _, err := a.Password(ctx, peer(addr), "alice", password); !errors.Is(err, want) {
				t.Errorf("login from %s with %s: %v, want %v", addr, password, err, want)
			}
		}
		checks := func(want int, why string) {
			t.Helper()
			if f.checks != want {
				t.Errorf("%s: %d checks, want %d", why, f.checks, want)
			}
			f.checks = 0
		}
		for range 10 {
			wg.Go(func() { login("192.0.2.1", "secret", nil) })
		}
		wg.Wait()
		checks(1, "ten at once")
		time.Sleep(4 * time.Minute)
		login("192.0.2.1", "secret", nil)
		checks(0, "after four minutes")
		login("192.0.2.2", "secret", nil)
		checks(1, "from another address")
		login("2001:db8::1", "secret", nil)
		login("2001:db8::ffff", "secret", nil)
		checks(1, "IPv6: the network counts")
		login("192.0.2.1", "secret2", ErrCredentials)
		checks(1, "another password")
		time.Sleep(time.Minute)
		login("192.0.2.1", "secret", nil)
		checks(1, "after five minutes")

		f.set("changed")
		login("192.0.2.1", "secret", ErrCredentials)
		login("192.0.2.1", "changed", nil)
		checks(2, "a changed password ends it at once")
		f.disabled = true
		f.password = ""
		login("192.0.2.1", "changed", ErrCredentials)
		f.disabled, f.password = false, "changed"
		login("192.0.2.1", "changed", nil)
		checks(2, "a disabled account is not remembered back in")
		f.epoch = 0
		f.password = ""
		login("192.0.2.1", "changed", ErrCredentials)
	})
}

// The password changes while the old one is being checked: what comes of it must not be remembered under the new epoch.
func TestChangeDuringCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{})
		done := make(chan error)
		go func() {
			_, err := a.Password(ctx, peer("192.0.2.1"), "alice", "secret")
			done <- err
		}()
		time.Sleep(time.Second / 2)
		f.set("changed")
		<-done
		if _, err := a.Password(ctx, peer("192.0.2.1"), "alice", "secret"); !errors.Is(err, ErrCredentials) {
			t.Errorf("the old password still opens: %v", err)
		}
	})
}

func TestParallelIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{Parallel: 3})
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { a.Password(ctx, peer(fmt.Sprintf("10.%d.0.1", i)), "alice", "secret") })
		}
		wg.Wait()
		if f.most != 3 || f.checks != 30 {
			t.Errorf("%d at once of %d", f.most, f.checks)
		}
	})
}

// Who shares the check of one that hangs up before its turn makes it anew; who hangs up waiting is let go.
func TestHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{Parallel: 1})
		var wg sync.WaitGroup
		wg.Go(func() { a.Password(ctx, peer("10.9.0.1"), "bob", "x") }) // takes the slot
		synctest.Wait()
		impatient, cancel := context.WithCancel(ctx)
		wg.Go(func() {
			if _, err := a.Password(impatient, peer("192.0.2.1"), "alice", "secret"); !errors.Is(err, context.Canceled) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := a.Password(ctx, peer("192.0.2.1"), "alice", "secret"); err != nil {
				t.Errorf("follower: %v", err)
			}
		})
		short, cancelShort := context.WithTimeout(ctx, time.Millisecond)
		defer cancelShort()
		wg.Go(func() {
			if _, err := a.Password(short, peer("192.0.2.1"), "alice", "secret"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("impatient follower: %v", err)
			}
		})
		time.Sleep(10 * time.Millisecond)
		cancel()
		wg.Wait()
		if len(a.flights.m) != 0 || len(a.slots) != 0 {
			t.Error("something is left behind")
		}
	})
}

type bomb struct{ *fakeDirectory }

func (bomb) CheckPassword(string, string) (directory.Account, bool) { panic("boom") }

// A panic stays with its connection.
func TestPanicLetsOthersGo(t *testing.T) {
	a := newAuthenticator(bomb{newFake()}, Options{Parallel: 1})
	for range 2 {
		func() {
			defer func() { recover() }()
			a.Password(ctx, peer("192.0.2.1"), "alice", "secret")
		}()
	}
	if len(a.flights.m) != 0 || len(a.slots) != 0 {
		t.Error("the panic kept a slot or a flight")
	}
}

func guess(t *testing.T, a *Authenticator, p Peer, password string) (time.Duration, error) {
	t.Helper()
	began := time.Now()
	_, err := a.Password(ctx, p, "alice", password)
	return time.Since(began), err
}

func TestThrottleGrowsAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{})
		home := peer("192.0.2.1")
		var took []time.Duration
		var err error
		for i := range 20 {
			var d time.Duration
			if d, err = guess(t, a, home, fmt.Sprint("guess", i)); errors.Is(err, ErrThrottled) {
				break
			}
			took = append(took, d-time.Second) // the check itself takes one
		}
		want := []time.Duration{0, 0, 0, 500e6, 1e9, 2e9, 4e9, 8e9}
		if !errors.Is(err, ErrThrottled) || !slices.Equal(took, want) {
			t.Errorf("waits %v, then %v; want %v", took, err, want)
		}
		checks := f.checks
		if _, err := guess(t, a, home, "secret"); !errors.Is(err, ErrThrottled) || f.checks != checks {
			t.Errorf("the right password while throttled: %v", err)
		}
		if d, err := guess(t, a, peer("192.0.3.1"), "secret"); err != nil || d != time.Second {
			t.Errorf("another network waits %v, %v", d, err)
		}
		trusted := home
		trusted.Trusted = true
		if d, err := guess(t, a, trusted, "secret"); err != nil || d != time.Second {
			t.Errorf("a trusted peer waits %v, %v", d, err)
		}
		time.Sleep(time.Hour)
		if d, err := guess(t, a, home, "secret"); err != nil || d != time.Second {
			t.Errorf("an hour later: %v, %v", d, err)
		}
	})
}

// A right login among wrong ones buys nothing: who owns one account could reset the count forever.
func TestSuccessDoesNotReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(newFake(), Options{})
		p := peer("192.0.2.1")
		for i := range 20 {
			guess(t, a, p, "secret")
			guess(t, a, p, fmt.Sprint("guess", i))
		}
		if _, err := guess(t, a, p, "another"); !errors.Is(err, ErrThrottled) {
			t.Errorf("after 20 failures: %v", err)
		}
		// Nor do remembered passwords answer guesses by then.
		if _, err := guess(t, a, p, "secret"); !errors.Is(err, ErrThrottled) {
			t.Errorf("the short cut is open: %v", err)
		}
	})
}

// A phone with yesterday's password does not lock out the laptop behind the same address.
func TestStalePhone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(newFake(), Options{})
		p := peer("192.0.2.1")
		for range 12 * 60 {
			if _, err := guess(t, a, p, "yesterday's"); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		if d, err := guess(t, a, p, "secret"); err != nil || d > 6*time.Second {
			t.Errorf("the laptop waits %v, %v", d, err)
		}
	})
}

func TestThrottleNetwork(t *testing.T) {
	for _, tt := range []struct{ pattern, inside, outside string }{
		{"198.51.100.%d", "198.51.100.200", "198.51.101.1"},
		{"2001:db8:1:1::%d", "2001:db8:1:1:ffff::", "2001:db8:1:2::1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthenticator(newFake(), Options{})
			for i := range 20 {
				guess(t, a, peer(fmt.Sprintf(tt.pattern, i+1)), fmt.Sprint("guess", i))
			}
			if d, err := guess(t, a, peer(tt.inside), "secret"); err == nil && d <= time.Second {
				t.Errorf("a neighbour of guessers waits %v, %v", d, err)
			}
			if d, err := guess(t, a, peer(tt.outside), "secret"); err != nil || d != time.Second {
				t.Errorf("a stranger waits %v, %v", d, err)
			}
		})
	}
}

// Many guesses at once wait behind one another; guesses nobody waits for count too.
func TestThrottleParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := newAuthenticator(f, Options{Parallel: 1000})
		p := peer("192.0.2.1")
		for i := range 4 {
			guess(t, a, p, fmt.Sprint("guess", i))
		}
		f.checks = 0
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { guess(t, a, p, fmt.Sprint("parallel", i)) })
		}
		wg.Wait()
		if f.checks > 12 { // one a second within maxHold, and no more
			t.Errorf("%d of 100 parallel guesses were checked", f.checks)
		}

		a = newAuthenticator(f, Options{})
		for i := range 4 {
			guess(t, a, p, fmt.Sprint("guess", i))
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		f.checks = 0
		for i := range 20 {
			a.Password(gone, p, "alice", fmt.Sprint("hit and run", i))
		}
		if _, err := guess(t, a, p, "secret"); !errors.Is(err, ErrThrottled) || f.checks != 0 {
			t.Errorf("after hit and run: %v, %d checks", err, f.checks)
		}
	})
}

func TestThrottleIsBounded(t *testing.T) {
	th := newThrottle()
	now := time.Now()
	a := netip.MustParseAddr("2001:db8::")
	for range 3 * trackedPeers {
		th.failed(a, now, 1)
		a = a.Next()
	}
	if n := len(th.peers.items); n != trackedPeers || th.peers.order.Len() != n {
		t.Errorf("%d entries", n)
	}
	m := newMemory(time.Minute)
	for i := range 2 * memorySize {
		key := m.secret(peer("192.0.2.1"), "a", fmt.Sprint(i))
		m.remember(key, "a@b", 1, now)
		m.failedBefore(key)
	}
	if len(m.logins.items) != memorySize || len(m.failed.items) != memorySize {
		t.Error("memory grows without bound")
	}
	th.failed(netip.Addr{}, now, 1) // no address: no panic
	th.reserve(netip.Addr{}, now)
}

func TestSecretsDiffer(t *testing.T) {
	m := newMemory(time.Minute)
	p := peer("192.0.2.1")
	seen := map[secretKey]string{}
	for _, pair := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"", "abc"}, {"a", "b\x00c"}} {
		key := m.secret(p, pair[0], pair[1])
		if other, dup := seen[key]; dup {
			t.Errorf("%q is %q", pair, other)
		}
		seen[key] = fmt.Sprint(pair)
	}
	if m.secret(p, "a", "b") == newMemory(time.Minute).secret(p, "a", "b") {
		t.Error("two processes have the same key")
	}
}

func TestLogTellsNoPassword(t *testing.T) { synctest.Test(t, testLogTellsNoPassword) }

func testLogTellsNoPassword(t *testing.T) {
	var out bytes.Buffer
	a := newAuthenticator(newFake(), Options{Logger: slog.New(slog.NewTextHandler(&out, nil)),
		Sleep: func(context.Context, time.Duration) error { return nil }})
	a.Password(ctx, peer("192.0.2.1"), "alice", "secret")
	a.Password(ctx, peer("192.0.2.1"), "eve\r\nlogin user=alice"+strings.Repeat("x", 5000), "hunter2")
	text := out.String()
	if strings.Contains(text, "secret") || strings.Contains(text, "hunter2") || strings.Count(text, "\n") != 2 || len(text) > 1000 {
		t.Errorf("log: %s", text)
	}
	if !strings.Contains(text, `msg="login failed"`) || !strings.Contains(text, "peer=192.0.2.1") {
		t.Errorf("log lacks the failure: %s", text)
	}
}
