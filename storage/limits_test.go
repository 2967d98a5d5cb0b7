package storage

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"mailsrv/internal/disk"
)

var manyMailboxes = flag.Int("mailboxes", 1000, "mailboxes that TestManyMailboxes makes")

func TestMailboxNames(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"INBOX", "INBOX"}, {"inbox", "INBOX"}, {"InBoX/Sub", "INBOX/Sub"}, {"inboxes", "inboxes"}, {"a/inbox", "a/inbox"},
		{"a.b", "a.b"}, {"..", ".."}, {"../../etc", "../../etc"}, {"Entwürfe", "Entwürfe"}, {"*%&~", "*%&~"}, {" a ", " a "},
		{strings.Repeat("x", 255), strings.Repeat("x", 255)},
		{strings.Repeat("x/", 49) + "x", strings.Repeat("x/", 49) + "x"},
		{"", ""}, {"/a", ""}, {"a/", ""}, {"a//b", ""}, {"/", ""}, {"a\x00b", ""}, {"a\nb", ""}, {"a\x7f", ""}, {"a\u0085", ""},
		{"a\u2028", ""}, {"\xff", ""}, {strings.Repeat("x", 256), ""}, {strings.Repeat("x/", 50) + "x", ""},
		{strings.Repeat(strings.Repeat("x", 200)+"/", 5), ""},
	} {
		got, err := mailboxName(c.name)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, ErrBadMailboxName) {
			t.Errorf("%.40q: %.40q, %v", c.name, got, err)
		}
	}
}

// Every name that is taken becomes a folder and comes back from it when the index is gone.
func TestMailboxNamesOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	a := newAccount(t, s, alice)
	names := []string{"a.b", "a/b", "..", "../../etc", "~x", "&", "&-", "日本語/メール", "a%2Fb", "cur", "new/tmp", "maildirfolder",
		strings.Repeat("ä", 127), strings.Repeat(strings.Repeat("日", 60)+"/", 5) + "x", ".hidden", "C:\\x", "a\"b'c"}
	for _, n := range names {
		if _, err := a.CreateMailbox(n, ""); err != nil {
			t.Fatal(err)
		}
		add(t, a, n, mailText("x"))
	}
	before := dump(t, a)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.indexPath()); err != nil {
		t.Fatal(err)
	}
	a = openAlice(t, testStore(t, Options{Dir: dir}))
	defer a.Release()
	if after := dump(t, a); after != before {
		t.Errorf("after a rebuild:\n%s\nbefore:\n%s", after, before)
	}
}

func TestAccountFolders(t *testing.T) {
	for _, local := range []string{"alice", "..", ".", "a/b", "a%b", "%2e", "ü", "-rf", "~root", "a b", "\x01", "a.b", strings.Repeat("x", 64)} {
		name := fileName(local)
		if strings.ContainsAny(name, "/\x00") || name[0] == '.' || name[0] == '-' {
			t.Errorf("%q becomes %q", local, name)
		}
		if back, ok := unFileName(name); back != local || !ok {
			t.Errorf("%q becomes %q becomes %q", local, name, back)
		}
	}
	for _, bad := range []string{"%", "%2", "%zz", "a b", "%41"} {
		if s, ok := unFileName(bad); ok {
			t.Errorf("%q is %q", bad, s)
		}
	}
	s := testStore(t, Options{})
	for _, address := range []string{"../../x@example.test", "a/b@example.test", "ü@xn--tda.test"} {
		if err := s.Create(address); err != nil {
			t.Error(err)
		}
		if err := s.Create(address); !errors.Is(err, ErrAccountExists) {
			t.Errorf("again: %v", err)
		}
	}
	for _, bad := range []string{"", "@", "a@", "@b", "a", strings.Repeat("/", 90) + "@b"} {
		if err := s.Create(bad); err == nil {
			t.Errorf("made %q", bad)
		}
		if _, err := s.Account(bad); !errors.Is(err, ErrNoAccount) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got, err := s.Addresses(); err != nil || !slices.Equal(got, []string{"../../x@example.test", "a/b@example.test", "ü@xn--tda.test"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestQuota(t *testing.T) {
	size := int64(len(mailText("x")))
	quota := Quota{Bytes: 3 * size}
	a := testAccount(t, Options{Quota: func(string) Quota { return quota }})
	add(t, a, inbox, mailText("x"))
	add(t, a, inbox, mailText("x"))
	id := mailboxOf(t, a, inbox).ID
	two := []NewMessage{{Incoming: incoming(t, a.store, mailText("x"))}, {Incoming: incoming(t, a.store, mailText("x"))}}
	if _, err := a.Append(inbox, two...); !errors.Is(err, ErrOverQuota) {
		t.Errorf("append: %v", err)
	}
	if _, err := a.Copy(id, []UID{1, 2}, "Archive"); !errors.Is(err, ErrOverQuota) {
		t.Errorf("copy: %v", err)
	}
	if _, err := a.Copy(id, []UID{1, 99}, "Archive"); err != nil {
		t.Errorf("copy of one: %v", err)
	}
	if _, err := a.Append(inbox, two[0]); !errors.Is(err, ErrOverQuota) {
		t.Errorf("append to a full account: %v", err)
	}
	if _, err := a.Move(id, []UID{1, 2}, "Trash"); err != nil { // takes no more room than before
		t.Errorf("move: %v", err)
	}
	quota = Quota{Messages: 4}
	if _, err := a.Append(inbox, two[0]); err != nil {
		t.Error(err)
	}
	if _, err := a.Append(inbox, two[0]); !errors.Is(err, ErrOverQuota) {
		t.Errorf("fifth message: %v", err)
	}
	if u, _ := a.Usage(); u != (Usage{4, 4 * size}) {
		t.Errorf("usage %+v", u)
	}
}

func TestKeywordLimits(t *testing.T) {
	a := testAccount(t, Options{})
	in := incoming(t, a.store, mailText("x"))
	var all []string
	for i := range MaxKeywords {
		all = append(all, fmt.Sprintf("k%d", i))
	}
	if _, err := a.Append(inbox, NewMessage{Incoming: in, Flags: append(all, `\seen`, `\Recent`, `\Strange`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append(inbox, NewMessage{Incoming: in, Flags: []string{"onemore"}}); !errors.Is(err, ErrTooManyKeywords) {
		t.Errorf("append: %v", err)
	}
	id := mailboxOf(t, a, inbox).ID
	if _, err := a.Store(id, []UID{1}, FlagChange{Op: AddFlags, Flags: []string{"onemore"}}); !errors.Is(err, ErrTooManyKeywords) {
		t.Errorf("store: %v", err)
	}
	if st, err := a.Store(id, []UID{1}, FlagChange{Op: RemoveFlags, Flags: []string{"onemore", "K7"}}); err != nil || len(st.Changed) != 1 {
		t.Errorf("store: %+v, %v", st, err)
	}
	for _, bad := range []string{"", "a b", "a\r\nb", strings.Repeat("x", 201)} {
		if _, err := a.Append(inbox, NewMessage{Incoming: in, Flags: []string{bad}}); !errors.Is(err, ErrBadKeyword) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	f, ok := a.FlagSet([]string{`\SEEN`, "K1", "unheard"})
	if f != Seen|keywordFlag(1) || ok {
		t.Errorf("%x, %v", f, ok)
	}
	v := viewOf(t, a, inbox)
	if got := a.FlagNames(v.At(0).Flags); len(got) != MaxKeywords || got[0] != `\Seen` {
		t.Errorf("%q", got)
	}
	if err := a.tidyUp(); err != nil {
		t.Fatal(err)
	}
	checkAccount(t, a)
}

// syncless is a disk that promises nothing, for tests with many files.
type syncless struct{ disk.FS }

func (s syncless) SyncDir(string) error { return nil }

func (s syncless) Create(name string, perm os.FileMode) (disk.File, error) {
	f, err := s.FS.Create(name, perm)
	if err != nil {
		return nil, err
	}
	return synclessFile{f}, nil
}

type synclessFile struct{ disk.File }

func (synclessFile) Sync() error { return nil }

// Many mailboxes cost what each of them costs, and a mailbox more does not cost what all of them do.
func TestManyMailboxes(t *testing.T) {
	n := *manyMailboxes / 2 // each has a parent
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir, FS: syncless{disk.OS()}})
	a := newAccount(t, s, alice)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 100 { // they share commits
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := a.CreateMailbox(fmt.Sprintf("many/%d/box", i), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	list, err := a.Mailboxes()
	if err != nil || len(list) != 6+1+2*n {
		t.Fatalf("%d mailboxes, %v", len(list), err)
	}
	if err := a.RenameMailbox("many/1", "few"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	a = openAlice(t, testStore(t, Options{Dir: dir}))
	defer a.Release()
	if _, err := a.Mailbox("few/box"); err != nil {
		t.Error(err)
	}
	if list, err := a.Mailboxes(); err != nil || len(list) != 6+1+2*n {
		t.Errorf("%d mailboxes, %v", len(list), err)
	}
}

func TestTooManyMailboxes(t *testing.T) {
	a := testAccount(t, Options{})
	a.mu.Lock()
	for id := range MailboxID(maxMailboxes) {
		if a.boxes[id+100] == nil {
			a.boxes[id+100] = nil
		}
	}
	a.mu.Unlock()
	_, err := a.CreateMailbox("one more", "")
	a.mu.Lock()
	for id, m := range a.boxes {
		if m == nil {
			delete(a.boxes, id)
		}
	}
	a.mu.Unlock()
	if !errors.Is(err, ErrTooManyMailboxes) {
		t.Error(err)
	}
}

// Names without a mailbox can be subscribed, so nothing else would bound them.
func TestSubscriptionsAreBounded(t *testing.T) {
	a := testAccount(t, Options{})
	a.mu.Lock()
	for i := range maxSubscribed - len(a.subs) {
		a.subs[fmt.Sprintf("name-%d", i)] = struct{}{}
	}
	a.mu.Unlock()
	if err := a.Subscribe("one more", true); !errors.Is(err, ErrTooManyMailboxes) {
		t.Errorf("one more: %v", err)
	}
	a.mu.Lock()
	for name := range a.subs {
		if strings.HasPrefix(name, "name-") {
			delete(a.subs, name)
		}
	}
	a.mu.Unlock()
	if err := a.Subscribe("one more", true); err != nil {
		t.Errorf("with room: %v", err)
	}
}
