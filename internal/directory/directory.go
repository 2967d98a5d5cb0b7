// Package directory knows who exists: domains, accounts, aliases, groups and credentials. What is declared in the
// configuration is held in memory; what is made with `mailsrv user add` and the like is kept in system.db. It knows
// addresses and hashes, not connections: package auth decides who may.
package directory

import (
	"errors"

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
	QuotaBytes    int64  // 0: the domain's, else none
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
	Remote []string      // addresses elsewhere, each once
}

// Destination is a local account, with the tag of user+tag@ if there was one.
type Destination struct {
	Account Account
	Tag     string
}

// Canonical splits and normalises an address: the domain in lower-case A-labels (IDNA, UTS 46), the local part in
// Unicode NFC and lower case (local parts are matched without case here; RFC 5321 section 2.4 leaves it to us).
// "postmaster" alone is postmaster at the first domain. ErrBadAddress says why.
func Canonical(address string) (string, error) { panic("directory room") }

// Seed is what the configuration declares.
type Seed struct {
	Domains  []Domain
	Accounts []SeedAccount
	Aliases  []Alias
	Groups   []Group
}

// SeedAccount is a declared account: Password (demo) or Hash.
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
// send to it if Private.
type Group struct {
	Address string
	Members []string
	Private bool
}

// Open reads the directory from db (system.db; keys under "directory/") and lays the seed over it.
func Open(db kv.DB, seed Seed) (*Directory, error) { panic("directory room") }

// Directory is safe for use by several goroutines. Lookups are from memory.
type Directory struct{}

// Domains lists the domains, the first declared one first.
func (d *Directory) Domains() []Domain { panic("directory room") }

// Domain finds a domain by any spelling of its name.
func (d *Directory) Domain(name string) (Domain, bool) { panic("directory room") }

// Local reports whether the address's domain is ours.
func (d *Directory) Local(address string) bool { panic("directory room") }

// Account finds an account by its address (any spelling; no aliases, no subaddress).
func (d *Directory) Account(address string) (Account, bool) { panic("directory room") }

// Accounts lists all, sorted.
func (d *Directory) Accounts() []Account { panic("directory room") }

// Resolve says where mail for a recipient goes: ErrNoDomain (not ours), ErrNoRecipient, ErrDisabled, ErrAliasLoop.
// postmaster@ and abuse@ of a local domain always resolve: to what is declared, else to the configured postmaster,
// else to the first account of the domain, else of the server.
func (d *Directory) Resolve(address string) (Resolution, error) { panic("directory room") }

// MaySendAs reports whether the account may use the address as a sender: its own, with any subaddress tag, and aliases
// or groups whose members include it.
func (d *Directory) MaySendAs(account, address string) bool { panic("directory room") }

// AddAccount makes an account in system.db with the given password. ErrExists, ErrNoDomain, ErrBadAddress.
func (d *Directory) AddAccount(a Account, password string) error { panic("directory room") }

// RemoveAccount deletes it from system.db (its mail is storage's affair). ErrNoAccount, ErrDeclared.
func (d *Directory) RemoveAccount(address string) error { panic("directory room") }

// SetPassword changes a password. ErrNoAccount, ErrDeclared.
func (d *Directory) SetPassword(address, password string) error { panic("directory room") }

// Aliases lists all, sorted. AddAlias replaces nothing: ErrExists.
func (d *Directory) Aliases() []Alias                 { panic("directory room") }
func (d *Directory) AddAlias(a Alias) error           { panic("directory room") }
func (d *Directory) RemoveAlias(address string) error { panic("directory room") }

// CheckPassword verifies in constant time whether or not the account exists (an unknown one is checked against a dummy hash
// of the same cost). A hash with older argon2id parameters is replaced after a successful check. It is slow on purpose;
// package auth remembers.
func (d *Directory) CheckPassword(address, password string) (Account, bool) { panic("directory room") }

// Epoch changes whenever the account's credentials or its Disabled mark change, or it is removed and made again; package auth
// ties what it remembers to it. 0 for an unknown account.
func (d *Directory) Epoch(address string) uint64 { panic("directory room") }
