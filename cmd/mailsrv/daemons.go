package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

	"mailsrv/imapd"
	"mailsrv/internal/config"
	"mailsrv/internal/observe"
	"mailsrv/internal/tlsconf"
	"mailsrv/internal/wire"
	"mailsrv/legacyd"
	"mailsrv/smtpd"
)

// daemon is a protocol's server, by what it does for us.
type daemon struct {
	name     string
	services map[string]func(net.Listener) error // what serves a listener of [listen]
	shutdown func(context.Context) error
	close    func() error
}

// listener is an open port of a service.
type listener struct {
	net.Listener
	service string
	result  chan error // what Serve returned
}

// ended waits for the listener to end; nil if it was asked to.
func (l *listener) ended() error {
	err := <-l.result
	if err == nil || errors.Is(err, wire.ErrServerClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s %s: %w", l.service, l.Addr(), err)
}

func tlsOptions(cfg *config.Config, log *slog.Logger) tlsconf.Options {
	return tlsconf.Options{
		Mode:     cfg.TLS.Mode,
		Dir:      filepath.Join(cfg.Data, "tls"),
		Hostname: cfg.Hostname,
		Cert:     cfg.TLS.Cert,
		Key:      cfg.TLS.Key,
		Logger:   log,
	}
}

// makeDaemons puts the protocols together.
func (s *server) makeDaemons() error {
	for _, service := range []smtpd.Service{smtpd.SMTP, smtpd.Submission, smtpd.Submissions, smtpd.LMTP} {
		d := smtpd.New(s.smtpOptions(service))
		s.daemons = append(s.daemons, daemon{string(service),
			map[string]func(net.Listener) error{string(service): d.Serve}, d.Shutdown, d.Close})
	}

	l := s.cfg.Limits
	imap := imapd.New(imapd.Options{
		Store: s.mail, Auth: s.logins, TLS: s.certs.Server(), Hostname: s.cfg.Hostname,
		MaxMessage: int64(l.MessageSize), IdleTimeout: l.IMAPIdle, LoginTimeout: l.LoginTimeout,
		Trusted: s.trusted(), Limits: s.limits(), Logger: s.log, Meter: s.metrics,
	})
	s.daemons = append(s.daemons, daemon{"imap",
		map[string]func(net.Listener) error{"imap": imap.Serve, "imaps": imap.ServeTLS}, imap.Shutdown, imap.Close})

	g := s.cfg.Legacy
	legacy := legacyd.New(legacyd.Options{
		Store: s.mail, Directory: s.people, Auth: s.logins, Deliverer: s.deliverer, Hostname: s.cfg.Hostname,
		Trusted: s.trusted(), Limits: s.limits(),
		MaxFrame: int(g.MaxFrame), MaxReply: int(g.MaxReply), IdleTimeout: g.IdleTimeout,
		Logger: s.log, Meter: s.metrics,
	})
	s.daemons = append(s.daemons, daemon{"legacy",
		map[string]func(net.Listener) error{"legacy": legacy.Serve}, legacy.Shutdown, legacy.Close})

	web := observe.NewServer(observe.Mux(s.metrics, s.health), s.log)
	s.daemons = append(s.daemons, daemon{"http",
		map[string]func(net.Listener) error{"http": func(l net.Listener) error {
			return web.Serve(wire.Limit(l, s.limits(), nil)) // net/http has no limit of its own
		}}, web.Shutdown, web.Close})
	return nil
}

func (s *server) smtpOptions(service smtpd.Service) smtpd.Options {
	l := s.cfg.Limits
	return smtpd.Options{
		Service: service, Hostname: s.cfg.Hostname, Delivery: s.deliverer, Store: s.mail, Auth: s.logins,
		TLS: s.certs.Server(), Trusted: s.trusted(), Logger: s.log, Meter: s.metrics,
		Limits: smtpd.Limits{
			MessageSize:    int64(l.MessageSize),
			Recipients:     l.Recipients,
			Connections:    l.Connections,
			PerAddress:     l.ConnectionsPerAddress,
			ConnectionRate: l.ConnectionsPerMinute,
			MessageRate:    l.MessagesPerMinute,
			Errors:         l.Errors,
			Logins:         l.Logins,
			Idle:           l.SMTPIdle,
		},
	}
}

// addressOf is where a service listens in fact (port 0 has become one): its first address, or "".
func (s *server) addressOf(services ...string) string {
	found := ""
	for _, service := range services {
		for _, l := range s.listeners {
			if l.service == service {
				found = cmp.Or(found, l.Addr().String())
			}
		}
	}
	return found
}
