package main

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/config"
	"mailsrv/internal/outside"
	"mailsrv/internal/resolve"
)

// outside looks at the server as the world sees it. What the world cannot see is passed over with a word.
func (x *checkup) outside(timeout time.Duration) {
	switch {
	case x.cfg.Demo:
		x.note("outside", "not looked at: a demo is not for the world")
		return
	case x.cfg.DNS.Server == "" && outside.ForItself(x.cfg.Hostname):
		x.note("outside", "not looked at: the world's DNS has no names such as %s", x.cfg.Hostname)
		return
	}
	resolver, err := resolve.New(resolve.Options{Server: x.cfg.DNS.Server, Trusted: x.cfg.DNS.Trusted})
	if err != nil {
		x.wrong("dns", "%v", err)
		return
	}
	setup, err := setupOf(x.cfg)
	if err != nil {
		x.wrong("dkim", "%v", err)
		return
	}
	setup.Certificate = x.leaf
	if x.cfg.DNS.Server == "" {
		setup.Domains = slices.DeleteFunc(setup.Domains, func(d outside.Domain) bool {
			if outside.ForItself(d.Name) {
				x.note("outside", "%s is not looked at: the world's DNS has no such names", d.Name)
			}
			return outside.ForItself(d.Name)
		})
	}
	for _, f := range outside.Look(context.Background(), setup, outside.Options{Resolver: resolver, Timeout: timeout}) {
		x.tell(f)
	}
}

// tell prints a finding, with what to publish below it.
func (x *checkup) tell(f outside.Finding) {
	tell := x.ok
	switch f.Level {
	case outside.Problem:
		tell = x.wrong
	case outside.Note:
		tell = x.note
	}
	if len(f.Publish) > 0 {
		f.Text += "; publish:"
	}
	tell(f.What, "%s", f.Text)
	for _, r := range f.Publish {
		x.record(r)
	}
}

func (x *checkup) record(r outside.Record) {
	line := "        " + r.String()
	if r.If != "" {
		line += "    ; only if " + r.If
	}
	x.out.Write([]byte(line + "\n"))
}

// setupOf is what there is to be seen of a configured server.
func setupOf(cfg *config.Config) (*outside.Setup, error) {
	s := &outside.Setup{Hostname: strings.ToLower(cfg.Hostname)}
	keys := dkimKeys(cfg)
	for _, d := range cfg.Domains {
		list, err := keys.List(d.Name)
		if err != nil {
			return nil, err
		}
		s.Domains = append(s.Domains, outside.Domain{Name: d.Name, Keys: list})
	}
	for _, service := range cfg.Listen.Services() {
		if !slices.Contains([]string{"smtp", "submission", "submissions", "imap", "imaps"}, service.Name) {
			continue
		}
		if port := worldPort(service.Addresses); port != 0 {
			s.Services = append(s.Services, outside.Service{Name: service.Name, Port: port})
		}
	}
	for _, r := range cfg.Routes {
		s.Smarthost = s.Smarthost || r.Domain == "*"
	}
	return s, nil
}

// worldPort is the port of the first address that is not for this machine alone; 0 if there is none.
func worldPort(addresses []string) uint16 {
	for _, text := range addresses {
		i := strings.LastIndexByte(text, ':')
		host := strings.Trim(text[:i], "[]")
		a, err := netip.ParseAddr(host)
		if host == "localhost" || err == nil && a.IsLoopback() {
			continue
		}
		if port, err := strconv.ParseUint(text[i+1:], 10, 16); err == nil && port > 0 {
			return uint16(port)
		}
	}
	return 0
}
