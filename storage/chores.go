package storage

import (
	"errors"
	"io/fs"
	"maps"
	"sync"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// Lazy work: removing the files of expunged messages beyond the first few, and letting file names follow the flags. The
// janitor does it when an account has been quiet for a moment, or after a while even if it is not; closing an account
// does what is left. All of it is in the index (keys "x", the mailbox's lagging bit), so a crash loses none.
const (
	quiet     = time.Second      // an account is quiet if it has not changed for so long
	patience  = 15 * time.Second // work is done after that even in an account that is never quiet
	choreSize = 512              // files touched in one go, while other changes of the account wait
)

// janitor is the store's one goroutine.
type janitor struct {
	mu      sync.Mutex
	waiting map[*Account]time.Time // since when
	wake    chan struct{}
	quit    chan struct{}
	done    chan struct{}
}

func (j *janitor) start(s *Store) {
	j.waiting = map[*Account]time.Time{}
	j.wake, j.quit, j.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go j.run(s)
}

func (j *janitor) stop() {
	close(j.quit)
	<-j.done
}

func (j *janitor) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// kick tells the janitor that there is work in an account.
func (s *Store) kick(a *Account) {
	j := &s.janitor
	j.mu.Lock()
	_, known := j.waiting[a]
	if !known {
		j.waiting[a] = time.Now()
	}
	j.mu.Unlock()
	if !known {
		j.wakeUp()
	}
}

func (j *janitor) run(s *Store) {
	defer close(j.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-j.quit:
			return
		case <-j.wake:
		case <-timer.C:
		}
		for s.evict() {
		}
		if j.round(s) {
			timer.Reset(quiet / 2)
		}
	}
}

// round does some work in each account that is due, and reports whether any is left.
func (j *janitor) round(s *Store) (left bool) {
	j.mu.Lock()
	waiting := maps.Clone(j.waiting)
	j.mu.Unlock()
	for a, since := range waiting {
		if !a.quietFor(quiet) && time.Since(since) < patience {
			left = true
			continue
		}
		j.mu.Lock()
		delete(j.waiting, a) // what comes in from here on kicks again
		j.mu.Unlock()
		for more := true; more; {
			select {
			case <-j.quit:
				return false
			default:
			}
			began := time.Now()
			var err error
			if more, err = a.tidy(); err != nil {
				more = false
				if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNoAccount) {
					s.log.Warn("lazy work", "account", a.address, "err", err)
				}
			}
			j.rest(time.Since(began))
		}
	}
	return left
}

// rest leaves the disk to others for as long as we had it.
func (j *janitor) rest(d time.Duration) {
	t := time.NewTimer(min(d, time.Second))
	defer t.Stop()
	select {
	case <-t.C:
	case <-j.quit:
	}
}

func (a *Account) quietFor(d time.Duration) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return time.Since(a.lastChange) >= d
}

// removeSoon notes that files wait to be removed.
func (a *Account) removeSoon() { a.store.kick(a) }

// tidy does a bounded piece of lazy work and reports whether there is more.
func (a *Account) tidy() (more bool, err error) {
	a.comparing.Lock()
	defer a.comparing.Unlock()
	if more, err = a.removeFiles(); more || err != nil {
		return more, err
	}
	return a.renameLagging()
}

// tidyUp does all of it, and writes down what else is only in memory.
func (a *Account) tidyUp() error {
	for {
		more, err := a.tidy()
		if err != nil {
			return err
		}
		if !more {
			return a.writeTimes()
		}
	}
}

// unlink removes the files of messages that were expunged just now, as far as that goes: removeFiles sees to the rest.
func (a *Account) unlink(id MailboxID, uids []UID) {
	a.files.RLock()
	defer a.files.RUnlock()
	a.mu.RLock()
	m, host := a.boxes[id], a.rec.host
	a.mu.RUnlock()
	if m == nil {
		return
	}
	var entries []blob.Entry
	err := a.read(func(r kv.Reader) error {
		for _, uid := range uids {
			if v := r.Get(key8(prefixRemoved, id, uint32(uid))); v != nil {
				p, err := decodePlacement(v)
				if err != nil {
					return err
				}
				entries = append(entries, p.entry(host, uid))
			}
		}
		return nil
	})
	if err != nil {
		return
	}
	a.ourDoing(m, func(folder string) {
		for _, e := range entries {
			_ = a.blobs.Delete(folder, e)
		}
	})
}

// removal is a key "x".
type removal struct {
	id  MailboxID
	uid UID        // 0: the whole folder
	e   blob.Entry // the folder's name is in Stem
}

func (a *Account) removals(r kv.Reader, limit int) (list []removal, err error) {
	from, to := rangeOf(prefixRemoved)
	a.mu.RLock()
	host := a.rec.host
	a.mu.RUnlock()
	r.Scan(from, to, func(k, v []byte) bool {
		x := removal{id: key8Mailbox(k), uid: UID(key8Number(k))}
		if x.uid == 0 {
			x.e.Stem = string(v)
		} else {
			var p placement
			if p, err = decodePlacement(v); err != nil {
				return false
			}
			x.e = p.entry(host, x.uid)
		}
		list = append(list, x)
		return len(list) < limit
	})
	return list, err
}

// removeFiles removes a number of files (and folders) of what was expunged, and then the index's memory of them.
func (a *Account) removeFiles() (more bool, err error) {
	var list []removal
	err = a.read(func(r kv.Reader) error {
		list, err = a.removals(r, choreSize)
		return err
	})
	if err != nil || len(list) == 0 {
		return false, err
	}
	byBox := map[MailboxID][]removal{}
	for _, x := range list {
		byBox[x.id] = append(byBox[x.id], x)
	}
	for id, list := range byBox {
		if err := a.removeIn(id, list); err != nil {
			return false, err
		}
	}
	err = a.change(func(t *tx) error {
		t.wrote = true
		for _, x := range list {
			if err := t.kv.Delete(key8(prefixRemoved, x.id, uint32(x.uid))); err != nil {
				return err
			}
		}
		return nil
	})
	return len(list) == choreSize, err
}

func (a *Account) removeIn(id MailboxID, list []removal) error {
	a.files.RLock()
	defer a.files.RUnlock()
	var failed error
	note := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	a.mu.RLock()
	m := a.boxes[id]
	a.mu.RUnlock()
	if list[0].uid == 0 {
		note(a.blobs.Remove(list[0].e.Stem))
		list = list[1:]
	}
	if m == nil || len(list) == 0 { // the others went with their folder
		return failed
	}
	a.ourDoing(m, func(folder string) {
		for _, x := range list {
			note(a.blobs.Delete(folder, x.e))
		}
		note(a.blobs.Sync(folder))
	})
	return failed
}

// renameLagging lets some file names of one mailbox catch up with the flags.
func (a *Account) renameLagging() (more bool, err error) {
	id, runs := a.takeLagging(choreSize / 256)
	if id == 0 {
		return false, nil
	}
	err = a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return nil // it is gone
		}
		for _, run := range runs {
			if err := t.renameRun(b, run); err != nil {
				return err
			}
		}
		if len(b.lag) == 0 && !a.lags(id) {
			b.rec.lagging = false
			b.changed, t.wrote = true, true
		}
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.lag(id, runs)
	}
	return len(a.lagging) > 0, err
}

func (a *Account) takeLagging(n int) (id MailboxID, runs []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, lag := range a.lagging {
		for run := range lag {
			if len(runs) == n {
				break
			}
			runs = append(runs, run)
			delete(lag, run)
		}
		if len(lag) == 0 {
			delete(a.lagging, id)
		}
		return id, runs
	}
	return 0, nil
}

func (a *Account) lags(id MailboxID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.lagging[id]) > 0
}

// lag notes runs whose file names lag behind the flags; a.mu is held.
func (a *Account) lag(id MailboxID, runs []uint32) {
	if a.lagging[id] == nil {
		a.lagging[id] = map[uint32]struct{}{}
	}
	for _, run := range runs {
		a.lagging[id][run] = struct{}{}
	}
}

// renameRun renames the files of one run whose names show other flags than the rows have. It all happens in the writer's
// turn: if a STORE came between the rename and the commit that knows of it, and then a crash, the name would look as if a
// foreign hand had changed the flags back.
func (t *tx) renameRun(b *txBox, run uint32) error {
	c, err := t.chunk(b, run)
	if err != nil || c == nil {
		return err
	}
	for _, r := range c.rows {
		p, err := readPlacement(t.kv, b.rec.ID, r.UID)
		if err != nil {
			return err
		}
		if p.shown == r.Flags {
			continue
		}
		if err := t.renameFile(b, r, p); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) renameFile(b *txBox, r Row, p placement) error {
	from := p.entry(t.rec.host, r.UID)
	_, other := blob.FlagsOf(from.Info)
	to := blob.Entry{Stem: from.Stem, Info: blob.InfoFor(uint64(r.Flags)) + other}
	folder := b.rec.folder
	t.lockFiles()
	t.touch(b)
	err := t.a.blobs.Move(folder, from, to)
	if errors.Is(err, fs.ErrNotExist) {
		t.a.mistrustBox(b.rec.ID) // a foreign hand has it: the next comparison will see what it did
		return nil
	}
	if err != nil {
		return err
	}
	t.undo = append(t.undo, func() error { return t.a.blobs.Move(folder, to, from) })
	p.showsAt(to, t.rec.host, r.UID)
	return t.kv.Put(key8(prefixPlacement, b.rec.ID, uint32(r.UID)), p.append(nil))
}
