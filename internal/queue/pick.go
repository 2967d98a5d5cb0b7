package queue

import (
	"bytes"
	"errors"
	"time"

	"mailsrv/storage/kv"
)

const (
	// perTransaction is how many recipients of one message go in one attempt (RFC 5321 section 4.5.3.1.8: every server
	// takes 100).
	perTransaction = 100
	// chunk is how much of a long pass is done in one transaction.
	chunk = 500
)

// job is one message to recipients of one destination.
type job struct {
	m          *message
	rs         []*recipient // claimed
	suppressed []*suppression
}

func (j *job) numbers() []int {
	ns := make([]int, len(j.rs))
	for i, r := range j.rs {
		ns[i] = r.n
	}
	return ns
}

// pick claims the destination's most urgent mail that is due, or says when something will be (zero: nothing is there).
//
// The claim comes between two readings: what the first found may have been settled, and let go of, by an attempt that ended
// after the first began. Only what is still due after the claim is ours to send.
func (q *Queue) pick(destination string, now time.Time) (*job, time.Time, error) {
	for {
		slots, next, err := q.due(destination, now)
		if err != nil || len(slots) == 0 {
			return nil, next, err
		}
		id := slots[0].id
		var ns []int
		for _, s := range slots {
			ns = append(ns, s.n)
		}
		ns = q.scheduler.claim(id, ns)
		j, stale, err := q.take(id, ns, slots, destination)
		if j != nil {
			q.scheduler.release(id, without(ns, j.numbers()))
			return j, time.Time{}, nil
		}
		if err == nil && len(stale) > 0 {
			err = q.clean(destination, id, stale)
		}
		q.scheduler.release(id, ns)
		if err != nil {
			return nil, now.Add(longestWait), err
		}
	}
}

func without(all, some []int) (rest []int) {
	has := make(map[int]bool)
	for _, n := range some {
		has[n] = true
	}
	for _, n := range all {
		if !has[n] {
			rest = append(rest, n)
		}
	}
	return rest
}

// due finds the slots of one message that come first.
func (q *Queue) due(destination string, now time.Time) (slots []slot, next time.Time, err error) {
	prefix := duePrefix(destination)
	end := after(prefix)
	err = q.db.View(func(r kv.Reader) error {
		for class, from := 0, prefix; class < classes && len(slots) == 0; {
			found := false
			r.Scan(from, end, func(key, _ []byte) bool {
				found = true
				s, ok := parseSlot(key)
				switch {
				case !ok:
					q.log.Error("a due key of the queue is damaged", "key", string(key))
				case s.due.After(now):
					if len(slots) == 0 {
						if next.IsZero() || s.due.Before(next) {
							next = s.due
						}
						class = int(s.class) + 1
					}
					return false
				case len(slots) > 0 && (s.id != slots[0].id || s.due != slots[0].due || s.class != slots[0].class):
					return false
				case !q.scheduler.isClaimed(s.id, s.n):
					slots = append(slots, s)
				}
				class = classes
				return len(slots) < perTransaction
			})
			if !found {
				break
			}
			from = append(bytes.Clone(prefix), byte(class))
		}
		return nil
	})
	return slots, next, err
}

// take reads what was claimed again. Recipients whose mail goes elsewhere by now (routes have changed) and keys without a
// recipient are stale.
func (q *Queue) take(id string, ns []int, slots []slot, destination string) (j *job, stale []slot, err error) {
	byNumber := make(map[int]slot)
	for _, s := range slots {
		byNumber[s.n] = s
	}
	err = q.db.View(func(r kv.Reader) error {
		m, err := readMessage(r, id)
		if err != nil {
			q.log.Error("a message in the queue cannot be read", "id", id, "err", err)
			for _, n := range ns {
				stale = append(stale, byNumber[n])
			}
			return ignoreGone(err)
		}
		found := &job{m: m}
		for _, n := range ns {
			s := byNumber[n]
			one, err := readRecipient(r, id, n)
			if err != nil || one == nil || one.state != queued || !one.due.Equal(s.due) || one.destination != destination ||
				q.destination(m.sender, one.address) != destination {
				if err != nil {
					q.log.Error("a recipient in the queue is damaged", "id", id, "n", n, "err", err)
				}
				stale = append(stale, s)
				continue
			}
			found.rs = append(found.rs, one)
			found.suppressed = append(found.suppressed, q.suppression(r, one.address))
		}
		if len(found.rs) > 0 {
			j = found
		}
		return nil
	})
	return j, stale, err
}

// clean corrects due keys that are not what their recipients say: it moves mail to its new destination and removes keys
// that stand for nothing. Keys that have gone since they were read are not its business.
func (q *Queue) clean(destination, id string, slots []slot) error {
	var moved []string
	err := q.commits.do(false, func(tx kv.Tx) error {
		moved = nil
		m, err := readMessage(tx, id)
		for _, s := range slots {
			key := keyDue(destination, s.class, s.due, s.id, s.n)
			if tx.Get(key) == nil {
				continue
			}
			r, rErr := readRecipient(tx, id, s.n)
			good := err == nil && rErr == nil && r != nil && r.state == queued && r.destination == destination && r.due.Equal(s.due)
			if !good {
				if err := tx.Delete(key); err != nil {
					return err
				}
				continue
			}
			to := q.destination(m.sender, r.address)
			if err := edit(tx, m, r, func() { r.destination = to }); err != nil {
				return err
			}
			moved = append(moved, to)
		}
		return nil
	})
	for _, to := range moved {
		q.scheduler.wake(to, time.Time{})
	}
	return err
}

// ignoreGone is nil for a message that is no longer there, and for one that is damaged, which is told of by whoever reads it.
func ignoreGone(err error) error {
	if errors.Is(err, ErrNoMessage) || errors.Is(err, ErrDamaged) {
		return nil
	}
	return err
}

// loadDestinations makes the table of destinations, one step for each and none for a message.
func (q *Queue) loadDestinations() error {
	return q.db.View(func(r kv.Reader) error {
		eachDestination(r, func(name string) { q.scheduler.wake(name, time.Time{}) })
		return nil
	})
}

func eachDestination(r kv.Reader, fn func(name string)) {
	from, end := []byte(prefixDue), after([]byte(prefixDue))
	for found := true; found; {
		found = false
		r.Scan(from, end, func(key, _ []byte) bool {
			found = true
			name := key[len(prefixDue):]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			fn(string(name))
			from = after(duePrefix(string(name)))
			return false
		})
	}
}

// repairClock brings near what is due further off than any schedule can have meant: it was reckoned by a clock that has gone
// back since.
func (q *Queue) repairClock() error {
	now := q.now()
	far := now.Add(2*q.policy.RetryMax + time.Hour)
	for {
		var slots []slot
		err := q.db.View(func(r kv.Reader) error {
			eachDestination(r, func(name string) {
				for class := range classes {
					if len(slots) >= chunk {
						return
					}
					from := keyDue(name, byte(class), far, "", 0)
					from = from[:len(from)-2]
					r.Scan(from, append(duePrefix(name), byte(class)+1), func(key, _ []byte) bool {
						if s, ok := parseSlot(key); ok {
							slots = append(slots, s)
						}
						return len(slots) < chunk
					})
				}
			})
			return nil
		})
		if err != nil || len(slots) == 0 {
			return errors.Join(err, q.repairTimers(now))
		}
		if err := q.bringNear(slots, now); err != nil {
			return err
		}
	}
}

func (q *Queue) bringNear(slots []slot, now time.Time) error {
	return q.commits.do(false, func(tx kv.Tx) error {
		for _, s := range slots {
			m, err := readMessage(tx, s.id)
			if err != nil && ignoreGone(err) != nil {
				return err
			}
			r, rErr := readRecipient(tx, s.id, s.n)
			if err != nil || rErr != nil || r == nil || r.state != queued || !r.due.Equal(s.due) || r.destination != s.destination {
				if err := tx.Delete(keyDue(s.destination, s.class, s.due, s.id, s.n)); err != nil {
					return err
				}
				continue
			}
			if err := edit(tx, m, r, func() { r.due = fromMicros(micros(now.Add(jitter(q.policy.RetryFirst)))) }); err != nil {
				return err
			}
		}
		return nil
	})
}
