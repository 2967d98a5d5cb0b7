package imapd

import (
	"net"
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// TestForeignParser lets go-imap's client, which takes the grammar seriously, read all kinds of our responses.
func TestForeignParser(t *testing.T) {
	w := newWorld(t, nil)
	names := []string{"plain", "nested", "noheader", "noblank", "held", "empty"}
	for _, name := range names {
		w.file("alice", "INBOX", []string{`\Flagged`, "$Forwarded"}, name)
	}
	for _, caps := range []imap.CapSet{nil, {imap.CapIMAP4rev2: {}}} {
		conn, err := net.Dial("tcp", w.plain)
		if err != nil {
			t.Fatal(err)
		}
		c := imapclient.New(conn, nil)
		defer func() { _ = c.Close() }()
		if err := c.Login("alice@example.test", "secret").Wait(); err != nil {
			t.Fatal(err)
		}
		if caps != nil {
			if _, err := c.Enable(imap.CapIMAP4rev2).Wait(); err != nil {
				t.Fatal(err)
			}
		}
		checkList(t, c)
		if _, err := c.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait(); err != nil {
			t.Fatal(err)
		}
		checkFetch(t, c, names)
		checkSearch(t, c)
		if err := c.Logout().Wait(); err != nil {
			t.Error(err)
		}
	}
}

func checkList(t *testing.T, c *imapclient.Client) {
	boxes, err := c.List("", "*", &imap.ListOptions{
		ReturnSubscribed: true, ReturnChildren: true, ReturnSpecialUse: true,
		ReturnStatus: &imap.StatusOptions{NumMessages: true, UIDNext: true, Size: true, HighestModSeq: true, NumDeleted: true},
	}).Collect()
	if err != nil || len(boxes) != 6 {
		t.Fatal(len(boxes), err)
	}
	if b := boxes[0]; b.Mailbox != "INBOX" || b.Status == nil || *b.Status.NumMessages != 6 || !slices.Contains(b.Attrs, imap.MailboxAttrSubscribed) {
		t.Errorf("%+v %+v", b, b.Status)
	}
	if b := boxes[4]; b.Mailbox != "Sent" || !slices.Contains(b.Attrs, imap.MailboxAttrSent) {
		t.Errorf("%+v", b)
	}
}

func checkFetch(t *testing.T, c *imapclient.Client, names []string) {
	whole := &imap.FetchItemBodySection{Peek: true}
	fields := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"From", "X Odd"}}
	part := &imap.FetchItemBodySection{Peek: true, Part: []int{1}, Partial: &imap.SectionPartial{Offset: 2, Size: 5}}
	binary := &imap.FetchItemBinarySection{Peek: true, Part: []int{2, 2}}
	msgs, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{
		Envelope: true, Flags: true, InternalDate: true, RFC822Size: true, UID: true, ModSeq: true,
		BodyStructure:     &imap.FetchItemBodyStructure{Extended: true},
		BodySection:       []*imap.FetchItemBodySection{whole, fields, part},
		BinarySection:     []*imap.FetchItemBinarySection{binary},
		BinarySectionSize: []*imap.FetchItemBinarySectionSize{{Part: []int{1}}},
	}).Collect()
	if err != nil || len(msgs) != len(names) {
		t.Fatal(len(msgs), err)
	}
	for i, m := range msgs {
		raw := string(mails(t)[names[i]+".eml"])
		if got := string(m.FindBodySection(whole)); got != raw || m.RFC822Size != int64(len(raw)) || m.ModSeq == 0 {
			t.Errorf("%s: %d octets of %d, mod-sequence %d", names[i], len(got), len(raw), m.ModSeq)
		}
		if !slices.Contains(m.Flags, imap.FlagForwarded) || m.UID != imap.UID(i+1) || m.BodyStructure == nil {
			t.Errorf("%s: %v %d %v", names[i], m.Flags, m.UID, m.BodyStructure)
		}
	}
	if m := msgs[0]; m.Envelope.Subject != "plain one" || string(m.FindBodySection(part)) != "llo A" {
		t.Errorf("%+v %q", m.Envelope, m.FindBodySection(part))
	}
	if m := msgs[1]; m.Envelope.Subject != "Grüße aus Berlin" || len(m.FindBinarySection(binary)) != 10 {
		t.Errorf("%+v %q", m.Envelope, m.FindBinarySection(binary))
	}
}

func checkSearch(t *testing.T, c *imapclient.Client) {
	found, err := c.UIDSearch(&imap.SearchCriteria{
		Or:   [][2]imap.SearchCriteria{{{Body: []string{"deep text"}}, {Text: []string{"hello ALICE"}}}},
		Flag: []imap.Flag{imap.FlagForwarded},
	}, &imap.SearchOptions{ReturnMin: true, ReturnAll: true, ReturnCount: true}).Wait()
	if err != nil || found.Count != 2 || found.Min != 1 || !slices.Equal(found.AllUIDs(), []imap.UID{1, 2}) {
		t.Errorf("%+v %v", found, err)
	}
	plain, err := c.Search(&imap.SearchCriteria{Larger: 1000}, nil).Wait()
	if err != nil || !slices.Equal(plain.AllSeqNums(), []uint32{2}) {
		t.Errorf("%+v %v", plain, err)
	}
}
