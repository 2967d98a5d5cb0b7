package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/config"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/observe"
	"mailsrv/internal/queue"
	"mailsrv/internal/relay"
	"mailsrv/internal/resolve"
	"mailsrv/internal/tlsconf"
	"mailsrv/internal/wire"
	"mailsrv/storage"
	"mailsrv/storage/kv"
)

// server is the running program; each step of serve makes a part of it.
type server struct {
	cfg     *config.Config
	out     streams
	log     *slog.Logger
	metrics *observe.Metrics
	health  *observe.Health

	system    kv.DB
	people    *directory.Directory
	mail      *storage.Store
	logins    *auth.Authenticator
	resolver  resolve.Resolver
	relay     *relay.Relay
	boxes     *queue.Mailboxes // of people here, as the queue sees them
	queue     *queue.Queue
	deliverer *delivery.Deliverer
	certs     *tlsconf.Certificates
	daemons   []daemon
	listeners []listener

	ends []func() error // undo the steps, in their order
}

// serve is the whole life of the server: the steps in boot order, serving, the same steps backwards.
func serve(c *cli) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	s := &server{cfg: cfg, out: c.streams, health: &observe.Health{}}
	// From here on SIGTERM ends us in an orderly way, even in the middle of the start.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	// When the program that reads our log ends, a line to it would end us too (os/signal, SIGPIPE).
	signal.Ignore(syscall.SIGPIPE)

	err = s.boot()
	if err == nil {
		err = s.run(signals)
	}
	return errors.Join(err, s.end())
}

// boot makes the parts, lowest first. Nothing is heard from outside before all listeners could be opened, and nothing is
// served before all parts stand.
func (s *server) boot() error {
	for _, step := range []func() error{
		s.startLog,
		s.fitOpenFiles,   // limits that the system's own allow
		s.openSystem,     // the data folder and system.db, whose lock makes us the only one
		s.openDirectory,  // who exists
		s.openStore,      // their mail
		s.startAuth,      // who may
		s.startRelay,     // mail to other servers
		s.openQueue,      // what waits for them
		s.startDelivery,  // mail to mailboxes, and to the queue
		s.loadTLS,        // the certificate
		s.makeDaemons,    // the protocols
		s.openListeners,  // their ports, all or none
		s.openControl,    // administration, while we run
		s.makeDeclared,   // mailboxes of the declared accounts
		s.fillDemo,       // the demo's sample mails, the first time
		s.startQueue,     // now mail goes out
		s.startListeners, // and the world is heard
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// atEnd notes how to undo a step.
func (s *server) atEnd(undo func() error) { s.ends = append(s.ends, undo) }

// end undoes the steps, last first.
func (s *server) end() error {
	var errs []error
	for _, undo := range slices.Backward(s.ends) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// run waits for a reason to end: a signal, or a listener that failed.
func (s *server) run(signals <-chan os.Signal) error {
	s.health.SetReady(true)
	s.log.Info("ready", "version", version(), "data", s.cfg.Data)
	s.tellAddresses()
	failed := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { failed <- l.ended() }() // until the listener is closed, in end at the latest
	}
	for {
		select {
		case err := <-failed:
			return err
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				s.log.Info("ending", "signal", sig.String())
				s.cutOnSecond(signals)
				return nil
			}
			if err := s.certs.Reload(); err != nil {
				s.log.Error("the certificate could not be read again, the one in use stays", "err", err)
			} else {
				s.log.Info("the certificate was read again")
			}
		}
	}
}

// cutOnSecond lets a second signal cut the connections that the end waits for.
func (s *server) cutOnSecond(signals <-chan os.Signal) {
	ended := make(chan struct{})
	s.ends = slices.Insert(s.ends, 0, func() error { close(ended); return nil }) // last of all
	go func() {                                                                  // until the end
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGHUP {
					for _, d := range s.daemons {
						_ = d.close() // what is accepted is safe already, and the end reports what is not
					}
				}
			case <-ended:
				return
			}
		}
	}()
}

func (s *server) startLog() (err error) {
	if s.log, err = observe.NewLogger(s.out.err, s.cfg.Log.Format, s.cfg.Log.Level); err != nil {
		return err
	}
	s.metrics = observe.NewMetrics(version())
	return nil
}

func (s *server) openSystem() (err error) {
	if s.system, err = openSystemDB(s.cfg.Data); err != nil {
		return err
	}
	s.atEnd(s.system.Close)
	return nil
}

func (s *server) openDirectory() (err error) {
	s.people, err = directory.Open(s.system, s.cfg.Seed(), directory.WithHashParams(s.cfg.Auth.HashParams()))
	if err != nil {
		return err
	}
	for _, p := range s.people.Problems() {
		s.log.Warn("directory: " + p)
	}
	return nil
}

func storeOptions(cfg *config.Config, people *directory.Directory, log *slog.Logger) storage.Options {
	return storage.Options{
		Dir:      cfg.Data,
		Hostname: cfg.Hostname,
		MaxOpen:  cfg.Limits.AccountsOpen,
		Reserve:  int64(cfg.Limits.DiskReserve),
		Quota:    func(address string) storage.Quota { return delivery.QuotaOf(people, address) },
		Logger:   log,
	}
}

func (s *server) openStore() (err error) {
	if s.mail, err = storage.Open(storeOptions(s.cfg, s.people, s.log)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.atEnd(s.mail.Close)
	s.metrics.Store(func() (accounts int, messages, bytes int64) {
		n := s.mail.Stats()
		return n.Accounts, n.Messages, n.Bytes
	})
	s.health.Check("disk", func(context.Context) error { return s.mail.Room(0) })
	return nil
}

func (s *server) startAuth() error {
	a := s.cfg.Auth
	remember := a.Remember
	if remember == 0 {
		remember = -1 // auth's zero is its default
	}
	s.logins = auth.New(s.people, auth.Options{
		AllowPlaintextLoopback: a.PlaintextLoopback,
		Remember:               remember,
		Parallel:               a.Parallel,
		Logger:                 s.log,
		Meter:                  loginMeter{s.metrics},
	})
	return nil
}

// loginMeter counts logins where they are decided. legacyd counts its own: its entries need no password.
type loginMeter struct{ *observe.Metrics }

func (m loginMeter) Login(service string, ok bool) {
	if service != "legacy" {
		m.Metrics.Login(service, ok)
	}
}

func (s *server) startDelivery() error {
	s.deliverer = delivery.New(delivery.Options{
		Directory: s.people,
		Store:     s.mail,
		Hostname:  s.cfg.Hostname,
		MaxHops:   s.cfg.Limits.Hops,
		Queue:     s.queue,
		Logger:    s.log,
		Meter:     s.metrics,
	})
	s.boxes.Deliverer = s.deliverer
	return nil
}

func (s *server) loadTLS() (err error) {
	s.certs, err = tlsconf.Load(tlsOptions(s.cfg, s.log))
	return err
}

func (s *server) openControl() error {
	c, err := listenControl(s.cfg.Data, &admin{s.people, s.mail, s.queue}, s.log.With("service", "control"))
	if err != nil {
		return err
	}
	s.atEnd(c.close)
	return nil
}

// makeDeclared makes the mailboxes of the accounts that the configuration declares. (Others have theirs since user add.)
func (s *server) makeDeclared() error {
	for _, declared := range s.cfg.Accounts {
		account, ok := s.people.Account(declared.Address)
		if !ok {
			continue
		}
		err := s.mail.Create(account.Address)
		switch {
		case err == nil:
			s.log.Info("mailboxes made", "account", account.Address)
		case !errors.Is(err, storage.ErrAccountExists):
			return fmt.Errorf("make the mailboxes of %s: %w", account.Address, err)
		}
	}
	return nil
}

func (s *server) trusted() wire.Networks { return wire.Networks(s.cfg.TrustedNetworks) }

// limits are those on connections, in package wire's words: there 0 is no limit.
func (s *server) limits() wire.Limits {
	l := s.cfg.Limits
	return wire.Limits{Total: max(l.Connections, 0), PerAddress: max(l.ConnectionsPerAddress, 0), Exempt: s.trusted()}
}

// openListeners opens all ports or none, and tells of every one that cannot be had.
func (s *server) openListeners() error {
	var errs []error
	for _, service := range s.cfg.Listen.Services() {
		for _, address := range service.Addresses {
			l, err := listen(service.Name, address)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.listeners = append(s.listeners, listener{Listener: l, service: service.Name, result: make(chan error, 1)})
		}
	}
	// Whoever serves a listener closes it; this is for those that nobody came to serve.
	s.atEnd(func() error {
		for _, l := range s.listeners {
			_ = l.Close() // mostly closed already
		}
		return nil
	})
	return errors.Join(errs...)
}

// listen opens one port, with an error that says which and what to do.
func listen(service, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil, fmt.Errorf("listen: %s %s: %w", service, address, err)
	}
	advice := ""
	switch errno {
	case syscall.EADDRINUSE:
		advice = ": stop what listens there, or write another port"
	case syscall.EADDRNOTAVAIL:
		advice = ": this machine does not have that address, write one it has"
	case syscall.EACCES:
		advice = ": ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return nil, fmt.Errorf("listen: %s %s: %w%s", service, address, errno, advice)
}

// startListeners serves all listeners; their end is to stop all daemons.
func (s *server) startListeners() error {
	s.atEnd(s.stop)
	for _, l := range s.listeners {
		for _, d := range s.daemons {
			if serve := d.services[l.service]; serve != nil {
				go func() { l.result <- serve(l.Listener) }() // until stop
			}
		}
	}
	return nil
}

// stop lets all daemons finish what their clients are at, for a while, then cuts. Nothing that was acknowledged needs it.
func (s *server) stop() error {
	s.health.SetReady(false)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.ShutdownTimeout)
	defer cancel()
	began := time.Now()
	done := make(chan struct{})
	for _, d := range s.daemons {
		go func() { // until ctx ends at the latest
			if err := d.shutdown(ctx); err != nil {
				s.log.Warn("connections had to be cut", "daemon", d.name, "after", time.Since(began).Round(time.Second))
				_ = d.close()
			}
			done <- struct{}{}
		}()
	}
	for range s.daemons {
		<-done
	}
	s.log.Info("ended")
	return nil
}
