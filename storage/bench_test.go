package storage

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkDelivery is a 4 KiB message's way from its bytes to a durable placement.
func BenchmarkDelivery(b *testing.B) {
	text := mailText("benchmark") + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 50)
	for _, accounts := range []int{1, 20} {
		for _, writers := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("accounts=%d/writers=%d", accounts, writers), func(b *testing.B) {
				s := testStore(b, Options{})
				var open []*Account
				for i := range accounts {
					open = append(open, newAccount(b, s, fmt.Sprintf("u%d@example.test", i)))
				}
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for range writers {
					wg.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							if err := deliver(s, open[int(i)%accounts], text); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}

func deliver(s *Store, a *Account, text string) error {
	in, err := s.Incoming()
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Write([]byte(text)); err != nil {
		return err
	}
	if err := in.Seal(); err != nil {
		return err
	}
	_, err = a.Append(inbox, NewMessage{Incoming: in})
	return err
}

const bigMailbox = 100_000

// bigAccount has a mailbox of 100,000 messages. It is made as a Maildir and an index by copying, not by delivery.
func bigAccount(b *testing.B) (*Store, *Account, []UID) {
	s := testStore(b, Options{})
	a := newAccount(b, s, alice)
	in := incoming(b, s, mailText("benchmark"))
	var uids []UID
	msgs := make([]NewMessage, 10_000)
	for i := range msgs {
		msgs[i].Incoming = in
	}
	for len(uids) < bigMailbox {
		c, err := a.Append(inbox, msgs...)
		if err != nil {
			b.Fatal(err)
		}
		uids = append(uids, c.Dest...)
	}
	return s, a, uids
}

func BenchmarkBigMailbox(b *testing.B) {
	s, a, uids := bigAccount(b)
	id := mailboxOf(b, a, inbox).ID
	b.Run("View", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.View(id); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("View/cold", func(b *testing.B) {
		for b.Loop() {
			a.mu.Lock()
			a.boxes[id].view = nil
			a.mu.Unlock()
			if _, err := a.View(id); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Store/all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			op := []FlagOp{AddFlags, RemoveFlags}[i%2]
			if _, err := a.Store(id, uids, FlagChange{Op: op, Flags: []string{`\Seen`}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Store/one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			op := []FlagOp{AddFlags, RemoveFlags}[i%2]
			if _, err := a.Store(id, uids[500:501], FlagChange{Op: op, Flags: []string{`\Flagged`}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Messages/all", func(b *testing.B) {
		for b.Loop() {
			for _, err := range a.Messages(id, uids, true) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("Refresh/nothing", func(b *testing.B) {
		for b.Loop() {
			if err := a.Refresh(id); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("compare", func(b *testing.B) {
		for b.Loop() {
			if err := a.compare(id, intake{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	// What SELECT costs when nobody has the account open.
	a.Release()
	s.maxOpen = 0
	for s.evict() { // with all its lazy work
	}
	b.Run("Select/cold", func(b *testing.B) {
		for b.Loop() {
			a, err := s.Account(alice)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := a.View(id); err != nil {
				b.Fatal(err)
			}
			a.Release()
			b.StopTimer()
			for s.evict() {
			}
			b.StartTimer()
		}
	})
	openAlice(b, s) // for the Release in newAccount's clean-up
}
