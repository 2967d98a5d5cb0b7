package storage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// foreignHand is another program at work on a mailbox's folder.
type foreignHand struct {
	*testing.T
	a   *Account
	now *time.Time
	box Mailbox
	dir string
}

func newForeignHand(t *testing.T) *foreignHand {
	now := time.Date(2024, 6, 3, 10, 0, 0, 0, time.UTC)
	a := testAccount(t, Options{Now: func() time.Time { return now }})
	for _, n := range []string{"one", "two", "three"} {
		add(t, a, inbox, mailText(n), `\Answered`, "$Forwarded")
	}
	return &foreignHand{t, a, &now, mailboxOf(t, a, inbox), filepath.Join(a.dir, "Maildir")}
}

// files lists new/ and cur/.
func (h *foreignHand) files() []string {
	h.Helper()
	var list []string
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(h.dir, sub))
		if err != nil {
			h.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, sub+"/"+e.Name())
		}
	}
	return list
}

// file finds the file of a UID.
func (h *foreignHand) file(part string) string {
	h.Helper()
	for _, f := range h.files() {
		if strings.Contains(f, part) {
			return f
		}
	}
	h.Fatalf("no file %s in %q", part, h.files())
	return ""
}

// act does something to the folder, and later refreshes.
func (h *foreignHand) act(do func() error) *View {
	h.Helper()
	time.Sleep(clockTick)
	if err := do(); err != nil {
		h.Fatal(err)
	}
	time.Sleep(clockTick)
	*h.now = h.now.Add(2 * time.Second)
	if err := h.a.Refresh(h.box.ID); err != nil {
		h.Fatal(err)
	}
	checkAccount(h, h.a)
	return viewOf(h, h.a, inbox)
}

func (h *foreignHand) rename(from, to string) error {
	return os.Rename(filepath.Join(h.dir, from), filepath.Join(h.dir, to))
}

func (h *foreignHand) write(name, text string) error {
	return os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600)
}

func (h *foreignHand) flags(v *View, uid UID) string {
	h.Helper()
	i, ok := v.Find(uid)
	if !ok {
		h.Fatalf("UID %d is gone", uid)
	}
	return strings.Join(h.a.FlagNames(v.At(i).Flags), " ")
}

func TestForeignDelivery(t *testing.T) {
	h := newForeignHand(t)
	w := h.a.Watch(h.box.ID)
	defer w.Close()
	v := h.act(func() error { return h.write("new/1717000000.M1P2.elsewhere", mailText("four")) })
	if v.Len() != 4 || h.flags(v, 4) != "" || readMail(t, h.a, inbox, 4) != mailText("four") {
		t.Errorf("%d messages, %q", v.Len(), readMail(t, h.a, inbox, 4))
	}
	select {
	case <-w.C:
	default:
		t.Error("nobody was told")
	}
	if m := v.Mailbox(); m.Recent != 4 || m.Unseen != 4 {
		t.Errorf("%+v", m)
	}
	// With LF line ends, as procmail writes; with flags, one of them a keyword's letter, one unknown.
	text := strings.ReplaceAll(mailText("five"), "\r\n", "\n")
	v = h.act(func() error { return h.write("cur/1717000000.M1P3.elsewhere:2,FPSaz", text) })
	if got := readMail(t, h.a, inbox, 5); v.Len() != 5 || got != mailText("five") || h.flags(v, 5) != `\Flagged \Seen $Forwarded` {
		t.Errorf("%d messages, flags %s, %q", v.Len(), h.flags(v, 5), got)
	}
	// What is not a message is left alone: hidden files, folders, what is in tmp.
	v = h.act(func() error {
		return errors.Join(h.write("new/.hidden", "x"), h.write("tmp/half", "x"), os.Mkdir(filepath.Join(h.dir, "new/folder"), 0o700))
	})
	if v.Len() != 5 {
		t.Errorf("%d messages", v.Len())
	}
	if f := h.files(); len(f) != 5+2 {
		t.Errorf("files: %q", f)
	}
}

func TestForeignFlags(t *testing.T) {
	h := newForeignHand(t)
	// \Deleted is set in the index and the file does not show it yet; then mutt takes \Answered away and sets \Seen.
	if _, err := h.a.Store(h.box.ID, []UID{1}, FlagChange{Op: AddFlags, Flags: []string{`\Deleted`}}); err != nil {
		t.Fatal(err)
	}
	f := h.file(",U=1:")
	v := h.act(func() error { return h.rename(f, strings.Replace(f, ":2,Ra", ":2,Sa", 1)) })
	if got := h.flags(v, 1); got != `\Deleted \Seen $Forwarded` {
		t.Errorf("flags %s", got)
	}
	if v.Mailbox().Deleted != 1 || v.Mailbox().Unseen != 2 {
		t.Errorf("%+v", v.Mailbox())
	}
	if err := h.a.tidyUp(); err != nil {
		t.Fatal(err)
	}
	if f := h.file(",U=1:"); !strings.HasSuffix(f, ":2,STa") {
		t.Errorf("file %s", f)
	}
	// The P of "passed" means nothing to us, and survives our renaming.
	f = h.file(",U=2:")
	h.act(func() error { return h.rename(f, strings.Replace(f, ":2,Ra", ":2,PRa", 1)) })
	if _, err := h.a.Store(h.box.ID, []UID{2}, FlagChange{Op: SetFlags, Flags: []string{`\Seen`}}); err != nil {
		t.Fatal(err)
	}
	if err := h.a.tidyUp(); err != nil {
		t.Fatal(err)
	}
	if f := h.file(",U=2:"); !strings.Contains(f, "P") || !strings.Contains(f, "S") {
		t.Errorf("file %s", f)
	}
	checkAccount(t, h.a)
}

func TestForeignRemoval(t *testing.T) {
	h := newForeignHand(t)
	before := viewOf(t, h.a, inbox)
	v := h.act(func() error { return os.Remove(filepath.Join(h.dir, h.file(",U=2:"))) })
	if got := viewUIDs(v); !slices.Equal(got, []UID{1, 3}) {
		t.Errorf("UIDs %v", got)
	}
	gone, err := h.a.Expunged(h.box.ID, before.ModSeq())
	if err != nil || !slices.Equal(gone, []UID{2}) {
		t.Errorf("expunged %v, %v", gone, err)
	}
	// Moved by hand to another folder, name and all: it arrives there. The two folders are looked at one after the other.
	f := h.file(",U=3:")
	time.Sleep(clockTick)
	if err := h.rename(f, ".Archive/"+f); err != nil {
		t.Fatal(err)
	}
	*h.now = h.now.Add(2 * time.Second)
	if err := h.a.Refresh(h.box.ID); err != nil {
		t.Fatal(err)
	}
	v = viewOf(t, h.a, inbox)
	if got := viewUIDs(v); !slices.Equal(got, []UID{1}) {
		t.Errorf("UIDs %v", got)
	}
	if err := h.a.Refresh(mailboxOf(t, h.a, "Archive").ID); err != nil {
		t.Fatal(err)
	}
	if v := viewOf(t, h.a, "Archive"); v.Len() != 1 || h.flags(v, 1) != `\Answered $Forwarded` || readMail(t, h.a, "Archive", 1) != mailText("three") {
		t.Errorf("Archive has %d messages", v.Len())
	}
	checkAccount(t, h.a)
}

// A message that is read while a foreign hand has renamed its file is found; one whose file is gone is no message.
func TestForeignBehindOurBack(t *testing.T) {
	h := newForeignHand(t)
	f := h.file(",U=1:")
	if err := h.rename(f, f+"S"); err != nil {
		t.Fatal(err)
	}
	if got := readMail(t, h.a, inbox, 1); got != mailText("one") {
		t.Errorf("read %q", got)
	}
	if c, err := h.a.Copy(h.box.ID, []UID{1}, "Archive"); err != nil || len(c.Dest) != 1 {
		t.Errorf("copy: %+v, %v", c, err)
	}
	if err := os.Remove(filepath.Join(h.dir, h.file(",U=2:"))); err != nil {
		t.Fatal(err)
	}
	if _, err := h.a.OpenMessage(h.box.ID, 2); !errors.Is(err, ErrNoMessage) {
		t.Errorf("open: %v", err)
	}
	if c, err := h.a.Move(h.box.ID, []UID{2, 3}, "Archive"); err != nil || !slices.Equal(c.Source, []UID{3}) {
		t.Errorf("move: %+v, %v", c, err)
	}
	v := h.act(func() error { return nil })
	if got := viewUIDs(v); !slices.Equal(got, []UID{1}) {
		t.Errorf("UIDs %v", got)
	}
}

// A folder that cannot be read is not an empty folder.
func TestForeignFolderMissing(t *testing.T) {
	h := newForeignHand(t)
	if err := h.rename("cur", "gone"); err != nil {
		t.Fatal(err)
	}
	*h.now = h.now.Add(time.Minute)
	if err := h.a.Refresh(h.box.ID); err == nil {
		t.Error("no error")
	}
	if v := viewOf(t, h.a, inbox); v.Len() != 3 {
		t.Errorf("%d messages left", v.Len())
	}
	if err := h.rename("gone", "cur"); err != nil {
		t.Fatal(err)
	}
	h.act(func() error { return nil })
}

// What happened while the account was closed is taken in when it is opened, new folders too.
func TestForeignWhileClosed(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	a := newAccount(t, s, alice)
	add(t, a, inbox, mailText("one"))
	root := filepath.Join(a.dir, "Maildir")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(root, ".Lists.Go", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"new/17.a.b", ".Lists.Go/cur/17.a.b:2,S"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte(mailText("two")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = testStore(t, Options{Dir: dir})
	a = openAlice(t, s)
	defer a.Release()
	if v := viewOf(t, a, inbox); v.Len() != 2 {
		t.Errorf("INBOX has %d messages", v.Len())
	}
	if v := viewOf(t, a, "Lists/Go"); v.Len() != 1 || v.Mailbox().Unseen != 0 {
		t.Errorf("Lists/Go has %d messages", v.Len())
	}
	checkAccount(t, a)
}

// A Maildir that another server has filled becomes an account by lying in the right place.
func TestForeignMaildir(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "accounts", "example.test", "alice", "Maildir")
	for _, f := range []struct{ name, subject string }{
		{"new/1600000002.M2.imap", "two"}, {"cur/1600000001.M1.imap,S=1,W=2:2,RS", "one"},
		{".Sent/cur/1600000003.M3.imap:2,S", "three"}, {".Entw&APw-rfe/cur/1600000004.M4.imap:2,DS", "four"},
	} {
		path := filepath.Join(root, f.name)
		for _, d := range []string{"tmp", "new", "cur"} {
			if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "..", d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, []byte(mailText(f.subject)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "subscriptions"), []byte("Sent\nEntwürfe\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := openAlice(t, testStore(t, Options{Dir: dir}))
	defer a.Release()
	if v := viewOf(t, a, inbox); v.Len() != 2 || v.Mailbox().Unseen != 1 {
		t.Errorf("INBOX: %+v", v.Mailbox())
	}
	if m := mailboxOf(t, a, "Sent"); m.SpecialUse != `\Sent` || !m.Subscribed || m.Messages != 1 {
		t.Errorf("%+v", m)
	}
	if m := mailboxOf(t, a, "Entwürfe"); m.SpecialUse != "" || !m.Subscribed || m.Messages != 1 {
		t.Errorf("%+v", m)
	}
	checkAccount(t, a)
}

// Refresh looks at the folder's times alone as long as nothing but our own doing has moved them.
func TestRefreshIsCheap(t *testing.T) {
	h := newForeignHand(t)
	listed := 0
	h.a.blobs = listingStore{h.a.blobs, &listed}
	h.act(func() error { return nil })
	listed = 0
	for i := range 5 {
		h.act(func() error { // in which Check lists all folders: INBOX, five others
			add(t, h.a, inbox, mailText("more"))
			_, _, err := h.a.Expunge(h.box.ID, []UID{UID(i + 1)}, false)
			return err
		})
	}
	if listed != 5*6 {
		t.Errorf("%d listings after five changes of ours, Check's 30 included", listed)
	}
	listed = 0
	h.act(func() error { return h.write("new/17.x.y", mailText("x")) })
	if listed != 6+2 {
		t.Errorf("%d listings after a foreign change, Check's 6 included", listed)
	}
}
