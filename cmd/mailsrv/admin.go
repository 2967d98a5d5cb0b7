package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"mailsrv/internal/config"
	"mailsrv/internal/directory"
	"mailsrv/internal/disk"
	"mailsrv/internal/queue"
	"mailsrv/storage"
	"mailsrv/storage/kv"
)

// request is one thing an administrator wants, as it crosses the control socket.
type request struct {
	Do            string   `json:"do"`
	Address       string   `json:"address,omitempty"`
	Password      string   `json:"password,omitempty"`
	Targets       []string `json:"targets,omitempty"`
	Legacy        bool     `json:"legacy,omitempty"`
	Disabled      bool     `json:"disabled,omitempty"`
	Set           []string `json:"set,omitempty"` // user set: which of the fields around this are meant, as flags
	QuotaBytes    int64    `json:"quota_bytes,omitempty"`
	QuotaMessages int64    `json:"quota_messages,omitempty"`
	Purge         bool     `json:"purge,omitempty"`
	JSON          bool     `json:"json,omitempty"`
	Why           string   `json:"why,omitempty"`

	Lasting time.Duration `json:"lasting,omitempty"`
}

// reply answers it. Lines were done or found, whether or not an error follows.
type reply struct {
	Lines []string `json:"lines"`
	Error string   `json:"error,omitempty"`
}

// admin does what administrators ask for, in the server or beside it.
type admin struct {
	people *directory.Directory
	mail   *storage.Store
	queue  *queue.Queue
}

// do carries a request out and returns what to tell.
func (a *admin) do(r request) ([]string, error) {
	operations := map[string]func(request) ([]string, error){
		"user add":    a.userAdd,
		"user del":    a.userDel,
		"user list":   a.userList,
		"user set":    a.userSet,
		"user passwd": a.userPasswd,
		"alias add":   a.aliasAdd,
		"alias del":   a.aliasDel,
		"alias list":  a.aliasList,
		"problems":    func(request) ([]string, error) { return a.people.Problems(), nil },
	}
	maps.Copy(operations, a.queueOperations())
	op := operations[r.Do]
	if op == nil {
		return nil, fmt.Errorf("the server does not know %.40q: is it another version?", r.Do)
	}
	lines, err := op(r)
	return lines, advise(err)
}

// advise adds what to do to the errors that leave that open.
func advise(err error) error {
	switch {
	case errors.Is(err, directory.ErrNoDomain):
		return fmt.Errorf("%w: declare it as a [[domain]] in the configuration file first", err)
	case errors.Is(err, directory.ErrExists):
		return fmt.Errorf("%w: mailsrv user list and alias list show by whom", err)
	case errors.Is(err, directory.ErrNoAccount):
		return fmt.Errorf("%w: mailsrv user list shows them all", err)
	case errors.Is(err, queue.ErrNoMessage):
		return fmt.Errorf("%w: mailsrv queue list shows what is there", err)
	case errors.Is(err, queue.ErrNotSuppressed):
		return fmt.Errorf("%w: mailsrv queue suppressed list shows them all", err)
	case errors.Is(err, directory.ErrNoAlias):
		return fmt.Errorf("%w: mailsrv alias list shows them all", err)
	}
	return err
}

func (a *admin) userAdd(r request) ([]string, error) {
	account := directory.Account{Address: r.Address, Legacy: r.Legacy, QuotaBytes: r.QuotaBytes, QuotaMessages: r.QuotaMessages}
	if err := a.people.AddAccount(account, r.Password); err != nil {
		return nil, err
	}
	account, _ = a.people.Account(r.Address)
	err := a.mail.Create(account.Address)
	switch {
	case errors.Is(err, storage.ErrAccountExists):
		return []string{"added " + account.Address + "; the mail it had before is still there"}, nil
	case err != nil:
		return nil, errors.Join(fmt.Errorf("make its mailboxes: %w", err), a.people.RemoveAccount(account.Address))
	}
	return []string{"added " + account.Address}, nil
}

func (a *admin) userDel(r request) ([]string, error) {
	address, err := directory.Canonical(r.Address)
	if err != nil {
		return nil, err
	}
	var done []string
	err = a.people.RemoveAccount(address)
	switch {
	case err == nil:
		done = append(done, "removed "+address)
	case !r.Purge || !errors.Is(err, directory.ErrNoAccount): // what user del left behind can be purged later
		return nil, err
	}
	done = append(done, a.mentions(address)...)
	if !r.Purge {
		return append(done, "its mail is still there: user del "+address+" -purge removes it"), nil
	}
	purgeErr := a.mail.Remove(address)
	switch {
	case errors.Is(purgeErr, storage.ErrNoAccount):
		if len(done) == 0 {
			return nil, err
		}
		return append(done, "it had no mail"), nil
	case purgeErr != nil:
		return done, fmt.Errorf("remove the mail of %s: %w", address, purgeErr)
	}
	return append(done, "removed its mail"), nil
}

// mentions lists the problems that an address has left behind, such as aliases that lead to it.
func (a *admin) mentions(address string) []string {
	var lines []string
	for _, p := range a.people.Problems() {
		if strings.Contains(p, " "+address+":") {
			lines = append(lines, "but "+p)
		}
	}
	return lines
}

func (a *admin) userList(request) ([]string, error) {
	var lines []string
	for _, account := range a.people.Accounts() {
		var notes []string
		if account.Declared {
			notes = append(notes, "declared")
		}
		if account.Disabled {
			notes = append(notes, "disabled")
		}
		if account.Legacy {
			notes = append(notes, "legacy")
		}
		if bytes, messages := a.people.Quota(account.Address); bytes > 0 || messages > 0 {
			notes = append(notes, "quota "+quotaText(bytes, messages))
		}
		lines = append(lines, strings.TrimSpace(account.Address+"  "+strings.Join(notes, ", ")))
	}
	return lines, nil
}

func quotaText(bytes, messages int64) string {
	var parts []string
	if bytes > 0 {
		parts = append(parts, config.Size(bytes).String())
	}
	if messages > 0 {
		parts = append(parts, fmt.Sprintf("%d messages", messages))
	}
	return strings.Join(parts, " and ")
}

func (a *admin) userSet(r request) ([]string, error) {
	err := a.people.UpdateAccount(r.Address, func(account *directory.Account) {
		for _, what := range r.Set {
			switch what {
			case "disabled":
				account.Disabled = r.Disabled
			case "legacy":
				account.Legacy = r.Legacy
			case "quota":
				account.QuotaBytes = r.QuotaBytes
			case "quota-messages":
				account.QuotaMessages = r.QuotaMessages
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return []string{"changed " + r.Address}, nil
}

func (a *admin) userPasswd(r request) ([]string, error) {
	if err := a.people.SetPassword(r.Address, r.Password); err != nil {
		return nil, err
	}
	return []string{"changed the password of " + r.Address}, nil
}

func (a *admin) aliasAdd(r request) ([]string, error) {
	if err := a.people.AddAlias(directory.Alias{Address: r.Address, Targets: r.Targets}); err != nil {
		return nil, err
	}
	return []string{"added " + r.Address}, nil
}

func (a *admin) aliasDel(r request) ([]string, error) {
	if err := a.people.RemoveAlias(r.Address); err != nil {
		return nil, err
	}
	return []string{"removed " + r.Address}, nil
}

func (a *admin) aliasList(request) ([]string, error) {
	var lines []string
	line := func(address string, targets []string, note string) {
		lines = append(lines, address+"  "+strings.Join(targets, " ")+note)
	}
	for _, alias := range a.people.Aliases() {
		note := ""
		if alias.Declared {
			note = "  declared"
		}
		line(alias.Address, alias.Targets, note)
	}
	for _, g := range a.people.Groups() {
		line(g.Address, g.Members, "  declared group")
	}
	return lines, nil
}

// administer asks the running server, or opens the data if none runs.
func administer(cfg *config.Config, r request) ([]string, error) {
	lines, err := askServer(cfg.Data, r)
	if !errors.Is(err, errNoServer) {
		return lines, err
	}
	a, closeData, err := openData(cfg)
	if err != nil {
		return nil, err
	}
	lines, err = a.do(r)
	return lines, errors.Join(err, closeData())
}

// openData opens the data of a server that does not run.
func openData(cfg *config.Config) (a *admin, closeData func() error, err error) {
	db, err := openSystemDB(cfg.Data)
	if err != nil {
		return nil, nil, err
	}
	people, err := directory.Open(db, cfg.Seed(), directory.WithHashParams(cfg.Auth.HashParams()))
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	mail, err := storage.Open(storeOptions(cfg, people, nil))
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	out, err := queue.Open(queueOptions(cfg, db, nil))
	if err != nil {
		return nil, nil, errors.Join(err, mail.Close(), db.Close())
	}
	return &admin{people, mail, out}, func() error { return errors.Join(mail.Close(), db.Close()) }, nil
}

// openSystemDB makes the data folder if need be and opens system.db, whose lock makes us the only one.
func openSystemDB(data string) (kv.DB, error) {
	fs := disk.OS()
	if err := fs.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	db, err := kv.OpenBolt(filepath.Join(data, "system.db"))
	if errors.Is(err, kv.ErrLocked) {
		return nil, fmt.Errorf("data: %s is in use by another mailsrv: stop it, or write another data folder", data)
	}
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if err := fs.SyncDir(data); err != nil {
		return nil, errors.Join(fmt.Errorf("data: %w", err), db.Close())
	}
	return db, nil
}
