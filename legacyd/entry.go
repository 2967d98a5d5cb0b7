package legacyd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailsrv/internal/auth"
	"mailsrv/internal/directory"
	"mailsrv/storage"
)

// entry opens the mailbox of an address to the session. A refused entry changes nothing: the session keeps the mailbox it
// had, or none.
func (se *session) entry(ctx context.Context, r request) error {
	name, err := r.text("name")
	if err != nil {
		return err
	}
	password, given, err := r.optionalText("password")
	if err != nil {
		return err
	}
	if !strings.Contains(name, "@") {
		return refuse("Invalid address")
	}
	address, err := directory.Canonical(name)
	if err != nil {
		return refuse("Invalid address")
	}
	a, err := se.admit(ctx, address, password, given)
	se.s.o.Meter.Login(service, err == nil)
	if err != nil {
		se.log.Info("entry refused", "address", address, "err", err)
		return refuse(textDenied)
	}
	if se.account != nil && a.Address == se.address {
		se.name, se.proved = name, se.proved || given
		return nil
	}
	if !se.s.claim(ctx, a.Address) {
		return refuse(textTaken)
	}
	account, inbox, err := se.s.openInbox(a.Address)
	if err != nil {
		se.s.unclaim(a.Address)
		return err
	}
	se.leave()
	se.address, se.name, se.account, se.inbox = a.Address, name, account, inbox
	se.proved = given
	se.log.Info("entry", "address", a.Address)
	return nil
}

// leave gives back what entry took.
func (se *session) leave() {
	if se.account == nil {
		return
	}
	se.account.Release()
	se.account = nil
	se.s.unclaim(se.address)
}

// entered refuses requests of a session that has no mailbox, or whose account was closed to it since.
func (se *session) entered() error {
	if se.account == nil {
		return refuse("Enter a mailbox first")
	}
	if a, found := se.s.o.Directory.Account(se.address); !found || !open(a) {
		return refuse(textDenied)
	}
	return nil
}

var (
	errClosed     = errors.New("no such account, or not open to the course protocol")
	errNoPassword = errors.New("no password, and not from a trusted network")
)

func open(a directory.Account) bool { return a.Legacy && !a.Disabled }

// admit decides whether the peer may enter the address. Every path takes the same time for an account that exists and one
// that does not: lookups are from memory, and auth.Password is made so.
func (se *session) admit(ctx context.Context, address, password string, given bool) (directory.Account, error) {
	if given {
		// The protocol has no TLS, and package auth lets nobody but loopback log in without. That an operator listens
		// beyond loopback and opens an account to this protocol is the decision that a password may come in clear.
		peer := auth.Peer{Addr: se.peer, TLS: true, Trusted: se.trusted, Service: service}
		a, err := se.s.o.Auth.Password(ctx, peer, address, password)
		if err == nil && !open(a) {
			err = errClosed
		}
		return a, err
	}
	if !se.trusted {
		return directory.Account{}, errNoPassword
	}
	a, found := se.s.o.Directory.Account(address)
	if !found && se.s.mayCreate(address) {
		return se.s.create(address)
	}
	if !found || !open(a) {
		return a, errClosed
	}
	return a, nil
}

// mayCreate reports whether entry to an unknown address makes an account. Postmaster and abuse always lead to somebody
// (directory.Resolve), and so does an address with a tag: an account of that name would take their mail away.
func (s *Server) mayCreate(address string) bool {
	local, domain := directory.SplitAddress(address)
	d, ours := s.o.Directory.Domain(domain)
	if !ours || !d.AutoCreate {
		return false
	}
	tagged := d.Subaddress != "-" && strings.ContainsAny(local, d.Subaddress)
	return local != "postmaster" && local != "abuse" && !tagged
}

// create makes an account, as the course server did at entry. Nobody can log in to it with a password until one is set with
// `mailsrv user passwd`.
func (s *Server) create(address string) (directory.Account, error) {
	err := s.o.Directory.AddAccount(directory.Account{Address: address, Legacy: true}, "")
	// ErrExists: another session was faster, or the address is an alias.
	if err != nil && !errors.Is(err, directory.ErrExists) {
		return directory.Account{}, err
	}
	a, found := s.o.Directory.Account(address)
	if !found || !open(a) {
		return a, errClosed
	}
	s.log.Info("account made at entry", "address", a.Address)
	return a, nil
}

// openInbox opens an account that the directory knows, and makes its mailboxes if this is the first that is heard of it.
func (s *Server) openInbox(address string) (*storage.Account, storage.MailboxID, error) {
	account, err := s.o.Store.Account(address)
	if errors.Is(err, storage.ErrNoAccount) {
		if err = s.o.Store.Create(address); err == nil || errors.Is(err, storage.ErrAccountExists) {
			account, err = s.o.Store.Account(address)
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("opening the account: %w", err)
	}
	m, err := account.Mailbox("INBOX")
	if err != nil {
		account.Release()
		return nil, 0, fmt.Errorf("opening INBOX: %w", err)
	}
	return account, m.ID, nil
}
