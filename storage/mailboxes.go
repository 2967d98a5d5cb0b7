package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"mailsrv/storage/blob"
)

// maxSubscribed is how many names an account may have subscribed.
const maxSubscribed = maxMailboxes

// CreateMailbox makes a mailbox and the parents it lacks. use is a special-use attribute or "". ErrMailboxExists,
// ErrBadMailboxName, ErrTooManyMailboxes.
func (a *Account) CreateMailbox(name, use string) (Mailbox, error) {
	name, err := mailboxName(name)
	if err != nil {
		return Mailbox{}, err
	}
	var made Mailbox
	err = a.change(func(t *tx) error {
		if t.lookUp(name) != 0 {
			return fmt.Errorf("%w: %.80q", ErrMailboxExists, name)
		}
		if err := t.createParents(name); err != nil {
			return err
		}
		b, err := t.create(name, use)
		if err == nil {
			made = b.rec.Mailbox
		}
		return err
	})
	made.Subscribed = a.subscribed(name)
	return made, a.wrap("create mailbox", err)
}

func (a *Account) subscribed(name string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, ok := a.subs[name]
	return ok
}

// wrap gives an error its operation and account.
func (a *Account) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s in %s: %w", op, a.address, err)
}

func (t *tx) createParents(name string) error {
	for _, up := range parents(name) {
		if t.lookUp(up) == 0 {
			if _, err := t.create(up, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// mailboxes counts them within the tx.
func (t *tx) mailboxes() int {
	t.a.mu.RLock()
	n := len(t.a.boxes)
	t.a.mu.RUnlock()
	for _, b := range t.boxes {
		if b.created {
			n++
		}
		if b.deleted {
			n--
		}
	}
	return n
}

// create makes a mailbox that does not exist.
func (t *tx) create(name, use string) (*txBox, error) {
	if t.mailboxes() >= maxMailboxes {
		return nil, fmt.Errorf("%w: %d", ErrTooManyMailboxes, maxMailboxes)
	}
	b := t.newBox(name, use)
	if err := t.makeFolder(b); err != nil {
		return nil, err
	}
	t.event(Change{Kind: MailboxCreated, Mailbox: b.rec.ID, Name: name})
	return b, nil
}

// newBox enters a mailbox without its folder.
func (t *tx) newBox(name, use string) *txBox {
	t.rec.lastMailbox++
	t.rec.lastValidity = max(t.rec.lastValidity+1, UIDValidity(t.now.Unix()))
	folder, _ := blob.FolderName(name)
	id := t.rec.lastMailbox
	b := &txBox{created: true, base: newView(Mailbox{}, nil), chunks: map[uint32]*chunk{}, rec: mailboxRecord{
		Mailbox: Mailbox{
			ID: id, Name: name, UIDValidity: t.rec.lastValidity, UIDNext: 1, Created: unix(t.now.Unix()),
			SpecialUse: use, ObjectID: objectID(t, id),
		},
		folder: folder, ceiling: 1 + uidBlock, firstRecent: 1,
	}}
	t.boxes[id], t.names[name] = b, id
	t.changedAt(b)
	return b
}

// objectID is the moment, so that it differs from all that ever were, and the id, so that it differs from those of this moment.
func objectID(t *tx, id MailboxID) string { return fmt.Sprintf("M%x-%x", t.now.UnixMicro(), id) }

// makeFolder makes a new mailbox's folder. What a foreign hand has put there since the account was opened is taken over
// with its messages.
func (t *tx) makeFolder(b *txBox) error {
	folder := t.freeFolder(b.rec.folder, b.rec.ID)
	b.rec.folder = folder
	err := t.a.blobs.Create(folder, b.rec.state())
	if errors.Is(err, fs.ErrExist) {
		b.foreign = true
		return t.a.blobs.SetState(folder, b.rec.state())
	}
	t.undo = append(t.undo, func() error { return t.a.blobs.Remove(folder) }) // it may be there though Create failed
	return err
}

// freeFolder is the folder, or another one if it belongs to a mailbox already, as it can after repairs.
func (t *tx) freeFolder(folder string, id MailboxID) string {
	taken := func() bool {
		for other, b := range t.boxes {
			if b.rec.folder == folder && other != id && !b.deleted {
				return true
			}
		}
		t.a.mu.RLock()
		defer t.a.mu.RUnlock()
		other, is := t.a.folders[folder]
		return is && t.boxes[other] == nil
	}
	if taken() {
		return fmt.Sprintf("%s~%016x", folder[:min(len(folder), 180)], id)
	}
	return folder
}

// DeleteMailbox removes a mailbox with its messages; children stay. ErrCannotDelete for INBOX.
func (a *Account) DeleteMailbox(name string) error {
	clean, err := mailboxName(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoMailbox, err)
	}
	if clean == inbox {
		return ErrCannotDelete
	}
	err = a.change(func(t *tx) error {
		b, err := t.boxNamed(clean)
		if err != nil {
			return err
		}
		t.event(Change{Kind: MailboxDeleted, Mailbox: b.rec.ID, Name: clean})
		if err := t.dropRows(b); err != nil {
			return err
		}
		return t.dropFolder(b)
	})
	return a.wrap("delete mailbox", err)
}

// dropRows takes all that the index has of a mailbox out of it.
func (t *tx) dropRows(b *txBox) error {
	id := b.rec.ID
	var keys [][]byte
	var ids []MessageID
	for _, prefix := range []byte{prefixPlacement, prefixRows, prefixRemoved} {
		from, to := range8(prefix, id)
		var err error
		t.kv.Scan(from, to, func(k, v []byte) bool {
			keys = append(keys, slices.Clone(k))
			if prefix == prefixPlacement {
				var p placement
				p, err = decodePlacement(v)
				ids = append(ids, p.id)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	for _, k := range append(keys, keyMailbox(id)) {
		if err := t.kv.Delete(k); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := t.links(id, -1); err != nil {
			return err
		}
	}
	t.rec.usage.Messages -= int64(b.rec.Messages)
	t.rec.usage.Bytes -= b.rec.Size
	return nil
}

// dropFolder puts a mailbox's folder aside, where it waits to be removed once the commit is durable. Its name is free at once.
func (t *tx) dropFolder(b *txBox) error {
	from, aside := b.rec.folder, fmt.Sprintf(".~deleted-%d", b.rec.ID)
	t.lockFiles()
	if err := t.renameFolder(from, aside); err != nil {
		return err
	}
	b.deleted, b.changed = true, true
	t.names[b.rec.Name] = 0
	t.op.after = append(t.op.after, t.a.removeSoon)
	return t.kv.Put(key8(prefixRemoved, b.rec.ID, 0), []byte(aside))
}

func (t *tx) renameFolder(from, to string) error {
	t.undo = append(t.undo, func() error { return t.a.blobs.Rename(to, from) })
	return t.a.blobs.Rename(from, to)
}

// RenameMailbox renames a mailbox with its children. Renaming INBOX moves its messages into a new mailbox and leaves
// INBOX empty (RFC 9051 section 6.3.6); its children stay. Subscriptions do not follow names (RFC 9051 section 6.3.6).
func (a *Account) RenameMailbox(from, to string) error {
	from, err := mailboxName(from)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoMailbox, err)
	}
	if to, err = mailboxName(to); err != nil {
		return err
	}
	if from != inbox && strings.HasPrefix(to, from+"/") {
		return &BadNameError{Name: to, Why: "is below the mailbox itself"}
	}
	err = a.change(func(t *tx) error {
		if from == inbox {
			return t.renameInbox(to)
		}
		return t.renameTree(from, to)
	})
	return a.wrap("rename mailbox", err)
}

func (t *tx) renameInbox(to string) error {
	if t.lookUp(to) != 0 {
		return fmt.Errorf("%w: %.80q", ErrMailboxExists, to)
	}
	if err := t.createParents(to); err != nil {
		return err
	}
	dest, err := t.create(to, "")
	if err != nil {
		return err
	}
	src, err := t.boxNamed(inbox)
	if err != nil {
		return err
	}
	all, err := t.uids(src, func(Row) bool { return true })
	if err != nil {
		return err
	}
	_, err = t.transfer(src, all, dest, true)
	return err
}

// tree lists the names of a mailbox and its children, sorted. The mailbox itself need not exist.
func (t *tx) tree(top string) []string {
	var names []string
	add := func(name string) {
		if (name == top || strings.HasPrefix(name, top+"/")) && t.lookUp(name) != 0 {
			names = append(names, name)
		}
	}
	t.a.mu.RLock()
	known := make([]string, 0, len(t.a.names))
	for name := range t.a.names {
		known = append(known, name)
	}
	t.a.mu.RUnlock()
	for _, name := range known {
		add(name)
	}
	for name := range t.names {
		add(name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// renameTree checks all, then renames folder by folder. The folders go first and the commit follows: a crash between is
// undone when the account is next opened, since every folder's state has its mailbox's id (settle).
func (t *tx) renameTree(from, to string) error {
	names := t.tree(from)
	if len(names) == 0 {
		return fmt.Errorf("%w: %.80q", ErrNoMailbox, from)
	}
	if from == to {
		return fmt.Errorf("%w: %.80q", ErrMailboxExists, to)
	}
	if t.lookUp(to) != 0 {
		return fmt.Errorf("%w: %.80q", ErrMailboxExists, to)
	}
	for _, name := range names {
		target, err := mailboxName(to + name[len(from):])
		if err != nil {
			return err
		}
		if t.lookUp(target) != 0 {
			return fmt.Errorf("%w: %.80q", ErrMailboxExists, target)
		}
	}
	if err := t.createParents(to); err != nil {
		return err
	}
	t.lockFiles()
	for _, name := range names {
		if err := t.rename(name, to+name[len(from):]); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) rename(from, to string) error {
	b, err := t.boxNamed(from)
	if err != nil {
		return err
	}
	before := b.rec
	if b.touched {
		// What this group has filed is to be durable under the name it has now; the rename does not see to that.
		if err := t.a.blobs.Sync(before.folder); err != nil {
			return err
		}
	}
	b.rec.Name = to
	folder, _ := blob.FolderName(to)
	folder = t.freeFolder(folder, b.rec.ID)
	b.rec.folder = folder
	t.names[from], t.names[to] = 0, b.rec.ID
	b.changed = true
	t.event(Change{Kind: MailboxRenamed, Mailbox: b.rec.ID, Name: to, OldName: from})
	// The state follows the folder, so that a crash in between leaves a folder that is missed and found by its id.
	if err := t.renameFolder(before.folder, folder); err != nil {
		return err
	}
	t.undo = append(t.undo, func() error { return t.a.blobs.SetState(folder, before.state()) })
	return t.a.blobs.SetState(folder, b.rec.state())
}

// Subscribe adds or removes a name from the subscriptions, whether or not the mailbox exists.
func (a *Account) Subscribe(name string, on bool) error {
	name, err := mailboxName(name)
	if err != nil {
		return err
	}
	err = a.change(func(t *tx) error { return t.subscribe(on, name) })
	return a.wrap("subscribe", err)
}

func (t *tx) subscribe(on bool, names ...string) error {
	subs := t.subscriptions()
	changed := false
	for _, name := range names {
		if i, is := slices.BinarySearch(subs, name); is == on {
			continue
		} else if on {
			// Names need no mailbox to be subscribed, and each change writes them all.
			if len(subs) >= maxSubscribed {
				return fmt.Errorf("%w: %d are subscribed", ErrTooManyMailboxes, len(subs))
			}
			subs = slices.Insert(subs, i, name)
		} else {
			subs = slices.Delete(subs, i, i+1)
		}
		t.subs[name], changed = on, true
		t.event(Change{Kind: SubscriptionChanged, Mailbox: t.lookUp(name), Name: name})
		err := t.kv.Delete(keySubscribed(name))
		if on {
			err = t.kv.Put(keySubscribed(name), nil)
		}
		if err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return t.a.blobs.SetMeta(subscriptionsFile, formatLines(subs))
}

// subscriptions lists them within the tx, sorted bytewise.
func (t *tx) subscriptions() []string {
	t.a.mu.RLock()
	var subs []string
	for name := range t.a.subs {
		if _, over := t.subs[name]; !over {
			subs = append(subs, name)
		}
	}
	t.a.mu.RUnlock()
	for name, on := range t.subs {
		if on {
			subs = append(subs, name)
		}
	}
	slices.Sort(subs)
	return subs
}
