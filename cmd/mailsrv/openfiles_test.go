package main

import (
	"testing"

	"mailsrv/internal/config"
)

func TestFitOpenFiles(t *testing.T) {
	for _, c := range []struct {
		connections, accounts, files int
		wantConnections, wantOpen    int
	}{
		{1000, 256, 1 << 20, 1000, 256},
		{1000, 256, 20_000, 1000, 256},
		{1000, 256, 4096, 236, 256},
		{100, 256, 4096, 100, 256},
		{-1, 256, 4096, 236, 256},
		{1000, 256, 200, 5, 50},
		{1000, 256, 50, 4, 12},
	} {
		l := config.Limits{Connections: c.connections, AccountsOpen: c.accounts}
		fitOpenFiles(&l, c.files, 8)
		if l.Connections != c.wantConnections || l.AccountsOpen != c.wantOpen {
			t.Errorf("%+v: %d connections, %d accounts", c, l.Connections, l.AccountsOpen)
		}
	}
}
