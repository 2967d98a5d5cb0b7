package queue

import (
	"context"
	"errors"
	"time"

	"mailsrv/storage/kv"
)

// judgement is what an outcome makes of a recipient.
type judgement struct {
	r       *recipient // as it was
	out     Outcome
	when    time.Time
	counts  bool // it was an attempt, and goes into the history
	state   state
	due     time.Time // of the next attempt, if queued
	told    bool
	expired bool
	notice  kind      // what the sender is to hear; mail: nothing
	until   time.Time // how long it will be tried, in a notice of delay
}

// judge decides what becomes of a recipient after an attempt.
func (q *Queue) judge(m *message, r *recipient, o Outcome, now time.Time) judgement {
	v := judgement{r: r, out: o, when: now, counts: true, told: r.told}
	switch {
	case o.Verdict == Delivered:
		v.state = delivered
		if m.sender != "" && (!o.Onward && r.notify.wants(notifySuccess) || deadlineLost(m, r, o)) {
			v.notice = noticeSuccess
		}
	case o.Verdict == Failed:
		v.state = failed
		v.notice = failureNotice(m, r)
	default:
		q.judgeDelay(&v, m, now)
	}
	return v
}

// deadlineLost reports whether the sender is to hear that a message with a deadline was handed on: nobody watches the deadline
// any more, or he wants to follow the message (RFC 2852 section 4.1.4.2, by-trace).
func deadlineLost(m *message, r *recipient, o Outcome) bool {
	if m.by.IsZero() || r.destination == here || r.notify&notifyNever != 0 {
		return false
	}
	return m.byTrace || m.byNotify && !o.TakesBy
}

// judgeDelay decides about a recipient that could not be reached so far: give up, or try again and maybe tell.
func (q *Queue) judgeDelay(v *judgement, m *message, now time.Time) {
	age, life := m.ageAt(now), q.lifetime(m, v.r)
	late := !m.by.IsZero() && !m.by.After(now)
	if age >= life || late && !m.byNotify {
		v.state, v.expired, v.notice = failed, true, failureNotice(m, v.r)
		return
	}
	v.due = fromMicros(micros(now.Add(max(jitter(q.retryAfter(v.r.attempts)), v.out.Wait))))
	v.until = now.Add(life - age)
	at := q.delayNotice(m, v.r)
	if at > 0 && (age >= at || late) {
		v.told, v.notice = true, noticeDelayed
	}
}

// failureNotice: the null sender hears nothing (RFC 5321 section 6.1); a bounce of ours that cannot be delivered is the
// postmaster's.
func failureNotice(m *message, r *recipient) kind {
	switch {
	case m.kind == noticeFailed:
		return noticePostmaster
	case m.sender != "" && r.notify.wants(notifyFailure):
		return noticeFailed
	}
	return mail
}

// retryAfter is how long to wait after an attempt, n attempts having gone before it.
func (q *Queue) retryAfter(n int) time.Duration {
	wait := q.policy.RetryFirst
	for ; n > 0 && wait < q.policy.RetryMax; n-- {
		wait *= 2
	}
	return min(wait, q.policy.RetryMax)
}

// conclude records judgements: states, histories, notices and the end of the message, all in one transaction. It does not
// give up before ctx ends (then it reports false): what is delivered and not recorded would be sent again.
func (q *Queue) conclude(ctx context.Context, m *message, judged []judgement) bool {
	if len(judged) == 0 {
		return true
	}
	notices, err := q.writeNotices(m, judged)
	for wait := time.Second; ; wait = min(2*wait, longestWait) {
		var gone bool
		if err == nil {
			gone, err = q.record(m.id, judged, notices)
		}
		if err == nil {
			q.concluded(m, gone, notices)
			return true
		}
		q.log.Error("what became of a message cannot be recorded", "id", m.id, "err", err, "again in", wait)
		if !sleep(ctx, wait) || errors.Is(err, kv.ErrClosed) {
			q.log.Error("gave up: it may be sent again", "id", m.id)
			q.dropNotices(notices)
			return false
		}
		if notices == nil {
			notices, err = q.writeNotices(m, judged)
		} else {
			err = nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// record is conclude's transaction. Recipients that an administrator has dropped meanwhile stay dropped, those he holds stay
// held unless they have come to an end.
func (q *Queue) record(id string, judged []judgement, notices []*notice) (gone bool, err error) {
	err = q.commits.do(len(notices) > 0, func(tx kv.Tx) error {
		gone = false
		m, err := readMessage(tx, id)
		if errors.Is(err, ErrNoMessage) {
			return q.putNotices(tx, notices)
		}
		if err != nil {
			return err
		}
		for _, v := range judged {
			if err := q.recordOne(tx, m, v); err != nil {
				return err
			}
		}
		if err := q.putNotices(tx, notices); err != nil {
			return err
		}
		gone, err = settleMessage(tx, m)
		return err
	})
	return gone, err
}

func (q *Queue) recordOne(tx kv.Tx, m *message, v judgement) error {
	r, err := readRecipient(tx, m.id, v.r.n)
	if err != nil || r == nil || !r.state.open() {
		return err
	}
	err = edit(tx, m, r, func() {
		if v.counts {
			r.remember(Attempt{When: v.when, Outcome: v.out})
		}
		r.told = r.told || v.told
		switch {
		case v.state != queued:
			r.state = v.state
		case r.now: // an administrator wants it now, whatever this attempt said
			r.due, r.now = fromMicros(micros(v.when)), false
		case v.counts:
			r.due = v.due
		}
	})
	if err == nil {
		err = q.suppressIfHard(tx, m, r, v)
	}
	return err
}

func (q *Queue) putNotices(tx kv.Tx, notices []*notice) error {
	for _, n := range notices {
		if tx.Get(keyMessage(n.m.id)) != nil {
			continue // a commit that reported an error has happened
		}
		if err := q.put(tx, n.m, n.rs); err != nil {
			return err
		}
	}
	return nil
}

// concluded does what comes after the commit.
func (q *Queue) concluded(m *message, gone bool, notices []*notice) {
	for _, n := range notices {
		q.entered(n.m, n.rs)
		q.meter.QueueNotice(n.name)
		q.log.Info("notice", "id", n.m.id, "about", m.id, "to", n.rs[0].address, "kind", n.name)
	}
	if gone {
		q.count(-1)
		if err := q.files.remove(m.id); err != nil {
			q.log.Error("a message that is done cannot be removed: the next start will", "id", m.id, "err", err)
		}
	}
}
