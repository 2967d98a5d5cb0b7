package outside

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"mailsrv/internal/resolve"
)

// public are the hostname's addresses that the world can reach.
func (l *looker) public() (all []netip.Addr) {
	for _, a := range l.addresses.Records {
		if a = a.Unmap(); Reachable(a) {
			all = append(all, a)
		}
	}
	return all
}

// unreachable are the networks that the world does not route, besides those that netip knows: of providers' routers (RFC 6598),
// for documentation (RFC 5737, 3849, 9637), for benchmarks (RFC 2544). The placeholders of [Setup.WriteZone] are among them.
var unreachable = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("3fff::/20"), netip.MustParsePrefix("240.0.0.0/4"),
}

// Reachable reports whether the world can reach an address.
func Reachable(a netip.Addr) bool {
	within := func(p netip.Prefix) bool { return p.Contains(a.Unmap()) }
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(unreachable, within)
}

// host looks at the hostname's addresses.
func (l *looker) host() []Finding {
	gone, unsure := missing("host", l.s.Hostname, l.addrErr)
	switch {
	case unsure != nil:
		return []Finding{*unsure}
	case gone || len(l.addresses.Records) == 0:
		f := problem("host", "%s has no address: nobody finds the server", l.s.Hostname)
		for _, r := range l.s.HostRecords() {
			if r.Type == "A" || r.Type == "AAAA" {
				f.Publish = append(f.Publish, r)
			}
		}
		return []Finding{f}
	case len(l.public()) == 0:
		return []Finding{problem("host", "%s is %s, which the world cannot reach", l.s.Hostname, join(l.addresses.Records))}
	}
	found := []Finding{good("host", "%s is %s", l.s.Hostname, join(l.addresses.Records))}
	if len(l.public()) < len(l.addresses.Records) {
		found = append(found, problem("host", "not all of these can be reached by the world: publish only those that can"))
	}
	if l.addresses.Name != "" && !strings.EqualFold(l.addresses.Name, l.s.Hostname) {
		// RFC 2181 section 10.3: an MX names no alias.
		found = append(found, problem("host", "%s is a CNAME for %s, which a mail server's name must not be: publish addresses",
			l.s.Hostname, l.addresses.Name))
	}
	return found
}

func join[T fmt.Stringer](all []T) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// hostSPF looks at the SPF record of the hostname itself: what bounces are judged by (RFC 7208 section 2.4).
func (l *looker) hostSPF() []Finding {
	if len(l.public()) == 0 || l.s.Smarthost {
		return nil
	}
	found := l.judgeSPF(l.s.Hostname, l.s.hostSPF())
	for i := range found {
		if found[i].Level == Problem {
			found[i].Level = Note // bounces only
		}
	}
	return found
}

// reverse looks at the reverse names: big providers refuse mail from addresses whose name does not lead back (RFC 8601 section 3,
// iprev).
func (l *looker) reverse() []Finding {
	var found []Finding
	for _, a := range l.public() {
		answer, err := l.o.Resolver.PTR(l.ctx, a)
		gone, unsure := missing("ptr", a.String(), err)
		advice := fmt.Sprintf("have whoever gave you the address name it %s", l.s.Hostname)
		switch is := func(name string) bool { return strings.EqualFold(name, l.s.Hostname) }; {
		case l.s.Smarthost:
		case unsure != nil:
			found = append(found, *unsure)
		case gone || len(answer.Records) == 0:
			found = append(found, problem("ptr", "%s has no reverse name: %s", a, advice))
		case slices.ContainsFunc(answer.Records, is):
			found = append(found, good("ptr", "%s is %s", a, l.s.Hostname))
		case l.leadsBack(answer.Records, a):
			found = append(found, note("ptr", "%s is %s, which leads back, but is not the name we greet with: better, %s",
				a, strings.Join(answer.Records, ", "), advice))
		default:
			found = append(found, problem("ptr", "%s is %s, which does not lead back to it: %s", a, strings.Join(answer.Records, ", "), advice))
		}
	}
	return found
}

func (l *looker) leadsBack(names []string, to netip.Addr) bool {
	for _, name := range names[:min(len(names), 3)] {
		answer, err := l.o.Resolver.Addresses(l.ctx, name)
		if err == nil && slices.ContainsFunc(answer.Records, func(a netip.Addr) bool { return a.Unmap() == to }) {
			return true
		}
	}
	return false
}

// Blocklist is a list of addresses or domains that is asked by DNS (RFC 5782).
type Blocklist struct {
	Zone    string
	IPv6    bool
	Domains bool   // of domains, else of addresses
	Remove  string // where one asks to be taken off
}

// usualBlocklists are those that many servers ask and that answer strangers.
var usualBlocklists = []Blocklist{
	{"zen.spamhaus.org", true, false, "https://check.spamhaus.org/"},
	{"bl.spamcop.net", false, false, "https://www.spamcop.net/bl.shtml"},
	{"psbl.surriel.com", false, false, "https://psbl.org/"},
	{"b.barracudacentral.org", false, false, "https://www.barracudacentral.org/rbl/removal-request"},
	{"dbl.spamhaus.org", false, true, "https://check.spamhaus.org/"},
}

func (l *looker) blocklists() []Finding {
	var looks []*look
	ask := func(list Blocklist, subject, name string) {
		looks = append(looks, &look{run: func() []Finding { return []Finding{l.listed(list, subject, name)} }})
	}
	for _, list := range l.o.Blocklists {
		if list.Domains {
			for _, d := range l.s.Domains {
				ask(list, d.Name, d.Name)
			}
			continue
		}
		for _, a := range l.public() {
			if a.Is4() || list.IPv6 {
				ask(list, a.String(), reversed(a))
			}
		}
	}
	l.runAll(looks)
	var found []Finding
	clean := 0
	for _, k := range looks {
		if k.found[0].Level == Good {
			clean++
			continue
		}
		found = append(found, k.found...)
	}
	if clean > 0 {
		found = append(found, good("blocklist", "%d of %d say that they have nothing against us", clean, len(looks)))
	}
	return found
}

// listed asks one list for one name.
func (l *looker) listed(list Blocklist, subject, name string) Finding {
	answer, err := l.o.Resolver.Addresses(l.ctx, name+"."+list.Zone)
	gone, unsure := missing("blocklist", list.Zone, err)
	switch code := firstIn(answer.Records); {
	case gone:
		return good("blocklist", "%s does not have %s", list.Zone, subject)
	case unsure != nil:
		return *unsure
	case !code.IsValid() || code.As4()[1] == 255: // Spamhaus: 127.255.255.x says that it does not answer this resolver
		return note("blocklist", "%s does not answer this resolver", list.Zone)
	default:
		return problem("blocklist", "%s is on %s (%s): see %s", subject, list.Zone, code, list.Remove)
	}
}

// firstIn is the first of a list's answers, which are in 127/8 (RFC 5782 section 2.1); others are of a resolver that answers
// everything.
func firstIn(answers []netip.Addr) netip.Addr {
	for _, a := range answers {
		if a = a.Unmap(); a.Is4() && a.As4()[0] == 127 {
			return a
		}
	}
	return netip.Addr{}
}

// reversed is an address as a list's zone has it: octets, or for IPv6 nibbles, last first.
func reversed(a netip.Addr) string {
	var labels []string
	if a.Is4() {
		for _, b := range a.As4() {
			labels = append(labels, fmt.Sprint(b))
		}
	} else {
		for _, b := range a.As16() {
			labels = append(labels, fmt.Sprintf("%x", b>>4), fmt.Sprintf("%x", b&15))
		}
	}
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}

// text looks up the one TXT record of a name that begins with a version; several are as bad as none (RFC 7208 section 4.5, RFC
// 7489 section 6.6.3, RFC 8461 section 3.1, RFC 8460 section 3).
func text(ctx context.Context, r resolve.Resolver, name, version string) (record string, count int, err error) {
	answer, err := r.TXT(ctx, name)
	for _, t := range answer.Records {
		if t == version || strings.HasPrefix(t, version+";") || strings.HasPrefix(t, version+" ") {
			record, count = t, count+1
		}
	}
	if err == nil && count == 0 {
		err = resolve.ErrNotFound
	}
	return record, count, err
}
