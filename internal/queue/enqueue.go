package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/storage"
	"mailsrv/storage/kv"
)

// here is the destination of addresses of this server: notices to people here, and what waits for its time. No domain is called so.
const here = "@here"

var _ delivery.Queue = (*Queue)(nil)

// Enqueue is delivery.Queue: it takes the sealed message over for addresses elsewhere, all or none. When it returns nil the
// message is durable. It keeps the envelope's ID where it can (no other message has it).
func (q *Queue) Enqueue(ctx context.Context, env *delivery.Envelope, in *storage.Incoming, to []delivery.Onward) error {
	return q.enqueue(ctx, env, in, to)
}

// source is a sealed message: *storage.Incoming.
type source interface {
	io.ReaderAt
	Path() string
	Size() int64
}

func (q *Queue) enqueue(ctx context.Context, env *delivery.Envelope, in source, to []delivery.Onward) error {
	if len(to) == 0 {
		return nil
	}
	if len(to) > maxRecipients {
		return &delivery.Error{Code: 452, Status: "4.5.3", Text: "too many recipients"}
	}
	now := q.now()
	m, rs, err := q.entry(env, in, to, now)
	if err != nil {
		return err
	}
	if err := q.sign(ctx, m, in, sentOnBy(to)); err != nil {
		return err
	}
	if err := q.place(m, func(id string) error { return q.files.link(id, in.Path()) }); err != nil {
		return err
	}
	err = q.commits.do(true, func(tx kv.Tx) error { return q.put(tx, m, rs) })
	if err != nil {
		return errors.Join(err, q.takeBack(m.id))
	}
	q.entered(m, rs)
	q.log.Info("queued", "id", m.id, "of", env.ID, "from", m.sender, "recipients", len(rs), "size", m.size)
	return nil
}

// entry makes the records of an envelope.
func (q *Queue) entry(env *delivery.Envelope, in source, to []delivery.Onward, now time.Time) (*message, []*recipient, error) {
	skip, header8, err := lookAtHeader(in)
	if err != nil {
		return nil, nil, err
	}
	m := &message{
		id: env.ID, arrived: now, seen: now, open: len(to), count: len(to), size: in.Size(), skip: skip,
		requireTLS: env.RequireTLS, byNotify: env.DeliverByNotify, byTrace: env.DeliverByTrace, priority: env.Priority, release: env.ReleaseAt, by: env.DeliverBy,
		sender: env.Sender, envelopeID: env.EnvelopeID, body: env.Body, ret: env.Return,
		account: env.Origin.Account, hello: clip(env.Origin.Hello, maxName),
	}
	if env.Origin.Addr.IsValid() {
		m.peer = env.Origin.Addr.String()
	}
	eightBit := header8 || !isASCII(env.Sender)
	rs := make([]*recipient, len(to))
	for i, o := range to {
		eightBit = eightBit || !isASCII(o.Address)
		r := &recipient{n: i, address: o.Address, original: o.For.Original, notify: notifyOf(o.For.Notify), due: now,
			destination: q.destination(m.sender, o.Address)}
		if !strings.EqualFold(o.For.Address, o.Address) {
			r.instead = o.For.Address
		}
		if m.release.After(now) {
			r.state = waiting
		}
		rs[i] = r
	}
	// RFC 6531 is asked of the next server only if something needs it.
	m.utf8 = env.SMTPUTF8 && eightBit
	for _, s := range []string{m.sender, m.envelopeID, m.account} {
		if len(s) > maxEncoded {
			return nil, nil, &delivery.Error{Code: 501, Status: "5.5.4", Text: "an address that is too long"}
		}
	}
	for _, r := range rs {
		if len(r.address) > maxEncoded || len(r.original) > maxEncoded || len(r.instead) > maxEncoded {
			return nil, nil, &delivery.Error{Code: 501, Status: "5.1.3", Text: "an address that is too long"}
		}
	}
	return m, rs, nil
}

func notifyOf(words []string) (n notify) {
	for _, w := range words {
		switch strings.ToUpper(w) {
		case "NEVER":
			n |= notifyNever
		case "SUCCESS":
			n |= notifySuccess
		case "FAILURE":
			n |= notifyFailure
		case "DELAY":
			n |= notifyDelay
		}
	}
	return n
}

func (n notify) words() (words []string) {
	for i, w := range []string{"NEVER", "SUCCESS", "FAILURE", "DELAY"} {
		if n&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	return words
}

// destination is where an address's mail goes next.
func (q *Queue) destination(sender, address string) string {
	switch {
	case q.local != nil && q.local.Here(address):
		return here
	case q.transport == nil:
		return domainOf(address)
	}
	d := strings.ReplaceAll(q.transport.Destination(sender, address), "\x00", "?")
	return clip(d, maxName)
}

// place gives the message's file a name that no other has.
func (q *Queue) place(m *message, link func(id string) error) error {
	if !validID(m.id) {
		m.id = delivery.NewID()
	}
	for range 3 {
		err := link(m.id)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		m.id = delivery.NewID()
	}
	return fmt.Errorf("queue %s: no free name", m.id)
}

var errTaken = errors.New("the queue ID is taken")

// put writes a new message with its recipients.
func (q *Queue) put(tx kv.Tx, m *message, rs []*recipient) error {
	if tx.Get(keyMessage(m.id)) != nil {
		return errTaken
	}
	m.timer = time.Time{}
	if err := setTimer(tx, m, q.nextLook(m, rs, m.arrived)); err != nil {
		return err
	}
	for _, r := range rs {
		if err := putRecipient(tx, m, r); err != nil {
			return err
		}
	}
	if len(m.front) > 0 {
		if err := tx.Put(keyFront(m.id), m.front); err != nil {
			return err
		}
	}
	return tx.Put(keyMessage(m.id), m.encode())
}

// entered tells the loops of a new message.
func (q *Queue) entered(m *message, rs []*recipient) {
	q.count(1)
	for _, r := range rs {
		if r.state == queued {
			q.scheduler.wake(r.destination, r.due)
		}
	}
	q.kickTimers()
}

// takeBack removes the file of a message that could not be entered, unless the entry is there after all: a commit that
// reports an error may have happened.
func (q *Queue) takeBack(id string) error {
	there := true
	err := q.db.View(func(r kv.Reader) error {
		there = r.Get(keyMessage(id)) != nil
		return nil
	})
	if err != nil || there {
		return err
	}
	return q.files.remove(id)
}

// maxHeader bounds how much of a header is looked at.
const maxHeader = 256 << 10

// readHeader returns the header block with the empty line that ends it, cut at a line end if it is longer than the limit.
func readHeader(r io.ReaderAt, offset int64, limit int) ([]byte, error) {
	header := make([]byte, 0, 8<<10)
	for len(header) < limit {
		at := len(header)
		header = slices.Grow(header, 8<<10)
		n, err := r.ReadAt(header[at:min(cap(header), limit)], offset+int64(at))
		header = header[:at+n]
		if bytes.HasPrefix(header, []byte("\r\n")) {
			return header[:2], nil
		}
		if end := bytes.Index(header, []byte("\r\n\r\n")); end >= 0 {
			return header[:end+4], nil
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return header[:bytes.LastIndexByte(header, '\n')+1], nil
}

// lookAtHeader says how many octets at the start are Return-Path, which is ours and is not sent on (RFC 5321 section 4.4),
// and whether the rest of the header has octets above 127.
func lookAtHeader(r io.ReaderAt) (skip int64, eightBit bool, err error) {
	header, err := readHeader(r, 0, maxHeader)
	if err != nil {
		return 0, false, fmt.Errorf("queue: read header: %w", err)
	}
	const name = "return-path:"
	if len(header) > len(name) && strings.EqualFold(string(header[:len(name)]), name) {
		for first := true; int(skip) < len(header) && (first || header[skip] == ' ' || header[skip] == '\t'); first = false {
			end := bytes.IndexByte(header[skip:], '\n')
			if end < 0 {
				break
			}
			skip += int64(end) + 1
		}
	}
	return skip, !isASCII(string(header[skip:])), nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// validID reports whether a word can be a queue ID: as delivery.NewID makes them.
func validID(id string) bool {
	if len(id) != idLen {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
