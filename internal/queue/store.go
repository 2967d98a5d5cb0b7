package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"mailsrv/storage/kv"
)

const (
	// lookStep is the longest a message goes without being looked at, and ageStep what one look adds to its age at most: a
	// server that was off for a night counts it whole.
	lookStep = 4 * time.Hour
	ageStep  = 8 * time.Hour
)

func (q *Queue) checkFormat() error {
	var version uint64
	err := q.db.View(func(r kv.Reader) error {
		value := r.Get([]byte(keyFormat))
		if value == nil {
			return nil
		}
		d := decoder{kv.Value{Rest: value}}
		version = d.Below(1 << 32)
		return d.end(keyFormat)
	})
	switch {
	case err != nil:
		return err
	case version > formatVersion:
		return fmt.Errorf("system.db has the queue in format %d, and this program knows %d: %w", version, formatVersion, ErrNewerFormat)
	}
	q.files.known = version > 0
	return nil
}

// reconcile holds the files against the entries. A file without an entry was never promised to anyone: it is removed. An
// entry without a file is damage: it is told of here and bounces at its next attempt. In a database that has never had a
// queue nothing is removed: somebody has lost a system.db, and the files are all that is left.
func (q *Queue) reconcile() error {
	left := make(map[string]string) // ID → path
	err := q.files.each(func(id, path string) error {
		left[id] = path
		return nil
	})
	if err != nil {
		return err
	}
	if !q.files.known {
		if len(left) > 0 {
			q.log.Error("the queue's folder has messages and system.db knows no queue: they are left alone", "messages", len(left))
		}
		return q.db.Update(func(tx kv.Tx) error {
			return tx.Put([]byte(keyFormat), binary.AppendUvarint(nil, formatVersion))
		})
	}
	missing := 0
	err = q.db.View(func(r kv.Reader) error {
		prefix := []byte(prefixMessage)
		r.Scan(prefix, after(prefix), func(key, _ []byte) bool {
			id := string(key[len(prefix):])
			q.messages++
			if _, there := left[id]; !there {
				if missing++; missing <= 100 {
					q.log.Error("the message of a queue entry is gone: it will bounce", "id", id)
				}
			}
			delete(left, id)
			return true
		})
		return nil
	})
	for id, path := range left {
		if validID(id) {
			err = errors.Join(err, q.files.fs.Remove(path))
			q.log.Info("removed a message that was not accepted before the crash", "id", id)
		}
	}
	return err
}

// message reads a message; ErrNoMessage, ErrDamaged.
func readMessage(r kv.Reader, id string) (*message, error) {
	value := r.Get(keyMessage(id))
	if value == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoMessage, id)
	}
	return decodeMessage(id, value)
}

// readRecipient returns nil, nil if there is none.
func readRecipient(r kv.Reader, id string, n int) (*recipient, error) {
	value := r.Get(keyRecipient(id, n))
	if value == nil {
		return nil, nil
	}
	return decodeRecipient(id, n, value)
}

// eachRecipient calls fn for a message's recipients in order. A damaged one ends it.
func eachRecipient(r kv.Reader, id string, fn func(*recipient)) (err error) {
	prefix := []byte(prefixRecipient + id)
	r.Scan(prefix, after(prefix), func(key, value []byte) bool {
		if len(key) != len(prefix)+2 {
			return true
		}
		var one *recipient
		if one, err = decodeRecipient(id, int(binary.BigEndian.Uint16(key[len(prefix):])), value); err == nil {
			fn(one)
		}
		return err == nil
	})
	return err
}

// edit changes a recipient in a transaction and keeps its due key and the message's count right. The caller writes the
// message with settleMessage.
func edit(tx kv.Tx, m *message, r *recipient, change func()) error {
	if r.state == queued {
		if err := tx.Delete(keyDue(r.destination, m.class(), r.due, m.id, r.n)); err != nil {
			return err
		}
	}
	wasOpen := r.state.open()
	change()
	if wasOpen && !r.state.open() {
		m.open--
	}
	return putRecipient(tx, m, r)
}

func putRecipient(tx kv.Tx, m *message, r *recipient) error {
	if r.state == queued {
		if err := tx.Put(keyDue(r.destination, m.class(), r.due, m.id, r.n), nil); err != nil {
			return err
		}
	}
	return tx.Put(keyRecipient(m.id, r.n), r.encode())
}

// settleMessage writes a message after its recipients were edited, or removes all of it if none is open; then it reports
// true, and its file is to be removed after the commit.
func settleMessage(tx kv.Tx, m *message) (gone bool, err error) {
	if m.open > 0 {
		return false, tx.Put(keyMessage(m.id), m.encode())
	}
	keys := [][]byte{keyMessage(m.id), keyTimer(m.timer, m.id)}
	if tx.Get(keyFront(m.id)) != nil {
		keys = append(keys, keyFront(m.id))
	}
	prefix := []byte(prefixRecipient + m.id)
	tx.Scan(prefix, after(prefix), func(key, _ []byte) bool {
		keys = append(keys, append([]byte(nil), key...))
		return true
	})
	for _, key := range keys {
		if err := tx.Delete(key); err != nil {
			return false, err
		}
	}
	return true, nil
}

// setTimer moves a message's timer; the caller writes the message.
func setTimer(tx kv.Tx, m *message, when time.Time) error {
	if !m.timer.IsZero() {
		if err := tx.Delete(keyTimer(m.timer, m.id)); err != nil {
			return err
		}
	}
	m.timer = fromMicros(micros(when)) // as it will be read back
	return tx.Put(keyTimer(m.timer, m.id), nil)
}

// ageAt is how long a message has been tried for, as the package comment reckons.
func (m *message) ageAt(now time.Time) time.Duration {
	if m.release.After(now) {
		return 0
	}
	return m.age + min(max(now.Sub(m.seen), 0), ageStep)
}

// lifetime is how long a recipient of a message is tried.
func (q *Queue) lifetime(m *message, r *recipient) time.Duration {
	whole := q.policy.Lifetime
	if d := q.domainPolicy(r).Lifetime; d > 0 {
		whole = d
	}
	if m.sender == "" {
		whole = min(whole, q.policy.NoticeLifetime)
	}
	return whole
}

// delayNotice is the age at which the sender wants to hear of a delay; 0 is never.
func (q *Queue) delayNotice(m *message, r *recipient) time.Duration {
	at := q.policy.DelayNotice
	if d := q.domainPolicy(r).DelayNotice; d != 0 {
		at = d
	}
	if at < 0 || r.told || m.sender == "" || !r.notify.wants(notifyDelay) {
		return 0
	}
	return at
}

func (q *Queue) domainPolicy(r *recipient) DomainPolicy {
	if q.policy.Domain == nil {
		return DomainPolicy{}
	}
	return q.policy.Domain(domainOf(r.address))
}

// wants says whether a recipient's sender wants a kind of notice: RFC 3461 section 4.1; without NOTIFY, of failures and
// delays.
func (n notify) wants(kind notify) bool {
	if n == 0 {
		n = notifyFailure | notifyDelay
	}
	return n&kind != 0
}

// nextLook is when a message is to be looked at again by the clock.
func (q *Queue) nextLook(m *message, recipients []*recipient, now time.Time) time.Time {
	if m.release.After(now) {
		return m.release
	}
	age := m.ageAt(now)
	next := lookStep
	for _, r := range recipients {
		if r.state != queued {
			continue
		}
		for _, at := range []time.Duration{q.lifetime(m, r), q.delayNotice(m, r)} {
			if at > 0 {
				next = min(next, max(at-age, 0)+time.Second) // ages are kept in seconds
			}
		}
	}
	if m.by.After(now) {
		next = min(next, m.by.Sub(now))
	}
	return now.Add(next)
}
