package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailsrv/storage/kv"
)

// Item is a recipient in the queue, for people and programs.
type Item struct {
	ID          string    `json:"id"`
	Recipient   string    `json:"recipient"`
	State       string    `json:"state"` // queued, held, waiting; delivered and failed while others of the message are open
	Sender      string    `json:"sender"`
	Destination string    `json:"destination"`
	Arrived     time.Time `json:"arrived"`
	Next        time.Time `json:"next"` // when it is tried (again); zero if not by itself
	Attempts    int       `json:"attempts"`
	Size        int64     `json:"size"`
	Code        int       `json:"code,omitempty"` // of the last attempt, and the next three
	Status      string    `json:"status,omitempty"`
	Reply       string    `json:"reply,omitempty"`
	Remote      string    `json:"remote,omitempty"`
	For         string    `json:"for,omitempty"` // the address here that leads to the recipient
	Active      bool      `json:"active,omitempty"`
}

// Detail is a message in the queue with all that is known of it.
type Detail struct {
	ID         string            `json:"id"`
	Sender     string            `json:"sender"`
	Arrived    time.Time         `json:"arrived"`
	Age        time.Duration     `json:"age"` // as lifetimes count it, in nanoseconds
	Size       int64             `json:"size"`
	File       string            `json:"file"`
	Account    string            `json:"account,omitempty"`
	Peer       string            `json:"peer,omitempty"`
	Hello      string            `json:"hello,omitempty"`
	EnvelopeID string            `json:"envelope_id,omitempty"`
	Return     string            `json:"return,omitempty"`
	Priority   int               `json:"priority,omitempty"`
	RequireTLS bool              `json:"require_tls,omitempty"`
	Release    time.Time         `json:"release,omitzero"`
	DeliverBy  time.Time         `json:"deliver_by,omitzero"`
	Notice     string            `json:"notice,omitempty"` // the kind of a notice made here
	Recipients []DetailRecipient `json:"recipients"`
}

// DetailRecipient is one recipient with its history.
type DetailRecipient struct {
	Item
	Notify   []string        `json:"notify,omitempty"`
	Original string          `json:"original,omitempty"`
	Expires  time.Duration   `json:"expires"` // how much longer it is tried, in nanoseconds
	History  []DetailAttempt `json:"history"` // the first few and the latest, of Attempts in all
}

// DetailAttempt is one attempt.
type DetailAttempt struct {
	When     time.Time     `json:"when"`
	Result   string        `json:"result"`
	Code     int           `json:"code,omitempty"`
	Status   string        `json:"status"`
	Reply    string        `json:"reply"`
	Remote   string        `json:"remote,omitempty"`
	TLS      string        `json:"tls,omitempty"`
	Connect  time.Duration `json:"connect"`
	Transfer time.Duration `json:"transfer"`
}

// Selection says which recipients are meant: queue IDs, addresses, "@domain", "from:address" ("from:" alone is the null
// sender), or "all". One that fits is enough; none is nobody.
type Selection []string

// ErrSelection is returned for a word that selects nothing that could be.
var ErrSelection = errors.New("write queue IDs, addresses, @domain, from:ADDRESS, or all")

func (s Selection) check() error {
	for _, word := range s {
		if word != "all" && !validID(word) && !strings.Contains(word, "@") && !strings.HasPrefix(word, "from:") {
			return fmt.Errorf("%.60q: %w", word, ErrSelection)
		}
	}
	return nil
}

func (s Selection) fits(m *message, r *recipient) bool {
	for _, word := range s {
		from, isFrom := strings.CutPrefix(word, "from:")
		switch {
		case word == "all", word == m.id, isFrom && strings.EqualFold(from, m.sender):
			return true
		case strings.HasPrefix(word, "@"):
			if strings.EqualFold(word[1:], domainOf(r.address)) {
				return true
			}
		case strings.EqualFold(word, r.address):
			return true
		}
	}
	return false
}

// ids returns the messages that are meant if they are named, else nil: all have to be looked at.
func (s Selection) ids() (ids []string) {
	for _, word := range s {
		if !validID(word) {
			return nil
		}
		ids = append(ids, word)
	}
	return ids
}

// List calls fn for the recipients selected, by message in the order of arrival, until it returns false. Damaged records are
// reported in the error after all others.
func (q *Queue) List(s Selection, fn func(Item) bool) error {
	if err := s.check(); err != nil {
		return err
	}
	var damage []error
	err := q.db.View(func(r kv.Reader) error {
		one := func(m *message) bool {
			more := true
			err := eachRecipient(r, m.id, func(one *recipient) {
				if more && s.fits(m, one) {
					more = fn(q.item(m, one))
				}
			})
			if err != nil {
				damage = append(damage, err)
			}
			return more
		}
		if ids := s.ids(); ids != nil {
			for _, id := range ids {
				m, err := readMessage(r, id)
				if err != nil {
					damage = append(damage, err)
				} else if !one(m) {
					return nil
				}
			}
			return nil
		}
		prefix := []byte(prefixMessage)
		r.Scan(prefix, after(prefix), func(key, value []byte) bool {
			m, err := decodeMessage(string(key[len(prefix):]), value)
			if err != nil {
				damage = append(damage, err)
				return len(damage) < 100
			}
			return one(m)
		})
		return nil
	})
	return errors.Join(append(damage, err)...)
}

func (q *Queue) item(m *message, r *recipient) Item {
	i := Item{ID: m.id, Recipient: r.address, State: r.state.String(), Sender: m.sender, Destination: r.destination,
		Arrived: m.arrived, Attempts: r.attempts, Size: m.size - m.skip, For: r.instead, Active: q.scheduler.isClaimed(m.id, r.n)}
	switch r.state {
	case queued:
		i.Next = r.due
	case waiting:
		i.Next = m.release
	}
	last := r.last()
	i.Code, i.Status, i.Reply, i.Remote = last.Code, last.Status, last.Text, last.Remote
	return i
}

// Show tells all about a message: ErrNoMessage, ErrDamaged.
func (q *Queue) Show(id string) (Detail, error) {
	var d Detail
	now := q.now()
	err := q.db.View(func(r kv.Reader) error {
		m, err := readMessage(r, id)
		if err != nil {
			return err
		}
		d = Detail{ID: m.id, Sender: m.sender, Arrived: m.arrived, Age: m.ageAt(now), Size: m.size, File: q.files.path(id),
			Account: m.account, Peer: m.peer, Hello: m.hello, EnvelopeID: m.envelopeID, Return: m.ret, Priority: m.priority, RequireTLS: m.requireTLS,
			Release: m.release, DeliverBy: m.by, Notice: noticeNames[m.kind]}
		return eachRecipient(r, id, func(r *recipient) {
			one := DetailRecipient{Item: q.item(m, r), Notify: r.notify.words(), Original: r.original,
				Expires: max(q.lifetime(m, r)-m.ageAt(now), 0)}
			for _, a := range r.history {
				one.History = append(one.History, DetailAttempt{a.When, a.Verdict.String(), a.Code, a.Status, a.Text, a.Remote, a.TLS,
					a.Connect, a.Transfer})
			}
			d.Recipients = append(d.Recipients, one)
		})
	})
	return d, err
}

// Retry makes what is selected due now, and returns how many recipients that are. What is held stays held.
func (q *Queue) Retry(s Selection) (int, error) {
	now := q.now()
	return q.change(s, func(tx kv.Tx, m *message, r *recipient) (bool, error) {
		if r.state != queued {
			return false, nil
		}
		return true, edit(tx, m, r, func() {
			r.now = q.scheduler.isClaimed(m.id, r.n) // then once more after the attempt under way
			if !r.now {
				r.due = fromMicros(micros(now))
			}
		})
	})
}

// Hold keeps what is selected back until it is released; it does not expire meanwhile. An attempt under way goes on.
func (q *Queue) Hold(s Selection) (int, error) {
	return q.change(s, func(tx kv.Tx, m *message, r *recipient) (bool, error) {
		if r.state != queued && r.state != waiting {
			return false, nil
		}
		return true, edit(tx, m, r, func() { r.state = held })
	})
}

// Release lets go of what is held, and of what waits for its release time.
func (q *Queue) Release(s Selection) (int, error) {
	now := q.now()
	return q.change(s, func(tx kv.Tx, m *message, r *recipient) (bool, error) {
		if r.state != held && r.state != waiting {
			return false, nil
		}
		if m.release.After(now) {
			m.age, m.seen, m.release = 0, now, time.Time{}
			if err := setTimer(tx, m, now.Add(longestWait)); err != nil {
				return false, err
			}
		}
		return true, edit(tx, m, r, func() { r.state, r.due = queued, fromMicros(micros(now)) })
	})
}

// Drop removes what is selected, and nobody hears of it.
func (q *Queue) Drop(s Selection) (int, error) {
	now := q.now()
	return q.change(s, func(tx kv.Tx, m *message, r *recipient) (bool, error) {
		if !r.state.open() {
			return false, nil
		}
		return true, edit(tx, m, r, func() {
			r.state = failed
			r.remember(Attempt{When: now, Outcome: Outcome{Verdict: Failed, Status: "5.3.0", Text: "dropped by the administrator"}})
		})
	})
}

// target is a recipient that an administrator means.
type target struct {
	id string
	n  int
}

// change applies fn to all that is selected, a chunk to a transaction.
func (q *Queue) change(s Selection, fn func(kv.Tx, *message, *recipient) (bool, error)) (int, error) {
	if err := s.check(); err != nil {
		return 0, err
	}
	if ids := s.ids(); ids != nil {
		for _, id := range ids {
			if err := q.exists(id); err != nil {
				return 0, err
			}
		}
	}
	total := 0
	for from := []byte(prefixRecipient); from != nil; {
		var targets []target
		var err error
		if targets, from, err = q.targets(s, from); err != nil {
			return total, err
		}
		n, err := q.changeChunk(targets, fn)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (q *Queue) exists(id string) error {
	return q.db.View(func(r kv.Reader) error {
		_, err := readMessage(r, id)
		if errors.Is(err, ErrDamaged) {
			return nil
		}
		return err
	})
}

// targets finds the next chunk of what is selected, and from where to go on (nil: that was all).
func (q *Queue) targets(s Selection, from []byte) (all []target, next []byte, err error) {
	end := after([]byte(prefixRecipient))
	ids := s.ids()
	err = q.db.View(func(r kv.Reader) error {
		var m *message
		one := func(key, value []byte) bool {
			if len(key) != len(prefixRecipient)+idLen+2 {
				return true
			}
			id := string(key[len(prefixRecipient):][:idLen])
			n := int(binary.BigEndian.Uint16(key[len(key)-2:]))
			if m == nil || m.id != id {
				if m, err = readMessage(r, id); err != nil {
					m = &message{id: id} // damaged: by its ID it can still be dropped
				}
			}
			rec, err := decodeRecipient(id, n, value)
			if err == nil && s.fits(m, rec) {
				all = append(all, target{id, n})
			}
			if len(all) >= chunk {
				next = append(append([]byte(nil), key...), 0)
				return false
			}
			return true
		}
		if ids == nil {
			r.Scan(from, end, one)
			return nil
		}
		for _, id := range ids {
			prefix := []byte(prefixRecipient + id)
			r.Scan(prefix, after(prefix), func(key, value []byte) bool { one(key, value); return true })
		}
		next = nil
		return nil
	})
	return all, next, err
}

// changeChunk runs fn on targets, which are ordered by message, in one transaction.
func (q *Queue) changeChunk(targets []target, fn func(kv.Tx, *message, *recipient) (bool, error)) (n int, err error) {
	var gone []string
	wake := make(map[string]bool)
	err = q.commits.do(false, func(tx kv.Tx) error {
		n, gone = 0, nil
		clear(wake)
		for rest := targets; len(rest) > 0; {
			id, some := rest[0].id, 1
			for some < len(rest) && rest[some].id == id {
				some++
			}
			done, err := changeOne(tx, id, rest[:some], func(m *message, r *recipient) (bool, error) {
				changed, err := fn(tx, m, r)
				if changed {
					n++
					wake[r.destination] = true
				}
				return changed, err
			})
			if err != nil {
				return err
			}
			if done {
				gone = append(gone, id)
			}
			rest = rest[some:]
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, id := range gone {
		q.concluded(&message{id: id}, true, nil)
	}
	now := q.now()
	for d := range wake {
		q.scheduler.attend(d)
		q.scheduler.wake(d, now)
	}
	q.kickTimers()
	return n, nil
}

// changeOne runs fn on recipients of one message, and reports whether that was its end. What is gone or damaged is passed over.
func changeOne(tx kv.Tx, id string, targets []target, fn func(*message, *recipient) (bool, error)) (gone bool, err error) {
	m, err := readMessage(tx, id)
	if err != nil {
		return false, ignoreGone(err)
	}
	for _, t := range targets {
		r, err := readRecipient(tx, id, t.n)
		if err != nil || r == nil {
			continue
		}
		if _, err := fn(m, r); err != nil {
			return false, err
		}
	}
	return settleMessage(tx, m)
}
