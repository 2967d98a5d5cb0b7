package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mailsrv/storage/kv"
)

// load reads system.db under what is declared.
func (d *Directory) load(r kv.Reader) error {
	if v := r.Get([]byte(keyFormat)); v != nil {
		version, n := binary.Uvarint(v)
		if n <= 0 || n != len(v) {
			return fmt.Errorf("system.db key %q: %w", keyFormat, ErrDamaged)
		}
		if version > formatVersion {
			return fmt.Errorf("the directory in system.db is of format %d, this program knows up to %d: %w",
				version, formatVersion, ErrNewerFormat)
		}
	}
	err := scan(r, prefixAccount, func(address string, value []byte) error {
		rec, err := decodeRecord(address, value)
		if err != nil {
			return err
		}
		return d.loadAccount(rec)
	})
	if err != nil {
		return err
	}
	return scan(r, prefixAlias, func(address string, value []byte) error {
		targets, err := decodeTargets(address, value)
		if err != nil {
			return err
		}
		return d.loadAlias(address, targets)
	})
}

func scan(r kv.Reader, prefix string, fn func(name string, value []byte) error) error {
	var err error
	r.Scan([]byte(prefix), []byte(prefix[:len(prefix)-1]+"0"), func(key, value []byte) bool { // "0" follows "/"
		err = fn(strings.TrimPrefix(string(key), prefix), value)
		return err == nil
	})
	return err
}

func (d *Directory) loadAccount(rec record) error {
	if have := d.accounts[rec.Address]; have != nil {
		have.shadowed = true
		return nil
	}
	if f := d.fans[rec.Address]; f != nil {
		f.shadowed = true
		return nil
	}
	e := &entry{record: rec, epoch: d.nextEpoch()}
	if e.hash != "" {
		if err := e.parse(); err != nil {
			return fmt.Errorf("system.db key %q: %w", prefixAccount+rec.Address, err)
		}
	}
	d.accounts[rec.Address] = e
	return nil
}

func (d *Directory) loadAlias(addr string, targets []string) error {
	if f := d.fans[addr]; f != nil {
		f.shadowed = true
		return nil
	}
	if e := d.accounts[addr]; e != nil {
		e.shadowed = true
		return nil
	}
	f := &fan{Alias: Alias{Address: addr, Targets: targets}}
	for _, t := range targets {
		a, err := parseAddress(t)
		if err != nil {
			return fmt.Errorf("system.db key %q: %w", prefixAlias+addr, err)
		}
		f.targets = append(f.targets, a)
	}
	d.fans[addr] = f
	return nil
}

// commit writes durably, then lets memory follow. The caller holds d.change.
func (d *Directory) commit(write func(kv.Tx) error, follow func()) error {
	if d.db != nil {
		err := d.db.Update(func(tx kv.Tx) error {
			if err := tx.Put([]byte(keyFormat), binary.AppendUvarint(nil, formatVersion)); err != nil {
				return err
			}
			return write(tx)
		})
		if err != nil {
			return fmt.Errorf("write system.db: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	follow()
	return nil
}

// stored is an account that may be changed here: nil if there is none, or the declared one.
func (d *Directory) stored(canonical string) *entry {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.accounts[canonical]
}

// changeable finds an account to be changed. The caller holds d.change.
func (d *Directory) changeable(text string) (*entry, error) {
	a, err := parseAddress(text)
	if err != nil {
		return nil, err
	}
	// Not own: what a domain taken out of the configuration left behind can still be removed.
	addr := d.complete(a).canonical()
	e := d.stored(addr)
	switch {
	case e == nil:
		return nil, fmt.Errorf("%s: %w", addr, ErrNoAccount)
	case e.Declared:
		return nil, fmt.Errorf("%s: %w", addr, ErrDeclared)
	}
	return e, nil
}

// AddAccount makes an account in system.db with the given password; with password "" nobody can log in to it with one (the
// course protocol's auto_create). ErrExists, ErrNoDomain, ErrBadAddress, ErrPasswordTooLong.
func (d *Directory) AddAccount(a Account, password string) error {
	addr, err := d.own(a.Address)
	if err != nil {
		return err
	}
	e := &entry{record: record{Account: a}}
	e.Address, e.Declared = addr.canonical(), false
	if password != "" {
		if err := e.setPassword(password, d.params); err != nil {
			return err
		}
	}
	d.change.Lock()
	defer d.change.Unlock()
	d.mu.RLock()
	taken := d.taken(e.Address)
	d.mu.RUnlock()
	if taken {
		return fmt.Errorf("%s: %w", e.Address, ErrExists)
	}
	return d.put(e, true)
}

// UpdateAccount lets change edit what an account is by itself, without what its domain adds: Legacy, Disabled, quotas; the rest
// stays as it is. ErrNoAccount, ErrDeclared.
func (d *Directory) UpdateAccount(address string, change func(*Account)) error {
	d.change.Lock()
	defer d.change.Unlock()
	old, err := d.changeable(address)
	if err != nil {
		return err
	}
	next := *old
	change(&next.Account)
	next.Address, next.Declared = old.Address, old.Declared
	return d.put(&next, next.Disabled != old.Disabled)
}

// RemoveAccount deletes it from system.db (its mail is storage's affair). ErrNoAccount, ErrDeclared.
func (d *Directory) RemoveAccount(address string) error {
	d.change.Lock()
	defer d.change.Unlock()
	e, err := d.changeable(address)
	if err != nil {
		return err
	}
	return d.commit(func(tx kv.Tx) error { return tx.Delete([]byte(prefixAccount + e.Address)) }, func() {
		delete(d.accounts, e.Address)
		d.findFirst(e)
	})
}

// SetPassword changes a password. ErrNoAccount, ErrDeclared, ErrPasswordEmpty, ErrPasswordTooLong.
func (d *Directory) SetPassword(address, password string) error {
	var fresh entry
	if err := fresh.setPassword(password, d.params); err != nil { // slow: before the lock
		return err
	}
	d.change.Lock()
	defer d.change.Unlock()
	old, err := d.changeable(address)
	if err != nil {
		return err
	}
	next := *old
	next.hash, next.parsed = fresh.hash, fresh.parsed
	return d.put(&next, true)
}

func (e *entry) setPassword(password string, p HashParams) error {
	hash, err := HashPassword(password, p)
	if err != nil {
		return err
	}
	e.hash = hash
	return e.parse()
}

// put stores an account, new or changed. The caller holds d.change.
func (d *Directory) put(e *entry, newEpoch bool) error {
	return d.commit(func(tx kv.Tx) error { return tx.Put([]byte(prefixAccount+e.Address), e.encode()) }, func() {
		if newEpoch {
			e.epoch = d.nextEpoch()
		}
		d.accounts[e.Address] = e
		d.findFirst(e)
	})
}

// AddAlias replaces nothing: ErrExists. ErrNoDomain if the alias is not ours, ErrNoRecipient if a target in one of our
// domains does not exist, ErrAliasLoop, ErrBadAddress.
func (d *Directory) AddAlias(a Alias) error {
	f := &fan{Alias: Alias{Address: a.Address, Targets: a.Targets}}
	if err := d.prepareFan(f); err != nil {
		return err
	}
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.mayAdd(f); err != nil {
		return err
	}
	return d.commit(func(tx kv.Tx) error { return tx.Put([]byte(prefixAlias+f.Address), encodeTargets(f.Targets)) }, func() {
		d.fans[f.Address] = f
	})
}

// mayAdd tries the alias out where it would stand: only so does every way back to it show, through tags and catch-alls too.
func (d *Directory) mayAdd(f *fan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.taken(f.Address) {
		return fmt.Errorf("%s: %w", f.Address, ErrExists)
	}
	d.fans[f.Address] = f
	defer delete(d.fans, f.Address)
	for _, t := range f.targets {
		if err := d.try(t); err != nil && !errors.Is(err, ErrDisabled) {
			return fmt.Errorf("target %s: %w", t.elsewhere(), err)
		}
	}
	return nil
}

// RemoveAlias deletes an alias from system.db. ErrNoAlias (also for a group), ErrDeclared.
func (d *Directory) RemoveAlias(address string) error {
	a, err := parseAddress(address)
	if err != nil {
		return err
	}
	addr := d.complete(a).canonical()
	d.change.Lock()
	defer d.change.Unlock()
	d.mu.RLock()
	f := d.fans[addr]
	d.mu.RUnlock()
	switch {
	case f == nil:
		return fmt.Errorf("%s: %w", addr, ErrNoAlias)
	case f.Declared:
		return fmt.Errorf("%s: %w", addr, ErrDeclared)
	}
	return d.commit(func(tx kv.Tx) error { return tx.Delete([]byte(prefixAlias + addr)) }, func() {
		delete(d.fans, addr)
	})
}

// Problems lists what an administrator should look at, in words: aliases, catch-alls and postmasters that lead nowhere or in
// circles, what is in system.db but hidden by a declaration or without a domain.
func (d *Directory) Problems() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var found []string
	for _, addr := range slices.Sorted(maps.Keys(d.accounts)) {
		e := d.accounts[addr]
		if _, domain := SplitAddress(addr); d.byName[domain].Name == "" {
			found = append(found, fmt.Sprintf("account %s: its domain is not declared any more: declare it, or user del", addr))
		}
		if e.shadowed {
			found = append(found, fmt.Sprintf("account %s: made by command and declared as well: the declaration counts", addr))
		}
	}
	for _, addr := range slices.Sorted(maps.Keys(d.fans)) {
		f := d.fans[addr]
		if f.shadowed {
			found = append(found, fmt.Sprintf("alias %s: made by command and declared as well: the declaration counts", addr))
		}
		for _, t := range f.targets {
			if err := d.try(t); err != nil {
				found = append(found, fmt.Sprintf("alias %s: target %s: %v", addr, t.elsewhere(), err))
			}
		}
	}
	for _, dom := range d.domains {
		if err := d.try(address{written: "postmaster", local: "postmaster", domain: dom.Name}); err != nil {
			found = append(found, fmt.Sprintf("domain %s: mail for postmaster and abuse (RFC 5321, RFC 2142) reaches nobody: %v", dom.Name, err))
		}
		if a, err := parseAddress(dom.CatchAll); err == nil && dom.CatchAll != "" {
			if err := d.try(a); err != nil {
				found = append(found, fmt.Sprintf("domain %s: catch-all %s: %v", dom.Name, dom.CatchAll, err))
			}
		}
	}
	return found
}

func (d *Directory) try(a address) error {
	x := expansion{d: d, state: make(map[string]visit), catchAll: true}
	return x.add(d.complete(a), "", 0)
}
