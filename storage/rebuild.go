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

	"mailsrv/storage/kv"
)

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
	as := arrivals{}
	defer func() { as.close() }()
	return a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return err
		}
		as.close()
		as = arrivals{}
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
		return t.takeIn(b, d, as, in)
	})
}
