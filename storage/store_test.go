package storage

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

const alice = "alice@example.test"

// testStore opens a store in a temporary folder; when the test ends, all its accounts are checked and it is closed.
func testStore(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Reserve == 0 {
		o.Reserve = 1
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if !closed {
			checkAll(t, s)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func checkAll(t testing.TB, s *Store) {
	t.Helper()
	list, err := s.Addresses()
	if err != nil {
		t.Error(err)
	}
	for _, address := range list {
		a, err := s.Account(address)
		if err != nil {
			t.Error(err)
			continue
		}
		checkAccount(t, a)
		a.Release()
	}
}

func checkAccount(t testing.TB, a *Account) {
	t.Helper()
	problems, err := a.Check()
	if err != nil {
		t.Errorf("check of %s: %v", a.Address(), err)
	}
	for _, p := range problems {
		t.Errorf("check of %s: %v", a.Address(), p)
	}
}

// testAccount makes alice's account in a store of its own.
func testAccount(t testing.TB, o Options) *Account {
	t.Helper()
	return newAccount(t, testStore(t, o), alice)
}

func newAccount(t testing.TB, s *Store, address string) *Account {
	t.Helper()
	if err := s.Create(address); err != nil {
		t.Fatal(err)
	}
	a, err := s.Account(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Release)
	return a
}

func mailText(subject string) string {
	return "From: Bob <bob@example.test>\r\nTo: alice@example.test\r\nSubject: " + subject +
		"\r\nDate: Mon, 3 Jun 2024 10:00:00 +0000\r\nMessage-ID: <" + subject + "@example.test>\r\n\r\nHello " + subject + "\r\n"
}

func incoming(t testing.TB, s *Store, text string) *Incoming {
	t.Helper()
	in, err := s.Incoming()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	if _, err := io.WriteString(in, text); err != nil {
		t.Fatal(err)
	}
	if err := in.Seal(); err != nil {
		t.Fatal(err)
	}
	return in
}

func add(t testing.TB, a *Account, mailbox, text string, flags ...string) UID {
	t.Helper()
	in := incoming(t, a.store, text)
	defer in.Close()
	c, err := a.Append(mailbox, NewMessage{Incoming: in, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	return c.Dest[0]
}

func mailboxOf(t testing.TB, a *Account, name string) Mailbox {
	t.Helper()
	m, err := a.Mailbox(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func viewOf(t testing.TB, a *Account, name string) *View {
	t.Helper()
	v, err := a.View(mailboxOf(t, a, name).ID)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func viewUIDs(v *View) []UID {
	var uids []UID
	for _, r := range v.Rows(0, v.Len()) {
		uids = append(uids, r.UID)
	}
	return uids
}

func readMail(t testing.TB, a *Account, name string, uid UID) string {
	t.Helper()
	b, err := a.OpenMessage(mailboxOf(t, a, name).ID, uid)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestStraightPath(t *testing.T) {
	a := testAccount(t, Options{})
	list, err := a.Mailboxes()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range list {
		names = append(names, m.Name+m.SpecialUse)
		if !m.Subscribed || m.UIDNext != 1 || m.HighestModSeq == 0 {
			t.Errorf("new mailbox %+v", m)
		}
	}
	if got := strings.Join(names, " "); got != `INBOX Archive\Archive Drafts\Drafts Junk\Junk Sent\Sent Trash\Trash` {
		t.Errorf("mailboxes: %s", got)
	}
	in := mailboxOf(t, a, "inbox")
	w := a.Watch(in.ID)
	defer w.Close()
	before := viewOf(t, a, "INBOX")
	u1 := add(t, a, "INBOX", mailText("one"))
	u2 := add(t, a, "INBOX", mailText("two"), `\Seen`, "$Forwarded")
	<-w.C
	if got := readMail(t, a, "INBOX", u2); got != mailText("two") {
		t.Errorf("read %q", got)
	}
	d := Diff(before, viewOf(t, a, "INBOX"))
	if len(d.Arrived) != 2 || d.Arrived[0].UID != u1 || d.Arrived[1].UID != u2 || len(d.Changed)+len(d.Expunged) > 0 {
		t.Errorf("delta %+v", d)
	}
	if got := a.FlagNames(d.Arrived[1].Flags); !slices.Equal(got, []string{`\Seen`, "$Forwarded"}) {
		t.Errorf("flags %q", got)
	}
	st, err := a.Store(in.ID, []UID{u1, u2, 77}, FlagChange{Op: AddFlags, Flags: []string{`\Deleted`}})
	if err != nil || len(st.Changed) != 2 || !slices.Equal(st.Missing, []UID{77}) {
		t.Errorf("store: %+v, %v", st, err)
	}
	cp, err := a.Copy(in.ID, []UID{u1, u2, 77}, "Archive")
	if err != nil || !slices.Equal(cp.Source, []UID{u1, u2}) || !slices.Equal(cp.Dest, []UID{1, 2}) {
		t.Errorf("copy: %+v, %v", cp, err)
	}
	mv, err := a.Move(in.ID, []UID{u1}, "Trash")
	if err != nil || !slices.Equal(mv.Source, []UID{u1}) {
		t.Errorf("move: %+v, %v", mv, err)
	}
	went, _, err := a.Expunge(in.ID, nil, true)
	if err != nil || !slices.Equal(went, []UID{u2}) {
		t.Errorf("expunge: %v, %v", went, err)
	}
	gone, err := a.Expunged(in.ID, before.ModSeq())
	if err != nil || !slices.Equal(gone, []UID{u1, u2}) {
		t.Errorf("expunged: %v, %v", gone, err)
	}
	for m, err := range a.Messages(mailboxOf(t, a, "Archive").ID, []UID{1, 2, 3}, true) {
		if err != nil || m.Summary.Subject != []string{"", "one", "two"}[m.UID] || m.Size != int64(len(mailText("one"))) {
			t.Errorf("message %+v, %v", m, err)
		}
	}
	if u, _ := a.Usage(); u != (Usage{3, 3 * int64(len(mailText("one")))}) {
		t.Errorf("usage %+v", u)
	}
	checkAccount(t, a)
}

// dump tells all that a client could ever see of an account but mod-sequences, for comparing before and after.
func dump(t testing.TB, a *Account) string {
	t.Helper()
	var b bytes.Buffer
	list, err := a.Mailboxes()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		fmt.Fprintf(&b, "%s id=%d uv=%d use=%s sub=%v object=%s n=%d unseen=%d deleted=%d size=%d\n", m.Name, m.ID, m.UIDValidity,
			m.SpecialUse, m.Subscribed, m.ObjectID, m.Messages, m.Unseen, m.Deleted, m.Size)
		v, err := a.View(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		for m2, err := range a.Messages(m.ID, viewUIDs(v), true) {
			if err != nil {
				t.Fatal(err)
			}
			i, _ := v.Find(m2.UID)
			flags := a.FlagNames(v.At(i).Flags)
			slices.Sort(flags)
			fmt.Fprintf(&b, "  %d %d %s %d %s %v\n", m2.UID, m2.ID, m2.InternalDate.UTC().Format(time.RFC3339), m2.Size,
				m2.Summary.Subject, flags)
		}
	}
	subs, _ := a.Subscriptions()
	fmt.Fprintf(&b, "%q %q\n", subs, a.Keywords())
	return b.String()
}
