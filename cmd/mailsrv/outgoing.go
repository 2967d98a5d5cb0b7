package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"

	"mailsrv/internal/config"
	"mailsrv/internal/delivery"
	"mailsrv/internal/mailauth"
	"mailsrv/internal/queue"
	"mailsrv/internal/relay"
	"mailsrv/internal/resolve"
	"mailsrv/storage/kv"
)

// queueOptions are the configuration's part of a queue.
func queueOptions(cfg *config.Config, db kv.DB, log *slog.Logger) queue.Options {
	q := cfg.Queue
	patience := make(map[string]queue.DomainPolicy, len(cfg.Retries))
	for _, r := range cfg.Retries {
		patience[r.Domain] = queue.DomainPolicy{Lifetime: r.Lifetime, DelayNotice: r.DelayNotice}
	}
	return queue.Options{
		DB: db, Dir: filepath.Join(cfg.Data, "queue"), Hostname: cfg.Hostname, Logger: log,
		Policy: queue.Policy{
			Lifetime: q.Lifetime, NoticeLifetime: q.NoticeLifetime, DelayNotice: orNever(q.DelayNotice),
			RetryFirst: q.RetryFirst, RetryMax: q.RetryMax, Workers: q.Attempts, PerDestination: q.AttemptsPerDestination,
			Suppress: orNever(q.Suppress), ReturnSize: max(int64(q.ReturnSize), 1),
			Domain: func(domain string) queue.DomainPolicy { return patience[domain] },
		},
	}
}

// orNever says 0, which the queue takes for its default, in the queue's word for never.
func orNever[T ~int64](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// startRelay makes the way to other servers.
func (s *server) startRelay() (err error) {
	if s.resolver, err = resolve.New(resolve.Options{Server: s.cfg.DNS.Server, Trusted: s.cfg.DNS.Trusted}); err != nil {
		return err
	}
	var routes []relay.Route
	for _, r := range s.cfg.Routes {
		source, _ := netip.ParseAddr(r.Source) // config has looked; "" is any
		routes = append(routes, relay.Route{Domain: r.Domain, Sender: r.Sender, Host: r.Host, TLS: r.TLS,
			Username: r.Username, Password: r.Password, Source: source, Hello: r.Hello, SOCKS: r.SOCKS})
	}
	o := relay.Options{
		Hostname: s.cfg.Hostname, Resolver: s.resolver, Routes: routes, Own: relay.OwnAddresses(s.cfg.Listen.SMTP),
		Store: relay.KVStore(s.system, "relay/"), Logger: s.log, Meter: s.metrics,
	}
	if !s.cfg.Demo {
		o.SendReport = s.sendReport
	}
	s.relay = relay.New(o)
	s.atEnd(s.relay.Close)
	return nil
}

// openQueue opens what waits. Nothing is sent before startQueue, so that a start that fails sends nothing.
func (s *server) openQueue() (err error) {
	s.boxes = &queue.Mailboxes{Directory: s.people, Store: s.mail}
	o := queueOptions(s.cfg, s.system, s.log)
	o.Transport, o.Local, o.Meter = s.relay, s.boxes, s.metrics
	o.Signer = mailauth.NewSigner(mailauth.Options{Keys: dkimKeys(s.cfg), Hostname: s.cfg.Hostname, Resolver: s.resolver})
	if s.queue, err = queue.Open(o); err != nil {
		return err
	}
	s.metrics.Queue(func() (messages, destinations, active, suppressed int) {
		n := s.queue.Stats()
		return n.Messages, n.Destinations, n.Active, n.Suppressed
	})
	s.atEnd(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.ShutdownTimeout)
		defer cancel()
		if err := s.queue.Shutdown(ctx); err != nil {
			s.log.Warn("attempts to send mail had to be cut: they are made again", "err", err)
		}
		return nil
	})
	return nil
}

func (s *server) startQueue() error {
	s.queue.Start()
	return nil
}

// sendReport queues a TLS report.
func (s *server) sendReport(ctx context.Context, r relay.Report) (err error) {
	in, err := s.mail.Incoming()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if _, err := io.Copy(in, bytes.NewReader(r.Message)); err != nil {
		return err
	}
	if err := in.Seal(); err != nil {
		return err
	}
	// It is ours: as if the account of its sender had logged in.
	env := &delivery.Envelope{ID: delivery.NewID(), Sender: r.From, Origin: delivery.Origin{Service: "queue", Account: r.From}}
	var to []delivery.Onward
	for _, address := range r.To {
		to = append(to, delivery.Onward{Address: address, For: delivery.Recipient{Address: address, Notify: []string{"NEVER"}}})
	}
	return s.queue.Enqueue(ctx, env, in, to)
}
