package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// What is done when an account is opened. The rules, in the order in which they are applied:
//
//  1. No index: it is rebuilt from the Maildir (rebuild).
//  2. A folder that the index has and the disk has not, while the disk has one under another name with that mailbox's id in
//     its state: a rename or a deletion that was never committed. It goes back to the name in the index.
//  3. A folder set aside by a committed deletion, and the file of a committed expunge (keys "x"): removed.
//  4. A folder that the index does not know: a mailbox whose creation was not acknowledged, or that a foreign hand made.
//     It becomes a mailbox.
//  5. A folder whose times are not those that the index remembers is compared with it, see takeIn: a file of ours that the
//     index does not know, with a UID never given out and whose message lies elsewhere, is an unacknowledged copy and
//     removed; any other unknown file is a message, and arrives. A message without a file was removed by a foreign hand.
//  6. Mailboxes whose file names may lag behind the flags are looked through when there is time.

// settle applies the rules from 2 on.
func (a *Account) settle() error {
	known := a.rec.lastMailbox
	if err := a.settleFolders(); err != nil {
		return err
	}
	for {
		more, err := a.removeFiles()
		if err != nil {
			a.logger().Warn("removing expunged messages", "account", a.address, "err", err)
			break
		}
		if !more {
			break
		}
	}
	for id, m := range a.boxes { // nobody else has the account yet
		if now := a.timesOf(m.rec.folder); now == m.times && now != (dirTimes{}) {
			continue
		}
		// In a folder that has just become a mailbox, files that look like unacknowledged copies are a foreign hand's.
		if err := a.compare(id, intake{crash: id <= known}); err != nil {
			if errors.Is(err, errDamaged) {
				return err
			}
			a.logger().Error("folder cannot be compared with the index", "account", a.address,
				"mailbox", m.rec.Name, "err", err)
		}
	}
	return a.settleLagging()
}

func (a *Account) settleFolders() error {
	folders, err := a.blobs.Folders()
	if err != nil {
		return err
	}
	unknown := map[string]bool{}
	for _, f := range folders {
		unknown[f] = true
	}
	var lost []*box
	for _, m := range a.boxes {
		if !unknown[m.rec.folder] {
			lost = append(lost, m)
		}
		delete(unknown, m.rec.folder)
	}
	err = a.read(func(r kv.Reader) error {
		from, to := rangeOf(prefixRemoved)
		r.Scan(from, to, func(k, v []byte) bool {
			if key8Number(k) == 0 {
				delete(unknown, string(v))
			}
			return true
		})
		return nil
	})
	if err != nil || len(unknown)+len(lost) == 0 {
		return err
	}
	states := map[string]mailboxRecord{}
	for f := range unknown {
		data, err := a.blobs.State(f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if r, ok := parseState(data); ok {
			states[f] = r
		}
	}
	for _, m := range lost {
		if err := a.bringBack(m, unknown, states); err != nil {
			return err
		}
	}
	return a.takeFolders(unknown, states)
}

// bringBack is rule 2.
func (a *Account) bringBack(m *box, unknown map[string]bool, states map[string]mailboxRecord) error {
	for f := range unknown {
		if s, ok := states[f]; !ok || s.ID != m.rec.ID || s.ObjectID != m.rec.ObjectID {
			continue
		}
		delete(unknown, f)
		// In this order: a crash in between leaves it to be found again.
		if err := a.blobs.SetState(f, m.rec.state()); err != nil {
			return err
		}
		return a.blobs.Rename(f, m.rec.folder)
	}
	a.logger().Error("a mailbox's folder is missing", "account", a.address, "mailbox", m.rec.Name, "folder", m.rec.folder)
	return nil
}

// takeFolders is rule 4. Names may be taken by now; then the mailbox gets another.
func (a *Account) takeFolders(unknown map[string]bool, states map[string]mailboxRecord) error {
	if len(unknown) == 0 {
		return nil
	}
	var list []string
	for f := range unknown {
		list = append(list, f)
	}
	slices.Sort(list)
	return a.change(func(t *tx) error {
		for _, f := range list {
			s := states[f]
			b := t.newBox(t.freeName(f, s.Name), s.SpecialUse)
			b.rec.folder, b.foreign = f, true // to be compared
			if err := t.a.blobs.SetState(f, b.rec.state()); err != nil {
				return err
			}
			t.event(Change{Kind: MailboxCreated, Mailbox: b.rec.ID, Name: b.rec.Name})
		}
		return nil
	})
}

// freeName finds a name for a folder: what the folder's own name says, else what its state says, else "Recovered".
func (t *tx) freeName(folder, stated string) string {
	name, ok := blob.MailboxName(folder)
	if f, _ := blob.FolderName(stated); !ok || f == folder {
		name = stated
	}
	name, err := mailboxName(name)
	if err != nil || name == inbox && folder != "" {
		name = "Recovered"
	}
	free := name
	for n := 2; t.lookUp(free) != 0; n++ {
		free = fmt.Sprintf("%s (%d)", name, n)
	}
	return free
}

func (a *Account) settleLagging() error {
	return a.read(func(r kv.Reader) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for id, m := range a.boxes {
			if !m.rec.lagging {
				continue
			}
			var runs []uint32
			from, to := range8(prefixRows, id)
			r.Scan(from, to, func(k, _ []byte) bool {
				runs = append(runs, key8Number(k))
				return true
			})
			a.lag(id, runs)
		}
		return nil
	})
}

// writeTimes puts into the index, for mailboxes that are as we left them, the times by which the next opening will
// know that; and claims of \Recent.
func (a *Account) writeTimes() error {
	type news struct {
		id    MailboxID
		times dirTimes
	}
	var list []news
	a.mu.RLock()
	for id, m := range a.boxes {
		if m.unsaved || m.times != (dirTimes{m.rec.newTime, m.rec.curTime}) {
			list = append(list, news{id, m.times})
		}
	}
	a.mu.RUnlock()
	if len(list) == 0 {
		return nil
	}
	if slices.ContainsFunc(list, func(n news) bool { return !n.times.settled(a.store.tick) }) {
		time.Sleep(a.store.tick)
	}
	return a.change(func(t *tx) error {
		for _, n := range list {
			b, err := t.box(n.id)
			if err != nil {
				continue
			}
			if n.times == a.timesOf(b.rec.folder) {
				b.rec.newTime, b.rec.curTime = n.times.new, n.times.cur
			} else {
				b.rec.newTime, b.rec.curTime = 0, 0
			}
			b.changed, t.wrote = true, true
		}
		return nil
	})
}
