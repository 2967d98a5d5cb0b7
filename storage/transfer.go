package storage

import (
	"errors"
	"fmt"
	"io/fs"

	"mailsrv/storage/blob"
)

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
	uids = ascending(uids)
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
