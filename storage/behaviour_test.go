package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailsrv/internal/disk"
)

// RFC 3501 section 2.3.2: one session alone is told of a message as \Recent.
func TestClaimRecent(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	a := newAccount(t, s, alice)
	claim := func(want UID, recent uint32) {
		t.Helper()
		if m := mailboxOf(t, a, inbox); m.Recent != recent || viewOf(t, a, inbox).Mailbox().Recent != recent {
			t.Errorf("%d recent, in the view %d, want %d", m.Recent, viewOf(t, a, inbox).Mailbox().Recent, recent)
		}
		first, err := a.ClaimRecent(1)
		if err != nil || first != want {
			t.Errorf("first recent %d, want %d, %v", first, want, err)
		}
	}
	claim(1, 0)
	for range 3 {
		add(t, a, inbox, mailText("x"))
	}
	claim(1, 3)
	claim(4, 0)
	add(t, a, inbox, mailText("x"))
	add(t, a, inbox, mailText("x"))
	if _, _, err := a.Expunge(1, []UID{1, 5}, false); err != nil {
		t.Error(err)
	}
	claim(4, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	a = openAlice(t, testStore(t, Options{Dir: dir}))
	defer a.Release()
	claim(6, 0)
	if _, err := a.ClaimRecent(99); !errors.Is(err, ErrNoMailbox) {
		t.Error(err)
	}
}

func TestChangeLog(t *testing.T) {
	now := time.Date(2024, 6, 3, 10, 0, 0, 0, time.UTC)
	a := testAccount(t, Options{Now: func() time.Time { return now }})
	start := a.ModSeq()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		add(t, a, inbox, mailText("x"))
	}
	_, err := a.Store(1, []UID{1, 3}, FlagChange{Op: AddFlags, Flags: []string{`\Seen`}})
	must(err)
	_, err = a.Move(1, []UID{1, 2}, "Archive")
	must(err)
	must(a.RenameMailbox("Archive", "Old"))
	must(a.Subscribe("Old", true))
	must(a.DeleteMailbox("Old"))
	var got []string
	for _, c := range changes(t, a, start) {
		got = append(got, fmt.Sprint(c.ModSeq-start, " ", c.Kind, " ", c.Mailbox, " ", c.UIDs, c.Name, c.OldName))
		if !c.When.Equal(now) {
			t.Errorf("%+v", c)
		}
	}
	want := []string{"1 1 1 [{1 1}]", "2 1 1 [{2 2}]", "3 1 1 [{3 3}]", "4 2 1 [{1 1} {3 3}]", "5 1 6 [{1 2}]", "5 3 1 [{1 2}]",
		"6 6 6 []OldArchive", "7 7 6 []Old", "8 5 6 []Old"}
	if !slices.Equal(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
	if len(changes(t, a, a.ModSeq())) != 0 {
		t.Error("changes after the last")
	}

	// It is cut when it is both too long and too old, or much too long; who asks for what is gone is told so.
	a.store.logBounds = logBounds{keep: 10, most: 30, age: time.Hour}
	for range 20 {
		add(t, a, inbox, mailText("x"))
	}
	if n := len(changes(t, a, 0)); n < 20 {
		t.Errorf("%d changes: cut too early", n)
	}
	now = now.Add(2 * time.Hour)
	add(t, a, inbox, mailText("x"))
	if n := len(changes(t, a, a.ModSeq()-10)); n != 10 {
		t.Errorf("%d changes", n)
	}
	for _, err := range a.Changes(a.ModSeq() - 11) {
		if !errors.Is(err, ErrTooOld) {
			t.Error(err)
		}
	}
	if _, err := a.Expunged(1, start); !errors.Is(err, ErrTooOld) {
		t.Error(err)
	}
	for range 40 {
		add(t, a, inbox, mailText("x"))
	}
	if n := len(changes(t, a, a.ModSeq()-30)); n != 30 {
		t.Errorf("%d changes", n)
	}
	for _, err := range a.Changes(a.ModSeq() - 31) {
		if !errors.Is(err, ErrTooOld) {
			t.Error(err)
		}
	}
}

func TestMailboxes(t *testing.T) {
	a := testAccount(t, Options{})
	add(t, a, inbox, mailText("x"), `\Seen`)
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"create", func() error { _, err := a.CreateMailbox("A/B/C", `\Flagged`); return err }, nil},
		{"create again", func() error { _, err := a.CreateMailbox("A/B", ""); return err }, ErrMailboxExists},
		{"create INBOX", func() error { _, err := a.CreateMailbox("iNbOx", ""); return err }, ErrMailboxExists},
		{"create bad", func() error { _, err := a.CreateMailbox("A//B", ""); return err }, ErrBadMailboxName},
		{"find bad", func() error { _, err := a.Mailbox("A//B"); return err }, ErrNoMailbox},
		{"delete parent", func() error { return a.DeleteMailbox("A/B") }, nil},
		{"delete again", func() error { return a.DeleteMailbox("A/B") }, ErrNoMailbox},
		{"child is there", func() error { _, err := a.Mailbox("A/B/C"); return err }, nil},
		{"delete INBOX", func() error { return a.DeleteMailbox("inbox") }, ErrCannotDelete},
		{"rename nothing", func() error { return a.RenameMailbox("Nothing", "X") }, ErrNoMailbox},
		{"rename below itself", func() error { return a.RenameMailbox("A", "A/X") }, ErrBadMailboxName},
		{"rename to itself", func() error { return a.RenameMailbox("A", "A") }, ErrMailboxExists},
		{"rename to INBOX", func() error { return a.RenameMailbox("A", "inbox") }, ErrMailboxExists},
		{"rename makes parents", func() error { return a.RenameMailbox("A", "X/Y/Z") }, nil},
		{"parent", func() error { _, err := a.Mailbox("X/Y"); return err }, nil},
		{"child went along", func() error { _, err := a.Mailbox("X/Y/Z/B/C"); return err }, nil},
		{"rename what exists only as a level", func() error { return a.RenameMailbox("X/Y/Z/B", "B") }, nil},
		{"its child", func() error { _, err := a.Mailbox("B/C"); return err }, nil},
		{"rename INBOX", func() error { return a.RenameMailbox("INBOX", "INBOX/Old") }, nil},
		{"INBOX is there", func() error { _, err := a.Mailbox("INBOX"); return err }, nil},
		{"append to nothing", func() error {
			_, err := a.Append("Nothing", NewMessage{Incoming: incoming(t, a.store, "x")})
			return err
		}, ErrNoMailbox},
		{"copy to nothing", func() error { _, err := a.Copy(1, []UID{1}, "Nothing"); return err }, ErrNoMailbox},
		{"open nothing", func() error { _, err := a.OpenMessage(1, 77); return err }, ErrNoMessage},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if m := mailboxOf(t, a, "B/C"); m.SpecialUse != `\Flagged` {
		t.Errorf("%+v", m)
	}
	if m := mailboxOf(t, a, "INBOX"); m.Messages != 0 {
		t.Errorf("%+v", m)
	}
	if m := mailboxOf(t, a, "INBOX/Old"); m.Messages != 1 || m.Unseen != 0 || m.UIDNext != 2 {
		t.Errorf("%+v", m)
	}
}

// UIDs in any order, and twice, are taken as the set they are.
func TestUnsortedUIDs(t *testing.T) {
	a := testAccount(t, Options{})
	for range 4 {
		add(t, a, inbox, mailText("x"))
	}
	odd := []UID{3, 1, 3, 2, 1}
	if st, err := a.Store(1, odd, FlagChange{Op: AddFlags, Flags: []string{`\Seen`}}); err != nil || len(st.Changed) != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	if c, err := a.Copy(1, odd, "Archive"); err != nil || !slices.Equal(c.Source, []UID{1, 2, 3}) {
		t.Errorf("%+v, %v", c, err)
	}
	if went, _, err := a.Expunge(1, odd, false); err != nil || !slices.Equal(went, []UID{1, 2, 3}) {
		t.Errorf("%v, %v", went, err)
	}
	if went, _, err := a.Expunge(1, []UID{}, false); err != nil || len(went) != 0 {
		t.Errorf("%v, %v", went, err)
	}
}

// One change that fails halfway does not take those with it that share its commit.
func TestGroupSurvivesFailure(t *testing.T) {
	f := &faults{}
	s := testStore(t, Options{FS: disk.NewFaulty(disk.OS(), f.hook)})
	a := newAccount(t, s, alice)
	bad := incoming(t, s, mailText("bad"))
	good := incoming(t, s, mailText("good"))
	f.set(func(op, path string) error {
		if op == "link" && path == bad.Path() {
			return syscall.EIO
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			msgs := []NewMessage{{Incoming: good}, {Incoming: good}}
			if i%5 == 0 {
				msgs[1].Incoming = bad
			}
			_, err := a.Append(inbox, msgs...)
			if errors.Is(err, syscall.EIO) != (i%5 == 0) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := viewOf(t, a, inbox).Len(); n != 64 {
		t.Errorf("%d messages, want 64", n)
	}
}

// One panicking change is our bug and its alone.
func TestPanicIsKept(t *testing.T) {
	a := testAccount(t, Options{})
	err := a.change(func(*tx) error { panic("a bug") })
	if err == nil || !strings.Contains(err.Error(), "a bug") {
		t.Error(err)
	}
	add(t, a, inbox, mailText("x"))
}

// reopenChanged closes the store, has something done to the account's folder, and opens it again.
func reopenChanged(t *testing.T, s *Store, a *Account, do func(root string) error) *Account {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := do(filepath.Join(a.dir, "Maildir")); err != nil {
		t.Fatal(err)
	}
	a = openAlice(t, testStore(t, Options{Dir: filepath.Dir(s.root)}))
	t.Cleanup(a.Release)
	checkAccount(t, a)
	return a
}

// glob finds the one file.
func glob(pattern string) (string, error) {
	list, err := filepath.Glob(pattern)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%s: %q", pattern, list)
	}
	return strings.Join(list, ""), err
}

// What a crash can leave, and what only looks like it.
func TestRepair(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(root string) error
		want  string // messages by mailbox
	}{
		{"copy that was not committed", func(root string) error {
			f, err := glob(root + "/cur/*,U=1:2,S")
			if err != nil {
				return err
			}
			to := strings.Replace(filepath.Base(f), ",U=1:", ",U=7:", 1)
			return os.Link(f, filepath.Join(root, ".Archive/cur", to))
		}, "INBOX 1 2"},
		{"delivery that was not committed", func(root string) error {
			f, err := glob(root + "/cur/*,U=1:2,S")
			if err != nil {
				return err
			}
			base := strings.Replace(filepath.Base(f), ",U=1:", ",U=3:", 1)
			seconds, rest, _ := strings.Cut(base, ".")
			data, err := os.ReadFile(f)
			return errors.Join(err, os.WriteFile(filepath.Join(root, "cur", seconds+".1"+rest[1:]), data, 0o600))
		}, "INBOX 1 2 3"},
		{"mailbox whose creation was not committed", func(root string) error {
			return os.Rename(root+"/.Archive", root+"/.New") // seen from the index: Archive is renamed, or New made and Archive lost
		}, "INBOX 1 2"},
		{"rename that was not committed", func(root string) error {
			return os.Rename(root+"/.Sent", root+"/.Gone.Out")
		}, "INBOX 1 2"},
		{"file in new and cur at once", func(root string) error {
			f, err := glob(root + "/new/*,U=2")
			return errors.Join(err, os.Link(f, filepath.Join(root, "cur", filepath.Base(f)+":2,")))
		}, "INBOX 1 2"},
		{"copied folder", func(root string) error { // cp -r, by a person
			return os.CopyFS(root+"/.Copy", subFS(root))
		}, "Copy 1 2; INBOX 1 2"},
		{"file copied into a folder under its old UID", func(root string) error {
			f, err := glob(root + "/cur/*,U=1:2,S")
			return errors.Join(err, os.Link(f, filepath.Join(root, ".Full/cur", filepath.Base(f))))
		}, "INBOX 1 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testStore(t, Options{Dir: t.TempDir()})
			a := newAccount(t, s, alice)
			add(t, a, inbox, mailText("one"), `\Seen`)
			add(t, a, inbox, mailText("two"))
			if c.name == "file copied into a folder under its old UID" {
				if _, err := a.CreateMailbox("Full", ""); err != nil {
					t.Fatal(err)
				}
				add(t, a, "Full", mailText("other"))
				if _, _, err := a.Expunge(mailboxOf(t, a, "Full").ID, []UID{1}, false); err != nil {
					t.Fatal(err)
				}
				c.want = "Full 2; INBOX 1 2"
			}
			a = reopenChanged(t, s, a, c.leave)
			var got []string
			list, _ := a.Mailboxes()
			for _, m := range list {
				if m.Messages > 0 {
					got = append(got, fmt.Sprint(m.Name, " ", strings.Trim(fmt.Sprint(viewUIDs(viewOf(t, a, m.Name))), "[]")))
				}
			}
			slices.Sort(got)
			if g := strings.Join(got, "; "); g != c.want {
				t.Errorf("%s, want %s", g, c.want)
			}
			for _, name := range []string{"Archive", "Sent"} {
				mailboxOf(t, a, name)
			}
		})
	}
}

// subFS is a folder without the folders of other mailboxes.
func subFS(root string) fs.FS { return withoutFolders{os.DirFS(root)} }

type withoutFolders struct{ fs.FS }

func (w withoutFolders) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(w.FS, name)
	return slices.DeleteFunc(list, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }), err
}

// Two files with one UID, and one with a UID that leaves no room, get new ones; the rest keep theirs.
func TestRebuildOddUIDs(t *testing.T) {
	s := testStore(t, Options{Dir: t.TempDir()})
	a := newAccount(t, s, alice)
	for i := range 3 {
		add(t, a, inbox, mailText(fmt.Sprint("m", i+1)))
	}
	validity := mailboxOf(t, a, inbox).UIDValidity
	a = reopenChanged(t, s, a, func(root string) error {
		f, err := glob(root + "/new/*,U=2")
		if err != nil {
			return err
		}
		data, err := os.ReadFile(f)
		base := filepath.Base(f)
		seconds, rest, _ := strings.Cut(base, ".")
		return errors.Join(err, os.Remove(filepath.Join(root, "..", indexFile)),
			os.WriteFile(filepath.Join(root, "new", seconds+".f"+rest[1:]), data, 0o600),
			os.WriteFile(filepath.Join(root, "new", strings.Replace(base, ",U=2", ",U=4294967295", 1)), data, 0o600))
	})
	m := mailboxOf(t, a, inbox)
	if got := viewUIDs(viewOf(t, a, inbox)); !slices.Equal(got, []UID{1, 2, 3, 1001, 1002}) || m.UIDValidity != validity || m.UIDNext != 1003 {
		t.Errorf("UIDs %v, %+v", got, m)
	}
	if uid := add(t, a, inbox, mailText("x")); uid != 1003 {
		t.Errorf("UID %d", uid)
	}
}

func TestView(t *testing.T) {
	var chunks []*chunk
	var want []UID
	for _, first := range []UID{1, 300, 1000, 1 << 31} {
		c := &chunk{run: runOf(first)}
		for u := first; u < first+5; u++ {
			c.rows = append(c.rows, Row{UID: u, ModSeq: 1})
			want = append(want, u)
		}
		chunks = append(chunks, c)
	}
	v := newView(Mailbox{}, chunks)
	if v.Len() != 20 || !slices.Equal(viewUIDs(v), want) {
		t.Errorf("%v", viewUIDs(v))
	}
	for i, u := range want {
		if v.At(i).UID != u {
			t.Errorf("row %d is UID %d, want %d", i, v.At(i).UID, u)
		}
	}
	for u := range UID(1100) {
		i, found := v.Find(u)
		wantI, wantFound := slices.BinarySearch(want, u)
		if i != wantI || found != wantFound {
			t.Errorf("UID %d: %d, %v, want %d, %v", u, i, found, wantI, wantFound)
		}
	}
	for from := -1; from < 22; from++ {
		for to := -1; to < 23; to++ {
			n := max(from, 0)
			for i, r := range v.Rows(from, to) {
				if i != n || r.UID != want[n] {
					t.Errorf("rows %d to %d: %d, %+v", from, to, i, r)
				}
				n++
			}
			if n != max(min(to, 20), max(from, 0)) {
				t.Errorf("rows %d to %d end at %d", from, to, n)
			}
		}
	}
	for range v.Rows(0, 20) {
		break
	}
	if empty := newView(Mailbox{}, nil); empty.Len() != 0 || len(viewUIDs(empty)) != 0 {
		t.Error("empty view")
	}
}
