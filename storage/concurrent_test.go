package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestConcurrent has writers change an account while readers look at views, follow the log, read messages and watch.
// Every view must be whole, every difference of two views what its reader's own rows become, and in the end all agree.
func TestConcurrent(t *testing.T) {
	a := testAccount(t, Options{})
	in := mailboxOf(t, a, inbox)
	msg := incoming(t, a.store, mailText("x"))
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() { follow(t, a, in.ID, done) })
	}
	readers.Go(func() { readAround(t, a, in.ID, done) })
	for w := range 8 {
		writers.Go(func() {
			for i := range 25 {
				c, err := a.Append(inbox, NewMessage{Incoming: msg, Flags: []string{fmt.Sprintf("w%d", w)}}, NewMessage{Incoming: msg})
				if err != nil {
					t.Error(err)
					return
				}
				changeSome(t, a, in.ID, c.Dest, i)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

func changeSome(t *testing.T, a *Account, id MailboxID, uids []UID, i int) {
	var err error
	switch i % 6 {
	case 0:
		_, err = a.Store(id, uids, FlagChange{Op: AddFlags, Flags: []string{`\Seen`}})
	case 1:
		_, err = a.Move(id, uids[:1], "Archive")
	case 2:
		_, _, err = a.Expunge(id, uids[:1], false)
	case 3:
		_, err = a.Copy(id, uids, inbox)
	case 4:
		err = a.Refresh(id)
	default:
		_, err = a.tidy()
	}
	if err != nil {
		t.Error(err)
	}
}

// follow keeps rows as an IMAP session does, by differences, woken by a watcher.
func follow(t *testing.T, a *Account, id MailboxID, done chan struct{}) {
	w := a.Watch(id)
	defer w.Close()
	rows := map[UID]Row{}
	var last *View
	for ended := false; !ended; {
		v, err := a.View(id)
		if err != nil {
			t.Error(err)
			return
		}
		if last == nil {
			last = newView(v.Mailbox(), nil)
		}
		if v.ModSeq() < last.ModSeq() || v.Mailbox().UIDNext < last.Mailbox().UIDNext {
			t.Errorf("the mailbox went back from %+v to %+v", last.Mailbox(), v.Mailbox())
		}
		d := Diff(last, v)
		for _, u := range d.Expunged {
			delete(rows, u)
		}
		for _, r := range append(slices.Clone(d.Changed), d.Arrived...) {
			rows[r.UID] = r
		}
		if len(rows) != v.Len() || int(v.Mailbox().Messages) != v.Len() {
			t.Errorf("%d rows by difference, %d in the view, %d messages", len(rows), v.Len(), v.Mailbox().Messages)
			return
		}
		for _, r := range v.Rows(0, v.Len()) {
			if rows[r.UID] != r {
				t.Errorf("row %+v, by difference %+v", r, rows[r.UID])
				return
			}
		}
		last = v
		select {
		case <-w.C:
		case <-done:
			now, err := a.View(id)
			ended = err != nil || now == v
		}
	}
}

// readAround reads what a view names; what is gone by then is gone without noise.
func readAround(t *testing.T, a *Account, id MailboxID, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		v, err := a.View(id)
		if err != nil || v.Len() == 0 {
			continue
		}
		uid := v.At(rand.IntN(v.Len())).UID
		b, err := a.OpenMessage(id, uid)
		if err == nil {
			err = b.Close()
		}
		if err != nil && !errors.Is(err, ErrNoMessage) {
			t.Error(err)
			return
		}
		if _, err = a.ClaimRecent(id); err != nil {
			t.Error(err)
			return
		}
		n := 0
		for _, err := range a.Messages(id, viewUIDs(v), true) {
			if err != nil {
				t.Error(err)
				return
			}
			n++
		}
		if n > v.Len() {
			t.Errorf("%d messages of %d", n, v.Len())
		}
	}
}

func TestWatch(t *testing.T) {
	s := testStore(t, Options{})
	a := newAccount(t, s, alice)
	all, in, sent := a.Watch(), a.Watch(mailboxOf(t, a, inbox).ID), a.Watch(mailboxOf(t, a, "Sent").ID)
	woken := func() string {
		var b strings.Builder
		for _, w := range []struct {
			name string
			*Watcher
		}{{"all", all}, {"in", in}, {"sent", sent}} {
			select {
			case _, open := <-w.C:
				fmt.Fprintf(&b, "%s:%v ", w.name, open)
			default:
			}
		}
		return strings.TrimSpace(b.String())
	}
	for _, c := range []struct {
		what string
		do   func() error
		want string
	}{
		{"nothing", func() error { return nil }, ""},
		{"two arrivals", func() error { add(t, a, inbox, mailText("x")); add(t, a, inbox, mailText("y")); return nil }, "all:true in:true"},
		{"no change", func() error {
			_, err := a.Store(1, []UID{1}, FlagChange{Op: RemoveFlags, Flags: []string{`\Seen`}})
			return err
		}, ""},
		{"copy", func() error { _, err := a.Copy(1, []UID{1}, "Sent"); return err }, "all:true sent:true"},
		{"move", func() error { _, err := a.Move(1, []UID{1}, "Sent"); return err }, "all:true in:true sent:true"},
		{"create", func() error { _, err := a.CreateMailbox("New", ""); return err }, "all:true"},
		{"subscribe", func() error { return a.Subscribe("New", true) }, "all:true"},
		{"delete", func() error { return a.DeleteMailbox("Sent") }, "all:true sent:true"},
		{"closed watcher", func() error { in.Close(); in.Close(); add(t, a, inbox, mailText("x")); return nil }, "all:true"},
		{"removal", func() error { return s.Remove(alice) }, "all:false sent:false"},
		{"late watcher", func() error { in = a.Watch(); return nil }, "all:false in:false sent:false"},
	} {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got := woken(); got != c.want {
			t.Errorf("%s woke %q, want %q", c.what, got, c.want)
		}
	}
	all.Close()
}

func TestRegistry(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir, MaxOpen: 2})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("second store: %v", err)
	}
	if _, err := s.Account(alice); !errors.Is(err, ErrNoAccount) {
		t.Error(err)
	}
	held := newAccount(t, s, alice)
	again, err := s.Account(alice)
	if err != nil || again != held {
		t.Errorf("%p, %p, %v", held, again, err)
	}
	again.Release()
	for i := range 40 {
		address := fmt.Sprintf("u%d@example.test", i)
		if err := s.Create(address); err != nil {
			t.Fatal(err)
		}
		a, err := s.Account(address)
		if err != nil {
			t.Fatal(err)
		}
		add(t, a, inbox, mailText("x"))
		a.Release()
	}
	open := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.slots)
	}
	for deadline := time.Now().Add(10 * time.Second); open() > 3 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := open(); n != 3 {
		t.Errorf("%d accounts open, want the one that is held and two idle ones", n)
	}
	add(t, held, inbox, mailText("x"))

	if err := s.Remove("nobody@example.test"); !errors.Is(err, ErrNoAccount) {
		t.Error(err)
	}
	if err := s.Remove(alice); err != nil {
		t.Error(err)
	}
	if _, err := held.Append(inbox, NewMessage{Incoming: incoming(t, s, mailText("x"))}); !errors.Is(err, ErrNoAccount) {
		t.Errorf("append to a removed account: %v", err)
	}
	if _, err := held.Mailboxes(); !errors.Is(err, ErrNoAccount) {
		t.Errorf("mailboxes of a removed account: %v", err)
	}
	if _, err := held.View(1); !errors.Is(err, ErrNoAccount) {
		t.Errorf("view of a removed account: %v", err)
	}
	if err := s.Create(alice); err != nil {
		t.Error(err)
	}
	fresh := openAlice(t, s)
	if m := mailboxOf(t, fresh, inbox); m.Messages != 0 {
		t.Errorf("%+v", m)
	}
	fresh.Release()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Account(alice); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := fresh.View(1); !errors.Is(err, ErrClosed) {
		t.Errorf("view of a closed account: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Accounts are opened, used, evicted, removed and made by many at once.
func TestRegistryRaces(t *testing.T) {
	s := testStore(t, Options{MaxOpen: 1})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 15 {
				address := fmt.Sprintf("u%d@example.test", (g+i)%4)
				err := s.Create(address)
				if err != nil && !errors.Is(err, ErrAccountExists) {
					t.Error(err)
				}
				a, err := s.Account(address)
				if errors.Is(err, ErrNoAccount) {
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				in := incoming(t, s, mailText("x"))
				if _, err := a.Append(inbox, NewMessage{Incoming: in}); err != nil && !errors.Is(err, ErrNoAccount) {
					t.Error(err)
				}
				a.Release()
				if i%7 == 6 {
					if err := s.Remove(address); err != nil && !errors.Is(err, ErrNoAccount) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}
