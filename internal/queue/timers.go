package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"mailsrv/storage/kv"
)

// Timers look after what the clock alone decides: lifetimes that end, senders who should hear of a delay, messages whose
// time of release has come, and ages. They do not depend on attempts: a destination that is left alone for hours may have a
// hundred thousand messages, and each has its lifetime.

func (q *Queue) kickTimers() {
	select {
	case q.timers <- struct{}{}:
	default:
	}
}

// runTimers looks at messages as their timers ring, until the queue stops.
func (q *Queue) runTimers() {
	timer := time.NewTimer(longestWait)
	defer timer.Stop()
	for {
		wait, err := q.ring()
		if err != nil {
			q.log.Error("the queue's timers cannot be looked at", "err", err)
			wait = longestWait
		}
		timer.Reset(min(max(wait, time.Millisecond), longestWait))
		select {
		case <-q.stopping:
			return
		case <-q.timers:
			// Every new message has a timer hours away; looking once in a while is enough for those that have not.
			if !sleepUnless(q.stopping, 100*time.Millisecond) {
				return
			}
		case <-timer.C:
		}
	}
}

// sleepUnless is false if the channel was closed.
func sleepUnless(stop <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-stop:
		return false
	}
}

// ring handles the timers that are due, a chunk at most, and returns how long until the next.
func (q *Queue) ring() (time.Duration, error) {
	now := q.now()
	var keys [][]byte
	wait := longestWait
	prefix := []byte(prefixTimer)
	err := q.db.View(func(r kv.Reader) error {
		r.Scan(prefix, after(prefix), func(key, _ []byte) bool {
			tail := key[len(prefix):]
			if len(tail) != 8+idLen {
				return true
			}
			when := fromMicros(binary.BigEndian.Uint64(tail))
			if when.After(now) {
				wait = min(wait, when.Sub(now))
				return false
			}
			keys = append(keys, bytes.Clone(key))
			return len(keys) < chunk
		})
		return nil
	})
	if err != nil || len(keys) == 0 {
		return wait, err
	}
	var owing []string // messages of which somebody must be told, each by itself
	var wake []string
	err = q.commits.do(false, func(tx kv.Tx) error {
		owing, wake = nil, nil
		for _, key := range keys {
			if err := tx.Delete(key); err != nil { // whatever is found: it has rung
				return err
			}
			id := string(key[len(key)-idLen:])
			owes, released, err := q.look(tx, id, now)
			if err != nil {
				return err
			}
			if owes {
				owing = append(owing, id)
			}
			wake = append(wake, released...)
		}
		return nil
	})
	for _, d := range wake {
		q.scheduler.wake(d, time.Time{})
	}
	for _, id := range owing {
		q.ringOne(id, now)
	}
	return 0, err
}

// look reckons a message's age and sets its next timer. It releases what waited for its time, and reports whether the clock
// has decided anything else.
func (q *Queue) look(tx kv.Tx, id string, now time.Time) (owes bool, released []string, err error) {
	m, err := readMessage(tx, id)
	var rs []*recipient
	if err == nil {
		err = eachRecipient(tx, id, func(r *recipient) { rs = append(rs, r) })
	}
	if err != nil {
		q.log.Error("a message in the queue cannot be read", "id", id, "err", err)
		return false, nil, nil
	}
	if !m.release.IsZero() && !m.release.After(now) {
		m.age, m.seen, m.release = 0, now, time.Time{}
		for _, r := range rs {
			if r.state == waiting {
				if err := edit(tx, m, r, func() { r.state, r.due = queued, fromMicros(micros(now)) }); err != nil {
					return false, nil, err
				}
				released = append(released, r.destination)
			}
		}
	}
	m.age, m.seen = m.ageAt(now), now
	for _, r := range rs {
		if _, rings := q.judgeClock(m, r, now); rings {
			owes = true
		}
	}
	next := q.nextLook(m, rs, now)
	if owes { // ringOne sets it anew; if that fails, it is tried again soon
		next = now.Add(longestWait)
	}
	if err := setTimer(tx, m, next); err != nil {
		return false, nil, err
	}
	return owes, released, tx.Put(keyMessage(id), m.encode())
}

// judgeClock says what the clock alone decides for a recipient.
func (q *Queue) judgeClock(m *message, r *recipient, now time.Time) (v judgement, rings bool) {
	if r.state != queued {
		return v, false
	}
	last := r.last()
	v = judgement{r: r, out: last.Outcome, when: now, told: r.told}
	v.out.Verdict = Deferred
	if r.attempts == 0 {
		v.out = Outcome{Status: "4.4.1", Text: "it could not be tried"}
		if why := q.scheduler.reason(r.destination); why != "" {
			v.out.Text = why
		}
	}
	v.out.complete()
	q.judgeDelay(&v, m, now)
	v.due = r.due
	return v, v.state != queued || v.notice != mail
}

// ringOne carries out what the clock has decided for one message.
func (q *Queue) ringOne(id string, now time.Time) {
	var m *message
	var rs []*recipient
	read := func() error {
		rs = nil
		return q.db.View(func(r kv.Reader) (err error) {
			if m, err = readMessage(r, id); err == nil {
				err = eachRecipient(r, id, func(r *recipient) { rs = append(rs, r) })
			}
			return err
		})
	}
	if read() != nil {
		return // gone, or told of by look
	}
	var all []int
	for _, r := range rs {
		all = append(all, r.n)
	}
	claimed := q.scheduler.claim(id, all) // an attempt under way decides for itself
	defer func() {
		q.scheduler.release(id, claimed)
		for _, r := range rs {
			q.scheduler.wake(r.destination, time.Time{})
		}
	}()
	if read() != nil {
		return
	}
	ours := make(map[int]bool)
	for _, n := range claimed {
		ours[n] = true
	}
	var judged []judgement
	for _, r := range rs {
		if v, rings := q.judgeClock(m, r, now); rings && ours[r.n] {
			judged = append(judged, v)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), longestWait)
	defer cancel()
	if !q.conclude(ctx, m, judged) {
		return
	}
	for _, v := range judged {
		if v.expired {
			q.log.Info("expired", "id", id, "to", v.r.address, "from", m.sender, "attempts", v.r.attempts, "reply", v.out.Text)
		}
	}
}

// repairTimers brings near the timers that a clock which has gone back since has set too far.
func (q *Queue) repairTimers(now time.Time) error {
	for {
		var keys [][]byte
		err := q.db.View(func(r kv.Reader) error {
			from, end := keyTimer(now.Add(2*lookStep), ""), after([]byte(prefixTimer))
			r.Scan(from, end, func(key, _ []byte) bool {
				id := string(key[len(prefixTimer)+8:])
				m, err := readMessage(r, id)
				if err != nil || !m.release.After(now) {
					keys = append(keys, append([]byte(nil), key...))
				}
				return len(keys) < chunk
			})
			return nil
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		err = q.commits.do(false, func(tx kv.Tx) error {
			for _, key := range keys {
				if err := tx.Delete(key); err != nil {
					return err
				}
				m, err := readMessage(tx, string(key[len(prefixTimer)+8:]))
				if err != nil {
					continue
				}
				if err := setTimer(tx, m, now.Add(longestWait)); err != nil {
					return err
				}
				m.seen = earlier(m.seen, now)
				if err := tx.Put(keyMessage(m.id), m.encode()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.After(b) {
		return b
	}
	return a
}
