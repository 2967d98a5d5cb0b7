package main

import (
	"syscall"

	"mailsrv/internal/config"
)

// What the server keeps of the system's limit on open files (ulimit -n, LimitNOFILE=) for other things than connections.
const (
	filesOfOurs       = 64 // databases, listeners, the log, a delivery's folders
	filesPerAccount   = 1  // its index
	filesPerClient    = 2  // the connection, and the message that is read or written over it
	leastClients      = 4  // to a service
	shareOfAccounts   = 4  // open accounts nobody uses may have one in so many
	unlimitedSessions = -1
)

// fitOpenFiles lowers the limits on connections and on accounts kept open to what the process may have open, so that clients
// who only connect cannot take the files that mail is written to. The Go runtime has raised the soft limit to the
// hard one before we are called.
func (s *server) fitOpenFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil // a system without the limit
	}
	before := s.cfg.Limits
	fitOpenFiles(&s.cfg.Limits, int(min(limit.Cur, 1<<30)), len(s.cfg.Listen.Services()))
	if after := s.cfg.Limits; after.Connections != before.Connections || after.AccountsOpen != before.AccountsOpen {
		s.log.Warn("the system allows few open files: limits lowered, raise ulimit -n (systemd: LimitNOFILE=)", "files", limit.Cur,
			"connections", after.Connections, "accounts_open", after.AccountsOpen)
	}
	return nil
}

func fitOpenFiles(l *config.Limits, files, services int) {
	l.AccountsOpen = min(l.AccountsOpen, max(files/shareOfAccounts/filesPerAccount, 1))
	room := files - filesOfOurs - l.AccountsOpen*filesPerAccount
	clients := max(room/filesPerClient/max(services, 1), leastClients)
	// Without a limit of its own a service may have what there is, and that is one.
	if l.Connections == unlimitedSessions || l.Connections > clients {
		l.Connections = clients
	}
}
