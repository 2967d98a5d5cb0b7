package smtpd

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"net"
)

// begun is a client in the middle of a transaction, before DATA.
func begun(t *testing.T, o Options, post *fakePost) *client {
	t.Helper()
	o.Service = SMTP
	_, addr := start(t, o, post, nil)
	c := dial(t, addr)
	c.expect("220")
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<a@b.test>", "250")
	c.say("RCPT TO:<alice@example.test>", "250")
	return c
}

func TestMessageLimits(t *testing.T) {
	o := Options{Limits: Limits{MessageSize: 100_000, Header: 2000, Line: 3000}}
	fits := "a: b\r\n\r\n" + strings.Repeat("x", 3000) + "\r\n"
	for name, test := range map[string]struct{ message, want string }{
		"long line that is tolerated": {fits, "250 2.0.0"},
		"longer line":                 {"a: b\r\n\r\n" + strings.Repeat("x", 3001) + "\r\n", "554 5.6.0"},
		"long line in the header":     {"a: " + strings.Repeat("x", 3001) + "\r\n\r\n", "55"},
		"large header":                {strings.Repeat("a: bcdefgh\r\n", 200) + "\r\n", "552 5.3.4 message header"},
		"header without an end":       {strings.Repeat("a: bcdefgh\r\n", 200), "552 5.3.4 message header"},
		"one long fold":               {"a: " + strings.Repeat("\r\n "+strings.Repeat("x", 500), 5), "552 5.3.4 message header"},
		"long line, no header":        {strings.Repeat("x", 2500), "250 2.0.0"},
		"large message":               {"a: b\r\n\r\n" + strings.Repeat("0123456\r\n", 12_000), "552 5.3.4 message is larger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := begun(t, o, &fakePost{})
			c.say("DATA", "354")
			c.send(test.message + "\r\n.\r\n")
			c.expect(test.want)
			c.say("NOOP", "250")
		})
	}
}

// A header of many small fields costs memory for each of them, and is no more of one message than of a thousand at once.
func TestManyHeaderFields(t *testing.T) {
	for n, want := range map[int]string{maxFields: "250 2.0.0", maxFields + 1: "552 5.3.4 message header"} {
		c := begun(t, Options{}, &fakePost{})
		c.say("RCPT TO:<bob@example.test>", "250")
		c.say("DATA", "354")
		c.send(strings.Repeat("a:\r\n", n) + "\r\nbody\r\n.\r\n")
		c.expect(want)
		c.say("NOOP", "250")
	}
}

func TestEndlessMessageIsHungUpOn(t *testing.T) {
	c := begun(t, Options{Limits: Limits{MessageSize: 1000}}, &fakePost{})
	c.say("DATA", "354")
	go func() {
		line := []byte(strings.Repeat("0123456789abcd\r\n", 4096))
		for {
			if _, err := c.c.Write(line); err != nil {
				return // hung up on
			}
		}
	}()
	c.expect("552 5.3.4 message is much larger")
}

func TestLongCommandLines(t *testing.T) {
	c := begun(t, Options{}, &fakePost{})
	c.say("NOOP "+strings.Repeat("x", 2048-7), "250")
	c.say("NOOP "+strings.Repeat("x", 2048-6), "500 5.5.6")
	c.say("NOOP "+strings.Repeat("x", 200_000), "500 5.5.6")
	c.say("NOOP", "250")
	// Beyond all measure: the client may not live to read the answer, but the connection ends.
	go func() {
		junk := make([]byte, 64<<10)
		for {
			if _, err := c.c.Write(junk); err != nil {
				return
			}
		}
	}()
	c.expect("500 5.5.6 command line much too long")
}

func TestAuthLines(t *testing.T) {
	_, addr := start(t, Options{Service: Submission}, &fakePost{}, fakeAuth{plain: true})
	c := dial(t, addr)
	c.expect("220")
	c.say("EHLO c", "250")
	// RFC 4954 section 4: 12288 octets, for the initial response and for the others.
	c.say("AUTH PLAIN "+strings.Repeat("A", 12000), "535 5.7.8")
	c.say("AUTH PLAIN "+strings.Repeat("A", 12288), "500 5.5.6")
	c.say("AUTH PLAIN", "334")
	c.say(strings.Repeat("A", 12288), "500 5.5.6")
	c.say("AUTH PLAIN", "334")
	c.say(strings.Repeat("A", 12284), "535 5.7.8")
}

func TestRecipientsAtOnceAreBounded(t *testing.T) {
	c := begun(t, Options{Limits: Limits{Recipients: 2}}, &fakePost{})
	c.say("RCPT TO:<bob@example.test>", "250")
	c.say("RCPT TO:<carol@example.test>", "452 4.5.3")
}

// A thousand recipients may have ordinary addresses, not a thousand times the longest.
func TestRecipientOctetsAreBounded(t *testing.T) {
	c := begun(t, Options{}, &fakePost{})
	long := "RCPT TO:<bob@example.test> ORCPT=rfc822;" + strings.Repeat("x", 490)
	for range maxRcptOctets / (490 + len("bob@example.test")) {
		c.say(long, "250")
	}
	c.say(long, "452 4.5.3")
	c.say("RSET", "250")
	c.say("MAIL FROM:<a@b.test>", "250")
	for range 1000 {
		c.say("RCPT TO:<bob@example.test> ORCPT=rfc822;a-name-as-people-have@some-department.example.test", "250")
	}
}

func TestConnectionLimits(t *testing.T) {
	stranger := Options{Service: SMTP, Limits: Limits{Connections: 3, PerAddress: 2}}
	_, addr := start(t, stranger, &fakePost{}, nil)
	one := dial(t, addr)
	one.expect("220")
	dial(t, addr).expect("220")
	third := dial(t, addr)
	third.expect("421 4.7.0 too many connections from your address")
	third.ended()
	one.say("QUIT", "221")
	one.ended()

	trusted := stranger
	trusted.Trusted = loopback
	_, addr = start(t, trusted, &fakePost{}, nil)
	for range 3 {
		dial(t, addr).expect("220")
	}
	dial(t, addr).expect("421 4.7.0 too many connections, try again")
}

// fickleAuth is fakeAuth with a password that is changed while somebody is logged in.
type fickleAuth struct {
	fakeAuth
	epoch *atomic.Uint64
}

func (a fickleAuth) Epoch(string) uint64 { return a.epoch.Load() }

func TestRevokedLoginEnds(t *testing.T) {
	a := fickleAuth{fakeAuth{plain: true}, &atomic.Uint64{}}
	_, addr := start(t, Options{Service: Submission}, &fakePost{}, a)
	c := dial(t, addr)
	c.expect("220")
	c.say("EHLO c", "250")
	c.say("AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=", "235")
	c.say("MAIL FROM:<alice@example.test>", "250")
	c.say("RSET", "250")
	a.epoch.Add(1)
	c.say("MAIL FROM:<alice@example.test>", "421 4.7.0")
	c.ended()
}

func TestRates(t *testing.T) {
	o := Options{Service: SMTP, Limits: Limits{ConnectionRate: 2, MessageRate: 1}}
	_, addr := start(t, o, &fakePost{}, nil)
	c := dial(t, addr)
	c.expect("220")
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<a@b.test>", "250")
	c.say("RSET", "250")
	c.say("MAIL FROM:<a@b.test>", "451 4.7.0")
	dial(t, addr).expect("220")
	dial(t, addr).expect("421 4.7.0 too many connections a minute")
}

func TestRateWindows(t *testing.T) {
	now := time.Unix(0, 0)
	r := newRate(2, func() time.Time { return now })
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2") // one customer
	other := netip.MustParseAddr("::ffff:192.0.2.1")
	if !r.take(a) || !r.take(b) || r.take(a) || !r.take(other) {
		t.Error("counts by /64")
	}
	now = now.Add(61 * time.Second)
	if !r.take(a) {
		t.Error("a new minute is a new count")
	}
}

// Idle time and shutdown are told on a fake clock.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pipe(t, Options{Service: SMTP}, &fakePost{})
		c.expect("220")
		time.Sleep(4 * time.Minute)
		c.say("EHLO c", "250")
		began := time.Now()
		c.expect("421 4.4.2")
		if d := time.Since(began); d != 5*time.Minute {
			t.Errorf("after %v", d)
		}
		c.ended()
	})
}

func TestSlowCommandsAndSlowData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pipe(t, Options{Service: SMTP}, &fakePost{})
		c.expect("220")
		defer drip(c, "EHLO client.test with a very long name indeed\r\n")()
		began := time.Now()
		c.expect("421 4.4.2")
		if d := time.Since(began); d > 6*time.Minute {
			t.Errorf("a byte every ten seconds was waited for %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		post := &fakePost{}
		c, _ := pipe(t, Options{Service: SMTP}, post)
		c.expect("220")
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<a@b.test>", "250")
		c.say("RCPT TO:<alice@example.test>", "250")
		c.say("DATA", "354")
		defer drip(c, strings.Repeat("x\r\n", 100))()
		c.expect("421 4.4.2")
		c.ended()
		synctest.Wait()
		if post.spools() != 0 || len(post.letters()) != 0 {
			t.Error("half a message was kept")
		}
	})
}

// drip sends an octet every ten seconds until nobody listens; what it returns hangs up and waits for its end.
func drip(c *client, s string) func() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range len(s) {
			time.Sleep(10 * time.Second)
			if _, err := c.c.Write([]byte(s[i : i+1])); err != nil {
				return
			}
		}
	}()
	return func() {
		c.c.Close()
		<-done
	}
}

// pipe is a session without a socket; stop begins Shutdown for it.
func pipe(t *testing.T, o Options, post *fakePost) (c *client, stop func()) {
	o.Hostname = "mx.example.test"
	srv := newServer(o, post, nil)
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer ours.Close()
		srv.handle(ctx, ours)
	}()
	t.Cleanup(func() {
		theirs.Close()
		cancel()
		<-ended
	})
	c = &client{t: t}
	c.over(theirs)
	_ = theirs.SetDeadline(time.Time{})
	return c, cancel
}

func TestShutdownBetweenCommands(t *testing.T) {
	post := &fakePost{}
	srv, addr := start(t, Options{Service: SMTP}, post, nil)
	idle, busy := dial(t, addr), dial(t, addr)
	idle.expect("220")
	busy.expect("220")
	busy.say("EHLO c", "250")
	busy.say("MAIL FROM:<a@b.test>", "250")
	busy.say("RCPT TO:<alice@example.test>", "250")
	busy.say("DATA", "354")
	busy.send("a: b\r\n\r\nfirst half, ")

	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		done <- srv.Shutdown(ctx)
	}()
	idle.expect("421 4.3.2")
	idle.ended()
	busy.send("second half\r\n.\r\n")
	busy.expect("250 2.0.0")
	busy.expect("421 4.3.2")
	busy.ended()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := post.last(t).text; !strings.HasSuffix(got, "first half, second half\r\n") {
		t.Errorf("%q", got)
	}
}

// A message whose DATA came in one piece with the commands before it is one that is being sent, too.
func TestShutdownDuringPipelinedData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipe(t, Options{Service: SMTP}, &fakePost{})
		c.expect("220")
		c.say("EHLO c", "250")
		c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\na: b\r\n\r\nfirst half, ")
		c.expect("250")
		c.expect("250")
		c.expect("354")
		stop()
		synctest.Wait()
		c.send("second half\r\n.\r\n")
		c.expect("250 2.0.0 accepted")
		c.expect("421 4.3.2")
		c.ended()
	})
}

func TestShutdownBetweenChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		post := &fakePost{}
		c, stop := pipe(t, Options{Service: SMTP}, post)
		c.expect("220")
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<a@b.test>", "250")
		c.say("RCPT TO:<alice@example.test>", "250")
		c.say("BDAT 6\r\na: b", "250")
		stop()
		synctest.Wait()
		c.say("BDAT 2 LAST\r\n", "250 2.0.0 accepted")
		c.expect("421 4.3.2")
		c.ended()
	})
}

func TestCutOffLeavesNothing(t *testing.T) {
	for name, half := range map[string]string{
		"DATA": "DATA\r\na: b\r\n\r\nhalf a mess",
		"dot":  "DATA\r\na: b\r\n\r\nhalf\r\n.",
		"LF":   "DATA\r\na: b\r\n\r\nhalf\n.\n",
		"BDAT": "BDAT 100 LAST\r\nhalf",
		"next": "BDAT 4\r\nhalf",
		"head": "DATA\r\nhalf: a head",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			post := &fakePost{}
			c := begun(t, Options{}, post)
			c.send(half)
			if err := c.c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			for { // 354 and 250 for what was whole; then the end
				if _, err := c.reply(); err != nil {
					break
				}
			}
			if n := len(post.letters()); n != 0 {
				t.Errorf("%d letters", n)
			}
		}) // start's cleanup sees that no spool is open
	}
}

func TestPanicEndsOnlyItsConnection(t *testing.T) {
	post := &fakePost{}
	_, addr := start(t, Options{Service: SMTP}, post, nil)
	for _, bad := range []string{"panic", "crash"} {
		c := dial(t, addr)
		c.expect("220")
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<a@b.test>", "250")
		if bad == "panic" {
			c.say("RCPT TO:<panic@example.test>", "421 4.3.0")
		} else {
			c.say("RCPT TO:<crash@example.test>", "250")
			c.say("DATA", "354")
			c.say(".", "421 4.3.0")
		}
		c.ended()
	}
	dial(t, addr).expect("220")

}
