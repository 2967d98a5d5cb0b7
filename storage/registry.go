package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

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
