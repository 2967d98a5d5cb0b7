package storage

import (
	"errors"
	"fmt"

	"mailsrv/storage/blob"
)

// Append files messages, all or none, in the given order. Results' Dest holds the new UIDs. ErrNoMailbox, ErrOverQuota,
// ErrTooManyKeywords, ErrDiskFull.
func (a *Account) Append(mailbox string, msgs ...NewMessage) (Copied, error) {
	name, err := mailboxName(mailbox)
	if err != nil {
		return Copied{}, a.wrap("append", fmt.Errorf("%w: %w", ErrNoMailbox, err))
	}
	var size int64
	for _, m := range msgs {
		if m.Incoming == nil || !m.Incoming.sealed() {
			return Copied{}, a.wrap("append", errors.New("message is not sealed"))
		}
		size += m.Incoming.size
	}
	quota := a.quota()
	var out Copied
	err = a.change(func(t *tx) error {
		b, err := t.boxNamed(name)
		if err != nil {
			return err
		}
		out = Copied{UIDValidity: b.rec.UIDValidity}
		if len(msgs) == 0 {
			return nil
		}
		if err := t.fits(quota, int64(len(msgs)), size); err != nil {
			return err
		}
		out.Dest, err = t.append(b, msgs)
		out.ModSeq = t.seq
		return err
	})
	if err == nil {
		a.store.appended.Add(int64(len(msgs)))
		a.store.bytes.Add(size)
	}
	return out, a.wrap("append", err)
}

func (a *Account) quota() Quota {
	if a.store.quota == nil {
		return Quota{}
	}
	return a.store.quota(a.address)
}

// fits checks the quota against what the account holds within the tx.
func (t *tx) fits(q Quota, messages, bytes int64) error {
	switch u := t.rec.usage; {
	case q.Messages > 0 && u.Messages+messages > q.Messages:
		return fmt.Errorf("%w: %d of %d messages", ErrOverQuota, u.Messages, q.Messages)
	case q.Bytes > 0 && u.Bytes+bytes > q.Bytes:
		return fmt.Errorf("%w: %d of %d bytes", ErrOverQuota, u.Bytes, q.Bytes)
	}
	return nil
}

func (t *tx) append(b *txBox, msgs []NewMessage) ([]UID, error) {
	flags := make([]Flags, len(msgs))
	for i, m := range msgs {
		var err error
		if flags[i], err = t.flags(m.Flags); err != nil {
			return nil, err
		}
	}
	if err := t.reserve(b, len(msgs)); err != nil {
		return nil, err
	}
	uids := make([]UID, len(msgs))
	for i, m := range msgs {
		p := placement{id: t.nextMessageID(), internal: t.now.Unix(), size: m.Incoming.size}
		if !m.InternalDate.IsZero() {
			p.internal = m.InternalDate.Unix()
		}
		if err := t.kv.Put(keyMessage(p.id), m.Incoming.encoded); err != nil {
			return nil, err
		}
		uid, err := t.place(b, p, flags[i], func(folder string, e blob.Entry) error {
			return t.a.blobs.Place(m.Incoming.Path(), folder, e)
		})
		if err != nil {
			return nil, err
		}
		uids[i] = uid
	}
	t.event(Change{Kind: Arrived, Mailbox: b.rec.ID, UIDs: rangesOf(uids)})
	return uids, nil
}
