package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/queue"
)

// bdatAbove is the size above which BDAT is used where it is offered: what the server will not have (too large, spam by its
// header) is then refused after a piece of it. Below, DATA pipelined with the envelope takes as few round trips, and is what
// every server has been tried with.
const (
	bdatAbove = 1 << 20
	bdatChunk = 256 << 10
)

// limitOf reads one of RFC 9422's LIMITS, 0 if it is not given.
func (s *session) limitOf(name string) int {
	for item := range strings.FieldsSeq(s.ext["LIMITS"]) {
		if key, value, _ := strings.Cut(item, "="); strings.EqualFold(key, name) {
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}

func (s *session) mostMessages() int {
	if n := s.limitOf("MAILMAX"); n > 0 {
		return min(n, s.r.o.Limits.Messages)
	}
	return s.r.o.Limits.Messages
}

func (s *session) mostRecipients() int {
	if n := s.limitOf("RCPTMAX"); n > 0 {
		return min(n, s.r.o.Limits.Recipients)
	}
	return s.r.o.Limits.Recipients
}

// transaction is one MAIL … over one session.
type transaction struct {
	a     *attempt
	s     *session
	c     *content
	batch []int // of the attempt's recipients
	start time.Time

	taken    []int // the server said yes to
	pipeline bool
	early    bool // DATA is under way with the envelope
}

// transact hands the message to a batch of recipients. Recipients without an outcome afterwards are still pending. A failure
// is one of the session, which is then of no use any more.
func (a *attempt) transact(s *session, c *content, batch []int) *failure {
	t := &transaction{a: a, s: s, c: c, batch: batch, start: time.Now(), pipeline: s.has("PIPELINING")}
	if s.dirty {
		if r, err := s.command(s.r.o.Timeouts.Mail, "RSET"); err != nil {
			f := broken("message", "waiting for the answer to RSET", err)
			f.stale = true
			return f
		} else if r.code != 250 {
			return refusal("message", r)
		}
		s.dirty = false
	}
	s.messages++
	ready, f := t.envelope()
	if f != nil || !ready {
		return f
	}
	if c.bdat {
		return t.sendBDAT()
	}
	return t.sendDATA()
}

// envelope says MAIL and RCPT, and with PIPELINING DATA as well. ready: somebody is to get the message.
func (t *transaction) envelope() (ready bool, f *failure) {
	s, times := t.s, &t.s.r.o.Timeouts
	t.early = t.pipeline && !t.c.bdat
	if err := t.sayEnvelope(); err != nil {
		return false, t.broken("sending the envelope", err, true)
	}
	mail, err := s.reply(times.Mail)
	if err != nil {
		return false, t.broken("waiting for the answer to MAIL", err, true)
	}
	if mail.code == 421 {
		f := refusal("message", mail)
		f.stale = true
		return false, f
	}
	s.dirty = true
	if mail.class() != 2 {
		return false, t.mailRefused(mail)
	}
	for _, i := range t.batch {
		if !t.pipeline {
			if err := s.say(t.a.rcptLine(s, i, t.c.utf8)); err != nil {
				return false, t.broken("sending RCPT", err, false)
			}
		}
		r, err := s.reply(times.Rcpt)
		if err != nil {
			return false, t.broken("waiting for the answer to RCPT", err, false)
		}
		if f := t.answered(i, r); f != nil {
			return false, f
		}
	}
	if len(t.taken) == 0 {
		return false, t.finishEarly()
	}
	return true, nil
}

func (t *transaction) sayEnvelope() error {
	if err := t.s.say(t.a.mailLine(t.s, t.c)); err != nil || !t.pipeline {
		return err
	}
	for _, i := range t.batch {
		if err := t.s.say(t.a.rcptLine(t.s, i, t.c.utf8)); err != nil {
			return err
		}
	}
	if t.early {
		return t.s.say("DATA")
	}
	return nil
}

// answered takes the answer for one recipient.
func (t *transaction) answered(i int, r *reply) *failure {
	switch {
	case r.class() == 2:
		t.taken = append(t.taken, i)
	case r.code == 421:
		return refusal("message", r)
	case (r.code == 452 || r.code == 552) && len(t.taken) > 0 && (r.status == "" || r.status[1:] == ".5.3"):
		// RFC 5321 section 4.5.3.1.10: the rest in another transaction; the recipient stays pending.
	default:
		t.a.decide(i, refusal("message", r), t)
	}
	return nil
}

// mailRefused: the sender, or the message by its parameters, is not wanted. A server that has no room or is in trouble has
// colleagues that may not be.
func (t *transaction) mailRefused(mail *reply) *failure {
	if t.pipeline {
		for range t.batch {
			if _, err := t.s.reply(t.s.r.o.Timeouts.Rcpt); err != nil {
				break // what MAIL was answered is what counts
			}
		}
	}
	f := refusal("message", mail)
	if mail.class() == 4 && strings.HasPrefix(mail.statusOr(), "4.3.") {
		f.ended = t.finishEarly() == nil
		return f
	}
	if strings.HasPrefix(f.status, "4.7.") {
		f.wait = leaveAlone
	}
	for _, i := range t.batch {
		t.a.decide(i, f, t)
	}
	return t.finishEarly()
}

// finishEarly ends a DATA that was sent along with an envelope that came to nothing (RFC 2920 section 3.1).
func (t *transaction) finishEarly() *failure {
	if !t.early {
		return nil
	}
	t.early = false
	r, err := t.s.reply(t.s.r.o.Timeouts.DataStart)
	if err == nil && r.code == 354 {
		_, err = t.s.command(t.s.r.o.Timeouts.DataDone, ".")
	}
	if err != nil {
		return t.broken("waiting for the answer to DATA", err, false)
	}
	return nil
}

func (t *transaction) sendDATA() *failure {
	times := &t.s.r.o.Timeouts
	if !t.early {
		if err := t.s.say("DATA"); err != nil {
			return t.broken("sending DATA", err, false)
		}
	}
	r, err := t.s.reply(times.DataStart)
	if err != nil {
		return t.broken("waiting for the answer to DATA", err, false)
	}
	if r.class() != 4 && r.class() != 5 && r.code != 354 {
		f := refusal("message", r) // nobody has the message: a "250" here is no promise
		t.all(f)
		return f
	}
	if r.code != 354 {
		return t.answerAll(r)
	}
	w := &textWriter{w: t.s.bw, dots: true}
	err = t.c.write(w)
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = t.s.say(".")
	}
	if err == nil {
		r, err = t.s.reply(times.DataDone)
	}
	return t.done(r, err)
}

// done takes the answer to the whole message, or that there is none: whether the other side has it nobody knows, so it will
// be tried again.
func (t *transaction) done(r *reply, err error) *failure {
	var refused *bdatRefused
	var local *localError
	switch {
	case errors.As(err, &refused):
		return t.answerAll(refused.reply)
	case errors.As(err, &local):
		t.all(tempFailure("message", "4.3.0", "the message cannot be read here: %s", printable(local.Error())))
		return t.broken("sending the message", err, false)
	case err != nil:
		if early := t.lastWords(err); early != nil {
			t.all(refusal("message", early))
		} else {
			f := t.broken("sending the message", err, false)
			t.all(f)
			return f
		}
		return t.broken("sending the message", err, false)
	}
	t.s.dirty = false
	return t.answerAll(r)
}

// lastWords reads what a server may have said before it cut a message off: that is the reason. Only a refusal counts.
func (t *transaction) lastWords(err error) *reply {
	if !isGone(err) || t.a.ctx.Err() != nil {
		return nil
	}
	t.s.deadline(t.s.r.o.Timeouts.Quit)
	r, err := readReply(t.s.br)
	if err != nil || r.class() != 4 && r.class() != 5 {
		return nil
	}
	return r
}

// answerAll gives all taken recipients one answer.
func (t *transaction) answerAll(r *reply) *failure {
	if r.class() == 2 {
		for _, i := range t.taken {
			t.a.delivered(i, r, t)
		}
		return nil
	}
	f := refusal("message", r)
	t.all(f)
	if r.code == 421 || r.class() == 3 {
		return f
	}
	return nil
}

func (t *transaction) all(f *failure) {
	for _, i := range t.taken {
		t.a.decide(i, f, t)
	}
}

// broken is a failure of the connection. stale: nothing was answered yet, so that another connection loses nothing.
func (t *transaction) broken(doing string, err error, stale bool) *failure {
	f := broken("message", doing, err)
	f.stale = stale && t.a.ctx.Err() == nil
	return f
}

// bdatRefused is the answer that ended a BDAT before its last piece.
type bdatRefused struct{ reply *reply }

func (e *bdatRefused) Error() string { return e.reply.text() }

// sendBDAT sends the message in pieces (RFC 3030), each answered.
func (t *transaction) sendBDAT() *failure {
	w := &bdatWriter{s: t.s}
	var err error
	if t.c.raw {
		err = t.c.write(w)
	} else {
		bw := bufio.NewWriterSize(w, 32<<10)
		text := &textWriter{w: bw}
		if err = t.c.write(text); err == nil {
			err = text.Close()
		}
		if err == nil {
			err = bw.Flush()
		}
	}
	var r *reply
	if err == nil {
		r, err = w.last()
	}
	return t.done(r, err)
}

type bdatWriter struct {
	s   *session
	buf []byte
}

func (w *bdatWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(w.buf) == bdatChunk {
			r, err := w.chunk("")
			if err != nil {
				return 0, err
			}
			if r.class() != 2 {
				return 0, &bdatRefused{r}
			}
		}
		k := min(len(p), bdatChunk-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
	}
	return n, nil
}

func (w *bdatWriter) chunk(last string) (*reply, error) {
	if err := w.s.say(fmt.Sprintf("BDAT %d%s", len(w.buf), last)); err != nil {
		return nil, err
	}
	if _, err := w.s.bw.Write(w.buf); err != nil {
		return nil, err
	}
	w.buf = w.buf[:0]
	return w.s.reply(w.s.r.o.Timeouts.DataDone)
}

func (w *bdatWriter) last() (*reply, error) { return w.chunk(" LAST") }

// localError is a failure of ours to read the message.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

// fromDisk marks the errors of the message's reader.
type fromDisk struct{ r io.ReaderAt }

func (d fromDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.r.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = &localError{err}
	}
	return n, err
}

// delivered and decide write a recipient's outcome.
func (a *attempt) delivered(i int, r *reply, t *transaction) {
	a.set(i, queue.Outcome{
		Verdict: queue.Delivered, Code: r.code, Status: r.statusOr(), Text: r.text(), Onward: t.s.has("DSN"), TakesBy: t.s.has("DELIVERBY"),
	}, t)
}

func (a *attempt) decide(i int, f *failure, t *transaction) { a.set(i, f.outcome(), t) }

func (a *attempt) set(i int, o queue.Outcome, t *transaction) {
	o.Remote, o.TLS, o.Connect, o.Transfer = t.s.remote, t.s.tls, t.s.connect, time.Since(t.start)
	a.out[i], a.decided[i] = o, true
}
