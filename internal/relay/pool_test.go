package relay

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const oneMore = `
	C* MAIL
	S: 250 ok
	C* RCPT
	S: 250 ok
	C: DATA
	S: 354 go
	D: *
	S: 250 taken
`

func TestReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		w.serve("192.0.2.1", w.script(nil, plainServer+oneMore+oneMore))
		r := w.relay(nil)
		for i := range 3 {
			out := try(t, r, mail(hi, "b@p.test"))
			want(t, out[0], "delivered")
			if i > 0 && out[0].Connect != 0 {
				t.Errorf("message %d connected", i)
			}
			time.Sleep(10 * time.Second)
		}
		if len(w.dialled) != 1 {
			t.Error(w.dialled)
		}
		time.Sleep(6 * time.Second) // idle for 15 seconds: QUIT, which the script waits for
		synctest.Wait()
		if r.pool.total != 0 || len(r.pool.by) != 0 {
			t.Error("kept for ever")
		}
	})
}

// A connection that died in the pool costs nothing but another one, whatever it says or does not say.
func TestDeadConnectionInThePool(t *testing.T) {
	for name, end := range map[string]string{
		"closed":      "X:",
		"said 421":    "S: 421 4.4.2 idle too long\nX:",
		"421 to MAIL": "C* MAIL\nS: 421 4.4.2 idle too long\nC: QUIT\nX:",
		"cut at MAIL": "C* MAIL\nX:",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dns.host("p.test", "192.0.2.1")
				w.serve("192.0.2.1", w.script(nil, plainServer+end))
				r := w.relay(nil)
				want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
				synctest.Wait()
				w.serve("192.0.2.1", w.script(nil, plainServer))
				want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
				if len(w.dialled) != 2 {
					t.Error(w.dialled)
				}
			})
		})
	}
}

// Once the message is under way over an old connection there is no second try.
func TestDeathOfAReusedConnectionLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		before, _, _ := strings.Cut(oneMore, "S: 250 taken")
		w.serve("192.0.2.1", w.script(nil, plainServer+before+"X:"))
		r := w.relay(nil)
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "deferred 0 4.4.2")
		if len(w.dialled) != 1 {
			t.Error(w.dialled)
		}
	})
}

func TestPoolLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 4 {
			w.dns.host(fmt.Sprintf("p%d.test", i), fmt.Sprintf("192.0.2.%d", i+1))
			w.serve(fmt.Sprintf("192.0.2.%d", i+1), w.script(nil, plainServer))
		}
		r := w.relay(func(o *Options) { o.Limits = Limits{Idle: 2, Messages: 1} })
		for i := range 4 {
			want(t, try(t, r, mail(hi, fmt.Sprintf("b@p%d.test", i)))[0], "delivered")
		}
		if r.pool.total != 0 {
			t.Errorf("%d kept though they are used up", r.pool.total)
		}
		r2 := w.relay(func(o *Options) { o.Limits = Limits{Idle: 2} })
		for i := range 4 {
			want(t, try(t, r2, mail(hi, fmt.Sprintf("b@p%d.test", i)))[0], "delivered")
		}
		if r2.pool.total != 2 {
			t.Errorf("%d kept", r2.pool.total)
		}
	})
}

// MAILMAX ends a connection in time; the rest of the recipients go over another one.
func TestMailMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		w.serve("192.0.2.1", w.script(nil, strings.Replace(plainServer, "S: 250 me", "S: 250-me\nS: 250 LIMITS MAILMAX=1 RCPTMAX=1", 1)))
		out := try(t, w.relay(nil), mail(hi, "b@p.test", "c@p.test", "d@p.test"))
		for _, o := range out {
			want(t, o, "delivered")
		}
		if len(w.dialled) != 3 {
			t.Error(w.dialled)
		}
	})
}

// What needs another security does not go over a connection that is there already.
func TestPoolKeepsPoliciesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		w.serve("192.0.2.1", w.script(nil, plainServer))
		r := w.relay(nil)
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
		m := mail(hi, "b@p.test")
		m.RequireTLS = true
		want(t, try(t, r, m)[0], "failed 0 5.7.30")
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		w.serve("192.0.2.1", w.script(nil, plainServer))
		r := w.relay(nil)
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
		r.Close()
		r.Close()
		w.wg.Wait()                                              // the server's end saw it
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered") // late, and nothing is kept
		w.wg.Wait()
	})
}

// Many attempts at once share a Relay.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cert := newAuthority(t, "x").issue(year, "x.test")
		var taken atomic.Int64
		for i := range 5 {
			w.dns.exchange(fmt.Sprintf("p%d.test", i), 10, fmt.Sprintf("mx%d.test", i), fmt.Sprintf("192.0.2.%d", i+1))
			w.serve(fmt.Sprintf("192.0.2.%d", i+1), func(c net.Conn) { sink(c, &cert, &taken) })
		}
		r := w.relay(func(o *Options) {
			o.Limits = Limits{Idle: 7, IdlePer: 2, Messages: 5}
			o.SendReport = (&reporter{}).send
		})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i%7) * time.Second)
				want(t, try(t, r, mail(hi, fmt.Sprintf("b@p%d.test", i%5), "c@x"))[0], "delivered")
			})
		}
		wg.Wait()
		if taken.Load() != 100 || r.pool.total > 7 {
			t.Errorf("%d taken, %d kept", taken.Load(), r.pool.total)
		}
	})
}

// sink takes all mail, with STARTTLS.
func sink(c net.Conn, cert *tls.Certificate, taken *atomic.Int64) {
	br := bufio.NewReader(c)
	data := false
	_, _ = io.WriteString(c, "220 hi\r\n")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		say := "250 ok\r\n"
		switch {
		case data:
			if say = ""; line == ".\r\n" {
				data, say = false, "250 taken\r\n"
				taken.Add(1)
			}
		case strings.HasPrefix(line, "EHLO"):
			say = "250-hi\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
		case strings.HasPrefix(line, "STARTTLS"):
			_, _ = io.WriteString(c, "220 go\r\n")
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
			br, say = bufio.NewReader(c), ""
		case strings.HasPrefix(line, "DATA"):
			data, say = true, "354 go\r\n"
		}
		_, _ = io.WriteString(c, say)
	}
}
