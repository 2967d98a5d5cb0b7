package storage

import "testing"

func TestStats(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Create("a@b.test"); err != nil {
		t.Fatal(err)
	}
	a, err := s.Account("a@b.test")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	in, err := s.Incoming()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.Write([]byte("Subject: s\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := in.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append("INBOX", NewMessage{Incoming: in}, NewMessage{Incoming: in}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append("nowhere", NewMessage{Incoming: in}); err == nil {
		t.Fatal("filed nowhere")
	}
	if got, want := s.Stats(), (Stats{Accounts: 1, Messages: 2, Bytes: 28}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
