package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"mailsrv/internal/delivery"
)

// attemptTime bounds one attempt, whatever the transport's own limits are.
const attemptTime = 2 * time.Hour

// attempt makes one attempt, records what became of it, and only then lets go of the recipients.
func (q *Queue) attempt(ctx context.Context, d *destination, j *job) {
	began := q.now()
	outcomes, tried := q.outcomes(ctx, d.name, j)
	now := q.now()
	cut := ctx.Err() != nil
	var judged []judgement
	for i, r := range j.rs {
		if cut && outcomes[i].Verdict == Deferred {
			continue // we ended it ourselves: it is due as before
		}
		judged = append(judged, q.judge(j.m, r, outcomes[i], now))
	}
	recorded := q.conclude(ctx, j.m, judged)
	q.scheduler.release(j.m.id, j.numbers())
	for _, v := range judged {
		q.logAttempt(j.m, d.name, v, now.Sub(began), recorded)
		if v.state == queued {
			q.scheduler.wake(d.name, v.due)
		}
	}
	well, failed, rest, why := feedback(outcomes, tried)
	q.scheduler.ended(d, now, well, failed && !cut, rest, why)
}

// feedback says what the outcomes of the recipients that were tried tell of their destination.
func feedback(outcomes []Outcome, tried []int) (well, failed bool, rest time.Duration, why string) {
	failed = len(tried) > 0
	for _, i := range tried {
		o := outcomes[i]
		well = well || o.Verdict != Deferred // a refusal is an answer too
		failed = failed && o.Verdict == Deferred
		rest = max(rest, o.Wait)
		if o.Verdict == Deferred {
			why = o.Text
			if o.Code == 0 && o.Remote == "" { // nobody was reached
				rest = max(rest, time.Second)
			}
		}
	}
	if !failed {
		rest = 0
	}
	return well, failed, rest, why
}

// outcomes returns an outcome for each recipient, and which of them were tried.
func (q *Queue) outcomes(ctx context.Context, destination string, j *job) (all []Outcome, tried []int) {
	all = make([]Outcome, len(j.rs))
	for i := range j.rs {
		if s := j.suppressed[i]; s != nil && j.m.kind == mail {
			all[i] = s.outcome()
			continue
		}
		tried = append(tried, i)
	}
	if len(tried) == 0 {
		return all, nil
	}
	fill := func(o Outcome) ([]Outcome, []int) {
		for _, i := range tried {
			all[i] = o
		}
		return all, nil // it says nothing of the destination
	}
	file, err := q.files.open(j.m.id)
	if errors.Is(err, fs.ErrNotExist) {
		return fill(Outcome{Verdict: Failed, Status: "5.3.0", Text: "the message was lost in this server's queue"})
	}
	if err != nil {
		q.log.Error("a message in the queue cannot be read", "id", j.m.id, "err", err)
		return fill(Outcome{Status: "4.3.0", Text: "local storage trouble"})
	}
	defer file.Close()
	front, err := q.frontOf(j.m.id)
	if err != nil {
		q.log.Error("a message's signatures cannot be read", "id", j.m.id, "err", err)
		return fill(Outcome{Status: "4.3.0", Text: "local storage trouble"})
	}
	body := fronted{front, io.NewSectionReader(file, j.m.skip, j.m.size-j.m.skip)}
	var rs []*recipient
	for _, i := range tried {
		rs = append(rs, j.rs[i])
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	for k, o := range q.hand(ctx, destination, j.m, rs, body) {
		all[tried[k]] = o
	}
	return all, tried
}

// hand hands the message over and sees to it that there is one sane outcome for each recipient.
func (q *Queue) hand(ctx context.Context, destination string, m *message, rs []*recipient, body fronted) (outcomes []Outcome) {
	defer func() {
		if p := recover(); p != nil {
			q.log.Error("panic", "id", m.id, "destination", destination, "err", fmt.Sprint(p))
			outcomes = make([]Outcome, len(rs))
		}
		for len(outcomes) < len(rs) {
			outcomes = append(outcomes, Outcome{})
		}
		for i := range outcomes {
			outcomes[i].complete()
		}
		outcomes = outcomes[:len(rs)]
	}()
	if destination == here {
		for _, r := range rs {
			outcomes = append(outcomes, q.handHere(ctx, m, r, io.NewSectionReader(body, 0, body.size())))
		}
		return outcomes
	}
	out := &Outgoing{
		ID: m.id, Sender: m.sender, Message: body, Size: body.size(), SMTPUTF8: m.utf8, Body: m.body, RequireTLS: m.requireTLS,
		Return: m.ret, EnvelopeID: m.envelopeID, Priority: m.priority,
		DeliverBy: m.by, DeliverByNotify: m.byNotify, DeliverByTrace: m.byTrace,
	}
	for _, r := range rs {
		out.Recipients = append(out.Recipients, Recipient{Address: r.address, Notify: r.notify.words(), Original: r.original})
	}
	return q.transport.Attempt(ctx, destination, out)
}

func (q *Queue) handHere(ctx context.Context, m *message, r *recipient, body io.Reader) Outcome {
	if q.local == nil {
		return Outcome{Text: "no delivery to mailboxes here now", Status: "4.3.0"}
	}
	env := &delivery.Envelope{ID: m.id, Sender: m.sender, SMTPUTF8: m.utf8, Body: m.body, RequireTLS: m.requireTLS,
		Return: m.ret, EnvelopeID: m.envelopeID, Priority: m.priority,
		DeliverBy: m.by, DeliverByNotify: m.byNotify, DeliverByTrace: m.byTrace,
		Origin:     delivery.Origin{Service: "queue", Account: m.account, Hello: m.hello},
		Recipients: []delivery.Recipient{{Address: r.address, Notify: r.notify.words(), Original: r.original}},
	}
	err := q.local.Deliver(ctx, env, body)
	var refused *delivery.Error
	switch {
	case err == nil:
		return Outcome{Verdict: Delivered, Status: "2.0.0", Text: "filed", Remote: q.host, Onward: true, TakesBy: true}
	case errors.As(err, &refused):
		o := Outcome{Code: refused.Code, Status: refused.Status, Text: refused.Text, Remote: q.host}
		if !refused.Temporary() {
			o.Verdict = Failed
		}
		return o
	}
	q.log.Error("a message cannot be filed", "id", m.id, "to", r.address, "err", err)
	return Outcome{Status: "4.3.0", Text: "local storage trouble", Remote: q.host}
}

// complete fills in what an outcome has to have.
func (o *Outcome) complete() {
	class := map[Verdict]string{Delivered: "2.0.0", Failed: "5.0.0", Deferred: "4.0.0"}
	if o.Verdict < Deferred || o.Verdict > Failed {
		o.Verdict = Deferred
	}
	if !validStatus(o.Status) {
		o.Status = class[o.Verdict]
	}
	if o.Text == "" {
		o.Text = map[Verdict]string{Delivered: "accepted", Failed: "refused", Deferred: "no answer"}[o.Verdict]
	}
}

// validStatus is RFC 3463 section 2's syntax.
func validStatus(s string) bool {
	dots, digits := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && digits > 0:
			dots, digits = dots+1, 0
		case c >= '0' && c <= '9' && digits < 3:
			digits++
		default:
			return false
		}
	}
	return dots == 2 && digits > 0 && (s[0] == '2' || s[0] == '4' || s[0] == '5') && s[1] == '.'
}

func (v Verdict) String() string {
	switch v {
	case Delivered:
		return "delivered"
	case Failed:
		return "failed"
	}
	return "deferred"
}

// logAttempt writes the one line there is about an attempt for a recipient.
func (q *Queue) logAttempt(m *message, destination string, v judgement, took time.Duration, recorded bool) {
	o := v.out
	result := o.Verdict.String()
	if v.expired {
		result = "expired"
	}
	q.meter.QueueAttempt(o.Verdict.String())
	args := []any{"id", m.id, "to", v.r.address, "from", m.sender, "result", result, "destination", destination, "remote", o.Remote,
		"tls", o.TLS, "code", o.Code, "status", o.Status, "reply", clip(o.Text, maxText), "attempt", v.r.attempts + 1,
		"connect", o.Connect.Round(time.Millisecond), "transfer", o.Transfer.Round(time.Millisecond), "took", took.Round(time.Millisecond),
		"delay", q.now().Sub(m.arrived).Round(time.Second)}
	if v.state == queued {
		args = append(args, "next", v.due.Format(time.RFC3339))
	}
	if !recorded {
		args = append(args, "recorded", false)
	}
	q.log.Info("attempt", args...)
}
