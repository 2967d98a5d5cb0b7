package storage

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
	"mailsrv/storage/kv/kvtest"
)

// faults makes chosen operations fail.
type faults struct {
	mu   sync.Mutex
	fail func(op, path string) error
}

func (f *faults) set(fail func(op, path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *faults) hook(op, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	return f.fail(op, path)
}

// faultClock stands still, so that two runs of one change end alike.
func faultClock() time.Time { return time.Date(2024, 6, 3, 10, 0, 0, 0, time.UTC) }

func memoryOptions(fsys disk.FS) Options {
	return Options{Dir: "/data", FS: fsys, Now: faultClock, Reserve: 1, memory: true,
		openIndex: func(path string) (kv.DB, error) { return kvtest.OpenSnapshot(fsys, path) }}
}

// memoryStore opens a store on a file system in memory, index and all.
func memoryStore(t testing.TB, fsys disk.FS) *Store {
	t.Helper()
	s, err := Open(memoryOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// what can be done to an account that has messages 1 to 4 in INBOX, and two in Archive.
var faultyChanges = []struct {
	name string
	do   func(a *Account, in *Incoming) error
}{
	{"append", func(a *Account, in *Incoming) error {
		_, err := a.Append(inbox, NewMessage{Incoming: in, Flags: []string{`\Seen`}}, NewMessage{Incoming: in})
		return err
	}},
	{"copy", func(a *Account, in *Incoming) error {
		_, err := a.Copy(1, []UID{1, 2}, "Archive")
		return err
	}},
	{"move", func(a *Account, in *Incoming) error {
		_, err := a.Move(1, []UID{1, 3}, "Archive")
		return err
	}},
	{"store", func(a *Account, in *Incoming) error {
		_, err := a.Store(1, []UID{1, 2, 3}, FlagChange{Op: AddFlags, Flags: []string{`\Seen`, "$Other"}})
		return err
	}},
	{"expunge", func(a *Account, in *Incoming) error {
		_, _, err := a.Expunge(1, []UID{2, 4}, false)
		return err
	}},
	{"create", func(a *Account, in *Incoming) error {
		_, err := a.CreateMailbox("Work/2024/June", "")
		return err
	}},
	{"delete", func(a *Account, in *Incoming) error { return a.DeleteMailbox("Archive") }},
	{"rename", func(a *Account, in *Incoming) error { return a.RenameMailbox("Archive", "Old/Archive") }},
	{"rename INBOX", func(a *Account, in *Incoming) error { return a.RenameMailbox("INBOX", "Kept") }},
	{"subscribe", func(a *Account, in *Incoming) error { return a.Subscribe("Archive", false) }},
	{"tidy", func(a *Account, in *Incoming) error { return a.tidyUp() }},
}

// faultTemplate makes the disk that each trial begins with.
func faultTemplate(t *testing.T) *disk.Crashable {
	fsys := disk.NewCrashable()
	s := memoryStore(t, fsys)
	if err := s.Create(alice); err != nil {
		t.Fatal(err)
	}
	a := openAlice(t, s)
	for i := range 4 {
		add(t, a, inbox, mailText(fmt.Sprint("m", i)), `\Answered`)
	}
	if _, err := a.Copy(1, []UID{3, 4}, "Archive"); err != nil {
		t.Fatal(err)
	}
	a.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fsys
}

func openAlice(t testing.TB, s *Store) *Account {
	t.Helper()
	a, err := s.Account(alice)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// trial opens a copy of the template with lazy work to do (three file names lag), and a message ready to be filed.
func trial(t *testing.T, fsys disk.FS) (s *Store, a *Account, in *Incoming, before string) {
	s = memoryStore(t, fsys)
	a = openAlice(t, s)
	if _, err := a.Store(1, []UID{1, 2, 4}, FlagChange{Op: SetFlags, Flags: []string{`\Flagged`}}); err != nil {
		t.Fatal(err)
	}
	return s, a, incoming(t, s, mailText("new")), dump(t, a)
}

// wanted is what an account looks like after a change that met no fault.
func wanted(t *testing.T, template *disk.Crashable, do func(*Account, *Incoming) error) string {
	s, a, in, _ := trial(t, template.AfterPowerLoss(1))
	defer s.Close()
	if err := do(a, in); err != nil {
		t.Fatal(err)
	}
	settleNow(t, a)
	return dump(t, a)
}

// settleNow has done what the janitor does later, and then checks.
func settleNow(t *testing.T, a *Account) {
	t.Helper()
	if err := a.tidyUp(); err != nil {
		t.Error(err)
	}
	checkAccount(t, a)
}

// TestFaults fails each operation of each change in turn, first with EIO, then with ENOSPC, of the index's file as well. The
// account must be sound at once and after a new start, hold what it held before or what it should hold afterwards
// (without an error only that), and take the next change.
func TestFaults(t *testing.T) {
	template := faultTemplate(t)
	for _, c := range faultyChanges {
		t.Run(c.name, func(t *testing.T) {
			want := wanted(t, template, c.do)
			for nth := 1; ; nth++ {
				errno := []error{syscall.EIO, syscall.ENOSPC}[nth%2]
				what := failNth(t, template.AfterPowerLoss(1), c.do, want, nth, errno)
				if t.Failed() {
					t.Fatalf("operation %d, %s, failed with %v", nth, what, errno)
				}
				if what == "" {
					t.Logf("%d operations", nth-1)
					if nth < 4 {
						t.Error("there was little that could fail")
					}
					return
				}
			}
		})
	}
}

// failNth returns what failed, "" if there was no nth operation.
func failNth(t *testing.T, fsys disk.FS, do func(*Account, *Incoming) error, want string, nth int, errno error) (what string) {
	f := &faults{}
	fsys = disk.NewFaulty(fsys, f.hook)
	s, a, in, before := trial(t, fsys)
	n := 0
	f.set(func(op, path string) error {
		if op == "close" { // does no harm: it comes after the sync
			return nil
		}
		if n++; n == nth {
			what = op + " " + path
			return errno
		}
		return nil
	})
	err := do(a, in)
	f.set(nil)
	settleNow(t, a)
	after := dump(t, a)
	switch {
	case err != nil && errno == syscall.ENOSPC && !errors.Is(err, ErrDiskFull):
		t.Errorf("%v is no ErrDiskFull", err)
	case after != want && (err == nil || after != before):
		t.Errorf("after %v:\n%s\nwant:\n%s\nbefore:\n%s", err, after, want, before)
	}
	if err := do(a, in); after == before && before != want && err != nil {
		t.Errorf("again: %v", err)
	}
	add(t, a, inbox, mailText("later"))
	settleNow(t, a)
	last := dump(t, a)
	a.Release()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	s = memoryStore(t, fsys)
	a = openAlice(t, s)
	checkAccount(t, a)
	if got := dump(t, a); got != last {
		t.Errorf("after a new start:\n%s\nbefore:\n%s", got, last)
	}
	a.Release()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return what
}

// TestPowerLoss cuts the power before each operation of each change in turn, and looks at several disks that may be left.
// What was acknowledged is there; what was not may be there in parts; nothing else has changed.
func TestPowerLoss(t *testing.T) {
	template := faultTemplate(t)
	for _, c := range faultyChanges {
		t.Run(c.name, func(t *testing.T) {
			want := wanted(t, template, c.do)
			for cut := 1; ; cut++ {
				fsys := template.AfterPowerLoss(1)
				s, a, in, before := trial(t, fsys)
				begin := fsys.Ops()
				fsys.CutBefore(begin + cut)
				err := c.do(a, in)
				a.Release()
				s.Close() // in which lazy work is done: it may meet the cut too
				for seed := range uint64(5) {
					judgeLoss(t, fsys.AfterPowerLoss(seed), before, want, err)
					if seed == uint64(cut%5) {
						again := fsys.AfterPowerLoss(seed)
						startAndCut(again, 1+cut%12)
						judgeLoss(t, again.AfterPowerLoss(seed+1), before, want, err)
					}
					if t.Failed() {
						t.Fatalf("cut before operation %d, seed %d", cut, seed)
					}
				}
				if fsys.Ops() < begin+cut-1 { // it was never reached
					t.Logf("%d cuts", cut)
					break
				}
			}
		})
	}
}

// startAndCut has the power fail again while the account is being repaired.
func startAndCut(fsys *disk.Crashable, cut int) {
	fsys.CutBefore(fsys.Ops() + cut)
	s, err := Open(memoryOptions(fsys))
	if err != nil {
		return
	}
	if a, err := s.Account(alice); err == nil {
		_ = a.tidyUp()
		a.Release()
	}
	_ = s.Close()
}

func judgeLoss(t *testing.T, fsys *disk.Crashable, before, want string, err error) {
	t.Helper()
	s := memoryStore(t, fsys)
	defer s.Close()
	a := openAlice(t, s)
	settleNow(t, a)
	got := dump(t, a)
	if err == nil && got != want {
		t.Errorf("acknowledged, but:\n%s\nwant:\n%s", got, want)
	}
	had, has, wants := mailOf(before), mailOf(got), mailOf(want)
	for line, n := range has {
		if n > max(had[line], wants[line]) {
			t.Errorf("%d times after the loss: %s", n, line)
		}
	}
	for line := range had {
		if has[line] < min(had[line], wants[line]) {
			t.Errorf("%d times after the loss: %s", has[line], line)
		}
	}
	add(t, a, inbox, mailText("later"))
	settleNow(t, a)
	a.Release()
}

// mailOf counts a dump's mailboxes and messages, by mailbox, subject and flags alone.
func mailOf(dump string) map[string]int {
	lines := map[string]int{}
	box := ""
	for line := range strings.Lines(dump) {
		if !strings.HasPrefix(line, " ") {
			box, _, _ = strings.Cut(line, " id=")
			lines[box]++
			continue
		}
		f := strings.SplitN(strings.TrimSpace(line), " ", 5)
		lines[box+": "+f[4]]++
	}
	return lines
}

func TestIncomingFaults(t *testing.T) {
	for _, op := range []string{"create", "write", "sync"} {
		f := &faults{}
		s := testStore(t, Options{FS: disk.NewFaulty(disk.OS(), f.hook)})
		f.set(func(o, _ string) error {
			if o == op {
				return syscall.ENOSPC
			}
			return nil
		})
		in, err := s.Incoming()
		if err == nil {
			_, err = io.WriteString(in, strings.Repeat(mailText("x"), 1000))
			if err == nil {
				err = in.Seal()
			} else if in.Seal() == nil {
				t.Errorf("%s: sealed", op)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		}
		if !errors.Is(err, ErrDiskFull) {
			t.Errorf("%s: %v", op, err)
		}
		f.set(nil)
		incoming(t, s, mailText("x"))
	}
}

func TestRoom(t *testing.T) {
	now := time.Now()
	free := int64(1000)
	s := testStore(t, Options{FS: fakeFree{disk.OS(), &free}, Reserve: 100, Now: func() time.Time { return now }})
	for _, c := range []struct {
		size int64
		ok   bool
	}{{0, true}, {900, true}, {901, false}} {
		if err := s.Room(c.size); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrDiskFull) {
			t.Errorf("room for %d: %v", c.size, err)
		}
	}
	free = 50
	if err := s.Room(0); err != nil {
		t.Error("asked the disk again at once")
	}
	now = now.Add(freeFor)
	if err := s.Room(0); !errors.Is(err, ErrDiskFull) {
		t.Error(err)
	}
}

type fakeFree struct {
	disk.FS
	free *int64
}

func (f fakeFree) Free(string) (int64, error) { return *f.free, nil }
