package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds on what one recipient can become, so that no directory, however it was made, can turn one mail into a flood.
const (
	maxTargets      = 10_000 // of one alias or group
	maxDestinations = 20_000 // of one recipient
	maxDepth        = 32     // alias in alias
)

// ErrAliasTooBig means that a recipient stands for more than can be served.
var ErrAliasTooBig = errors.New("alias expands to too many recipients")

// Resolve says where mail for a recipient goes: ErrNoDomain (not ours), ErrNoRecipient, ErrDisabled, ErrAliasLoop.
// An exact account, alias or group comes first, then user+tag@ as user@, then the roles, then the domain's catch-all.
//
// postmaster@ and abuse@ of a local domain always resolve: to what is declared, else to the configured postmaster,
// else to the first account of the domain, else of the server.
//
// A target of an alias that does not resolve is left out as long as another one does: the others' mail must not suffer from
// one who left. Problems tells of it.
func (d *Directory) Resolve(address string) (Resolution, error) {
	a, err := d.own(address)
	if err != nil {
		return Resolution{}, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	x := expansion{d: d, state: make(map[string]visit), catchAll: true}
	if err := x.add(a, "", 0); err != nil {
		return Resolution{}, fmt.Errorf("%s: %w", a.canonical(), err)
	}
	return x.result, nil
}

// MaySendAs reports whether the account may use the address as a sender: its own, with any subaddress tag, and aliases
// or groups whose members include it (at any depth). What only the catch-all takes is nobody's.
func (d *Directory) MaySendAs(account, address string) bool {
	e := d.lookup(account)
	a, err := d.own(address)
	if e == nil || err != nil {
		return false
	}
	return slices.Contains(d.members(a), e.Address)
}

// MaySendTo reports whether a sender (the account that logged in, or "" for a stranger) may send to the recipient: anyone
// to anything but a private group, which takes mail from its members only. Unknown recipients are Resolve's to refuse.
func (d *Directory) MaySendTo(account, recipient string) bool {
	a, err := d.own(recipient)
	if err != nil {
		return true
	}
	d.mu.RLock()
	hit := d.find(a)
	d.mu.RUnlock()
	if hit.fan == nil || !hit.fan.private {
		return true
	}
	e := d.lookup(account)
	return e != nil && slices.Contains(d.members(a), e.Address)
}

// members lists the accounts an address stands for, without the catch-all.
func (d *Directory) members(a address) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	x := expansion{d: d, state: make(map[string]visit)}
	if x.add(a, "", 0) != nil {
		return nil
	}
	var all []string
	for _, dest := range x.result.Local {
		all = append(all, dest.Account.Address)
	}
	return all
}

// match is what an address of ours names.
type match struct {
	entry *entry
	fan   *fan
	tag   string
}

func (m match) none() bool { return m.entry == nil && m.fan == nil }

// find looks an address up, then what is left of it without its tag. The caller holds mu.
func (d *Directory) find(a address) match {
	key := a.canonical()
	if m := (match{entry: d.accounts[key], fan: d.fans[key]}); !m.none() {
		return m
	}
	user, tag := d.untag(a)
	if user == "" {
		return match{}
	}
	key = user + "@" + a.domain
	return match{entry: d.accounts[key], fan: d.fans[key], tag: tag}
}

// untag splits user+tag by the separators of its domain: at the first one that leaves a user. "" if there is none.
func (d *Directory) untag(a address) (user, tag string) {
	separators := d.byName[a.domain].Subaddress
	if separators == "-" || a.local[0] == '"' {
		return "", ""
	}
	i := strings.IndexAny(a.local[1:], separators)
	if i < 0 {
		return "", ""
	}
	return a.local[:i+1], a.local[i+2:]
}

// role says where postmaster@ and abuse@ go when nothing of that name is there (RFC 5321 section 4.5.1, RFC 2142): "" if
// the address is no role, or nobody at all is there to take it.
func (d *Directory) role(a address) string {
	name := a.local
	if user, _ := d.untag(a); user != "" {
		name = user
	}
	switch {
	case name == "abuse":
		return "postmaster@" + a.domain
	case name != "postmaster":
		return ""
	case d.postmaster != "":
		return d.postmaster
	case d.first[a.domain] != "":
		return d.first[a.domain]
	}
	return d.first[""]
}

type visit uint8

const (
	onPath visit = iota + 1 // being expanded: meeting it again is a loop
	done
)

// expansion is one Resolve under way. The caller holds mu.
type expansion struct {
	d        *Directory
	catchAll bool // whether a domain's catch-all counts
	state    map[string]visit
	result   Resolution
}

// add expands an address. tag is the one of the alias it came through; its own wins.
func (x *expansion) add(a address, tag string, depth int) error {
	if len(x.result.Local)+len(x.result.Remote) >= maxDestinations || depth > maxDepth {
		return ErrAliasTooBig
	}
	if _, ours := x.d.byName[a.domain]; !ours {
		if x.enter(a.canonical()) == 0 {
			x.result.Remote = append(x.result.Remote, a.elsewhere())
			x.leave(a.canonical())
		}
		return nil
	}
	m := x.d.find(a)
	if m.tag != "" {
		tag = m.tag
	}
	switch {
	case m.entry != nil:
		return x.account(m.entry, tag)
	case m.fan != nil:
		return x.fan(m.fan.Address, m.fan.targets, tag, depth)
	}
	if to := x.d.role(a); to != "" {
		return x.through(a.canonical(), to, tag, depth)
	}
	if to := x.d.byName[a.domain].CatchAll; to != "" && x.catchAll {
		return x.through("@"+a.domain, to, tag, depth)
	}
	return ErrNoRecipient
}

// account adds one account once; the first tag stands.
func (x *expansion) account(e *entry, tag string) error {
	if e.Disabled {
		return ErrDisabled
	}
	if x.enter(e.Address) == 0 {
		x.result.Local = append(x.result.Local, Destination{Account: x.d.public(e), Tag: tag})
		x.leave(e.Address)
	}
	return nil
}

// through expands a role or catch-all, known as key on the path.
func (x *expansion) through(key, to, tag string, depth int) error {
	target, err := parseAddress(to)
	if err != nil {
		return err // was parsed when it was taken in
	}
	return x.fan(key, []address{x.d.complete(target)}, tag, depth)
}

// fan expands the targets of an alias or group.
func (x *expansion) fan(key string, targets []address, tag string, depth int) error {
	switch x.enter(key) {
	case onPath:
		return ErrAliasLoop
	case done:
		return nil
	}
	defer x.leave(key)
	var first error
	reached := false
	for _, t := range targets {
		err := x.add(t, tag, depth+1)
		switch {
		case err == nil:
			reached = true
		case errors.Is(err, ErrAliasLoop), errors.Is(err, ErrAliasTooBig):
			return err
		case first == nil:
			first = err
		}
	}
	if !reached {
		return first
	}
	return nil
}

// enter marks a name as being expanded and returns what it was before.
func (x *expansion) enter(key string) visit {
	before := x.state[key]
	if before == 0 {
		x.state[key] = onPath
	}
	return before
}

func (x *expansion) leave(key string) { x.state[key] = done }
