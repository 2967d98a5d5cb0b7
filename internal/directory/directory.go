// Package directory knows who exists: domains, accounts, aliases, groups and credentials. What is declared in the
// configuration is held in memory; what is made with `mailsrv user add` and the like is kept in system.db. It knows
// addresses and hashes, not connections: package auth decides who may.
//
// Where things are: address.go what an address is, resolve.go where mail for it goes, change.go what administration
// changes, password.go and hash.go credentials, format.go the bytes in system.db.
package directory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"mailsrv/storage/kv"
)

// Errors that callers branch on; they arrive wrapped.
var (
	ErrNoAccount   = errors.New("no such account")
	ErrNoDomain    = errors.New("not a domain of this server")
	ErrNoAlias     = errors.New("no such alias")
	ErrExists      = errors.New("address already in use")
	ErrDeclared    = errors.New("declared in the configuration file: change it there")
	ErrBadAddress  = errors.New("invalid address")
	ErrNoRecipient = errors.New("no such recipient")       // 550 5.1.1
	ErrDisabled    = errors.New("account is disabled")     // 550 5.2.1
	ErrAliasLoop   = errors.New("alias expands to itself") // 550 5.4.6
)

// Account is a person's (or a role's) mail account.
type Account struct {
	Address       string // canonical: see Canonical
	Legacy        bool   // open to the course protocol (its own setting or its domain's)
	Disabled      bool   // takes no mail and no login
	QuotaBytes    int64  // 0: the domain's, else none; see [Directory.Quota]
	QuotaMessages int64
	Declared      bool // in the configuration file, not in system.db
}

// Domain is a domain whose mail we hold.
type Domain struct {
	Name          string // canonical: lower case, A-labels
	Legacy        bool   // its accounts are open to the course protocol
	AutoCreate    bool   // entry by the course protocol to an unknown address makes the account
	CatchAll      string // address that takes what nobody else does, or ""
	Subaddress    string // separator characters for user+tag@, default "+"; "-" none
	QuotaBytes    int64
	QuotaMessages int64
}

// Resolution is where mail for a recipient goes, after aliases, groups, subaddresses and the catch-all.
type Resolution struct {
	Local  []Destination // accounts of this server, each once, in order of expansion
	Remote []string      // addresses elsewhere, each once, local parts as their alias wrote them
}

// Destination is a local account, with the tag of user+tag@ if there was one.
type Destination struct {
	Account Account
	Tag     string
}

// Seed is what the configuration declares.
type Seed struct {
	Domains    []Domain
	Accounts   []SeedAccount
	Aliases    []Alias
	Groups     []Group
	Postmaster string // who gets mail for postmaster@ and abuse@ where nobody declared takes it; "" as Resolve says
}

// SeedAccount is a declared account: Password (demo) or Hash. With neither, nobody can log in with a password.
type SeedAccount struct {
	Account
	Password string
	Hash     string
}

// Alias sends mail for one address to others, local or remote.
type Alias struct {
	Address  string
	Targets  []string
	Declared bool
}

// Group is an address whose members are accounts; as an envelope recipient it is like an alias. Only members may
// send to it if Private: see [Directory.MaySendTo].
type Group struct {
	Address string
	Members []string
	Private bool
}

// Directory is safe for use by several goroutines. Lookups are from memory.
type Directory struct {
	db     kv.DB
	params HashParams
	macKey [32]byte // of this process: declared passwords are held as keyed hashes only
	dummy  phc      // what an unknown account's password is checked against

	change sync.Mutex // one administrator at a time; taken before mu

	mu         sync.RWMutex
	domains    []Domain
	byName     map[string]Domain
	accounts   map[string]*entry
	fans       map[string]*fan
	declared   []string          // declared accounts in the order of the file
	first      map[string]string // domain → its first account that is not disabled; "" → the server's
	postmaster string
	lastEpoch  uint64
}

// entry is an account in memory; immutable, replaced as a whole.
type entry struct {
	record
	parsed   *phc   // of record.hash; nil if none
	mac      []byte // keyed hash of a declared (demo) password; nil if none
	epoch    uint64
	shadowed bool // also in system.db, where the declared one hides it
}

// fan is an alias or a group in memory; immutable.
type fan struct {
	Alias
	targets  []address
	group    bool
	private  bool
	shadowed bool
}

// Option changes how a Directory works.
type Option func(*Directory)

// WithHashParams sets the cost of new hashes; without it, DefaultHashParams. Tests want it low.
func WithHashParams(p HashParams) Option { return func(d *Directory) { d.params = p } }

// Open reads the directory from db (system.db; keys under "directory/", see format.go) and lays the seed over it. A nil db
// keeps nothing: a directory in memory, for tests. ErrNewerFormat, ErrDamaged; ErrBadAddress, ErrExists, ErrNoDomain,
// ErrBadHash for what a seed declares.
func Open(db kv.DB, seed Seed, opts ...Option) (*Directory, error) {
	d := &Directory{
		db:       db,
		params:   DefaultHashParams,
		byName:   make(map[string]Domain),
		accounts: make(map[string]*entry),
		fans:     make(map[string]*fan),
	}
	for _, o := range opts {
		o(d)
	}
	d.makeSecrets()
	if err := d.declare(seed); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	if db != nil {
		if err := db.View(d.load); err != nil {
			return nil, fmt.Errorf("directory: %w", err)
		}
	}
	d.findFirst(nil)
	return d, nil
}

// declare takes the seed in.
func (d *Directory) declare(seed Seed) error {
	for _, dom := range seed.Domains {
		if err := d.declareDomain(dom); err != nil {
			return err
		}
	}
	for _, s := range seed.Accounts {
		if err := d.declareAccount(s); err != nil {
			return fmt.Errorf("account %s: %w", clip(s.Address), err)
		}
	}
	for _, a := range seed.Aliases {
		if err := d.declareFan(&fan{Alias: a}); err != nil {
			return fmt.Errorf("alias %s: %w", clip(a.Address), err)
		}
	}
	for _, g := range seed.Groups {
		f := &fan{Alias: Alias{Address: g.Address, Targets: g.Members}, group: true, private: g.Private}
		if err := d.declareFan(f); err != nil {
			return fmt.Errorf("group %s: %w", clip(g.Address), err)
		}
	}
	if seed.Postmaster != "" {
		a, err := parseAddress(seed.Postmaster)
		if err != nil {
			return fmt.Errorf("postmaster: %w", err)
		}
		d.postmaster = a.elsewhere()
	}
	return nil
}

func (d *Directory) declareDomain(dom Domain) error {
	name, err := CanonicalDomain(dom.Name)
	if err != nil {
		return fmt.Errorf("domain %q: %w", clip(dom.Name), err)
	}
	if _, taken := d.byName[name]; taken {
		return fmt.Errorf("domain %s: %w", name, ErrExists)
	}
	dom.Name = name
	dom.Subaddress = cmp.Or(dom.Subaddress, "+")
	if dom.CatchAll != "" {
		a, err := parseAddress(dom.CatchAll)
		if err != nil {
			return fmt.Errorf("domain %s: catch-all: %w", name, err)
		}
		dom.CatchAll = a.elsewhere()
	}
	d.domains = append(d.domains, dom)
	d.byName[name] = dom
	return nil
}

func (d *Directory) declareAccount(s SeedAccount) error {
	a, err := d.own(s.Address)
	if err != nil {
		return err
	}
	e := &entry{record: record{Account: s.Account, hash: s.Hash}, epoch: d.nextEpoch()}
	e.Address, e.Declared = a.canonical(), true
	switch {
	case d.taken(e.Address):
		return ErrExists
	case s.Hash != "":
		if err := e.parse(); err != nil {
			return err
		}
	case s.Password != "":
		e.mac = d.mac(s.Password)
	}
	d.accounts[e.Address] = e
	d.declared = append(d.declared, e.Address)
	return nil
}

func (d *Directory) declareFan(f *fan) error {
	f.Declared = true
	if err := d.prepareFan(f); err != nil {
		return err
	}
	if d.taken(f.Address) {
		return ErrExists
	}
	d.fans[f.Address] = f
	return nil
}

// prepareFan brings an alias or group into canonical form.
func (d *Directory) prepareFan(f *fan) error {
	a, err := d.own(f.Address)
	if err != nil {
		return err
	}
	f.Address = a.canonical()
	if len(f.Targets) == 0 || len(f.Targets) > maxTargets {
		return fmt.Errorf("it needs 1 to %d targets", maxTargets)
	}
	written := make([]string, 0, len(f.Targets))
	for _, t := range f.Targets {
		target, err := parseAddress(t)
		if err != nil {
			return err
		}
		if target.domain == "" {
			target.domain = a.domain
		}
		f.targets = append(f.targets, target)
		written = append(written, target.elsewhere())
	}
	f.Targets = written
	return nil
}

// own parses an address that has to be in one of our domains.
func (d *Directory) own(text string) (address, error) {
	a, err := parseAddress(text)
	if err != nil {
		return a, err
	}
	a = d.complete(a)
	if _, ok := d.byName[a.domain]; !ok {
		return a, fmt.Errorf("%w: %s", ErrNoDomain, cmp.Or(a.domain, "none is declared"))
	}
	return a, nil
}

// complete puts a bare postmaster into the first domain (RFC 5321 section 4.5.1).
func (d *Directory) complete(a address) address {
	if a.domain == "" && len(d.domains) > 0 {
		a.domain = d.domains[0].Name
	}
	return a
}

func (d *Directory) taken(canonical string) bool {
	return d.accounts[canonical] != nil || d.fans[canonical] != nil
}

func (d *Directory) nextEpoch() uint64 {
	d.lastEpoch++
	return d.lastEpoch
}

// findFirst notes who stands in for a missing postmaster, after the given account was changed or removed (nil: anything was):
// the first declared account, else the first by address.
func (d *Directory) findFirst(changed *entry) {
	if changed != nil {
		_, domain := SplitAddress(changed.Address)
		if changed.Address != d.first[domain] && changed.Address != d.first[""] {
			d.standIn(d.accounts[changed.Address])
			return
		}
	}
	d.first = make(map[string]string)
	for _, address := range d.declared {
		d.standIn(d.accounts[address])
	}
	for _, e := range d.accounts {
		d.standIn(e)
	}
}

func (d *Directory) standIn(e *entry) {
	if e == nil || e.Disabled {
		return
	}
	_, domain := SplitAddress(e.Address)
	if d.byName[domain].Name == "" {
		return
	}
	for _, key := range []string{domain, ""} {
		have := d.accounts[d.first[key]]
		if have == nil || !have.Declared && (e.Declared || e.Address < have.Address) {
			d.first[key] = e.Address
		}
	}
}

// Domains lists the domains, the first declared one first.
func (d *Directory) Domains() []Domain { return slices.Clone(d.domains) }

// Domain finds a domain by any spelling of its name.
func (d *Directory) Domain(name string) (Domain, bool) {
	canonical, why := canonicalDomain(name)
	if why != "" {
		return Domain{}, false
	}
	dom, ok := d.byName[canonical]
	return dom, ok
}

// Local reports whether the address's domain is ours. A bare postmaster is, if there is any domain.
func (d *Directory) Local(address string) bool {
	_, err := d.own(address)
	return err == nil
}

// Account finds an account by its address (any spelling; no aliases, no subaddress). An account left in system.db after
// its domain was taken out of the configuration is not found.
func (d *Directory) Account(address string) (Account, bool) {
	e := d.lookup(address)
	if e == nil {
		return Account{}, false
	}
	return d.public(e), true
}

func (d *Directory) lookup(address string) *entry {
	a, err := d.own(address)
	if err != nil {
		return nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.accounts[a.canonical()]
}

// public is the account as callers see it, with what its domain adds.
func (d *Directory) public(e *entry) Account {
	a := e.Account
	_, domain := SplitAddress(a.Address)
	a.Legacy = a.Legacy || d.byName[domain].Legacy
	return a
}

// Accounts lists all, sorted.
func (d *Directory) Accounts() []Account {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]Account, 0, len(d.accounts))
	for _, e := range d.accounts {
		if _, domain := SplitAddress(e.Address); d.byName[domain].Name != "" {
			all = append(all, d.public(e))
		}
	}
	slices.SortFunc(all, func(a, b Account) int { return cmp.Compare(a.Address, b.Address) })
	return all
}

// Quota is an account's limits: its own, else its domain's; 0 is none. An unknown account has none.
func (d *Directory) Quota(address string) (bytes, messages int64) {
	e := d.lookup(address)
	if e == nil {
		return 0, 0
	}
	_, domain := SplitAddress(e.Address)
	dom := d.byName[domain]
	return cmp.Or(e.QuotaBytes, dom.QuotaBytes), cmp.Or(e.QuotaMessages, dom.QuotaMessages)
}

// Aliases lists all aliases, sorted; groups are apart.
func (d *Directory) Aliases() []Alias {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []Alias
	for _, f := range d.fans {
		if !f.group {
			all = append(all, Alias{Address: f.Address, Targets: slices.Clone(f.Targets), Declared: f.Declared})
		}
	}
	slices.SortFunc(all, func(a, b Alias) int { return cmp.Compare(a.Address, b.Address) })
	return all
}

// Groups lists all groups, sorted.
func (d *Directory) Groups() []Group {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []Group
	for _, f := range d.fans {
		if f.group {
			all = append(all, f.public())
		}
	}
	slices.SortFunc(all, func(a, b Group) int { return cmp.Compare(a.Address, b.Address) })
	return all
}

func (f *fan) public() Group {
	return Group{Address: f.Address, Members: slices.Clone(f.Targets), Private: f.private}
}

// Epoch changes whenever the account's credentials or its Disabled mark change, or it is removed and made again; package auth
// ties what it remembers to it. 0 for an unknown account. It means nothing to another process.
func (d *Directory) Epoch(address string) uint64 {
	if e := d.lookup(address); e != nil {
		return e.epoch
	}
	return 0
}
