package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"mailsrv/internal/message"
	"mailsrv/storage/blob"
)

// arrival is a file that is to become a message of the index.
type arrival struct {
	size     int64
	mtime    int64 // Unix seconds
	encoded  []byte
	replaced *Incoming // the same message with CRLF line ends, if the file has others
}

type arrivals map[blob.Entry]*arrival

func (as arrivals) close() {
	for _, a := range as {
		if a.replaced != nil {
			_ = a.replaced.Close()
		}
	}
}

// examineAll reads files that are to be taken in. Those that cannot be read stay where they are for another time.
func (a *Account) examineAll(folder string, entries []blob.Entry) arrivals {
	as := arrivals{}
	for _, e := range entries {
		as.add(a, folder, e)
	}
	return as
}

func (as arrivals) add(a *Account, folder string, e blob.Entry) {
	x, err := a.examine(folder, e)
	if err != nil {
		a.logger().Warn("message file cannot be taken in", "account", a.address, "folder", folder, "file", e.Stem, "err", err)
		return
	}
	as[e] = x
}

func (a *Account) examine(folder string, e blob.Entry) (*arrival, error) {
	f, err := a.blobs.Open(folder, e)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x := &arrival{mtime: info.ModTime().Unix()}
	scan, ends := message.NewScanner(), lineEnds{}
	if x.size, err = io.Copy(io.MultiWriter(scan, &ends), f); err != nil {
		return nil, err
	}
	_, ours := blob.ParseName(e.Stem)
	if ends.bare && !ours {
		return x, a.repairLines(x, f)
	}
	x.encoded = scan.Finish().AppendBinary(nil)
	if ours {
		return x, nil
	}
	return x, f.Sync() // who put it there need not have done so
}

// repairLines copies a message with LF line ends, as local delivery programs write, into one with CRLF.
func (a *Account) repairLines(x *arrival, f io.ReaderAt) error {
	in, err := a.store.Incoming()
	if err != nil {
		return err
	}
	x.replaced = in
	r := bufio.NewReader(io.NewSectionReader(f, 0, math.MaxInt64))
	w := crlfWriter{to: in}
	if _, err := r.WriteTo(&w); err != nil {
		return errors.Join(err, in.Close())
	}
	if err := in.Seal(); err != nil {
		return errors.Join(err, in.Close())
	}
	x.size, x.encoded = in.size, in.encoded
	return nil
}

// lineEnds looks for LF without CR.
type lineEnds struct {
	last byte
	bare bool
}

func (l *lineEnds) Write(p []byte) (int, error) {
	for _, c := range p {
		l.bare = l.bare || c == '\n' && l.last != '\r'
		l.last = c
	}
	return len(p), nil
}

// crlfWriter puts a CR before each LF that lacks it.
type crlfWriter struct {
	to   io.Writer
	last byte
	buf  []byte
}

func (w *crlfWriter) Write(p []byte) (int, error) {
	w.buf = w.buf[:0]
	for _, c := range p {
		if c == '\n' && w.last != '\r' {
			w.buf = append(w.buf, '\r')
		}
		w.buf = append(w.buf, c)
		w.last = c
	}
	_, err := w.to.Write(w.buf)
	return len(p), err
}

// intake says what may be assumed of files that the index does not know.
type intake struct {
	crash   bool // the account is being opened: what is unknown may be what a crash left of a change
	rebuild bool // the index is being made: strays keep the UIDs in their names, which nobody else has
}

// takeIn puts the index right where the folder differs from it. as are the new messages as far as they have been read.
func (t *tx) takeIn(b *txBox, d difference, as arrivals, in intake) error {
	for _, e := range d.doubles {
		if err := t.a.blobs.Delete(b.rec.folder, e); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := t.takeFlags(b, d.renamed); err != nil {
		return err
	}
	if len(d.missing) > 0 {
		if err := t.forget(b, d.missing, false); err != nil {
			return err
		}
	}
	uids, err := t.takeStrays(b, d.strays, as, in)
	if err != nil {
		return err
	}
	if err := t.reserve(b, len(d.foreign)); err != nil {
		return err
	}
	for _, e := range d.foreign {
		if x := as[e]; x == nil {
			b.foreign = true // it came just now: for the next comparison
		} else {
			uid, err := t.takeFile(b, e, x, placement{id: t.nextMessageID(), internal: x.mtime})
			if err != nil {
				return err
			}
			uids = append(uids, uid)
		}
	}
	if len(uids) > 0 {
		t.event(Change{Kind: Arrived, Mailbox: b.rec.ID, UIDs: rangesOf(uids)})
	}
	return nil
}

// takeFlags applies to the index what a foreign hand did to the flags in file names: the difference to what we had written there.
func (t *tx) takeFlags(b *txBox, renamed []renamedFile) error {
	var changed []UID
	for _, f := range renamed {
		before := f.p.shown
		f.p.showsAt(f.at, t.rec.host, f.uid)
		if err := t.kv.Put(key8(prefixPlacement, b.rec.ID, uint32(f.uid)), f.p.append(nil)); err != nil {
			return err
		}
		t.wrote = true
		c, err := t.own(b, runOf(f.uid))
		if err != nil {
			return err
		}
		i, ok := c.find(f.uid)
		if !ok {
			return fmt.Errorf("%w: UID %d of %q has no row", errDamaged, f.uid, b.rec.Name)
		}
		shown := f.p.shown & t.knownFlags()
		after := c.rows[i].Flags&^(before&^shown) | shown&^before
		if after != c.rows[i].Flags {
			c.rows[i] = t.reflag(b, c.rows[i], after)
			b.rec.Keywords |= keywordsOf(after)
			changed = append(changed, f.uid)
		}
		if after != f.p.shown {
			b.rec.lagging = true
			b.lag = append(b.lag, runOf(f.uid))
		}
	}
	if len(changed) > 0 {
		t.changedAt(b)
		t.event(Change{Kind: FlagsChanged, Mailbox: b.rec.ID, UIDs: rangesOf(changed)})
	}
	return nil
}

// knownFlags are those that mean something in this account.
func (t *tx) knownFlags() Flags { return allSystem | (keywordFlag(len(t.keywords)) - 1<<firstKeyword) }

// takeStrays deals with files whose names are ours and which the index does not know. They are whole: we sync before we link.
func (t *tx) takeStrays(b *txBox, strays []stray, as arrivals, in intake) ([]UID, error) {
	if in.crash {
		var err error
		if strays, err = t.dropUnacknowledged(b, strays); err != nil {
			return nil, err
		}
	}
	if !in.rebuild {
		if err := t.reserve(b, len(strays)); err != nil {
			return nil, err
		}
	}
	var uids []UID
	for _, s := range strays {
		x, known, err := t.known(b, s, as)
		if err != nil {
			return nil, err
		}
		if x == nil {
			b.foreign = true
			continue
		}
		if in.rebuild {
			b.rec.UIDNext = max(b.rec.UIDNext, UID(s.name.UID))
		}
		p := placement{id: MessageID(s.name.ID), internal: s.name.Seconds}
		if p.internal == 0 {
			p.internal = x.mtime
		}
		if !known && !t.mayHaveID(p.id) {
			p.id = t.nextMessageID()
		}
		t.rec.lastMessage = max(t.rec.lastMessage, p.id)
		uid, err := t.takeFile(b, s.Entry, x, p)
		if err != nil {
			return nil, err
		}
		uids = append(uids, uid)
	}
	return uids, nil
}

// known finds what is to be known of a stray: known is true if the index has this very message in another place.
func (t *tx) known(b *txBox, s stray, as arrivals) (x *arrival, known bool, err error) {
	if v := t.kv.Get(keyMessage(MessageID(s.name.ID))); v != nil {
		sum, err := message.ParseSummary(v)
		if err != nil {
			return nil, false, fmt.Errorf("%w: summary %d: %w", errDamaged, s.name.ID, err)
		}
		size, mtime, err := t.a.blobs.Stat(b.rec.folder, s.Entry)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if size == sum.Size {
			return &arrival{size: size, mtime: mtime.Unix(), encoded: v}, true, nil
		}
	}
	return as[s.Entry], false, nil
}

// mayHaveID reports whether a message may keep the id in its file's name: nobody else has it, and it leaves room for later ones.
func (t *tx) mayHaveID(id MessageID) bool {
	const day = 24 * 3600 * 1_000_000
	return id != 0 && id < MessageID(t.now.UnixMicro())+day && t.kv.Get(keyMessage(id)) == nil
}

// dropUnacknowledged removes, from what a crash left, the files of copies and moves that were never committed: their UIDs
// were not given out, and the same message lies elsewhere, with its file.
func (t *tx) dropUnacknowledged(b *txBox, strays []stray) ([]stray, error) {
	suspects := map[MessageID]bool{}
	for _, s := range strays {
		if UID(s.name.UID) >= b.rec.UIDNext && t.kv.Get(keyMessage(MessageID(s.name.ID))) != nil {
			suspects[MessageID(s.name.ID)] = false
		}
	}
	if len(suspects) == 0 {
		return strays, nil
	}
	if err := t.findFiles(suspects); err != nil {
		return nil, err
	}
	keep := slices.Clone(strays[:0])
	for _, s := range strays {
		if UID(s.name.UID) < b.rec.UIDNext || !suspects[MessageID(s.name.ID)] {
			keep = append(keep, s)
			continue
		}
		if err := t.a.blobs.Delete(b.rec.folder, s.Entry); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return keep, nil
}

// findFiles sets ids to true of which some placement has its file.
func (t *tx) findFiles(ids map[MessageID]bool) (err error) {
	from, to := rangeOf(prefixPlacement)
	t.kv.Scan(from, to, func(k, v []byte) bool {
		var p placement
		if p, err = decodePlacement(v); err != nil {
			return false
		}
		if have, asked := ids[p.id]; !asked || have {
			return true
		}
		box, berr := t.box(key8Mailbox(k))
		if berr != nil {
			return true
		}
		e := p.entry(t.rec.host, UID(key8Number(k)))
		if _, _, serr := t.a.blobs.Stat(box.rec.folder, e); serr == nil {
			ids[p.id] = true
		} else if _, serr := t.a.search(box.rec.folder, e); serr == nil {
			ids[p.id] = true
		}
		return true
	})
	return err
}

// takeFile gives a file the mailbox's next UID, and the name that goes with it.
func (t *tx) takeFile(b *txBox, e blob.Entry, x *arrival, p placement) (UID, error) {
	p.size, p.saved = x.size, t.now.Unix()
	uid, folder := b.rec.UIDNext, b.rec.folder
	at := blob.Entry{New: e.New, Stem: ourStem(&p, t.rec.host, uid), Info: e.Info}
	t.touch(b)
	if x.replaced != nil {
		t.undo = append(t.undo, func() error { return t.a.blobs.Delete(folder, at) })
		if err := t.a.blobs.Place(x.replaced.Path(), folder, at); err != nil {
			return 0, err
		}
		t.op.after = append(t.op.after, func() { _ = t.a.blobs.Delete(folder, e) })
	} else if at != e {
		if err := t.a.blobs.Move(folder, e, at); err != nil {
			return 0, err
		}
		t.undo = append(t.undo, func() error { return t.a.blobs.Move(folder, at, e) })
	}
	p.showsAt(at, t.rec.host, uid)
	flags := p.shown & t.knownFlags()
	if flags != p.shown {
		b.rec.lagging = true
		b.lag = append(b.lag, runOf(uid))
	}
	if t.kv.Get(keyMessage(p.id)) != nil {
		if err := t.links(p.id, 1); err != nil {
			return 0, err
		}
	} else if err := t.kv.Put(keyMessage(p.id), slices.Clone(x.encoded)); err != nil {
		return 0, err
	}
	return uid, t.enter(b, p, flags)
}
