package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// logBounds are those of the change log: entries beyond keep go once they are older than age; most is the end of patience.
type logBounds struct {
	keep, most uint64
	age        time.Duration
}

var defaultLog = logBounds{keep: 200_000, most: 1_000_000, age: 30 * 24 * time.Hour}

// tx is one group's transaction: the engine's, and over it what the group has changed of the records and rows, which are
// written once at the end. Nothing of the account in memory changes before the commit (publish).
type tx struct {
	a        *Account
	kv       kv.Tx
	now      time.Time
	rec      accountRecord
	keywords []string
	boxes    map[MailboxID]*txBox
	names    map[string]MailboxID // 0: no longer a mailbox
	subs     map[string]bool

	// wrote is set by the current op as soon as something would have to be taken back.
	wrote  bool
	op     *op
	seq    ModSeq
	events []Change

	undo   []func() error // what was done to the folders, to be taken back in reverse
	locked bool           // a.files
}

// txBox is a mailbox within a tx.
type txBox struct {
	rec     mailboxRecord
	base    *View             // the committed rows, or nil if they are not in memory
	chunks  map[uint32]*chunk // this tx's own
	changed bool
	created bool
	deleted bool
	touched bool // files came or went
	foreign bool // the folder was found changed by somebody else before
	times   dirTimes
	lag     []uint32 // runs whose file names lag behind the flags now
}

func newTx(a *Account) *tx {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return &tx{a: a, now: a.store.now(), rec: a.rec, keywords: a.keywords,
		boxes: map[MailboxID]*txBox{}, names: map[string]MailboxID{}, subs: map[string]bool{}}
}

// box finds a mailbox. ErrNoMailbox.
func (t *tx) box(id MailboxID) (*txBox, error) {
	if b := t.boxes[id]; b != nil {
		if b.deleted {
			return nil, ErrNoMailbox
		}
		return b, nil
	}
	t.a.mu.RLock()
	defer t.a.mu.RUnlock()
	m := t.a.boxes[id]
	if m == nil {
		return nil, ErrNoMailbox
	}
	b := &txBox{rec: m.rec, base: m.view, chunks: map[uint32]*chunk{}}
	t.boxes[id] = b
	return b, nil
}

// lookUp finds a mailbox's id by its (checked) name, 0 if there is none.
func (t *tx) lookUp(name string) MailboxID {
	if id, ok := t.names[name]; ok {
		return id
	}
	t.a.mu.RLock()
	defer t.a.mu.RUnlock()
	if m := t.a.names[name]; m != nil {
		return m.rec.ID
	}
	return 0
}

// boxNamed finds a mailbox by its (checked) name. ErrNoMailbox.
func (t *tx) boxNamed(name string) (*txBox, error) {
	b, err := t.box(t.lookUp(name))
	if err != nil {
		return nil, fmt.Errorf("%w: %.80q", err, name)
	}
	return b, nil
}

// modSeq is the current op's mod-sequence, given out at its first use.
func (t *tx) modSeq() ModSeq {
	if t.seq == 0 {
		t.rec.modSeq++
		t.seq = t.rec.modSeq
		t.wrote = true
	}
	return t.seq
}

func (t *tx) event(c Change) {
	c.ModSeq = t.modSeq()
	t.events = append(t.events, c)
}

// logEvents writes the current op's entry in the change log.
func (t *tx) logEvents() error {
	if len(t.events) == 0 || t.a.quiet {
		return nil
	}
	t.rec.logEntries++
	return t.kv.Put(keyChange(t.seq), appendChange(nil, t.now, t.events))
}

// changedAt notes that rows of the mailbox changed with the current op.
func (t *tx) changedAt(b *txBox) {
	b.rec.HighestModSeq = t.modSeq()
	b.changed, t.wrote = true, true
}

// reserve sees to it that the folder's state file reserves n more UIDs.
func (t *tx) reserve(b *txBox, n int) error {
	if uint64(b.rec.UIDNext)+uint64(n) > math.MaxUint32-uidBlock {
		return fmt.Errorf("mailbox %q has no UIDs left", b.rec.Name)
	}
	if next := b.rec.UIDNext + UID(n); next > b.rec.ceiling {
		b.rec.ceiling = next + uidBlock
		b.changed, t.wrote = true, true
		return t.a.blobs.SetState(b.rec.folder, b.rec.state())
	}
	return nil
}

// touch is called before the folder's files change.
func (t *tx) touch(b *txBox) {
	t.wrote = true
	if !b.touched {
		b.touched = true
		b.foreign = t.a.foreignTimes(b.rec.ID, b.rec.folder)
	}
}

// nextMessageID is the microsecond, made unique.
func (t *tx) nextMessageID() MessageID {
	t.rec.lastMessage = max(t.rec.lastMessage+1, MessageID(max(0, t.now.UnixMicro())))
	return t.rec.lastMessage
}

// place files a message under the mailbox's next UID, which reserve has provided for. put makes the file.
func (t *tx) place(b *txBox, p placement, flags Flags, put func(folder string, e blob.Entry) error) (UID, error) {
	uid := b.rec.UIDNext
	p.saved, p.inNew, p.shown, p.stem, p.info, p.odd = t.now.Unix(), flags == 0, flags, "", "", false
	e, folder := p.entry(t.rec.host, uid), b.rec.folder
	t.touch(b)
	t.undo = append(t.undo, func() error { return t.a.blobs.Delete(folder, e) }) // it may be there though put fails
	err := put(folder, e)
	if errors.Is(err, fs.ErrExist) {
		// This UID was never given out: the file is what an earlier attempt could not take back.
		if err = t.a.blobs.Delete(folder, e); err == nil {
			err = put(folder, e)
		}
	}
	if err != nil {
		return 0, err
	}
	return uid, t.enter(b, p, flags)
}

// enter gives a placement whose file is there the mailbox's next UID in the index.
func (t *tx) enter(b *txBox, p placement, flags Flags) error {
	uid := b.rec.UIDNext
	b.rec.UIDNext++
	if err := t.kv.Put(key8(prefixPlacement, b.rec.ID, uint32(uid)), p.append(nil)); err != nil {
		return err
	}
	c, err := t.own(b, runOf(uid))
	if err != nil {
		return err
	}
	row := Row{UID: uid, Flags: flags, ModSeq: t.modSeq()}
	c.rows = append(c.rows, row)
	b.rec.Keywords |= keywordsOf(flags)
	t.count(b, row, p.size, 1)
	t.changedAt(b)
	return nil
}

// placement reads a placement. ErrNoMessage.
func readPlacement(r kv.Reader, id MailboxID, uid UID) (placement, error) {
	v := r.Get(key8(prefixPlacement, id, uint32(uid)))
	if v == nil {
		return placement{}, fmt.Errorf("%w: UID %d", ErrNoMessage, uid)
	}
	return decodePlacement(v)
}

// links changes how many placements a message has, and takes the message out with the last one.
func (t *tx) links(id MessageID, by int) error {
	n := 1
	if v := t.kv.Get(keyLinks(id)); v != nil {
		d := decoder{kv.Value{Rest: v}}
		n = int(d.Uint())
		if err := d.end("links"); err != nil {
			return err
		}
	}
	switch n += by; {
	case n > 1:
		return t.kv.Put(keyLinks(id), binary.AppendUvarint(nil, uint64(n)))
	case n == 1:
		return t.kv.Delete(keyLinks(id))
	}
	return errors.Join(t.kv.Delete(keyLinks(id)), t.kv.Delete(keyMessage(id)))
}

// lockFiles keeps those away who find files by what the committed index says, until the tx is settled: it is about to rename.
func (t *tx) lockFiles() {
	if !t.locked {
		t.a.files.Lock()
		t.locked = true
	}
}

func (t *tx) unlockFiles() {
	if t.locked {
		t.a.files.Unlock()
		t.locked = false
	}
}

// finish writes what the group gathered, and makes the folders' new names durable before the commit that relies on them.
func (t *tx) finish() error {
	for id, b := range t.boxes {
		if b.deleted || !b.changed {
			continue
		}
		for run, c := range b.chunks {
			key, err := key8(prefixRows, id, run), error(nil)
			if len(c.rows) == 0 {
				err = t.kv.Delete(key)
			} else {
				err = t.kv.Put(key, appendRows(nil, c.rows))
			}
			if err != nil {
				return err
			}
		}
		if b.touched {
			b.rec.newTime, b.rec.curTime = 0, 0
		}
		if err := t.kv.Put(keyMailbox(id), b.rec.encode()); err != nil {
			return err
		}
	}
	if err := t.trimLog(); err != nil {
		return err
	}
	t.rec.commits++
	if err := t.kv.Put(keyAccount(), t.rec.encode()); err != nil {
		return err
	}
	for _, b := range t.boxes {
		if b.touched && !b.deleted {
			if err := t.a.blobs.Sync(b.rec.folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// trimLog takes out a few of the log's oldest entries if it is too long: more than are added, so that it ends.
func (t *tx) trimLog() error {
	bounds := t.a.store.logBounds
	if t.rec.logEntries <= bounds.keep {
		return nil
	}
	var drop []ModSeq
	from, to := rangeOf(prefixChange)
	t.kv.Scan(from, to, func(k, v []byte) bool {
		left := t.rec.logEntries - uint64(len(drop))
		d := decoder{kv.Value{Rest: v}}
		when := time.UnixMilli(int64(d.Uint()))
		if left <= bounds.keep || left <= bounds.most && t.now.Sub(when) < bounds.age {
			return false
		}
		drop = append(drop, changeOf(k))
		return len(drop) < 2*maxGroup
	})
	for _, m := range drop {
		if err := t.kv.Delete(keyChange(m)); err != nil {
			return err
		}
		t.rec.logFloor = m
		t.rec.logEntries--
	}
	return nil
}

// rollBack takes back what was done to the folders. What cannot be taken back is found when the account is next opened.
func (t *tx) rollBack() {
	for _, undo := range slices.Backward(t.undo) {
		if err := undo(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.a.logger().Warn("taking back a failed change", "account", t.a.address, "err", err)
			t.a.mistrust()
		}
	}
	t.undo = nil
}
