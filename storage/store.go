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
	"log/slog"
	"path/filepath"
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
	logBounds logBounds
	reserve   int64
	tick      time.Duration // of the file system's clock
	serial    atomic.Uint64
	appended  atomic.Int64 // messages, since Open
	bytes     atomic.Int64 // of them
	buffers   sync.Pool
	heavy     chan struct{} // a slot for each heavy message that may be scanned at once
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
		maxOpen: o.MaxOpen, reserve: o.Reserve, slots: map[string]*slot{}, idle: list.New(), logBounds: defaultLog,
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
	s.heavy = make(chan struct{}, heavyAtOnce)
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
