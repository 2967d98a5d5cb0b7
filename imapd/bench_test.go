package imapd

import (
	"testing"
	"time"

	"mailsrv/storage"
)

// BenchmarkMailbox times commands over a mailbox of 5,000 messages: with -bench, to look at; nothing is asserted.
func BenchmarkMailbox(b *testing.B) {
	const n = 5000
	w := newWorld(b, nil)
	a, err := w.store.Account("alice@example.test")
	if err != nil {
		b.Fatal(err)
	}
	defer a.Release()
	in, err := w.store.Incoming()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	_, _ = in.Write(mails(b)["nested.eml"])
	if err := in.Seal(); err != nil {
		b.Fatal(err)
	}
	msgs := make([]storage.NewMessage, n)
	for i := range msgs {
		msgs[i] = storage.NewMessage{Incoming: in, InternalDate: time.Unix(1e9, 0)}
	}
	if _, err := a.Append("INBOX", msgs...); err != nil {
		b.Fatal(err)
	}
	c := w.dial("A", false).greet("alice")
	c.ok("SELECT INBOX")
	for _, command := range []string{
		"FETCH 1:* (UID FLAGS)", "FETCH 1:* ALL", "FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (From To Subject Date)])",
		"FETCH 1:* BODY.PEEK[]", "FETCH 1:* BINARY.PEEK[1.2]",
		"SEARCH UNSEEN", "SEARCH SUBJECT berlin", "SEARCH FROM nobody", "SEARCH BODY nothing", "SEARCH SINCE 1-Jan-2030",
	} {
		b.Run(command, func(b *testing.B) {
			for b.Loop() {
				if untagged := c.ok(command); len(untagged) == 0 {
					b.Fatal("no answer")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
		})
	}
}
