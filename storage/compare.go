package storage

import (
	"errors"
	"io/fs"
	"slices"
	"sort"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// A foreign program may work on the Maildir at any time. What it did is found by comparing a folder's listing with the
// index, which costs the folder's length; the two directories' times say whether that is worth while. Our own changes move
// those times too: as long as nothing else did, as far as two looks around each change can tell, a comparison is
// put off for long (a foreign change between the two looks would be missed until then).
const (
	compareEvery    = time.Second      // at most so often, or a twentieth of the time it takes
	compareOwnEvery = 30 * time.Second // after none but our own changes, or a two hundredth
	clockTick       = 12 * time.Millisecond
)

// dirTimes are the times of a folder's new/ and cur/, Unix nanoseconds.
type dirTimes struct{ new, cur int64 }

func (a *Account) timesOf(folder string) dirTimes {
	n, c, err := a.blobs.Times(folder)
	if err != nil {
		return dirTimes{}
	}
	return dirTimes{n.UnixNano(), c.UnixNano()}
}

// settled reports whether the times are so old that a further change would show in them: file systems' clocks tick.
func (d dirTimes) settled(tick time.Duration) bool {
	return time.Since(time.Unix(0, max(d.new, d.cur))) > tick
}

// foreignTimes reports whether the folder changed since we last left it, or was never known.
func (a *Account) foreignTimes(id MailboxID, folder string) bool {
	a.mu.RLock()
	m := a.boxes[id]
	var known dirTimes
	if m != nil {
		known = m.times
	}
	a.mu.RUnlock()
	return m != nil && (known == dirTimes{} || known != a.timesOf(folder))
}

// ourDoing runs fn, which removes files outside the writer's turn, and remembers that the change of times was ours.
func (a *Account) ourDoing(m *box, fn func(folder string)) {
	a.mu.RLock()
	folder, known := m.rec.folder, m.times
	a.mu.RUnlock()
	before := a.timesOf(folder)
	fn(folder)
	after := a.timesOf(folder)
	a.mu.Lock()
	defer a.mu.Unlock()
	if known == before && m.times == known {
		m.times, m.sure = after, false
	}
}

// mistrustBox has the mailbox's folder compared at the next Refresh.
func (a *Account) mistrustBox(id MailboxID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.boxes[id]; m != nil {
		m.times = dirTimes{}
	}
}

// mistrust has all folders compared.
func (a *Account) mistrust() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.boxes {
		m.times = dirTimes{}
	}
}

// Refresh takes in what a foreign program did to the mailbox's folder, if the folder's times say that something was
// done. Cheap when nothing was; called by protocols at SELECT, NOOP and periodically in IDLE.
func (a *Account) Refresh(id MailboxID) error {
	a.mu.RLock()
	gone, m := a.gone, a.boxes[id]
	if gone != nil || m == nil {
		a.mu.RUnlock()
		if gone == nil {
			gone = ErrNoMailbox
		}
		return gone
	}
	folder, known, sure, last, cost := m.rec.folder, m.times, m.sure, m.compared, m.comparing
	a.mu.RUnlock()
	n, c, err := a.blobs.Times(folder)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && a.moved(id, folder) {
			return nil
		}
		return a.wrap("refresh", err)
	}
	now := dirTimes{n.UnixNano(), c.UnixNano()}
	wait := max(compareEvery, 20*cost)
	if now == known && known != (dirTimes{}) {
		if sure {
			return nil
		}
		if last.IsZero() {
			a.compared(id, dirTimes{}, 0, a.store.now(), 0)
			return nil
		}
		wait = max(compareOwnEvery, 200*cost)
	}
	if !last.IsZero() && a.store.now().Sub(last).Abs() < wait || !a.comparing.TryLock() {
		return nil
	}
	defer a.comparing.Unlock()
	return a.wrap("refresh", a.compare(id, intake{}))
}

// moved reports whether the mailbox has been renamed or deleted since.
func (a *Account) moved(id MailboxID, folder string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	m := a.boxes[id]
	return m == nil || m.rec.folder != folder
}

// compare compares a folder with the index, first in passing; if they differ, again in the writer's turn, and then puts it
// right.
func (a *Account) compare(id MailboxID, in intake) error {
	began := a.store.now()
	a.mu.RLock()
	m := a.boxes[id]
	if m == nil {
		a.mu.RUnlock()
		return nil
	}
	folder, host, epoch := m.rec.folder, a.rec.host, m.epoch
	a.mu.RUnlock()
	times := a.timesOf(folder)
	var diff difference
	err := a.read(func(r kv.Reader) (err error) {
		diff, err = a.differ(r, id, folder, host)
		return err
	})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && a.moved(id, folder) {
			return nil
		}
		return err
	}
	if diff.none() {
		a.compared(id, times, epoch, began, a.store.now().Sub(began))
		return nil
	}
	arrivals := a.examineAll(folder, diff.arrivals())
	defer arrivals.close()
	err = a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return nil
		}
		diff, err := a.differ(t.kv, id, b.rec.folder, t.rec.host)
		if err != nil || diff.none() {
			return err
		}
		t.touch(b)
		b.foreign = false // all that was done up to here is taken in
		return t.takeIn(b, diff, arrivals, in)
	})
	a.compared(id, dirTimes{}, 0, began, a.store.now().Sub(began))
	return err
}

// compared notes when a folder was compared; with times, that it was found to say what the index says.
func (a *Account) compared(id MailboxID, times dirTimes, epoch uint64, began time.Time, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.boxes[id]
	if m == nil {
		return
	}
	m.compared, m.comparing = began, took
	if times != (dirTimes{}) && m.epoch == epoch {
		if times.settled(a.store.tick) {
			m.times, m.sure = times, true
		} else {
			m.times = dirTimes{}
		}
	}
}

// difference is what a folder's listing says and the index does not, or the other way round.
type difference struct {
	foreign []blob.Entry  // names that are not ours
	strays  []stray       // names that are ours, but the index has no such message; by UID
	renamed []renamedFile // other flags, or cur/ instead of new/
	missing []UID
	doubles []blob.Entry // second names of messages that have their file
}

type stray struct {
	blob.Entry
	name blob.Name
}

type renamedFile struct {
	uid UID
	p   placement
	at  blob.Entry
}

func (d *difference) none() bool {
	return len(d.foreign)+len(d.strays)+len(d.renamed)+len(d.missing)+len(d.doubles) == 0
}

// arrivals lists the entries that are messages to be taken in.
func (d *difference) arrivals() []blob.Entry {
	list := slices.Clone(d.foreign)
	for _, s := range d.strays {
		list = append(list, s.Entry)
	}
	return list
}

// differ compares. A directory that is missing or cannot be read is an error, never an empty folder.
func (a *Account) differ(r kv.Reader, id MailboxID, folder, host string) (d difference, err error) {
	var ours []stray
	err = a.blobs.List(folder, func(e blob.Entry) error {
		if n, ok := blob.ParseName(e.Stem); ok {
			ours = append(ours, stray{e, n})
		} else {
			d.foreign = append(d.foreign, e)
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	sort.Slice(ours, func(i, j int) bool { return ours[i].before(&ours[j]) })
	from, to := range8(prefixPlacement, id)
	r.Scan(from, to, func(k, v []byte) bool {
		uid := key8Number(k)
		n := 0
		for n < len(ours) && ours[n].name.UID < uid {
			n++
		}
		d.strays, ours = append(d.strays, ours[:n]...), ours[n:]
		for n = 0; n < len(ours) && ours[n].name.UID == uid; n++ {
		}
		var p placement
		if p, err = decodePlacement(v); err != nil {
			return false
		}
		d.match(UID(uid), p, ours[:n], host)
		ours = ours[n:]
		return true
	})
	d.strays = append(d.strays, ours...)
	d.strays = slices.DeleteFunc(d.strays, func(s stray) bool { return s.awaitsRemoval(r, id) })
	return d, err
}

// before orders by UID, and messages with the same UID by age.
func (s *stray) before(t *stray) bool {
	if s.name.UID != t.name.UID {
		return s.name.UID < t.name.UID
	}
	if s.name.ID != t.name.ID {
		return s.name.ID < t.name.ID
	}
	return s.Info < t.Info
}

// awaitsRemoval reports whether the stray is the file of an expunged message, soon to be removed.
func (s *stray) awaitsRemoval(r kv.Reader, id MailboxID) bool {
	v := r.Get(key8(prefixRemoved, id, s.name.UID))
	if v == nil {
		return false
	}
	p, err := decodePlacement(v)
	return err == nil && uint64(p.id) == s.name.ID
}

// match finds a placement's file among those with its UID.
func (d *difference) match(uid UID, p placement, files []stray, host string) {
	want := p.entry(host, uid)
	at := -1
	for i := range files {
		switch {
		case files[i].Stem != want.Stem:
		case at < 0 || files[i].Entry == want:
			at = i
		}
	}
	for i := range files {
		switch {
		case files[i].Stem != want.Stem:
			d.strays = append(d.strays, files[i])
		case i != at:
			d.doubles = append(d.doubles, files[i].Entry)
		}
	}
	if at < 0 {
		d.missing = append(d.missing, uid)
	} else if files[at].Entry != want {
		d.renamed = append(d.renamed, renamedFile{uid, p, files[at].Entry})
	}
}
