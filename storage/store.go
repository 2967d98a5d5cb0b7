// Package storage keeps accounts' mail: mailboxes, messages, flags, the change log, quota. It is the only durable
// writer of mail; every protocol is a translator over it.
//
// An account is the unit of consistency: one index (storage/kv) and one live Maildir++ (storage/blob). Every method of
// [Account] that changes something returns after the change is durable. Changes of one account run one at a time and
// share commits; readers never wait for them.
//
// Where to read on: format.go draws the index, folder.go what lies beside it in the Maildir; writer.go and tx.go are how a
// change happens; compare.go and repair.go what is done about crashes and foreign hands.
package storage

import (
	"bufio"
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
)

// Options open a Store. Zero values: see each field.
type Options struct {
	Dir      string       // accounts live under Dir/accounts, messages on their way in under Dir/tmp
	FS       disk.FS      // nil: the real one
	Hostname string       // stands in message file names; "" is "localhost"
	MaxOpen  int          // accounts kept open though nobody uses them; 0 is 256
	Logger   *slog.Logger // nil discards
	Now      func() time.Time
	// Quota is asked for an account's limits at each arrival; nil is no limits.
	Quota func(address string) Quota
	// Reserve is the free disk space, in bytes, below which nothing is taken in (ErrDiskFull); 0 is 64 MiB.
	Reserve int64

	openIndex func(path string) (kv.DB, error) // nil: kv.OpenBolt; for tests
	memory    bool                             // for tests: FS is not the real one: nothing can be locked, its clock does not tick
}

const (
	defaultMaxOpen = 256
	defaultReserve = 64 << 20
	freeFor        = time.Second // how long Room believes what the disk last said
)

// Store holds the accounts.
type Store struct {
	fs        disk.FS
	log       *slog.Logger
	host      string
	now       func() time.Time
	quota     func(string) Quota
	openIndex func(string) (kv.DB, error)
	root, tmp string
	maxOpen   int
	reserve   int64
	tick      time.Duration // of the file system's clock
	serial    atomic.Uint64
	appended  atomic.Int64 // messages, since Open
	bytes     atomic.Int64 // of them
	buffers   sync.Pool
	lock      io.Closer

	mu     sync.Mutex
	slots  map[string]*slot
	idle   *list.List // of *Account nobody uses, the longest idle first
	closed bool

	freeMu sync.Mutex
	free   int64
	freeAt time.Time

	janitor janitor
}

// slot is the place of one address: who opens, closes, makes or removes the account holds its lock.
type slot struct {
	mu      sync.Mutex
	account *Account // nil: not open
	users   int      // who hold or wait for mu; guarded by Store.mu
	element *list.Element
}

// Open opens the store and removes what a crash left in Dir/tmp. One process at a time: a second is refused.
func Open(o Options) (*Store, error) {
	s := &Store{
		fs: o.FS, log: o.Logger, host: o.Hostname, now: o.Now, quota: o.Quota, openIndex: o.openIndex,
		root: filepath.Join(o.Dir, "accounts"), tmp: filepath.Join(o.Dir, "tmp"),
		maxOpen: o.MaxOpen, reserve: o.Reserve, slots: map[string]*slot{}, idle: list.New(),
	}
	s.defaults()
	for _, dir := range []string{s.root, s.tmp} {
		if err := s.fs.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	if !o.memory {
		s.tick = clockTick
		lock, err := disk.Lock(filepath.Join(o.Dir, "lock")) // for as long as this process lives
		if err != nil {
			if errors.Is(err, disk.ErrLocked) {
				err = fmt.Errorf("%w (%w)", ErrInUse, err)
			}
			return nil, fmt.Errorf("open store: %w", err)
		}
		s.lock = lock
	}
	if err := s.clearTmp(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.unlock())
	}
	s.janitor.start(s)
	return s, nil
}

func (s *Store) defaults() {
	if s.fs == nil {
		s.fs = disk.OS()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.host == "" {
		s.host = "localhost"
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.openIndex == nil {
		s.openIndex = kv.OpenBolt
	}
	if s.maxOpen == 0 {
		s.maxOpen = defaultMaxOpen
	}
	if s.reserve == 0 {
		s.reserve = defaultReserve
	}
	s.buffers.New = func() any { return bufio.NewWriterSize(nil, 32<<10) }
}

func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

func (s *Store) clearTmp() error {
	left, err := s.fs.ReadDir(s.tmp)
	for _, e := range left {
		err = errors.Join(err, s.fs.RemoveAll(filepath.Join(s.tmp, e.Name())))
	}
	return err
}

// enter takes an address's slot. The caller must leave it.
func (s *Store) enter(address string) (*slot, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	sl := s.slots[address]
	if sl == nil {
		sl = &slot{}
		s.slots[address] = sl
	}
	sl.users++
	s.mu.Unlock()
	sl.mu.Lock()
	return sl, nil
}

func (s *Store) leave(address string, sl *slot) {
	sl.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl.users--; sl.users == 0 && sl.account == nil {
		delete(s.slots, address)
	}
}

// defaultMailboxes are what a new account has beside INBOX.
var defaultMailboxes = []struct{ name, use string }{
	{"Sent", `\Sent`}, {"Drafts", `\Drafts`}, {"Junk", `\Junk`}, {"Trash", `\Trash`}, {"Archive", `\Archive`},
}

// Create makes an account with INBOX, Sent, Drafts, Junk, Trash and Archive (special-use, subscribed).
// The address is local@domain in the directory's canonical form. ErrAccountExists.
func (s *Store) Create(address string) error {
	path, err := accountPath(address)
	if err != nil {
		return err
	}
	sl, err := s.enter(address)
	if err != nil {
		return err
	}
	defer s.leave(address, sl)
	dir := filepath.Join(s.root, path)
	if _, err := s.fs.Stat(dir); err == nil {
		return fmt.Errorf("%w: %s", ErrAccountExists, address)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Made under tmp and renamed when complete: a crash leaves a whole account or none.
	draft := filepath.Join(s.tmp, "new-"+fileName(address))
	err = s.makeAccount(address, draft)
	if err == nil {
		err = s.fs.MkdirAll(filepath.Dir(dir), 0o700)
	}
	if err == nil {
		err = s.fs.Rename(draft, dir)
	}
	if err != nil {
		return diskError(fmt.Errorf("create account %s: %w", address, errors.Join(err, s.fs.RemoveAll(draft))))
	}
	return s.fs.SyncDir(filepath.Dir(dir))
}

func (s *Store) makeAccount(address, dir string) error {
	if err := s.fs.RemoveAll(dir); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	a, err := s.openAccount(address, dir, true)
	if err != nil {
		return err
	}
	err = a.change(func(t *tx) error {
		names := []string{inbox}
		for _, d := range defaultMailboxes {
			if _, err := t.create(d.name, d.use); err != nil {
				return err
			}
			names = append(names, d.name)
		}
		return t.subscribe(true, names...)
	})
	return errors.Join(err, a.shut(ErrClosed, err == nil))
}

// Remove deletes an account and its mail for good. Sessions that hold it get ErrNoAccount from then on.
func (s *Store) Remove(address string) error {
	path, err := accountPath(address)
	if err != nil {
		return err
	}
	sl, err := s.enter(address)
	if err != nil {
		return err
	}
	defer s.leave(address, sl)
	dir := filepath.Join(s.root, path)
	if _, err := s.fs.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoAccount, address)
	}
	if a := s.takeOut(sl); a != nil {
		if err := a.shut(ErrNoAccount, false); err != nil {
			s.log.Warn("closing an account to be removed", "account", address, "err", err)
		}
	}
	gone := filepath.Join(s.tmp, fmt.Sprintf("gone-%d-%s", s.serial.Add(1), fileName(address)))
	if err := s.fs.Rename(dir, gone); err != nil {
		return fmt.Errorf("remove account %s: %w", address, err)
	}
	if err := s.fs.SyncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("remove account %s: %w", address, err)
	}
	return s.fs.RemoveAll(gone)
}

// takeOut empties a slot whose lock is held.
func (s *Store) takeOut(sl *slot) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := sl.account
	sl.account = nil
	if sl.element != nil {
		s.idle.Remove(sl.element)
		sl.element = nil
	}
	return a
}

// Account opens an account, or returns the open one. The caller must Release it. ErrNoAccount.
func (s *Store) Account(address string) (*Account, error) {
	path, err := accountPath(address)
	if err != nil {
		return nil, err
	}
	sl, err := s.enter(address)
	if err != nil {
		return nil, err
	}
	defer s.leave(address, sl)
	if sl.account == nil {
		dir := filepath.Join(s.root, path)
		if _, err := s.fs.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNoAccount, address)
		}
		a, err := s.openAccount(address, dir, false)
		if err != nil {
			return nil, diskError(err)
		}
		s.mu.Lock()
		closed := s.closed
		if !closed {
			sl.account = a
		}
		s.mu.Unlock()
		if closed { // while it was being opened: Close has not seen it
			return nil, errors.Join(ErrClosed, a.shut(ErrClosed, true))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	sl.account.refs++
	if sl.element != nil {
		s.idle.Remove(sl.element)
		sl.element = nil
	}
	return sl.account, nil
}

// Release gives the account back; the caller must not use it (or its views' Body readers) afterwards.
func (a *Account) Release() {
	s := a.store
	s.mu.Lock()
	a.refs--
	sl := s.slots[a.address]
	if a.refs > 0 || s.closed || sl == nil || sl.account != a {
		s.mu.Unlock()
		return
	}
	sl.element = s.idle.PushBack(a)
	over := s.idle.Len() - s.maxOpen
	s.mu.Unlock()
	if over > s.maxOpen/4+8 { // the janitor cannot keep up: whoever opens accounts has to help
		s.evict()
	} else if over > 0 {
		s.janitor.wakeUp()
	}
}

// evict closes the account that has been idle longest, if there are too many. It reports whether there was one.
func (s *Store) evict() bool {
	s.mu.Lock()
	if s.closed || s.idle.Len() <= s.maxOpen {
		s.mu.Unlock()
		return false
	}
	a := s.idle.Front().Value.(*Account)
	sl := s.slots[a.address]
	sl.users++
	s.mu.Unlock()
	sl.mu.Lock()
	defer s.leave(a.address, sl)
	s.mu.Lock()
	if sl.account != a || a.refs > 0 { // somebody was quicker
		s.mu.Unlock()
		return true
	}
	s.mu.Unlock()
	s.takeOut(sl)
	if err := a.shut(ErrClosed, true); err != nil {
		s.log.Error("closing an idle account", "account", a.address, "err", err)
	}
	return true
}

// Addresses lists the accounts on disk, sorted.
func (s *Store) Addresses() ([]string, error) {
	domains, err := s.fs.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, d := range domains {
		domain, ok := unFileName(d.Name())
		if !ok || !d.IsDir() {
			continue
		}
		locals, err := s.fs.ReadDir(filepath.Join(s.root, d.Name()))
		if err != nil {
			return nil, err
		}
		for _, l := range locals {
			if local, ok := unFileName(l.Name()); ok && l.IsDir() {
				list = append(list, local+"@"+domain)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

// Room reports whether size more bytes can be taken in (ErrDiskFull): cheap enough to ask at every MAIL and DATA.
func (s *Store) Room(size int64) error {
	s.freeMu.Lock()
	defer s.freeMu.Unlock()
	if now := s.now(); s.freeAt.IsZero() || now.Sub(s.freeAt).Abs() >= freeFor {
		free, err := s.fs.Free(s.tmp)
		if err != nil {
			return err
		}
		s.free, s.freeAt = free, now
	}
	if s.free-size < s.reserve {
		return fmt.Errorf("%w: %d bytes free", ErrDiskFull, s.free)
	}
	return nil
}

// Close waits for running changes, writes out lazy work (file name flags) and closes all accounts.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	slots := make([]*slot, 0, len(s.slots))
	for _, sl := range s.slots {
		slots = append(slots, sl)
	}
	s.mu.Unlock()
	s.janitor.stop()
	var errs []error
	for _, sl := range slots {
		sl.mu.Lock()
		if a := s.takeOut(sl); a != nil {
			errs = append(errs, a.shut(ErrClosed, true))
		}
		sl.mu.Unlock()
	}
	return errors.Join(append(errs, s.unlock())...)
}

// diskError gives errors of a full disk the name by which callers know it.
func diskError(err error) error {
	if (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && !errors.Is(err, ErrDiskFull) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}
