package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"
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
		if err := a.compare(id, intake{crash: true}); err != nil {
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
		if err := a.blobs.Rename(f, m.rec.folder); err != nil {
			return err
		}
		return a.blobs.SetState(m.rec.folder, m.rec.state())
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

// rebuild makes an index out of the Maildir: mailboxes and UIDVALIDITY from the folders' states, UIDs, dates and flags from
// the file names, the rest by reading the messages. It is made under another name and renamed when complete. Mod-sequences
// go on from the present microsecond, which is more than there can have been changes; the log begins there.
func (a *Account) rebuild(fresh bool) error {
	began := time.Now()
	path := a.indexPath() + ".new"
	if err := a.store.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := a.store.openIndex(path)
	if err != nil {
		return err
	}
	a.db, a.rebuilding, a.quiet = db, true, !fresh
	err = a.rebuildInto(fresh)
	a.rebuilding, a.quiet = false, false
	if err = errors.Join(err, a.closeIndex()); err != nil {
		return fmt.Errorf("rebuild the index: %w", err)
	}
	if err := a.store.fs.Rename(path, a.indexPath()); err != nil {
		return err
	}
	if n := a.rec.usage.Messages; n > 0 {
		a.logger().Info("index rebuilt from the Maildir", "account", a.address, "messages", n, "took", time.Since(began))
	}
	a.keywords = nil
	return a.store.fs.SyncDir(a.dir)
}

func (a *Account) rebuildInto(fresh bool) error {
	a.boxes, a.names, a.subs = map[MailboxID]*box{}, map[string]*box{}, map[string]struct{}{}
	a.folders, a.lagging = map[string]MailboxID{}, map[MailboxID]map[uint32]struct{}{}
	a.rec = accountRecord{modSeq: ModSeq(max(0, a.store.now().UnixMicro())), host: a.store.host}
	if fresh { // nobody has seen a mod-sequence of it
		a.rec.modSeq = 0
	}
	folders, err := a.blobs.Folders()
	if err != nil {
		return err
	}
	slices.Sort(folders) // "", the INBOX, first
	if err := a.change(func(t *tx) error { return t.rebuildLists(folders) }); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(a.boxes)) {
		if err := a.rebuildBox(id); err != nil {
			return err
		}
	}
	return a.change(func(t *tx) error {
		if !fresh {
			t.rec.logFloor = t.rec.modSeq
		}
		t.wrote = true
		return t.kv.Put(keyVersion(), []byte{formatVersion})
	})
}

// rebuildLists enters keywords, subscriptions and mailboxes.
func (t *tx) rebuildLists(folders []string) error {
	t.wrote = true
	data, err := t.a.blobs.Meta(keywordsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.keywords = parseKeywords(data)
	for k, name := range t.keywords {
		if err := t.kv.Put(keyKeyword(k), []byte(name)); err != nil {
			return err
		}
	}
	if data, err = t.a.blobs.Meta(subscriptionsFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range parseLines(data) {
		if name, err := mailboxName(name); err == nil {
			t.subs[name] = true
			if err := t.kv.Put(keySubscribed(name), nil); err != nil {
				return err
			}
		}
	}
	states, err := t.a.states(folders)
	if err != nil {
		return err
	}
	for _, s := range states { // so that new numbers are newer than all of them
		t.rec.lastMailbox = max(t.rec.lastMailbox, s.ID)
		t.rec.lastValidity = max(t.rec.lastValidity, s.UIDValidity)
	}
	for _, f := range folders {
		if err := t.rebuildFolder(f, states); err != nil {
			return err
		}
	}
	return nil
}

func (a *Account) states(folders []string) (map[string]mailboxRecord, error) {
	states := map[string]mailboxRecord{}
	for _, f := range folders {
		data, err := a.blobs.State(f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if s, ok := parseState(data); ok {
			states[f] = s
		}
	}
	return states, nil
}

// rebuildFolder makes a folder's mailbox. A state that two folders share (somebody copied one) counts for the first.
func (t *tx) rebuildFolder(folder string, states map[string]mailboxRecord) error {
	if strings.HasPrefix(folder, ".~deleted-") {
		return t.a.blobs.Remove(folder)
	}
	s, ok := states[folder]
	name := t.freeName(folder, s.Name)
	if ok = ok && t.boxes[s.ID] == nil; !ok {
		b := t.newBox(name, conventionalUse(name, folder, states))
		b.rec.folder = folder
		t.event(Change{Kind: MailboxCreated, Mailbox: b.rec.ID, Name: name})
		return t.a.blobs.SetState(folder, b.rec.state())
	}
	b := &txBox{created: true, base: newView(Mailbox{}, nil), chunks: map[uint32]*chunk{}, rec: s}
	b.rec.Name, b.rec.folder, b.rec.UIDNext, b.rec.firstRecent, b.rec.reserved = name, folder, 1, 1, true
	t.boxes[s.ID], t.names[name] = b, s.ID
	t.changedAt(b)
	return nil
}

// conventionalUse gives a foreign Maildir's folders their special use by name.
func conventionalUse(name, folder string, states map[string]mailboxRecord) string {
	if _, ours := states[folder]; ours {
		return ""
	}
	for _, d := range defaultMailboxes {
		if d.name == name {
			return d.use
		}
	}
	return ""
}

// rebuildBatch is how many messages of a rebuild share a transaction.
const rebuildBatch = 1000

// highUID is where a UID in a file name is too high to be ours: it would leave none for later messages.
const highUID = math.MaxUint32 - 1<<20

// rebuildBox enters a folder's messages: first those that keep their UIDs, then the others, beyond all that may have been
// given out and seen by clients.
func (a *Account) rebuildBox(id MailboxID) error {
	m := a.boxes[id]
	var d difference
	err := a.read(func(r kv.Reader) (err error) {
		d, err = a.differ(r, id, m.rec.folder, a.rec.host)
		return err
	})
	if err != nil {
		return err
	}
	var keep, others []stray
	for i, s := range d.strays {
		if i > 0 && s.name.UID == d.strays[i-1].name.UID || s.name.UID > highUID {
			others = append(others, s)
		} else {
			keep = append(keep, s)
		}
	}
	for s := range slices.Chunk(keep, rebuildBatch) {
		if err := a.rebuildSome(id, difference{strays: s}, intake{rebuild: true}); err != nil {
			return err
		}
	}
	if err := a.change(func(t *tx) error { return t.skipReserved(id) }); err != nil {
		return err
	}
	for s := range slices.Chunk(others, rebuildBatch) {
		if err := a.rebuildSome(id, difference{strays: s}, intake{}); err != nil {
			return err
		}
	}
	for f := range slices.Chunk(d.foreign, rebuildBatch) {
		if err := a.rebuildSome(id, difference{foreign: f}, intake{}); err != nil {
			return err
		}
	}
	return nil
}

// skipReserved goes on where the state file has reserved up to. What is there is not \Recent: somebody has seen it.
func (t *tx) skipReserved(id MailboxID) error {
	b, err := t.box(id)
	if err != nil {
		return err
	}
	if b.rec.reserved {
		b.rec.UIDNext = max(b.rec.UIDNext, b.rec.ceiling)
	}
	b.rec.firstRecent, b.rec.Recent = b.rec.UIDNext, 0
	b.changed, t.wrote = true, true
	return t.reserve(b, 0)
}

func (a *Account) rebuildSome(id MailboxID, d difference, in intake) error {
	return a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return err
		}
		as := arrivals{}
		for _, e := range d.foreign {
			as.add(a, b.rec.folder, e)
		}
		for _, s := range d.strays {
			x, _, err := t.known(b, s, as)
			if err != nil {
				return err
			}
			if x == nil {
				as.add(a, b.rec.folder, s.Entry)
			}
		}
		t.op.after = append(t.op.after, as.close)
		return t.takeIn(b, d, as, in)
	})
}
