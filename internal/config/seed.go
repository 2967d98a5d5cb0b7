package config

import (
	"errors"
	"fmt"
	"strings"

	"mailsrv/internal/directory"
)

// people checks domains, accounts, aliases and groups, each at its line; then that no alias leads back to itself.
func (x *checker) people() {
	c := x.c
	if len(c.Domains) == 0 {
		x.missing("domain", "missing: write at least one [[domain]] with its name")
	}
	p := &names{checker: x, domains: make(map[string]int), addresses: make(map[string]int), wrong: make(map[any]bool)}
	for i := range c.Domains {
		p.domain(&c.Domains[i])
	}
	for i := range c.Accounts {
		p.account(&c.Accounts[i])
	}
	for i := range c.Aliases {
		a := &c.Aliases[i]
		p.address(a, "alias", a.Address)
		p.targets(a, "alias", "to", a.To)
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		p.address(g, "group", g.Address)
		p.targets(g, "group", "members", g.Members)
	}
	for i := range c.Domains {
		if d := &c.Domains[i]; d.CatchAll != "" {
			p.target(d, "domain", "catch_all", d.CatchAll)
		}
	}
	if c.Postmaster != "" {
		p.target(c, "", "postmaster", c.Postmaster)
	}
	p.loops()
}

// names remembers on which line each name was declared.
type names struct {
	*checker
	domains   map[string]int
	addresses map[string]int
	wrong     map[any]bool // entries that had problems
}

func (p *names) bad(of any, section, key, format string, args ...any) {
	p.wrong[of] = true
	p.checker.bad(of, section, key, format, args...)
}

func (p *names) domain(d *Domain) {
	name, err := directory.CanonicalDomain(d.Name)
	if err != nil {
		p.bad(d, "domain", "name", `%.80q is no domain: write it such as "example.org"`, d.Name)
		return
	}
	if line := p.domains[name]; line > 0 {
		p.bad(d, "domain", "name", "%s is declared on line %d already: remove one of the two", d.Name, line)
		return
	}
	p.domains[name] = p.places[d][""]
	if d.Subaddress == "" || strings.ContainsAny(d.Subaddress, "@.\"") || !ascii(d.Subaddress) {
		p.bad(d, "domain", "subaddress", `%.20q: write the characters that separate user and tag, such as "+", or "-" for none`, d.Subaddress)
	}
}

// address checks and claims an address of ours.
func (p *names) address(of any, section, text string) {
	canonical, err := directory.Canonical(text)
	if err != nil {
		p.bad(of, section, "address", "%s: write it as name@domain", reason(err))
		return
	}
	_, domain := directory.SplitAddress(canonical)
	switch {
	case domain == "":
		p.bad(of, section, "address", "%.80q has no domain: write it as name@domain", text)
	case p.domains[domain] == 0:
		p.bad(of, section, "address", "its domain %s is not declared: write a [[domain]] with that name, or correct it", domain)
	case p.addresses[canonical] > 0:
		p.bad(of, section, "address", "%s is declared on line %d already: remove one of the two", text, p.addresses[canonical])
	default:
		p.addresses[canonical] = p.places[of][""]
	}
}

// reason is an address error without its beginning.
func reason(err error) string {
	return strings.TrimPrefix(err.Error(), directory.ErrBadAddress.Error()+" ")
}

func (p *names) targets(of any, section, key string, list []string) {
	if len(list) == 0 {
		p.bad(of, section, key, `missing: write the addresses that the mail goes to, ["…", "…"]`)
	}
	for i, t := range list {
		p.target(of, section, fmt.Sprintf("%s.%d", key, i), t)
	}
}

func (p *names) target(of any, section, key, text string) {
	canonical, err := directory.Canonical(text)
	if err != nil {
		p.bad(of, section, key, "%s: write it as name@domain", reason(err))
		return
	}
	if _, domain := directory.SplitAddress(canonical); domain == "" {
		p.bad(of, section, key, "%.80q has no domain: write it as name@domain", text)
	}
}

func (p *names) account(a *Account) {
	p.address(a, "account", a.Address)
	declared := a.Password != ""
	if declared && !p.c.Demo {
		p.bad(a, "account", "password",
			"a password in the clear is for the demo only: write password_hash (mailsrv user hash makes it) or password_file")
	}
	if !p.secret(a, "account", &a.Password, a.PasswordFile, a.PasswordCredential) && a.PasswordHash == "" {
		return
	}
	if !declared && strings.HasPrefix(a.Password, "$") { // a file may hold a hash
		a.PasswordHash, a.Password = a.Password, ""
	}
	if a.PasswordHash != "" {
		if err := directory.ParseHash(a.PasswordHash); err != nil {
			key := "password_hash"
			switch {
			case a.PasswordFile != "":
				key = "password_file"
			case a.PasswordCredential != "":
				key = "password_credential"
			}
			p.bad(a, "account", key, "%v: mailsrv user hash makes one", err)
		}
	}
	if len(a.Password) > directory.MaxPassword {
		p.bad(a, "account", "password", "%v", directory.ErrPasswordTooLong)
	}
}

// loops asks the directory itself. What an alias names in our own domains may be made by command later, so that only circles
// are wrong.
func (p *names) loops() {
	right := p.right()
	d, err := directory.Open(nil, right.Seed())
	if err != nil { // was checked above, name by name
		if len(p.wrong) == 0 {
			p.checker.bad(p.c, "", "domain", "%v", err)
		}
		return
	}
	for i := range p.c.Aliases {
		a := &p.c.Aliases[i]
		if _, err := d.Resolve(a.Address); errors.Is(err, directory.ErrAliasLoop) || errors.Is(err, directory.ErrAliasTooBig) {
			p.bad(a, "alias", "to", "%v: correct its targets", err)
		}
	}
	for i := range p.c.Groups {
		g := &p.c.Groups[i]
		if _, err := d.Resolve(g.Address); errors.Is(err, directory.ErrAliasLoop) || errors.Is(err, directory.ErrAliasTooBig) {
			p.bad(g, "group", "members", "%v: correct its members", err)
		}
	}
}

// right is the configuration without what has problems of its own, so that circles are told of at once with them.
func (p *names) right() *Config {
	c := *p.c
	if p.wrong[p.c] {
		c.Postmaster = ""
	}
	c.Domains = nil
	for i := range p.c.Domains {
		d := &p.c.Domains[i]
		name, err := directory.CanonicalDomain(d.Name)
		switch {
		case !p.wrong[d]:
			c.Domains = append(c.Domains, *d)
		case err == nil && p.domains[name] == p.places[d][""]: // its name is good
			c.Domains = append(c.Domains, Domain{Name: d.Name})
		}
	}
	c.Accounts, c.Aliases, c.Groups = without(p.wrong, p.c.Accounts), without(p.wrong, p.c.Aliases), without(p.wrong, p.c.Groups)
	return &c
}

func without[T any](wrong map[any]bool, list []T) []T {
	var kept []T
	for i := range list {
		if !wrong[&list[i]] {
			kept = append(kept, list[i])
		}
	}
	return kept
}

// Seed is what the directory gets of a valid Config.
func (c *Config) Seed() directory.Seed {
	s := directory.Seed{Postmaster: c.Postmaster}
	for _, d := range c.Domains {
		s.Domains = append(s.Domains, directory.Domain{Name: d.Name, Legacy: d.Legacy, AutoCreate: d.AutoCreate, CatchAll: d.CatchAll,
			Subaddress: d.Subaddress, QuotaBytes: int64(d.Quota), QuotaMessages: int64(d.QuotaMessages)})
	}
	for _, a := range c.Accounts {
		s.Accounts = append(s.Accounts, directory.SeedAccount{
			Account: directory.Account{Address: a.Address, Legacy: a.Legacy, Disabled: a.Disabled,
				QuotaBytes: int64(a.Quota), QuotaMessages: int64(a.QuotaMessages)},
			Password: a.Password, Hash: a.PasswordHash,
		})
	}
	for _, a := range c.Aliases {
		s.Aliases = append(s.Aliases, directory.Alias{Address: a.Address, Targets: a.To})
	}
	for _, g := range c.Groups {
		s.Groups = append(s.Groups, directory.Group{Address: g.Address, Members: g.Members, Private: g.Private})
	}
	return s
}

// HashParams are [auth]'s costs of new password hashes.
func (a *Auth) HashParams() directory.HashParams {
	return directory.HashParams{Memory: uint32(a.Argon2Memory / KiB), Time: uint32(a.Argon2Passes), Lanes: 1}
}
