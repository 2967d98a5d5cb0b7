package queue

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailsrv/storage/kv"
)

// The queue's part of system.db. "uvarint" and "varint" are those of encoding/binary; "str" is a uvarint length and that
// many bytes; "time" is microseconds since 1970 as a uvarint, 0 for none, and as u64 (big-endian) in keys; "secs" is a
// uvarint of seconds; "millis" of milliseconds; ID is the queue ID's 16 bytes; N a recipient's number in its message, u16
// (big-endian); DEST a destination, which has no zero byte.
//
//	key                                   value
//	"queue/format"                        | version uvarint |                      today 1
//	"queue/m/" ID                         a message, below
//	"queue/r/" ID N                       a recipient, below
//	"queue/f/" ID                         header fields that are sent in front of the message; none: no key
//	"queue/d/" DEST 00 CLASS DUE ID N     empty: the recipient is to be tried at DUE (u64). CLASS is 9 minus the
//	                                      priority (u8, 0..18): of what is due the most urgent comes first
//	"queue/t/" WHEN ID                    empty: the message is to be looked at, WHEN (u64), whatever its destinations do
//	"queue/x/" ADDRESS                    | added time | until time | status str | text str | queue id str |
//	"queue/y/" UNTIL ADDRESS              empty: when (u64) the suppression of an address ends
//
//	message:   | arrived time | age secs | seen time | timer time | open uvarint | count uvarint | size uvarint |
//	           | skip uvarint | flags u8 | kind u8 | priority varint | release time | by time | sender str |
//	           | envelope id str | body str | return str | account str | hello str | peer str |
//	recipient: | state u8 | flags u8 | notify u8 | due time | attempts uvarint | address str | original str | for str |
//	           | destination str | kept uvarint | attempt ... |
//	attempt:   | when time | verdict u8 | code uvarint | status str | text str | remote str | tls str |
//	           | connect millis | transfer millis |
//
//	message flags:   1 SMTPUTF8, 2 REQUIRETLS, 4 "by" only asks for a notice (RFC 2852's mode N), 8 its T
//	kind:            0 mail; notices made here: 1 failed, 2 delayed, 3 success, 4 to the postmaster
//	recipient state: 0 queued, 1 held, 2 waiting for its release time, 3 delivered, 4 failed
//	recipient flags: 1 the sender has been told of the delay, 2 the next attempt is wanted now
//	notify:          1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 is the default
//
// What must hold: a recipient has its "queue/d/" key if and only if it is queued, with its own due time and destination;
// open counts the recipients in states 0 to 2, and when it becomes 0 everything of the message goes; a message has one
// "queue/t/" key, with its timer. The file "new/"ID is there before the entry is and goes after it.
//
// Version rule: a change to any of this is a new version. A newer version is refused (ErrNewerFormat) before anything is
// read or written. A value that does not decode, or that has bytes left over, is damage: it is reported and left alone, and
// the rest of the queue goes on.
const formatVersion = 1

const (
	keyFormat        = "queue/format"
	prefixMessage    = "queue/m/"
	prefixRecipient  = "queue/r/"
	prefixFront      = "queue/f/"
	prefixDue        = "queue/d/"
	prefixTimer      = "queue/t/"
	prefixSuppressed = "queue/x/"
	prefixUntil      = "queue/y/"

	idLen = 16

	// Bounds on what is kept.
	maxRecipients = 1<<16 - 1 // of one message
	maxHistory    = 64        // attempts kept of a recipient: the first keepFirst and the latest
	keepFirst     = 8
	maxText       = 1000 // octets of an answer
	maxName       = 300  // octets of a name of a server or of a TLS state
	maxEncoded    = 4096 // octets of any string that is read back
)

type state uint8

const (
	queued state = iota
	held
	waiting
	delivered
	failed
)

func (s state) open() bool { return s <= waiting }

func (s state) String() string {
	return [...]string{"queued", "held", "waiting", "delivered", "failed"}[s]
}

type kind uint8

const (
	mail kind = iota
	noticeFailed
	noticeDelayed
	noticeSuccess
	noticePostmaster
)

type notify uint8

const (
	notifyNever notify = 1 << iota
	notifySuccess
	notifyFailure
	notifyDelay
)

// message is a message in the queue.
type message struct {
	id      string
	arrived time.Time
	age     time.Duration // see the package comment
	seen    time.Time     // when age was reckoned
	timer   time.Time
	open    int // recipients without an end yet
	count   int // recipients

	size int64 // of the file
	skip int64 // octets at its start that are not sent: Return-Path

	front []byte // only while it is taken over: see frontOf

	utf8, requireTLS, byNotify, byTrace bool

	kind     kind
	priority int
	release  time.Time // RFC 4865: not before
	by       time.Time // RFC 2852: a deadline

	sender, envelopeID, body, ret string
	account, hello, peer          string
}

// recipient is one recipient of a message.
type recipient struct {
	n           int
	state       state
	told        bool
	notify      notify
	now         bool
	due         time.Time
	attempts    int // in all; history is bounded
	address     string
	original    string // ORCPT
	instead     string // the address here that led to this one, "" if none did
	destination string
	history     []Attempt
}

// Attempt is one try at one recipient.
type Attempt struct {
	When time.Time
	Outcome
}

func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixMicro(), 1))
}

func fromMicros(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(n)).UTC()
}

func keyMessage(id string) []byte { return []byte(prefixMessage + id) }
func keyFront(id string) []byte   { return []byte(prefixFront + id) }

func keyRecipient(id string, n int) []byte {
	return binary.BigEndian.AppendUint16([]byte(prefixRecipient+id), uint16(n))
}

func keyTimer(when time.Time, id string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(prefixTimer), micros(when)), id...)
}

// duePrefix is what all keys of a destination begin with.
func duePrefix(destination string) []byte { return append([]byte(prefixDue+destination), 0) }

func keyDue(destination string, class byte, due time.Time, id string, n int) []byte {
	key := append(duePrefix(destination), class)
	key = binary.BigEndian.AppendUint64(key, micros(due))
	return binary.BigEndian.AppendUint16(append(key, id...), uint16(n))
}

func (m *message) class() byte { return byte(9 - min(max(m.priority, -9), 9)) }

const classes = 19

// slot is what a "queue/d/" key says.
type slot struct {
	destination string
	class       byte
	due         time.Time
	id          string
	n           int
}

const slotTail = 1 + 8 + idLen + 2

// parseSlot takes a "queue/d/" key apart.
func parseSlot(key []byte) (s slot, ok bool) {
	rest, ok := strings.CutPrefix(string(key), prefixDue)
	end := strings.IndexByte(rest, 0)
	if !ok || end < 0 || len(rest) != end+1+slotTail {
		return slot{}, false
	}
	tail := rest[end+1:]
	s = slot{destination: rest[:end], class: tail[0], id: tail[9 : 9+idLen]}
	s.due = fromMicros(binary.BigEndian.Uint64([]byte(tail[1:9])))
	s.n = int(binary.BigEndian.Uint16([]byte(tail[9+idLen:])))
	return s, s.class < classes
}

// after is the least key greater than all that begin with the prefix.
func after(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

func (m *message) encode() []byte {
	b := make([]byte, 0, 128+len(m.sender))
	b = binary.AppendUvarint(b, micros(m.arrived))
	b = binary.AppendUvarint(b, uint64(max(m.age, 0)/time.Second))
	b = binary.AppendUvarint(b, micros(m.seen))
	b = binary.AppendUvarint(b, micros(m.timer))
	b = binary.AppendUvarint(b, uint64(m.open))
	b = binary.AppendUvarint(b, uint64(m.count))
	b = binary.AppendUvarint(b, uint64(m.size))
	b = binary.AppendUvarint(b, uint64(m.skip))
	b = append(b, bit(m.utf8, 1)|bit(m.requireTLS, 2)|bit(m.byNotify, 4)|bit(m.byTrace, 8), byte(m.kind))
	b = binary.AppendVarint(b, int64(m.priority))
	b = binary.AppendUvarint(b, micros(m.release))
	b = binary.AppendUvarint(b, micros(m.by))
	for _, s := range []string{m.sender, m.envelopeID, m.body, m.ret, m.account, m.hello, m.peer} {
		b = kv.AppendText(b, s)
	}
	return b
}

func decodeMessage(id string, value []byte) (*message, error) {
	d := decoder{kv.Value{Rest: value}}
	m := &message{id: id, arrived: d.time(), age: time.Duration(d.Below(1<<32)) * time.Second, seen: d.time(), timer: d.time(),
		open: int(d.Below(maxRecipients + 1)), count: int(d.Below(maxRecipients + 1)),
		size: int64(d.Below(1 << 62)), skip: int64(d.Below(1 << 62))}
	flags := d.Byte(15)
	m.utf8, m.requireTLS, m.byNotify, m.byTrace = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0
	m.kind = kind(d.Byte(7))
	m.priority = d.priority()
	m.release, m.by = d.time(), d.time()
	for _, s := range []*string{&m.sender, &m.envelopeID, &m.body, &m.ret, &m.account, &m.hello, &m.peer} {
		*s = d.Text()
	}
	if m.kind > noticePostmaster || m.open > m.count || m.skip > m.size {
		d.Bad = true
	}
	return m, d.end(prefixMessage + id)
}

func (r *recipient) encode() []byte {
	b := make([]byte, 0, 64+len(r.address)+len(r.destination)+100*len(r.history))
	b = append(b, byte(r.state), bit(r.told, 1)|bit(r.now, 2), byte(r.notify))
	b = binary.AppendUvarint(b, micros(r.due))
	b = binary.AppendUvarint(b, uint64(r.attempts))
	for _, s := range []string{r.address, r.original, r.instead, r.destination} {
		b = kv.AppendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(r.history)))
	for _, a := range r.history {
		b = binary.AppendUvarint(b, micros(a.When))
		b = append(b, byte(a.Verdict))
		b = binary.AppendUvarint(b, uint64(a.Code))
		for _, s := range []string{a.Status, a.Text, a.Remote, a.TLS} {
			b = kv.AppendText(b, s)
		}
		b = binary.AppendUvarint(b, uint64(max(a.Connect, 0)/time.Millisecond))
		b = binary.AppendUvarint(b, uint64(max(a.Transfer, 0)/time.Millisecond))
	}
	return b
}

func decodeRecipient(id string, n int, value []byte) (*recipient, error) {
	d := decoder{kv.Value{Rest: value}}
	r := &recipient{n: n, state: state(d.Byte(7))}
	flags := d.Byte(3)
	r.told, r.now = flags&1 != 0, flags&2 != 0
	r.notify = notify(d.Byte(15))
	r.due = d.time()
	r.attempts = int(d.Below(1 << 31))
	for _, s := range []*string{&r.address, &r.original, &r.instead, &r.destination} {
		*s = d.Text()
	}
	kept := d.Below(maxHistory + 1)
	for range kept {
		a := Attempt{When: d.time()}
		a.Verdict = Verdict(d.Byte(3))
		a.Code = int(d.Below(1000))
		for _, s := range []*string{&a.Status, &a.Text, &a.Remote, &a.TLS} {
			*s = d.Text()
		}
		a.Connect = time.Duration(d.Below(1<<32)) * time.Millisecond
		a.Transfer = time.Duration(d.Below(1<<32)) * time.Millisecond
		if d.Bad || a.Verdict > Failed {
			d.Bad = true
			break
		}
		r.history = append(r.history, a)
	}
	if r.state > failed || strings.IndexByte(r.destination, 0) >= 0 {
		d.Bad = true
	}
	return r, d.end(fmt.Sprintf("%s%s/%d", prefixRecipient, id, n))
}

// remember adds an attempt to the history, within its bounds.
func (r *recipient) remember(a Attempt) {
	a.Status, a.Text = clip(a.Status, 16), clip(a.Text, maxText)
	a.Remote, a.TLS = clip(a.Remote, maxName), clip(a.TLS, maxName)
	a.Code = min(max(a.Code, 0), 999)
	r.attempts++
	if len(r.history) >= maxHistory {
		r.history = slices.Delete(r.history, keepFirst, keepFirst+1)
	}
	r.history = append(r.history, a)
}

// last is the latest attempt; the zero Attempt if there was none.
func (r *recipient) last() Attempt {
	if len(r.history) == 0 {
		return Attempt{}
	}
	return r.history[len(r.history)-1]
}

// clip cuts a text to at most n octets of valid UTF-8 without controls.
func clip(s string, n int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// decoder takes a value apart; the first failure sticks and end reports it.
type decoder struct{ kv.Value }

func (d *decoder) priority() int {
	p := d.Int()
	if p < -9 || p > 9 {
		d.Bad = true
		return 0
	}
	return int(p)
}

func (d *decoder) time() time.Time { return fromMicros(d.Below(1 << 62)) }

func (d *decoder) end(key string) error {
	if !d.Whole() {
		return fmt.Errorf("system.db key %q: %w", key, ErrDamaged)
	}
	return nil
}
