package storage

import (
	"errors"
	"fmt"
	"io/fs"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
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
		if m.Incoming == nil || m.Incoming.summary == nil {
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

// Copy places messages in another (or the same) mailbox: hard links, same flags and internal date, new UIDs. UIDs that
// are gone are left out of the result. All or none of the rest. ErrNoMailbox (destination), ErrOverQuota.
func (a *Account) Copy(id MailboxID, uids []UID, dest string) (Copied, error) {
	return a.transfer(id, uids, dest, false)
}

// Move is Copy and the source's expunge in one change.
func (a *Account) Move(id MailboxID, uids []UID, dest string) (Copied, error) {
	return a.transfer(id, uids, dest, true)
}

func (a *Account) transfer(id MailboxID, uids []UID, dest string, move bool) (Copied, error) {
	op := "copy"
	if move {
		op = "move"
	}
	name, err := mailboxName(dest)
	if err != nil {
		return Copied{}, a.wrap(op, fmt.Errorf("%w: %w", ErrNoMailbox, err))
	}
	quota := a.quota()
	var out Copied
	err = a.change(func(t *tx) error {
		src, err := t.box(id)
		if err != nil {
			return err
		}
		to, err := t.boxNamed(name)
		if err != nil {
			return err
		}
		if !move {
			if err := t.fitsCopy(quota, src, uids); err != nil {
				return err
			}
		}
		out, err = t.transfer(src, uids, to, move)
		return err
	})
	return out, a.wrap(op, err)
}

func (t *tx) fitsCopy(q Quota, src *txBox, uids []UID) error {
	if q == (Quota{}) {
		return nil
	}
	rows, err := t.live(src, uids)
	if err != nil {
		return err
	}
	var size int64
	for _, r := range rows {
		p, err := readPlacement(t.kv, src.rec.ID, r.UID)
		if err != nil {
			return err
		}
		size += p.size
	}
	return t.fits(q, int64(len(rows)), size)
}

// transfer copies or moves those of uids that are there. A file that a foreign hand has renamed is found, one that it has
// removed is passed over: the folder's next comparison will expunge it.
func (t *tx) transfer(src *txBox, uids []UID, dest *txBox, move bool) (Copied, error) {
	out := Copied{UIDValidity: dest.rec.UIDValidity}
	rows, err := t.live(src, uids)
	if err != nil || len(rows) == 0 {
		return out, err
	}
	if err := t.reserve(dest, len(rows)); err != nil {
		return out, err
	}
	for _, r := range rows {
		p, err := readPlacement(t.kv, src.rec.ID, r.UID)
		if err != nil {
			return out, err
		}
		uid, err := t.place(dest, p, r.Flags, t.from(src, r.UID, p))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, err
		}
		if err := t.links(p.id, 1); err != nil {
			return out, err
		}
		out.Source, out.Dest = append(out.Source, r.UID), append(out.Dest, uid)
	}
	if len(out.Dest) == 0 {
		return out, nil
	}
	t.event(Change{Kind: Arrived, Mailbox: dest.rec.ID, UIDs: rangesOf(out.Dest)})
	if move {
		err = t.expunge(src, out.Source)
	}
	out.ModSeq = t.seq
	return out, err
}

// from makes the file of a placement out of another one's.
func (t *tx) from(src *txBox, uid UID, p placement) func(folder string, e blob.Entry) error {
	return func(folder string, e blob.Entry) error {
		at := p.entry(t.rec.host, uid)
		err := t.a.blobs.PlaceFrom(src.rec.folder, at, folder, e)
		if errors.Is(err, fs.ErrNotExist) {
			if at, err = t.a.search(src.rec.folder, at); err == nil {
				err = t.a.blobs.PlaceFrom(src.rec.folder, at, folder, e)
			}
		}
		return err
	}
}

// search finds a message's file under whatever flags a foreign hand has given it. fs.ErrNotExist.
func (a *Account) search(folder string, e blob.Entry) (found blob.Entry, err error) {
	err = a.blobs.List(folder, func(at blob.Entry) error {
		if at.Stem == e.Stem {
			found = at
			return errFound
		}
		return nil
	})
	if err == errFound {
		return found, nil
	}
	if err == nil {
		err = fmt.Errorf("message file %s: %w", e.Stem, fs.ErrNotExist)
	}
	return found, err
}

var errFound = errors.New("found")

// Expunge removes messages for good. uids nil: all that have \Deleted; else, with onlyDeleted, those of uids that have
// \Deleted; else all of uids. Returns what went, ascending.
func (a *Account) Expunge(id MailboxID, uids []UID, onlyDeleted bool) ([]UID, ModSeq, error) {
	var went []UID
	var seq ModSeq
	err := a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return err
		}
		if went, err = t.expungeable(b, uids, onlyDeleted); err != nil || len(went) == 0 {
			return err
		}
		err = t.expunge(b, went)
		seq = t.seq
		return err
	})
	if err != nil {
		return nil, 0, a.wrap("expunge", err)
	}
	return went, seq, nil
}

func (t *tx) expungeable(b *txBox, uids []UID, onlyDeleted bool) ([]UID, error) {
	if uids == nil {
		if b.rec.Deleted == 0 {
			return nil, nil
		}
		return t.uids(b, func(r Row) bool { return r.Flags&Deleted != 0 })
	}
	rows, err := t.live(b, uids)
	went := make([]UID, 0, len(rows))
	for _, r := range rows {
		if !onlyDeleted || r.Flags&Deleted != 0 {
			went = append(went, r.UID)
		}
	}
	return went, err
}

// expunge takes messages that are there out of the index; their files go once that is durable.
func (t *tx) expunge(b *txBox, uids []UID) error {
	if err := t.forget(b, uids, true); err != nil {
		return err
	}
	id := b.rec.ID
	if len(uids) <= expungeAtOnce {
		t.op.after = append(t.op.after, func() { t.a.unlink(id, uids) })
	}
	t.op.after = append(t.op.after, t.a.removeSoon)
	return nil
}

// expungeAtOnce is how many files an expunge removes before it returns; more are removed soon after.
const expungeAtOnce = 256

// forget takes messages out of the index. With files, what is known of their files is kept until these are gone.
func (t *tx) forget(b *txBox, uids []UID, files bool) error {
	id := b.rec.ID
	err := byRun(uids, func(run uint32, uids []UID) error {
		c, err := t.own(b, run)
		if err != nil {
			return err
		}
		keep := c.rows[:0]
		for _, r := range c.rows {
			if len(uids) == 0 || r.UID != uids[0] {
				keep = append(keep, r)
				continue
			}
			uids = uids[1:]
			p, err := readPlacement(t.kv, id, r.UID)
			if err != nil {
				return err
			}
			if err := t.forgetOne(b, r, p, files); err != nil {
				return err
			}
		}
		c.rows = keep
		return nil
	})
	if err != nil {
		return err
	}
	if b.rec.Messages == 0 {
		b.rec.Keywords = 0
	}
	t.changedAt(b)
	t.event(Change{Kind: Expunged, Mailbox: id, UIDs: rangesOf(uids)})
	return nil
}

func (t *tx) forgetOne(b *txBox, r Row, p placement, files bool) error {
	t.count(b, r, p.size, -1)
	if err := t.kv.Delete(key8(prefixPlacement, b.rec.ID, uint32(r.UID))); err != nil {
		return err
	}
	if files {
		if err := t.kv.Put(key8(prefixRemoved, b.rec.ID, uint32(r.UID)), p.append(nil)); err != nil {
			return err
		}
	}
	return t.links(p.id, -1)
}

// Store changes flags of the given UIDs (ascending).
func (a *Account) Store(id MailboxID, uids []UID, change FlagChange) (Stored, error) {
	var out Stored
	err := a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return err
		}
		out, err = t.store(b, uids, change)
		return err
	})
	return out, a.wrap("store", err)
}

func (t *tx) store(b *txBox, uids []UID, change FlagChange) (out Stored, err error) {
	var f Flags
	if change.Op == RemoveFlags { // what no message has cannot be removed
		f, _ = lookUpFlags(change.Flags, t.keywords)
	} else if f, err = t.flags(change.Flags); err != nil {
		return out, err
	}
	err = byRun(uids, func(run uint32, uids []UID) error {
		n := len(out.Changed)
		if err := t.storeRun(b, run, uids, change, f, &out); err != nil {
			return err
		}
		if len(out.Changed) > n {
			b.lag = append(b.lag, run)
		}
		return nil
	})
	if err != nil || len(out.Changed) == 0 {
		return out, err
	}
	out.ModSeq = t.seq
	b.rec.Keywords |= keywordsOf(f)
	b.rec.lagging = true
	t.changedAt(b)
	t.event(Change{Kind: FlagsChanged, Mailbox: b.rec.ID, UIDs: rangesOf(uidsOf(out.Changed))})
	t.op.after = append(t.op.after, func() { t.a.store.kick(t.a) })
	return out, nil
}

func uidsOf(rows []Row) []UID {
	uids := make([]UID, len(rows))
	for i, r := range rows {
		uids[i] = r.UID
	}
	return uids
}

// storeRun is store for UIDs of one run. The run is copied at the first row that changes.
func (t *tx) storeRun(b *txBox, run uint32, uids []UID, change FlagChange, f Flags, out *Stored) error {
	c, err := t.chunk(b, run)
	if err != nil {
		return err
	}
	if c == nil {
		out.Missing = append(out.Missing, uids...)
		return nil
	}
	own := false
	for _, uid := range uids {
		i, ok := c.find(uid)
		if !ok {
			out.Missing = append(out.Missing, uid)
			continue
		}
		r := c.rows[i]
		if change.Conditional && r.ModSeq > change.UnchangedSince {
			out.Modified = append(out.Modified, uid)
			continue
		}
		after := apply(r.Flags, change.Op, f)
		if after == r.Flags {
			continue
		}
		if !own {
			if c, err = t.own(b, run); err != nil {
				return err
			}
			own = true
		}
		c.rows[i] = t.reflag(b, r, after)
		out.Changed = append(out.Changed, c.rows[i])
	}
	return nil
}

func apply(have Flags, op FlagOp, f Flags) Flags {
	switch op {
	case AddFlags:
		return have | f
	case RemoveFlags:
		return have &^ f
	}
	return f
}

// reflag is the row with other flags; the mailbox's numbers follow.
func (t *tx) reflag(b *txBox, r Row, after Flags) Row {
	t.count(b, r, 0, -1)
	r.Flags, r.ModSeq = after, t.modSeq()
	t.count(b, r, 0, 1)
	return r
}

// OpenMessage opens a message's bytes. Expunging it meanwhile does no harm to an open Body. ErrNoMessage.
func (a *Account) OpenMessage(id MailboxID, uid UID) (Body, error) {
	body, err := a.openMessage(id, uid, false)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody is renaming: one of us, until the index says the new name, or a foreign hand.
		a.files.RLock()
		body, err = a.openMessage(id, uid, true)
		a.files.RUnlock()
	}
	if errors.Is(err, fs.ErrNotExist) {
		a.mistrustBox(id)
		err = fmt.Errorf("%w: its file is gone: %w", ErrNoMessage, err)
	}
	if err != nil {
		return nil, a.wrap("open message", err)
	}
	return body, nil
}

func (a *Account) openMessage(id MailboxID, uid UID, search bool) (Body, error) {
	var p placement
	a.mu.RLock()
	m := a.boxes[id]
	if m == nil {
		a.mu.RUnlock()
		return nil, ErrNoMailbox
	}
	folder, host := m.rec.folder, a.rec.host
	a.mu.RUnlock()
	err := a.read(func(r kv.Reader) (err error) {
		p, err = readPlacement(r, id, uid)
		return err
	})
	if err != nil {
		return nil, err
	}
	e := p.entry(host, uid)
	f, err := a.blobs.Open(folder, e)
	if search && errors.Is(err, fs.ErrNotExist) {
		if e, err = a.search(folder, e); err == nil {
			f, err = a.blobs.Open(folder, e)
		}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &body{f, info.Size()}, nil
}
