package auth

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emersion/go-sasl"

	"mailsrv/internal/directory"
)

// Conversations: what the client sends ("-" no initial response), what it is asked, how it ends.
func TestSASL(t *testing.T) {
	tests := []struct {
		name, mechanism string
		client          []string
		challenges      []string
		want            error
	}{
		{"PLAIN, initial response", "PLAIN", []string{"\x00alice@example.test\x00secret"}, nil, nil},
		{"PLAIN, lower case, asked", "plain", []string{"-", "\x00alice\x00secret"}, []string{""}, nil},
		{"PLAIN as oneself", "PLAIN", []string{"Alice@EXAMPLE.test\x00alice@example.test\x00secret"}, nil, nil},
		{"PLAIN as somebody else", "PLAIN", []string{"bob@example.test\x00alice@example.test\x00secret"}, nil, ErrCredentials},
		{"PLAIN as nonsense", "PLAIN", []string{"\xff\x00alice@example.test\x00secret"}, nil, ErrCredentials},
		{"PLAIN wrong", "PLAIN", []string{"\x00alice@example.test\x00wrong"}, nil, ErrCredentials},
		{"PLAIN as somebody else, wrong", "PLAIN", []string{"bob@example.test\x00alice@example.test\x00wrong"}, nil, ErrCredentials},
		{"PLAIN empty", "PLAIN", []string{""}, nil, ErrBadResponse},
		{"PLAIN four fields", "PLAIN", []string{"\x00a\x00b\x00c"}, nil, ErrBadResponse},
		{"PLAIN too long", "PLAIN", []string{strings.Repeat("a", maxResponse+1)}, nil, ErrBadResponse},
		{"LOGIN, asked", "LOGIN", []string{"-", "alice@example.test", "secret"}, []string{"Username:", "Password:"}, nil},
		{"LOGIN, initial response", "LOGIN", []string{"alice", "secret"}, []string{"Password:"}, nil},
		{"LOGIN wrong", "LOGIN", []string{"alice", "wrong"}, []string{"Password:"}, ErrCredentials},
		{"LOGIN empty", "LOGIN", []string{"-", "", ""}, []string{"Username:", "Password:"}, ErrCredentials},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthenticator(newFake(), Options{})
				var got directory.Account
				server, err := a.Server(ctx, peer("192.0.2.1"), tt.mechanism, func(a directory.Account) { got = a })
				if err != nil {
					t.Fatal(err)
				}
				var done bool
				var challenges []string
				for _, c := range tt.client {
					response := []byte(c)
					if c == "-" {
						response = nil
					}
					var challenge []byte
					if challenge, done, err = server.Next(response); err == nil && !done {
						challenges = append(challenges, string(challenge))
					}
				}
				if !errors.Is(err, tt.want) || (got.Address != "") != (tt.want == nil) || err == nil && !done {
					t.Errorf("got %v, account %q, done %v", err, got.Address, done)
				}
				if strings.Join(challenges, "|") != strings.Join(tt.challenges, "|") {
					t.Errorf("challenges %q", challenges)
				}
				if _, _, err := server.Next([]byte("\x00alice\x00secret")); err == nil {
					t.Error("the exchange goes on after its end")
				}
			})
		})
	}
}

// go-sasl's own clients log in.
func TestSASLClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(newFake(), Options{})
		for _, client := range []sasl.Client{sasl.NewPlainClient("", "alice", "secret"), sasl.NewLoginClient("alice", "secret")} {
			mechanism, response, err := client.Start()
			if err != nil {
				t.Fatal(err)
			}
			ok := false
			server, err := a.Server(ctx, peer("192.0.2.1"), mechanism, func(directory.Account) { ok = true })
			for done := false; err == nil && !done; {
				var challenge []byte
				if challenge, done, err = server.Next(response); err == nil && !done {
					response, err = client.Next(challenge)
				}
			}
			if err != nil || !ok {
				t.Errorf("%s: %v", mechanism, err)
			}
		}
		if _, err := a.Server(ctx, peer("192.0.2.1"), "CRAM-MD5", nil); !errors.Is(err, ErrMechanism) {
			t.Error(err)
		}
	})
}

// The real directory behind it.
func TestWithDirectory(t *testing.T) {
	d, err := directory.Open(nil, directory.Seed{
		Domains:  []directory.Domain{{Name: "example.test"}},
		Accounts: []directory.SeedAccount{{Account: directory.Account{Address: "alice@example.test"}, Password: "secret"}},
	}, directory.WithHashParams(directory.HashParams{Memory: 8, Time: 1, Lanes: 1}))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.AddAccount(directory.Account{Address: "bob@example.test"}, "p1"); err != nil {
		t.Fatal(err)
	}
	a := New(d, Options{})
	login := func(user, password string, want error) {
		t.Helper()
		if _, err := a.Password(ctx, peer("192.0.2.1"), user, password); !errors.Is(err, want) {
			t.Errorf("%s/%s: %v, want %v", user, password, err, want)
		}
	}
	login("alice", "secret", nil)
	login("BOB@example.test", "p1", nil)
	if err := d.SetPassword("bob@example.test", "p2"); err != nil {
		t.Fatal(err)
	}
	login("BOB@example.test", "p1", ErrCredentials)
	login("BOB@example.test", "p2", nil)
}
