package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// Account is one open account. All methods may be called from several goroutines.
//
// Locks are taken in this order: the writer's turn, files, dbMu, mu, watchMu.
type Account struct {
	store             *Store
	address           string
	dir               string
	blobs             blob.Store
	refs              int  // guarded by store.mu
	rebuilding, quiet bool // quiet: nothing goes into the change log

	writer   writer
	doubtful *tx // the writer's: its commit failed and the index has not been opened since

	// files is held by who renames what the committed index still knows by its old name.
	files sync.RWMutex

	dbMu sync.RWMutex
	db   kv.DB // nil while it is in doubt, or closed

	mu         sync.RWMutex // all that follows; written by publish alone but for views, ClaimRecent and times
	gone       error        // why the account can no longer be used
	rec        accountRecord
	keywords   []string
	boxes      map[MailboxID]*box
	names      map[string]*box
	folders    map[string]MailboxID
	subs       map[string]struct{}
	order      []*box // boxes as Mailboxes lists them; nil: to be made
	lastChange time.Time
	lagging    map[MailboxID]map[uint32]struct{} // runs with file names that may lag behind the flags

	comparing sync.Mutex // held by who compares a folder, or does chores: one at a time

	watchMu  sync.Mutex
	watchers map[*Watcher]struct{} // nil once the account is gone
}

// box is what an account holds of a mailbox in memory.
type box struct {
	rec     mailboxRecord // as committed, but for ClaimRecent
	unsaved bool          // rec has a claim that the index does not know yet
	view    *View         // nil until somebody asks
	epoch   uint64        // counts publications, so that a view read meanwhile is not taken for the present

	times     dirTimes // of the folder when it was last known to say what the index says; zero: never
	sure      bool     // a comparison said so; else what changed since was our own doing, as far as we can tell
	compared  time.Time
	comparing time.Duration // what the last comparison took
}

const indexFile = "index.db"

func (a *Account) indexPath() string    { return filepath.Join(a.dir, indexFile) }
func (a *Account) logger() *slog.Logger { return a.store.log }

// openAccount opens the account in dir: rebuilds its index if there is none, finishes what a crash left unfinished, and
// takes in what a foreign hand did meanwhile. fresh says that dir was made just now.
func (s *Store) openAccount(address, dir string, fresh bool) (a *Account, err error) {
	a = &Account{store: s, address: address, dir: dir, watchers: map[*Watcher]struct{}{}}
	a.writer.idle = sync.NewCond(&a.writer.mu)
	fail := func(err error) (*Account, error) {
		return nil, fmt.Errorf("open account %s: %w", address, errors.Join(err, a.closeIndex()))
	}
	if a.blobs, err = blob.OpenMaildir(s.fs, filepath.Join(dir, "Maildir")); err != nil {
		return fail(err)
	}
	_, err = s.fs.Stat(a.indexPath())
	if errors.Is(err, fs.ErrNotExist) {
		err = a.rebuild(fresh)
	}
	if err != nil {
		return fail(err)
	}
	if a.db, err = s.openIndex(a.indexPath()); err != nil {
		return fail(err)
	}
	if err = a.read(a.load); err != nil {
		return fail(err)
	}
	if err = a.settle(); err != nil {
		return fail(err)
	}
	if len(a.lagging) > 0 {
		s.kick(a)
	}
	return a, nil
}

// load reads what is kept in memory: everything but rows, placements and summaries.
func (a *Account) load(r kv.Reader) (err error) {
	switch v := r.Get(keyVersion()); {
	case len(v) != 1:
		return fmt.Errorf("%w: no version", errDamaged)
	case v[0] > formatVersion:
		return fmt.Errorf("%w: its format is %d, ours %d", ErrNewerFormat, v[0], formatVersion)
	}
	if a.rec, err = decodeAccount(r.Get(keyAccount())); err != nil {
		return err
	}
	a.boxes, a.names, a.subs = map[MailboxID]*box{}, map[string]*box{}, map[string]struct{}{}
	a.folders, a.lagging = map[string]MailboxID{}, map[MailboxID]map[uint32]struct{}{}
	from, to := rangeOf(prefixKeyword)
	r.Scan(from, to, func(_, v []byte) bool {
		a.keywords = append(a.keywords, string(v))
		return true
	})
	from, to = rangeOf(prefixSubscribed)
	r.Scan(from, to, func(k, _ []byte) bool {
		a.subs[string(k[1:])] = struct{}{}
		return true
	})
	from, to = rangeOf(prefixMailbox)
	r.Scan(from, to, func(k, v []byte) bool {
		m := &box{}
		if m.rec, err = decodeMailbox(k, v); err != nil {
			return false
		}
		m.times = dirTimes{m.rec.newTime, m.rec.curTime}
		a.boxes[m.rec.ID], a.names[m.rec.Name], a.folders[m.rec.folder] = m, m, m.rec.ID
		return true
	})
	return err
}

// read runs fn on a snapshot of the index.
func (a *Account) read(fn func(kv.Reader) error) error {
	a.mu.RLock()
	gone := a.gone
	a.mu.RUnlock()
	if gone != nil {
		return gone
	}
	a.dbMu.RLock()
	defer a.dbMu.RUnlock()
	if a.db == nil {
		return fmt.Errorf("index of %s could not be reopened after a failed write", a.address)
	}
	return a.db.View(fn)
}

func (a *Account) closeIndex() error {
	a.dbMu.Lock()
	defer a.dbMu.Unlock()
	if a.db == nil {
		return nil
	}
	err := a.db.Close()
	a.db = nil
	return err
}

// shut ends the account: running changes finish, later ones get why. Unless the mail is to go with it, lazy work is done.
func (a *Account) shut(why error, keep bool) error {
	var err error
	if keep {
		err = a.tidyUp()
	}
	a.writer.stop(why)
	a.mu.Lock()
	a.gone = why
	a.mu.Unlock()
	a.watchMu.Lock()
	for w := range a.watchers {
		close(w.c)
	}
	a.watchers = nil
	a.watchMu.Unlock()
	return errors.Join(err, a.closeIndex())
}

// Address is the account's canonical address.
func (a *Account) Address() string { return a.address }

// describe is a mailbox as callers see it; a.mu is held.
func (a *Account) describe(m *box) Mailbox {
	_, m.rec.Subscribed = a.subs[m.rec.Name]
	return m.rec.Mailbox
}

// Mailboxes lists all mailboxes by name, INBOX first.
func (a *Account) Mailboxes() ([]Mailbox, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone != nil {
		return nil, a.gone
	}
	if a.order == nil {
		for _, m := range a.boxes {
			a.order = append(a.order, m)
		}
		slices.SortFunc(a.order, func(x, y *box) int { return compareNames(x.rec.Name, y.rec.Name) })
	}
	list := make([]Mailbox, len(a.order))
	for i, m := range a.order {
		list[i] = a.describe(m)
	}
	return list, nil
}

func compareNames(x, y string) int {
	if x == y {
		return 0
	}
	if x == inbox {
		return -1
	}
	if y == inbox {
		return 1
	}
	return strings.Compare(x, y)
}

// Mailbox finds a mailbox by name (INBOX in any case). ErrNoMailbox.
func (a *Account) Mailbox(name string) (Mailbox, error) {
	clean, err := mailboxName(name)
	if err != nil {
		return Mailbox{}, fmt.Errorf("%w: %w", ErrNoMailbox, err)
	}
	return a.describeIf(func() *box { return a.names[clean] })
}

// MailboxByID finds a mailbox that may have been renamed since. ErrNoMailbox once deleted.
func (a *Account) MailboxByID(id MailboxID) (Mailbox, error) {
	return a.describeIf(func() *box { return a.boxes[id] })
}

func (a *Account) describeIf(find func() *box) (Mailbox, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone != nil {
		return Mailbox{}, a.gone
	}
	m := find()
	if m == nil {
		return Mailbox{}, ErrNoMailbox
	}
	return a.describe(m), nil
}

// Subscriptions lists the subscribed names, sorted.
func (a *Account) Subscriptions() ([]string, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.gone != nil {
		return nil, a.gone
	}
	names := make([]string, 0, len(a.subs))
	for n := range a.subs {
		names = append(names, n)
	}
	slices.SortFunc(names, compareNames)
	return names, nil
}

// ModSeq is the account's latest mod-sequence.
func (a *Account) ModSeq() ModSeq {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.rec.modSeq
}

// Usage is counted in the same transactions as the mail.
func (a *Account) Usage() (Usage, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.rec.usage, a.gone
}

// View returns the mailbox's rows as of now. It costs a pointer once the mailbox is in memory. ErrNoMailbox.
func (a *Account) View(id MailboxID) (*View, error) {
	for try := 0; ; try++ {
		if try == 3 { // too much is going on to catch a quiet moment
			if err := a.loadInTurn(id); err != nil {
				return nil, err
			}
		}
		a.mu.RLock()
		gone, m := a.gone, a.boxes[id]
		var v *View
		var epoch uint64
		if m != nil {
			v, epoch = m.view, m.epoch
		}
		a.mu.RUnlock()
		if gone != nil {
			return nil, gone
		}
		if m == nil {
			return nil, ErrNoMailbox
		}
		if v != nil {
			return v, nil
		}
		// Read it without holding anybody up; if something was published meanwhile, what was read may be old.
		err := a.read(func(r kv.Reader) (err error) {
			v, err = readView(r, id)
			return err
		})
		if err != nil {
			return nil, err
		}
		if v = a.keepView(m, v, epoch); v != nil {
			return v, nil
		}
	}
}

func (a *Account) keepView(m *box, v *View, epoch uint64) *View {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.view == nil && v != nil && m.epoch == epoch {
		// The index may be one commit ahead of m.rec: publishing that commit puts both right.
		v.box.Recent, v.box.Subscribed = a.describe(m).Recent, m.rec.Subscribed
		m.view = v
	}
	return m.view
}

// loadInTurn reads a mailbox's rows while no commit can come between.
func (a *Account) loadInTurn(id MailboxID) error {
	return a.change(func(t *tx) error {
		if _, err := t.box(id); err != nil {
			return err
		}
		a.mu.RLock()
		m := a.boxes[id]
		a.mu.RUnlock()
		if m == nil { // made in this very group
			return nil
		}
		v, err := readView(t.kv, id)
		if err == nil {
			a.keepView(m, v, m.epoch)
		}
		return err
	})
}

// readView reads a mailbox's rows; nil if the index no longer has the mailbox.
func readView(r kv.Reader, id MailboxID) (*View, error) {
	b := r.Get(keyMailbox(id))
	if b == nil {
		return nil, nil
	}
	rec, err := decodeMailbox(keyMailbox(id), b)
	if err != nil {
		return nil, err
	}
	var chunks []*chunk
	from, to := range8(prefixRows, id)
	r.Scan(from, to, func(k, v []byte) bool {
		var c *chunk
		if c, err = decodeRows(key8Number(k), v); err == nil {
			chunks = append(chunks, c)
		}
		return err == nil
	})
	return newView(rec.Mailbox, chunks), err
}

// ClaimRecent returns the first UID that no session has been told of as \Recent; all from it on are this caller's
// recent messages, and nobody else's from now on (RFC 3501 section 2.3.2). A crash may forget a claim.
func (a *Account) ClaimRecent(id MailboxID) (UID, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone != nil {
		return 0, a.gone
	}
	m := a.boxes[id]
	if m == nil {
		return 0, ErrNoMailbox
	}
	first := m.rec.firstRecent
	if first < m.rec.UIDNext {
		m.rec.firstRecent, m.rec.Recent, m.unsaved = m.rec.UIDNext, 0, true
		if m.view != nil {
			m.view = m.view.with(a.describe(m), nil)
		}
	}
	return first, nil
}
