package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
)

// body is an open message file.
type body struct {
	disk.File
	size int64
}

func (b *body) Size() int64 { return b.size }

// readBatch is how many messages or log entries are read in one snapshot, so that a slow caller holds none open.
const readBatch = 128

// Messages reads what never changes about the placements uids (ascending); those that are gone are left out. withSummary
// decodes the summaries too. It reads in batches, each from a snapshot of its own; the loop may take its time.
func (a *Account) Messages(id MailboxID, uids []UID, withSummary bool) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for some := range slices.Chunk(uids, readBatch) {
			var batch []Message
			err := a.read(func(r kv.Reader) (err error) {
				batch, err = readMessages(r, id, some, withSummary)
				return err
			})
			for _, m := range batch {
				if !yield(m, nil) {
					return
				}
			}
			if err != nil {
				yield(Message{}, a.wrap("read messages", err))
				return
			}
		}
	}
}

// Changes reads the change log after since, oldest first. ErrTooOld if it does not reach back that far.
func (a *Account) Changes(since ModSeq) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for more := true; more; {
			var batch []Change
			err := a.read(func(r kv.Reader) (err error) {
				batch, more, err = readChanges(r, since)
				return err
			})
			if err != nil {
				yield(Change{}, a.wrap("read changes", err))
				return
			}
			for _, c := range batch {
				since = c.ModSeq
				if !yield(c, nil) {
					return
				}
			}
		}
	}
}

// readChanges reads some log entries after since; more says that there may be others.
func readChanges(r kv.Reader, since ModSeq) (batch []Change, more bool, err error) {
	rec, err := decodeAccount(r.Get(keyAccount()))
	if err != nil {
		return nil, false, err
	}
	if since < rec.logFloor {
		return nil, false, fmt.Errorf("%w: it begins after %d", ErrTooOld, rec.logFloor)
	}
	_, to := rangeOf(prefixChange)
	n := 0
	r.Scan(keyChange(since+1), to, func(k, v []byte) bool {
		var events []Change
		if events, err = decodeChange(k, v); err != nil {
			return false
		}
		batch = append(batch, events...)
		n++
		return n < readBatch
	})
	return batch, n == readBatch, err
}

// Expunged returns the UIDs that left a mailbox after since, ascending (QRESYNC's VANISHED). ErrTooOld.
func (a *Account) Expunged(id MailboxID, since ModSeq) ([]UID, error) {
	m, err := a.MailboxByID(id)
	if err != nil {
		return nil, err
	}
	var uids []UID
	if since >= m.HighestModSeq {
		return nil, nil
	}
	for c, err := range a.Changes(since) {
		if err != nil {
			return nil, err
		}
		if c.Kind != Expunged || c.Mailbox != id {
			continue
		}
		for _, r := range c.UIDs {
			for u := r.First; ; u++ {
				uids = append(uids, u)
				if u == r.Last {
					break
				}
			}
		}
	}
	slices.Sort(uids)
	return uids, nil
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0) }

// Body is a message's bytes; Size may differ from the index only if a foreign hand changed the file.
type Body interface {
	io.ReaderAt
	io.Closer
	Size() int64
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
