package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/queue"
)

// one runs a message against one scripted server at p.test.
func one(t *testing.T, script string, m *queue.Outgoing, change func(*Options)) []queue.Outcome {
	t.Helper()
	w := newWorld(t)
	w.dns.host("p.test", "192.0.2.1")
	w.dns.host("xn--bcher-kva.test", "192.0.2.1")
	w.serve("192.0.2.1", w.script(nil, script))
	r := w.relay(change)
	out := try(t, r, m)
	r.Close()
	w.wg.Wait()
	return out
}

func with(m *queue.Outgoing, change func(*queue.Outgoing)) *queue.Outgoing {
	change(m)
	return m
}

const ehlo = "S: 220 hi\nC: EHLO us.test\n"

// bubbleStart is what the clock of a synctest bubble says at first.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestConversations(t *testing.T) {
	utf8Header := "Subject: b\xc3\xbccher\r\n\r\nhi\r\n"
	for _, test := range []struct {
		name   string
		script string
		m      *queue.Outgoing
		want   string // of each recipient, " | " between
	}{
		{"not pipelined", ehlo + `
			S: 250 me
			C: MAIL FROM:<a@us.test>
			S: 250 ok
			C: RCPT TO:<b@p.test>
			S: 251 will forward
			C: RCPT TO:<c@p.test>
			S: 553 5.1.3 bad
			C: DATA
			S: 354 go
			D: Subject: hi\r\n\r\nhi\r\n
			S: 250 2.6.0 ok`,
			mail(hi, "b@p.test", "c@p.test"), "delivered 250 2.6.0 ok | failed 553 5.1.3 bad"},
		{"HELO", `
			S: 220 hi
			C: EHLO us.test
			S: 502 what
			C: HELO us.test
			S: 250 me
			C: MAIL FROM:<>
			S: 250 ok
			C: RCPT TO:<b@p.test>
			S: 250 ok
			C: DATA
			S: 354 go
			D: *
			S: 250 ok`,
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.Sender = "" }), "delivered 250 2.0.0 ok"},
		{"EHLO put off", ehlo + "S: 450 4.3.2 later\nC: QUIT\nS: 221 bye\nX:", mail(hi, "b@p.test"), "deferred 450 4.3.2 later"},
		{"HELO refused", ehlo + "S: 550 5.7.1 no\nC: HELO us.test\nS: 550 5.7.1 no\nC: QUIT\nS: 221 bye\nX:", mail(hi, "b@p.test"), "failed 550 5.7.1 no"},
		{"MAIL refused, pipelined", ehlo + `
			S: 250-me
			S: 250 PIPELINING
			C* MAIL
			C* RCPT
			C* RCPT
			C: DATA
			S: 550 5.7.1 sender not wanted
			S: 503 5.5.1 MAIL first
			S: 503 5.5.1 MAIL first
			S: 503 5.5.1 RCPT first`,
			mail(hi, "b@p.test", "c@p.test"), "failed 550 5.7.1 sender not wanted | failed 550 5.7.1 sender not wanted"},
		{"all recipients refused, and DATA goes on", ehlo + `
			S: 250-me
			S: 250 PIPELINING
			C* MAIL
			C* RCPT
			C: DATA
			S: 250 ok
			S: 550 5.1.1 no
			S: 354 go
			C: .
			S: 554 5.5.1 no recipients`,
			mail(hi, "b@p.test"), "failed 550 5.1.1 no"},
		{"DATA refused", ehlo + `
			S: 250-me
			S: 250 PIPELINING
			C* MAIL
			C* RCPT
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 451 4.3.0 no spool`,
			mail(hi, "b@p.test"), "deferred 451 4.3.0 no spool"},
		{"refused after the message", ehlo + `
			S: 250 me
			C* MAIL
			S: 250 ok
			C* RCPT
			S: 250 ok
			C: DATA
			S: 354 go
			D: *
			S: 554-5.7.1 this is
			S: 554 5.7.1 spam`,
			mail(hi, "b@p.test"), "failed 554 5.7.1 this is spam"},
		{"2xx to DATA is not 354", ehlo + `
			S: 250 me
			C* MAIL
			S: 250 ok
			C* RCPT
			S: 250 ok
			C: DATA
			S: 250 queued?
			C: QUIT`,
			mail(hi, "b@p.test"), "deferred 250 4.5.0 unexpected reply 250 queued?"},
		{"every parameter", ehlo + `
			S: 250-me
			S: 250-SIZE
			S: 250-8BITMIME
			S: 250-SMTPUTF8
			S: 250-DSN
			S: 250-mt-priority MIXER
			S: 250 ENHANCEDSTATUSCODES
			C: MAIL FROM:<ä@us.test> SIZE=24 BODY=8BITMIME SMTPUTF8 MT-PRIORITY=-3 RET=HDRS ENVID=QQ+2B+20+3D1
			S: 250 ok
			C: RCPT TO:<"b c"@bücher.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2B@p.test
			S: 250 ok
			C: RCPT TO:<c@p.test> ORCPT=utf-8;\x{E4}\x{2B}@p.test
			S: 250 ok
			C: DATA
			S: 354 go
			D: *
			S: 250 ok`,
			with(mail(utf8Header, "b c@bücher.test", "c@p.test"), func(m *queue.Outgoing) {
				m.Sender, m.SMTPUTF8, m.Body, m.Priority, m.Return, m.EnvelopeID = "ä@us.test", true, "8BITMIME", -3, "HDRS", "QQ+ =1"
				m.Recipients[0].Notify, m.Recipients[0].Original = []string{"SUCCESS", "DELAY"}, "rfc822;B+@p.test"
				m.Recipients[1].Original = "utf-8;ä+@p.test"
			}), "delivered 250 2.0.0 ok | delivered 250 2.0.0 ok"},
		{"a deadline that the server takes over", ehlo + `
			S: 250-me
			S: 250 DELIVERBY 60
			C: MAIL FROM:<a@us.test> BY=3599;RT
			S: 250 ok
			C* RCPT
			S: 250 ok
			C: DATA
			S: 354 go
			D: *
			S: 250 ok`,
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) {
				m.DeliverBy, m.DeliverByTrace = bubbleStart.Add(time.Hour-time.Millisecond), true
			}), "delivered 250 2.0.0 ok"},
		{"a deadline for returning, and nobody there to return it", ehlo + "S: 250 me",
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.DeliverBy = bubbleStart.Add(time.Hour) }),
			"failed 0 5.3.3 the server cannot return the message if it comes too late"},
		{"a deadline too near for the server", ehlo + "S: 250-me\nS: 250 DELIVERBY 7200",
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.DeliverBy = bubbleStart.Add(time.Hour) }),
			"failed 0 5.4.7 the server takes no deadlines within 7200 seconds"},
		{"a deadline for a notice needs nothing of the server", ehlo + `
			S: 250 me
			C: MAIL FROM:<a@us.test>
			S: 250 ok
			C* RCPT
			S: 250 ok
			C: DATA
			S: 354 go
			D: *
			S: 250 ok`,
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.DeliverBy, m.DeliverByNotify = bubbleStart.Add(time.Hour), true }),
			"delivered 250 2.0.0 ok"},
		{"no SMTPUTF8, and the header needs it", ehlo + "S: 250 me",
			with(mail(utf8Header, "b@p.test"), func(m *queue.Outgoing) { m.SMTPUTF8 = true }),
			"failed 0 5.6.7 the server takes no internationalised mail (SMTPUTF8), and the message's header needs it"},
		{"no SMTPUTF8, and the sender needs it", ehlo + "S: 250 me",
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.SMTPUTF8, m.Sender = true, "ä@us.test" }), "failed 0 5.6.7"},
		{"no SMTPUTF8, one recipient needs it, domains do not, nor does the message", ehlo + `
			S: 250 me
			C: MAIL FROM:<a@xn--bcher-kva.test>
			S: 250 ok
			C: RCPT TO:<b@xn--bcher-kva.test>
			S: 250 ok
			C: DATA
			S: 354 go
			D: Subject: hi\r\n\r\nhi\r\n
			S: 250 ok`,
			with(mail(hi, "b@bücher.test", "ä@bücher.test"), func(m *queue.Outgoing) { m.SMTPUTF8, m.Sender = true, "a@Bücher.test" }),
			"delivered 250 2.0.0 ok | failed 0 5.6.7 the server takes no internationalised mail (SMTPUTF8), and the recipient's address needs it"},
		{"too large", ehlo + "S: 250-me\nS: 250 SIZE 18", mail(hi, "b@p.test", "c@p.test"),
			"failed 0 5.3.4 the message has 19 octets, and the server takes at most 18 | failed 0 5.3.4"},
		{"452 after some: the rest in another transaction", ehlo + `
			S: 250-me
			S: 250 PIPELINING
			C* MAIL
			C: RCPT TO:<b@p.test>
			C: RCPT TO:<c@p.test>
			C: RCPT TO:<d@p.test>
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 452 4.5.3 too many
			S: 452 too many
			S: 354 go
			D: *
			S: 250 one
			C* MAIL
			C: RCPT TO:<c@p.test>
			C: RCPT TO:<d@p.test>
			C: DATA
			S: 250 ok
			S: 452 4.5.3 too many
			S: 250 ok
			S: 354 go
			D: *
			S: 250 two`,
			mail(hi, "b@p.test", "c@p.test", "d@p.test"), "delivered 250 2.0.0 one | deferred 452 4.5.3 too many | delivered 250 2.0.0 two"},
		{"LIMITS", ehlo + `
			S: 250-me
			S: 250 LIMITS RCPTMAX=1 FOO=x
			C* MAIL
			S: 250 ok
			C: RCPT TO:<b@p.test>
			S: 550 5.1.1 no
			C: RSET
			S: 250 ok
			C* MAIL
			S: 250 ok
			C: RCPT TO:<c@p.test>
			S: 250 ok
			C: DATA
			S: 354 go
			D: *
			S: 250 ok`,
			mail(hi, "b@p.test", "c@p.test"), "failed 550 5.1.1 no | delivered 250 2.0.0 ok"},
		{"BINARYMIME", ehlo + `
			S: 250-me
			S: 250-CHUNKING
			S: 250-PIPELINING
			S: 250 BINARYMIME
			C: MAIL FROM:<a@us.test> BODY=BINARYMIME
			C* RCPT
			S: 250 ok
			S: 250 ok
			C: BDAT 19 LAST
			N: 19
			S: 250 2.0.0 ok`,
			with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.Body = "BINARYMIME" }), "delivered 250 2.0.0 ok"},
		{"dots", ehlo + `
			S: 250 me
			C* MAIL
			S: 250 ok
			C* RCPT
			S: 250 ok
			C: DATA
			S: 354 go
			D: ..\r\n...\r\n\r\n..x\r\n
			S: 250 ok`,
			mail(".\r\n..\n\r.x", "b@p.test"), "delivered 250 2.0.0 ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := one(t, test.script, test.m, nil)
				wants := strings.Split(test.want, " | ")
				for i, o := range out {
					want(t, o, wants[i])
				}
			})
		})
	}
}

func TestOnward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := one(t, strings.Replace(plainServer, "S: 250 me", "S: 250-me\nS: 250 DSN", 1), mail(hi, "b@p.test"), nil)
		if !out[0].Onward {
			t.Error("the other side has DSN")
		}
	})
}

// Whatever the other side got, an answer that did not come whole is no delivery, and nobody else is asked: the final dot may
// have been understood.
func TestDeathAtEveryOctetOfTheAnswer(t *testing.T) {
	answer := "250-2.0.0 taken\r\n250 2.0.0 for good\r\n"
	for n := range len(answer) + 1 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.dns.exchange("p.test", 10, "mx1.test", "192.0.2.1")
			w.dns.exchange("p.test", 20, "mx2.test", "192.0.2.2")
			before, _, _ := strings.Cut(plainServer, "S: 250 taken")
			w.serve("192.0.2.1", func(c net.Conn) {
				w.script(nil, before+"X:")(c)
				_, _ = io.WriteString(c, answer[:n])
			})
			w.serve("192.0.2.2", func(net.Conn) { t.Error("another server was asked") })
			out := try(t, w.relay(nil), mail(hi, "b@p.test"))
			if whole := n == len(answer); whole != (out[0].Verdict == queue.Delivered) || !whole && out[0].Status != "4.4.2" {
				t.Errorf("after %d octets: %s", n, brief(out[0]))
			}
		})
	}
}

// The server dies after each octet that it reads: never delivered, never failed.
func TestDeathAtEveryOctetOfTheMessage(t *testing.T) {
	for _, pipelining := range []bool{false, true} {
		for n := range 110 {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dns.host("p.test", "192.0.2.1")
				w.serve("192.0.2.1", func(c net.Conn) { polite(c, n, pipelining) })
				out := try(t, w.relay(nil), mail(hi, "b@p.test"))
				if out[0].Verdict != queue.Deferred || out[0].Text == "" {
					t.Errorf("after %d octets: %s", n, brief(out[0]))
				}
			})
		}
	}
}

// polite says yes to everything, and reads at most n octets.
func polite(c net.Conn, n int, pipelining bool) {
	_, _ = io.WriteString(c, "220 hi\r\n")
	data := false
	var line []byte
	b := make([]byte, 1)
	for range n {
		if _, err := c.Read(b); err != nil {
			return
		}
		if line = append(line, b[0]); b[0] != '\n' {
			continue
		}
		say := "250 ok\r\n"
		switch {
		case data && string(line) == ".\r\n":
			return // dies with the dot in its hands
		case data:
			say = ""
		case bytes.HasPrefix(line, []byte("EHLO")) && pipelining:
			say = "250-hi\r\n250 PIPELINING\r\n"
		case bytes.HasPrefix(line, []byte("DATA")):
			data, say = true, "354 go\r\n"
		}
		line = nil
		_, _ = io.WriteString(c, say)
	}
}

// Each silence ends when its RFC 5321 section 4.5.3.2 time is over.
func TestTimeouts(t *testing.T) {
	upTo := func(word string) string {
		before, _, ok := strings.Cut(plainServer, word)
		if !ok {
			panic(word)
		}
		return before + "W: 3h"
	}
	for _, test := range []struct {
		script, while string
		after         time.Duration
	}{
		{"W: 3h", "the greeting", 5 * time.Minute},
		{upTo("S: 250 me"), "EHLO", 5 * time.Minute},
		{upTo("S: 250 ok\n\tC* RCPT"), "MAIL", 5 * time.Minute},
		{upTo("S: 250 ok\n\tC: DATA"), "RCPT", 5 * time.Minute},
		{upTo("S: 354 go"), "DATA", 2 * time.Minute},
		{upTo("S: 250 taken"), "sending the message", 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.dns.host("p.test", "192.0.2.1")
			w.serve("192.0.2.1", func(c net.Conn) {
				script := w.script(nil, test.script)
				script(hushed{c})
			})
			start := time.Now()
			out := try(t, w.relay(nil), mail(hi, "b@p.test"))
			want(t, out[0], "deferred 0 4.4.2 no answer in time while")
			if took := time.Since(start); took != test.after || !strings.Contains(out[0].Text, test.while) {
				t.Errorf("%s after %v, want %v", out[0].Text, took, test.after)
			}
		})
	}
}

// hushed is a connection whose client has gone by the time the script ends: what it says then is no mistake.
type hushed struct{ net.Conn }

// One octet a minute is an answer after ten minutes; the greeting has five.
func TestSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		w.serve("192.0.2.1", func(c net.Conn) {
			for _, b := range []byte("220 a very slow server\r\n") {
				time.Sleep(time.Minute)
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		})
		start := time.Now()
		want(t, try(t, w.relay(nil), mail(hi, "b@p.test"))[0], "deferred 0 4.4.2 no answer in time while waiting for the greeting")
		if took := time.Since(start); took != 5*time.Minute {
			t.Error(took)
		}
	})
}

// A server that takes nothing of the message: three minutes a block.
func TestServerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		before, _, _ := strings.Cut(plainServer, "D: *")
		w.serve("192.0.2.1", w.script(nil, before+"W: 1h\nX:"))
		r := w.relay(func(o *Options) {
			dial := o.Dial
			o.Dial = func(ctx ctxType, local addrType, to addrPortType) (net.Conn, error) {
				c, err := dial(ctx, local, to)
				return &clogging{c.(*memConn)}, err
			}
		})
		start := time.Now()
		m := mail("Subject: big\r\n\r\n"+strings.Repeat("x\r\n", 100000), "b@p.test")
		want(t, try(t, r, m)[0], "deferred 0 4.4.2 no answer in time while sending the message")
		if took := time.Since(start); took != 3*time.Minute {
			t.Error(took)
		}
	})
}

// clogging takes commands, and blocks on large writes.
type clogging struct{ *memConn }

func (c *clogging) Write(p []byte) (int, error) {
	if len(p) > 4096 {
		c.stuck = true
	}
	return c.memConn.Write(p)
}

func TestHostileAnswers(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"endless greeting":    {"S+ 220-" + strings.Repeat("x", 70000) + "\nX:", "deferred 0 4.5.0 a reply longer than anybody needs while waiting for the greeting"},
		"web server":          {"S: HTTP/1.1 400 Bad Request\nX:", "deferred 0 4.5.0 not an SMTP reply"},
		"nothing":             {"X:", "deferred 0 4.4.2 connection lost while waiting for the greeting"},
		"three codes":         {"S: 220-hi\nS: 250-hi\nS: 550 hi\nX:", "deferred 0 4.5.0 not an SMTP reply: 220 and 250 in one reply"},
		"wrong code":          {"S: 354 go\nC: QUIT\nX:", "deferred 354 4.5.0 unexpected reply 354 go"},
		"421 at MAIL":         {ehlo + "S: 250 me\nC* MAIL\nS: 421 4.7.0 slow down\nC: QUIT\nX:", "deferred 421 4.7.0 slow down"},
		"421 at RCPT":         {ehlo + "S: 250 me\nC* MAIL\nS: 250 ok\nC* RCPT\nS: 421 4.7.0 slow down\nC: QUIT\nX:", "deferred 421 4.7.0 slow down"},
		"354 to MAIL":         {ehlo + "S: 250 me\nC* MAIL\nS: 354 go", "deferred 354 4.5.0"},
		"no disk":             {ehlo + "S: 250 me\nC* MAIL\nS: 452 4.3.1 no room\nC: QUIT\nX:", "deferred 452 4.3.1 no room"},
		"421 after the dot":   {strings.Replace(plainServer, "250 taken", "421 4.3.0 dying", 1) + "C: QUIT\nX:", "deferred 421 4.3.0 dying"},
		"controls in answers": {"S: 554 a\\0b\\xff\\r\\nC: QUIT\nX:", "failed 554 5.0.0 a b?"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := one(t, test.script, mail(hi, "b@p.test"), nil)
				want(t, out[0], test.want)
				if out[0].Remote != "p.test [192.0.2.1]:25" {
					t.Error(out[0].Remote)
				}
			})
		})
	}
}

// What a server said before it cut the message off is the reason.
func TestLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("p.test", "192.0.2.1")
		before, _, _ := strings.Cut(plainServer, "D: *")
		w.serve("192.0.2.1", w.script(nil, before+"S: 552 5.3.4 that is enough\nX:"))
		r := w.relay(nil)
		big := "Subject: big\r\n\r\n" + strings.Repeat("x\r\n", 100000)
		m := mail(big, "b@p.test")
		m.Message = slowReader{strings.NewReader(big)}
		want(t, try(t, r, m)[0], "failed 552 5.3.4 that is enough")
	})
}

// slowReader lets the other side act between pieces.
type slowReader struct{ io.ReaderAt }

func (s slowReader) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(time.Second)
	return s.ReaderAt.ReadAt(p, off)
}

type badDisk struct{ after int64 }

func (b badDisk) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.after {
		return 0, errors.New("input/output error")
	}
	return copy(p, bytes.Repeat([]byte("x\r\n"), len(p))), nil
}

// A message that cannot be read must not arrive cut off.
func TestUnreadableMessage(t *testing.T) {
	for _, chunking := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.dns.host("p.test", "192.0.2.1")
			w.serve("192.0.2.1", func(c net.Conn) {
				w.script(nil, strings.Replace(plainServer, "D: *", "X:", 1))(&quiet{c})
				if rest, _ := io.ReadAll(c); bytes.Contains(rest, []byte("\r\n.\r\n")) || bytes.Contains(rest, []byte("LAST")) {
					t.Error("the message was ended")
				}
			})
			m := mail("", "b@p.test")
			m.Message, m.Size = badDisk{100_000}, 3_000_000
			if chunking {
				m.Size = 200_000
			}
			want(t, try(t, w.relay(nil), m)[0], "deferred 0 4.3.0 the message cannot be read here: input/output error")
		})
	}
}

type quiet struct{ net.Conn }

// Large messages go in pieces, each answered, where the other side can.
func TestBDAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := "Subject: big\r\n\r\n" + strings.Repeat("x\n", 600_000)
		size := int64(len(oracle(text, false)))
		script := ehlo + "S: 250-me\nS: 250 CHUNKING\nC* MAIL\nS: 250 ok\nC* RCPT\nS: 250 ok\n"
		for sent := int64(0); sent < size; {
			n, last := min(bdatChunk, size-sent), ""
			if sent += n; sent == size {
				last = " LAST"
			}
			script += fmt.Sprintf("C: BDAT %d%s\nN: %d\nS: 250 2.0.0 %d\n", n, last, n, sent)
		}
		m := mail(text, "b@p.test")
		want(t, one(t, script, m, nil)[0], fmt.Sprintf("delivered 250 2.0.0 %d", size))
		refused := ehlo + "S: 250-me\nS: 250 CHUNKING\nC* MAIL\nS: 250 ok\nC* RCPT\nS: 250 ok\n" +
			fmt.Sprintf("C: BDAT %d\nN: %d\nS: 552 5.3.4 enough\n", bdatChunk, bdatChunk)
		want(t, one(t, refused, m, nil)[0], "failed 552 5.3.4 enough")
	})
}

func TestWirePath(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a@b.test": "a@b.test", "a b@b.test": `"a b"@b.test`, `"a b"@b.test`: `"a b"@b.test`, `a"b\c@b.test`: `"a\"b\\c"@b.test`,
		".a@b.test": `".a"@b.test`, "a@Bücher.test": "a@xn--bcher-kva.test", "a@b@c.test": `"a@b"@c.test`, "postmaster": "postmaster",
		"a@[192.0.2.1]": "a@[192.0.2.1]",
	} {
		if got := wirePath(in, false); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := wirePath("ä@bücher.test", true); got != "ä@bücher.test" {
		t.Error(got)
	}
}

// A line end in an address is no second command.
func TestNoInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := with(mail(hi, "b@p.test"), func(m *queue.Outgoing) { m.Sender = "a\r\nRSET\r\n@us.test" })
		out := one(t, ehlo+"S: 250 me\nX:", m, nil)
		if out[0].Verdict != queue.Deferred {
			t.Error(brief(out[0]))
		}
	})
}
