package legacyd

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"mailsrv/internal/disk"
	"mailsrv/storage"
)

// listed asks for the mailbox and checks what holds for every listing: valid JSON within the limit, oldest first.
func listed(t *testing.T, c *client, maxReply int) []mail {
	t.Helper()
	kind, body := c.ask(2, "null")
	if kind != 2 || len(body)+headerSize > maxReply || !utf8.ValidString(body) {
		t.Fatalf("%d, %d bytes", kind, len(body))
	}
	var mails []mail
	if err := json.Unmarshal([]byte(body), &mails); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for i := 1; i < len(mails); i++ {
		if mails[i-1].ID >= mails[i].ID {
			t.Errorf("%d before %d", mails[i-1].ID, mails[i].ID)
		}
	}
	return mails
}

func fromX(subject, text string) string {
	return "From: x@y.test\nTo: alice@example.test\nSubject: " + subject + "\n\n" + text
}

func lines(n int) string {
	return strings.Repeat("a line of some forty characters, or so..\n", n/41+1)[:n]
}

func TestListingKeepsWholeTextsThatFit(t *testing.T) {
	h := newHouse(t, nil)
	for range 30 {
		h.arrive("alice@example.test", fromX("s", lines(2000)))
	}
	mails := listed(t, h.dial("127.0.0.1").enter("alice@example.test"), 64<<10)
	if len(mails) != 30 {
		t.Fatalf("%d mails", len(mails))
	}
	for _, m := range mails {
		if m.Text != lines(2000) {
			t.Errorf("%d is cut to %d", m.ID, len(m.Text))
		}
	}
}

func TestListingCutsWhereTheWholeDoesNotFit(t *testing.T) {
	h := newHouse(t, nil)
	for i := range 60 {
		h.arrive("alice@example.test", fromX(fmt.Sprint("s", i+1), lines(2000)))
	}
	h.arrive("alice@example.test", fromX("long", lines(100_000)))
	h.arrive("alice@example.test", fromX("short", "short"))
	c := h.dial("127.0.0.1").enter("alice@example.test")
	mails := listed(t, c, 64<<10)
	if len(mails) != 62 {
		t.Fatalf("%d mails, though all fit as previews", len(mails))
	}
	if last := mails[61]; last.Text != "short" {
		t.Errorf("newest: %q", last.Text)
	}
	if long := mails[60]; !strings.HasSuffix(long.Text, "…") || len(long.Text) > previewBytes+3 || !strings.HasPrefix(long.Text, "a line of") {
		t.Errorf("the long one: %q", long.Text)
	}
	whole := 0
	for _, m := range mails[:60] {
		if m.Text == lines(2000) {
			whole++
		} else if !strings.HasSuffix(m.Text, "…") {
			t.Errorf("%d: %q", m.ID, m.Text)
		}
	}
	// Previews of 60 take some 20 KiB, so there is room for twenty whole ones at least; and the newest have it.
	if whole < 20 || mails[59].Text != lines(2000) || mails[0].Text == lines(2000) {
		t.Errorf("%d are whole", whole)
	}
	// open gives the whole text, with the id that the listing shows.
	_, body := c.ask(3, fmt.Sprintf(`{"index": "%d"}`, mails[60].ID))
	var m mail
	if err := json.Unmarshal([]byte(body), &m); err != nil || m.Text != lines(100_000) || m.Header != "long" {
		t.Errorf("open: %v, %d bytes", err, len(m.Text))
	}
}

func TestListingKeepsTheNewest(t *testing.T) {
	for _, maxReply := range []int{400, 1000, 4096, 64 << 10} {
		t.Run(fmt.Sprint(maxReply), func(t *testing.T) {
			h := newHouse(t, func(o *Options) { o.MaxReply = maxReply })
			for i := range 40 {
				// Subjects, addresses and texts that have to be cut too, and characters that take more room in JSON.
				h.arrive("alice@example.test", "From: "+strings.Repeat("x", 300)+"@y.test\nSubject: "+
					strings.Repeat(fmt.Sprint("s", i, " "), 300)+"\n\n"+strings.Repeat("\"\\\t", 1000))
			}
			h.arrive("alice@example.test", fromX("newest", "n"))
			mails := listed(t, h.dial("127.0.0.1").enter("alice@example.test"), maxReply)
			if len(mails) == 0 || mails[len(mails)-1].Header != "newest" || mails[len(mails)-1].Text != "n" {
				t.Fatalf("%+v", mails)
			}
			for i, m := range mails {
				if int(m.ID) != 41-len(mails)+i+1 {
					t.Errorf("a gap: %d at %d of %d", m.ID, i, len(mails))
				}
			}
		})
	}
}

func TestListingOfNothingThatFits(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.MaxReply = 20 })
	h.arrive("alice@example.test", fromX("s", "t"))
	h.dial("127.0.0.1").enter("alice@example.test").send(2, "null")
	if mails := listed(t, h.dial("127.0.0.1").enter("bob@example.test"), 20); len(mails) != 0 {
		t.Error(mails)
	}
}

// A listing of a great mailbox reads no more messages than it can show.
func TestListingReadsOnlyWhatFits(t *testing.T) {
	var opens atomic.Int64
	counting := disk.NewFaulty(disk.OS(), func(op, path string) error {
		if op == "open" {
			opens.Add(1)
		}
		return nil
	})
	h := newHouseOn(t, counting, nil)
	in, err := h.store.Incoming()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, "From: x@y.test\r\nSubject: one of many\r\n\r\n"+lines(1000)); err != nil {
		t.Fatal(err)
	}
	if err := in.Seal(); err != nil {
		t.Fatal(err)
	}
	const many = 5000
	h.with("alice@example.test", func(a *storage.Account, _ storage.MailboxID) {
		messages := make([]storage.NewMessage, many)
		for i := range messages {
			messages[i].Incoming = in
		}
		if _, err := a.Append("INBOX", messages...); err != nil {
			t.Fatal(err)
		}
	})
	c := h.dial("127.0.0.1").enter("alice@example.test")
	before := opens.Load()
	mails := listed(t, c, 64<<10)
	if n := len(mails); n < 100 || n > 400 || mails[n-1].ID != many {
		t.Errorf("%d mails", n)
	}
	if read := opens.Load() - before; read > 3*int64(len(mails)) {
		t.Errorf("%d files opened to show %d mails", read, len(mails))
	}
}
