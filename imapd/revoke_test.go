package imapd

import (
	"strings"
	"testing"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/directory"
)

// A changed password, a disabled account and a removed one end the sessions that were logged in before: whoever stole a
// password must not stay for as long as the connection holds.
func TestRevokedLoginEnds(t *testing.T) {
	const alice = "alice@example.test"
	for name, revoke := range map[string]func(d *directory.Directory) error{
		"password": func(d *directory.Directory) error { return d.SetPassword(alice, "another") },
		"disabled": func(d *directory.Directory) error {
			return d.UpdateAccount(alice, func(a *directory.Account) { a.Disabled = true })
		},
		"removed": func(d *directory.Directory) error { return d.RemoveAccount(alice) },
	} {
		t.Run(name, func(t *testing.T) {
			d, err := directory.Open(nil, directory.Seed{Domains: []directory.Domain{{Name: "example.test"}}},
				directory.WithHashParams(directory.HashParams{Memory: 8, Time: 1, Lanes: 1}))
			if err != nil {
				t.Fatal(err)
			}
			for _, who := range []string{alice, "bob@example.test"} {
				if err := d.AddAccount(directory.Account{Address: who}, "secret"); err != nil {
					t.Fatal(err)
				}
			}
			change := func(o *Options) { o.Auth = auth.New(d, auth.Options{AllowPlaintextLoopback: true}) }
			inBubble(t, change, func(t *testing.T, w *world) {
				busy, _, busyEnded := w.serve(t.Context())
				idle, _, idleEnded := w.serve(t.Context())
				other, _, _ := w.serve(t.Context())
				busy.greet("alice").ok("NOOP")
				idle.patience = time.Minute
				idle.greet("alice").send("IDLE", "\r\n")
				idle.line()
				other.greet("bob")
				if err := revoke(d); err != nil {
					t.Fatal(err)
				}
				busy.send("LIST \"\" *", "\r\n")
				for _, c := range []*client{busy, idle} { // the one at its next command, the other within half a minute
					if l := c.line(); !strings.HasPrefix(l, "* BYE Log in again") {
						t.Errorf("got %q", l)
					}
				}
				_, _ = busy.conn.Close(), idle.conn.Close()
				<-busyEnded
				<-idleEnded
				other.ok("NOOP")
			})
		})
	}
}
