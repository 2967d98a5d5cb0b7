package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"mailsrv/internal/directory"
)

// Password checks a user name (an address; a bare local part is completed with the only domain if there is one) and
// password. It takes the same time for an unknown user and a wrong password, and longer after failures from the same
// address or network (none for Trusted peers). ErrCredentials, ErrThrottled, ErrPlaintext, or the context's error.
func (a *Authenticator) Password(ctx context.Context, p Peer, user, password string) (directory.Account, error) {
	if !a.MayAuthenticate(p) {
		return directory.Account{}, ErrPlaintext
	}
	user = a.complete(user)
	account, how, err := a.login(ctx, p, user, password)
	a.log(ctx, p, user, how, err)
	a.o.Meter.Login(p.Service, err == nil)
	return account, err
}

// complete makes an address of a bare user name where only one is possible.
func (a *Authenticator) complete(user string) string {
	if strings.ContainsRune(user, '@') {
		return user
	}
	if domains := a.directory.Domains(); len(domains) == 1 {
		return user + "@" + domains[0].Name
	}
	return user
}

// login says also how the answer was found, for the log.
func (a *Authenticator) login(ctx context.Context, p Peer, user, password string) (directory.Account, string, error) {
	key := a.memory.secret(p, user, password)
	if p.Trusted || !a.throttle.guessing(p.Addr, a.o.Now()) {
		if account, ok := a.recall(key); ok {
			return account, "remembered", nil
		}
	}
	if !p.Trusted {
		if err := a.hold(ctx, p); err != nil {
			// Who hangs up while waiting, or is sent away, has made an attempt all the same: guesses on connections
			// that never wait for the answer would be free otherwise.
			a.countFailure(p, key)
			return directory.Account{}, "held back", err
		}
	}
	account, err := a.verify(ctx, key, user, password)
	if errors.Is(err, ErrCredentials) && !p.Trusted {
		a.countFailure(p, key)
	}
	return account, "checked", err
}

func (a *Authenticator) countFailure(p Peer, key secretKey) {
	weight := 1.0
	if a.memory.failedBefore(key) {
		weight = repeatWeight
	}
	a.throttle.failed(p.Addr, a.o.Now(), weight)
}

// recall finds a login that was verified a while ago and that nothing has ended since.
func (a *Authenticator) recall(key secretKey) (directory.Account, bool) {
	l, ok := a.memory.recall(key, a.o.Now())
	if !ok {
		return directory.Account{}, false
	}
	account, exists := a.directory.Account(l.address)
	// The epoch is asked for last: an account that changed in between has a new one.
	if !exists || account.Disabled || a.directory.Epoch(l.address) != l.epoch {
		a.memory.forget(key)
		return directory.Account{}, false
	}
	return account, true
}

// hold makes the peer wait for what it did before.
func (a *Authenticator) hold(ctx context.Context, p Peer) error {
	wait, ok := a.throttle.reserve(p.Addr, a.o.Now())
	if !ok {
		return ErrThrottled
	}
	if wait <= 0 {
		return nil
	}
	return a.o.Sleep(ctx, wait)
}

// flights are the checks under way, by what they check. Equal logins at the same time share one.
type flights struct {
	mu sync.Mutex
	m  map[secretKey]*flight
}

type flight struct {
	done    chan struct{} // closed when the rest is set
	account directory.Account
	err     error
}

// verify pays for argon2, or waits for an equal login that does.
func (a *Authenticator) verify(ctx context.Context, key secretKey, user, password string) (directory.Account, error) {
	for {
		f, mine := a.flights.join(key)
		if mine {
			return a.lead(ctx, f, key, user, password)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return directory.Account{}, ctx.Err()
		}
		if f.err == nil || errors.Is(f.err, ErrCredentials) {
			return f.account, f.err
		}
		// The one who would have paid hung up before its turn: somebody else has to.
	}
}

// lead makes the check for all who wait for it. They are let go even if it panics.
func (a *Authenticator) lead(ctx context.Context, f *flight, key secretKey, user, password string) (directory.Account, error) {
	f.err = errAborted
	defer a.flights.land(key, f)
	f.account, f.err = a.pay(ctx, key, user, password)
	return f.account, f.err
}

// errAborted is a check that nobody finished; never seen outside.
var errAborted = errors.New("check aborted")

// join finds the check of a login under way, or begins one.
func (b *flights) join(key secretKey) (f *flight, mine bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.m[key]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	b.m[key] = f
	return f, true
}

func (b *flights) land(key secretKey, f *flight) {
	b.mu.Lock()
	delete(b.m, key)
	b.mu.Unlock()
	close(f.done)
}

// pay waits for one of the slots and checks the password.
func (a *Authenticator) pay(ctx context.Context, key secretKey, user, password string) (directory.Account, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return directory.Account{}, ctx.Err()
	}
	epoch := a.directory.Epoch(user) // before the check: a change during it must not be remembered away
	account, ok := a.directory.CheckPassword(user, password)
	if !ok {
		return directory.Account{}, ErrCredentials
	}
	a.memory.remember(key, account.Address, epoch, a.o.Now())
	return account, nil
}

// log tells of the outcome, never of the password. The name is the client's: bounded and quoted by the handler.
func (a *Authenticator) log(ctx context.Context, p Peer, user, how string, err error) {
	if len(user) > 100 {
		user = strings.ToValidUTF8(user[:100], "") + "…"
	}
	level, text := slog.LevelInfo, "login"
	switch {
	case err != nil:
		text = "login failed"
	case how == "remembered":
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("service", p.Service), slog.String("peer", p.Addr.String()),
		slog.String("user", user), slog.String("how", how)}
	if err != nil {
		attrs = append(attrs, slog.String("error", fmt.Sprint(err)))
	}
	a.o.Logger.LogAttrs(ctx, level, text, attrs...)
}
