package relay

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// TLS modes of a Route.
const (
	TLSNone          = "none"
	TLSOpportunistic = "opportunistic" // STARTTLS if it is offered, whatever the certificate; else in clear
	TLSRequire       = "require"       // STARTTLS, with a certificate for the host's name
	TLSImplicit      = "implicit"      // TLS from the start, with a certificate for the host's name
)

// Route says where mail goes instead of to its domain's MX.
type Route struct {
	Domain             string // the recipients' domain, or "*" for all
	Sender             string // only mail of this sender: "alice@example.org", or "example.org" for all of a domain; "" is all
	Host               string // "name:port" or "ip:port"
	TLS                string // "" is TLSOpportunistic
	Username, Password string
	Source             netip.Addr // address to connect from; invalid is any
	Hello              string     // EHLO name; "" is Options.Hostname
	SOCKS              string     // "host:port" of a SOCKS5 proxy that connects for us
}

// routeTable finds routes by "domain" or "domain from sender", which is also what the queue calls the destination.
type routeTable map[string]*Route

func newRouteTable(routes []Route) routeTable {
	t := make(routeTable, len(routes))
	for i := range routes {
		r := routes[i]
		if r.Domain != "*" {
			r.Domain = asciiDomain(r.Domain)
		}
		if r.TLS == "" {
			r.TLS = TLSOpportunistic
		}
		key := r.Domain
		if r.Sender != "" {
			local, domain, isAddress := cutAddress(r.Sender)
			r.Sender = asciiDomain(domain)
			if isAddress {
				r.Sender = strings.ToLower(local) + "@" + r.Sender
			}
			key += " from " + r.Sender
		}
		t[key] = &r
	}
	return t
}

// find returns the key of the route that counts for an envelope: the recipient's domain before "*", and for each, the whole
// sender before the sender's domain before any sender. "" if mail goes to the MX.
func (t routeTable) find(sender, domain string) string {
	if len(t) == 0 {
		return ""
	}
	local, senderDomain, _ := cutAddress(sender)
	senderDomain = asciiDomain(senderDomain)
	for _, d := range []string{domain, "*"} {
		for _, key := range []string{
			d + " from " + strings.ToLower(local) + "@" + senderDomain,
			d + " from " + senderDomain,
			d,
		} {
			if t[key] != nil {
				return key
			}
		}
	}
	return ""
}

// Destination is queue.Transport's: a route's domain ("partner.test", "*", with " from " and the sender if the route is for
// one), else the recipient's domain in lower case and A-labels, or its address literal.
func (r *Relay) Destination(sender, recipient string) string {
	_, domain, _ := cutAddress(recipient)
	domain = asciiDomain(domain)
	if key := r.routes.find(sender, domain); key != "" {
		return key
	}
	return domain
}

// cutAddress cuts at the last "@"; without one, all of it is the domain.
func cutAddress(address string) (local, domain string, isAddress bool) {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return "", address, false
	}
	return address[:i], address[i+1:], true
}

// asciiDomain is the domain in lower case and A-labels. What cannot be that stays, in lower case, for the DNS to refuse.
func asciiDomain(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if strings.HasPrefix(domain, "[") {
		return strings.ToLower(domain)
	}
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return a
	}
	return strings.ToLower(domain)
}
