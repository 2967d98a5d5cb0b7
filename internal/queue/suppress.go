package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailsrv/internal/directory"
	"mailsrv/storage/kv"
)

// maxSuppressed bounds the list: beyond it the address whose time ends first makes room.
const maxSuppressed = 100_000

// Suppressed is an address that gets no mail from here for a while: a server has said that it does not exist. Mail for it
// fails at once. It is not asked about again, since servers think little of those who keep on asking.
type Suppressed struct {
	Address string    `json:"address"`
	Added   time.Time `json:"added"`
	Until   time.Time `json:"until"` // zero: for ever
	Status  string    `json:"status,omitempty"`
	Text    string    `json:"text,omitempty"`
	ID      string    `json:"id,omitempty"` // the message that bounced; "" if somebody has added the address
}

type suppression Suppressed

// forever is what is stored for no end.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *suppression) outcome() Outcome {
	text := "this address was refused on " + s.Added.Format("2006-01-02") + " and is not tried again before " +
		s.Until.Format("2006-01-02 15:04 MST") + ": " + s.Text
	if s.ID == "" {
		text = "mail to this address is stopped here: " + s.Text
	}
	return Outcome{Verdict: Failed, Status: s.Status, Text: text}
}

func (s *suppression) encode() []byte {
	b := binary.AppendUvarint(nil, micros(s.Added))
	b = binary.AppendUvarint(b, micros(s.Until))
	for _, text := range []string{s.Status, s.Text, s.ID} {
		b = kv.AppendText(b, text)
	}
	return b
}

func decodeSuppression(address string, value []byte) (*suppression, error) {
	d := decoder{kv.Value{Rest: value}}
	s := &suppression{Address: address, Added: d.time(), Until: d.time(), Status: d.Text(), Text: d.Text(), ID: d.Text()}
	return s, d.end(prefixSuppressed + address)
}

func keySuppressed(address string) []byte { return []byte(prefixSuppressed + address) }

func keyUntil(until time.Time, address string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(prefixUntil), micros(until)), address...)
}

// listed is how an address is known on the list: its domain in A-labels, all in lower case. (RFC 5321 section 2.4 has local
// parts that differ in case only; no server in use does.)
func listed(address string) string {
	if canonical, err := directory.Canonical(address); err == nil {
		return canonical
	}
	return strings.ToLower(clip(address, maxName))
}

// suppression returns what the list has on an address, nil if nothing (any more).
func (q *Queue) suppression(r kv.Reader, address string) *suppression {
	value := r.Get(keySuppressed(listed(address)))
	if value == nil {
		return nil
	}
	s, err := decodeSuppression(listed(address), value)
	if err != nil {
		q.log.Error("a suppressed address is damaged", "err", err)
		return nil
	}
	if !s.Until.After(q.now()) {
		return nil
	}
	return s
}

// isHard reports whether an outcome says that there is no such mailbox or domain (RFC 3463 section 3.2), by the other side's
// own words: 5.1.1, 5.1.2, 5.1.6, 5.1.10.
func isHard(o Outcome) bool {
	if o.Verdict != Failed || o.Code < 500 || o.Remote == "" {
		return false
	}
	switch o.Status {
	case "5.1.1", "5.1.2", "5.1.6", "5.1.10":
		return true
	}
	return false
}

// suppressIfHard lists a recipient that an attempt found not to exist.
func (q *Queue) suppressIfHard(tx kv.Tx, m *message, r *recipient, v judgement) error {
	if q.policy.Suppress <= 0 || !v.counts || r.destination == here || !isHard(v.out) {
		return nil
	}
	now := q.now()
	return q.suppress(tx, &suppression{Address: listed(r.address), Added: now, Until: now.Add(q.policy.Suppress), Status: v.out.Status,
		Text: clip(v.out.Text, 200), ID: m.id})
}

func (q *Queue) suppress(tx kv.Tx, s *suppression) error {
	if _, err := q.unsuppress(tx, s.Address); err != nil {
		return err
	}
	q.mu.Lock()
	full := q.suppressed >= maxSuppressed
	q.mu.Unlock()
	if err := q.expireSuppressed(tx, full); err != nil {
		return err
	}
	q.countSuppression(1)
	return errors.Join(tx.Put(keySuppressed(s.Address), s.encode()), tx.Put(keyUntil(s.Until, s.Address), nil))
}

func (q *Queue) countSuppression(n int) {
	q.mu.Lock()
	q.suppressed += n
	q.mu.Unlock()
}

// expireSuppressed removes some of those whose time is over, and if need be the one whose time is over next.
func (q *Queue) expireSuppressed(tx kv.Tx, one bool) error {
	const some = 4
	prefix := []byte(prefixUntil)
	now := micros(q.now())
	var addresses []string
	tx.Scan(prefix, after(prefix), func(key, _ []byte) bool {
		tail := key[len(prefix):]
		if len(tail) < 8 || binary.BigEndian.Uint64(tail) > now && !(one && len(addresses) == 0) {
			return false
		}
		addresses = append(addresses, string(tail[8:]))
		return len(addresses) < some
	})
	for _, a := range addresses {
		if _, err := q.unsuppress(tx, a); err != nil {
			return err
		}
	}
	return nil
}

// unsuppress takes an address off the list and reports whether it was on it.
func (q *Queue) unsuppress(tx kv.Tx, address string) (bool, error) {
	value := tx.Get(keySuppressed(address))
	if value == nil {
		return false, nil
	}
	if s, err := decodeSuppression(address, value); err == nil {
		if err := tx.Delete(keyUntil(s.Until, address)); err != nil {
			return false, err
		}
	}
	q.countSuppression(-1)
	return true, tx.Delete(keySuppressed(address))
}

func (q *Queue) countSuppressed() error {
	return q.db.View(func(r kv.Reader) error {
		prefix := []byte(prefixSuppressed)
		r.Scan(prefix, after(prefix), func([]byte, []byte) bool {
			q.suppressed++
			return true
		})
		return nil
	})
}

// Suppress adds an address to the list, for a time or (0) for ever; why is told to those who write to it.
func (q *Queue) Suppress(address, why string, lasting time.Duration) error {
	canonical, err := directory.Canonical(address)
	if err != nil {
		return err
	}
	now := q.now()
	s := &suppression{Address: canonical, Added: now, Until: forever, Status: "5.7.1", Text: clip(why, 200)}
	if lasting > 0 {
		s.Until = now.Add(lasting)
	}
	if s.Text == "" {
		s.Text = "the administrator has stopped it"
	}
	return q.commits.do(false, func(tx kv.Tx) error { return q.suppress(tx, s) })
}

// Unsuppress takes an address off the list: ErrNotSuppressed if it is not on it.
func (q *Queue) Unsuppress(address string) error {
	found := false
	err := q.commits.do(false, func(tx kv.Tx) (err error) {
		found, err = q.unsuppress(tx, listed(address))
		return err
	})
	if err == nil && !found {
		return fmt.Errorf("%w: %s", ErrNotSuppressed, address)
	}
	return err
}

// ErrNotSuppressed is returned for an address that is not on the list.
var ErrNotSuppressed = errors.New("the address is not on the suppression list")

// SuppressedAddresses calls fn for those on the list in order until it returns false.
func (q *Queue) SuppressedAddresses(fn func(Suppressed) bool) error {
	now := q.now()
	return q.db.View(func(r kv.Reader) error {
		prefix := []byte(prefixSuppressed)
		r.Scan(prefix, after(prefix), func(key, value []byte) bool {
			s, err := decodeSuppression(string(key[len(prefix):]), value)
			if err != nil || !s.Until.After(now) {
				return true
			}
			if s.Until.Equal(forever) {
				s.Until = time.Time{}
			}
			return fn(Suppressed(*s))
		})
		return nil
	})
}
