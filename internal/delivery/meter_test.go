package delivery

import (
	"context"
	"io"
	"maps"
	"testing"

	"mailsrv/internal/directory"
	"mailsrv/storage"
)

type tally map[string]int

func (t tally) Delivered(result string) { t[result]++ }

type acceptAll struct{}

func (acceptAll) Enqueue(context.Context, *Envelope, *storage.Incoming, []Onward) error { return nil }

func (acceptAll) Delivered(context.Context, *Envelope, *storage.Incoming, []Recipient) error {
	return nil
}

// Every recipient of every envelope is counted once, by what became of it.
func TestDeliveriesAreCounted(t *testing.T) {
	people, err := directory.Open(nil, directory.Seed{
		Domains: []directory.Domain{{Name: "b.test"}},
		Accounts: []directory.SeedAccount{
			{Account: directory.Account{Address: "ann@b.test"}},
			{Account: directory.Account{Address: "full@b.test", QuotaBytes: 1}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Quota: func(a string) storage.Quota { return QuotaOf(people, a) }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	got := tally{}
	d := New(Options{Directory: people, Store: store, Hostname: "mx.b.test", Queue: acceptAll{}, Meter: got, MaxHops: 1})
	deliver := func(message string, to ...string) {
		t.Helper()
		in, err := store.Incoming()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := io.WriteString(in, message); err != nil {
			t.Fatal(err)
		}
		if err := in.Seal(); err != nil {
			t.Fatal(err)
		}
		env := &Envelope{ID: NewID(), Sender: "ann@b.test", Origin: Origin{Service: "submission", Account: "ann@b.test"}}
		for _, a := range to {
			env.Recipients = append(env.Recipients, Recipient{Address: a})
		}
		d.Deliver(t.Context(), env, in)
	}
	deliver("Subject: s\r\n\r\ntext\r\n", "ann@b.test", "full@b.test", "nobody@b.test", "x@elsewhere.test", "y@elsewhere.test")
	deliver("Received: 1\r\nReceived: 2\r\n\r\n", "ann@b.test", "full@b.test")
	if want := (tally{"filed": 1, "deferred": 1, "refused": 3, "queued": 2}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
