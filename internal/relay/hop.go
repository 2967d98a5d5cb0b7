package relay

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"mailsrv/internal/resolve"
)

// maxHosts of a domain are looked at, the most preferred ones.
const maxHosts = 16

// host is one server that may take a message.
type host struct {
	name       string   // as in the MX or the route; "" for an address literal
	names      []string // name after CNAMEs if that is another, for DANE
	preference uint16
	port       uint16
	secure     bool         // DNSSEC vouches for the way from the domain to this host's addresses
	addrs      []netip.Addr // to be tried
	err        error        // why there are none
}

// hop is where the mail of a destination goes.
type hop struct {
	destination string
	domain      string // the recipients', whose policies count; "" for a route
	route       *Route // nil if mail goes by MX
	secureMX    bool   // the MX answer (or that there is none) is DNSSEC's
	hosts       []host
}

// source, hello: what a route says about our side.
func (h *hop) source() netip.Addr {
	if h.route == nil {
		return netip.Addr{}
	}
	return h.route.Source
}

func (r *Relay) helloName(h *hop) string {
	if h.route != nil && h.route.Hello != "" {
		return h.route.Hello
	}
	return r.o.Hostname
}

// findHop finds the servers of a destination, in the order in which they are to be tried.
func (r *Relay) findHop(ctx context.Context, destination string) (*hop, *failure) {
	h := &hop{destination: destination}
	if route := r.routes[destination]; route != nil {
		h.route = route
		return h, r.routeHost(ctx, h)
	}
	h.domain = destination
	if strings.HasPrefix(destination, "[") {
		return h, r.literal(h)
	}
	if f := r.exchangers(ctx, h); f != nil {
		return h, f
	}
	r.addresses(ctx, h)
	return h, r.withoutUs(h)
}

func (r *Relay) routeHost(ctx context.Context, h *hop) *failure {
	name, port, err := splitHostPort(h.route.Host)
	if err != nil {
		return tempFailure("dns", "4.3.5", "the route for %s leads to %v", h.destination, err)
	}
	one := host{name: name, port: port}
	if a, err := netip.ParseAddr(name); err == nil {
		one.addrs = []netip.Addr{a.Unmap()}
	}
	h.hosts = []host{one}
	if one.addrs == nil && h.route.SOCKS == "" {
		r.addresses(ctx, h)
	}
	return nil
}

// literal is [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 section 4.1.3).
func (r *Relay) literal(h *hop) *failure {
	text := strings.TrimSuffix(strings.TrimPrefix(h.domain, "["), "]")
	six, is6 := strings.CutPrefix(text, "ipv6:")
	a, err := netip.ParseAddr(six)
	if err != nil || a.Is6() != is6 || a.Zone() != "" || !strings.HasSuffix(h.domain, "]") {
		return permFailure("dns", "5.1.2", "%s is no address literal", h.domain)
	}
	h.hosts = []host{{port: r.o.Port, addrs: []netip.Addr{a.Unmap()}}}
	return r.withoutUs(h)
}

// exchangers fills in the domain's MX hosts, in order of preference, equals shuffled (RFC 5321 section 5.1).
func (r *Relay) exchangers(ctx context.Context, h *hop) *failure {
	mx, err := r.o.Resolver.MX(ctx, h.domain)
	h.secureMX = mx.Secure
	switch {
	case errors.Is(err, resolve.ErrNotFound):
		h.hosts = []host{{name: h.domain, port: r.o.Port, secure: mx.Secure}}
		return nil
	case err != nil:
		return tempFailure("dns", "4.4.3", "%v", err)
	}
	for _, rec := range mx.Records {
		if rec.Host != "" {
			h.hosts = append(h.hosts, host{name: rec.Host, preference: rec.Preference, port: r.o.Port, secure: mx.Secure})
		}
	}
	if len(h.hosts) == 0 {
		f := permFailure("dns", "5.1.10", "%s takes no mail (null MX)", h.domain)
		f.code = 556 // RFC 7505 section 4.2
		return f
	}
	r.shuffle(len(h.hosts), func(i, j int) { h.hosts[i], h.hosts[j] = h.hosts[j], h.hosts[i] })
	slices.SortStableFunc(h.hosts, func(a, b host) int { return cmp.Compare(a.preference, b.preference) })
	h.hosts = h.hosts[:min(len(h.hosts), maxHosts)]
	return nil
}

// addresses looks all hosts up at once: that one of them is ourselves matters for the others.
func (r *Relay) addresses(ctx context.Context, h *hop) {
	var wg sync.WaitGroup
	for i := range h.hosts {
		wg.Go(func() {
			one := &h.hosts[i]
			found, err := r.o.Resolver.Addresses(ctx, one.name)
			one.addrs, one.err = found.Records, err
			one.secure = one.secure && found.Secure
			if found.Name != "" && found.Name != one.name {
				one.names = []string{found.Name}
			}
		})
	}
	wg.Wait()
}

// withoutUs drops ourselves and who is not more preferred than we are (RFC 5321 section 5.1), and says what is wrong if nobody
// is left.
func (r *Relay) withoutUs(h *hop) *failure {
	for _, one := range h.hosts {
		if !r.isUs(&one) {
			continue
		}
		h.hosts = slices.DeleteFunc(h.hosts, func(o host) bool { return o.preference >= one.preference })
		if len(h.hosts) == 0 {
			return permFailure("dns", "5.4.6", "mail for %s loops back to us: its MX leads here, and the domain is not ours", h.domain)
		}
		break // the hosts were in order: all others that are us are gone too
	}
	return nil
}

func (r *Relay) isUs(one *host) bool {
	if one.name != "" && strings.EqualFold(one.name, r.o.Hostname) {
		return true
	}
	return slices.ContainsFunc(one.addrs, func(a netip.Addr) bool {
		return slices.Contains(r.o.Own, netip.AddrPortFrom(a.Unmap(), one.port))
	})
}

// unusable says why a host has no address to try.
func (h *hop) unusable(one *host) *failure {
	switch {
	case one.err == nil:
		return tempFailure("dns", "4.4.4", "%s has no address that can be used from here", one.name)
	case !errors.Is(one.err, resolve.ErrNotFound):
		return tempFailure("dns", "4.4.3", "%v", one.err)
	case h.route != nil:
		return tempFailure("dns", "4.4.4", "the route for %s leads to %s, which has no address", h.destination, one.name)
	case one.name == h.domain && len(h.hosts) == 1:
		return permFailure("dns", "5.1.2", "%s does not exist: it has neither MX nor address records", h.domain)
	}
	return permFailure("dns", "5.4.4", "%s, which takes the mail of %s, has no address", one.name, h.domain)
}
