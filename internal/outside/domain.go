package outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"blitiri.com.ar/go/spf"
	"golang.org/x/net/publicsuffix"

	"mailsrv/internal/mailauth"
	"mailsrv/internal/resolve"
)

// mx looks whether mail for the domain comes here (RFC 5321 section 5).
func (l *looker) mx(d Domain) []Finding {
	answer, err := l.o.Resolver.MX(l.ctx, d.Name)
	gone, unsure := missing("mx", d.Name, err)
	want := l.s.mxRecord(d)
	var others []string
	ours := false
	for _, mx := range answer.Records {
		if strings.EqualFold(mx.Host, l.s.Hostname) {
			ours = true
		} else {
			others = append(others, mx.Host)
		}
	}
	switch {
	case unsure != nil:
		return []Finding{*unsure}
	case gone || len(answer.Records) == 0:
		return []Finding{problem("mx", "%s has no MX", d.Name).publish(want)}
	case slices.Contains(others, ""):
		return []Finding{problem("mx", "%s has a null MX, which says that it takes no mail", d.Name).publish(want)}
	case !ours:
		return []Finding{problem("mx", "%s goes to %s, not to %s", d.Name, strings.Join(others, ", "), l.s.Hostname).publish(want)}
	case len(others) > 0:
		return []Finding{note("mx", "%s comes to %s, and also goes to %s: they have to know this domain's recipients",
			d.Name, l.s.Hostname, strings.Join(others, ", "))}
	}
	return []Finding{good("mx", "%s comes to %s", d.Name, l.s.Hostname)}
}

// spf looks whether SPF lets our addresses send as the domain.
func (l *looker) spf(d Domain) []Finding { return l.judgeSPF(d.Name, l.s.spfRecord(d)) }

func (l *looker) judgeSPF(name string, want Record) []Finding {
	record, count, err := text(l.ctx, l.o.Resolver, name, "v=spf1")
	gone, unsure := missing("spf", name, err)
	switch {
	case unsure != nil:
		return []Finding{*unsure}
	case gone:
		return []Finding{problem("spf", "%s has no SPF record", name).publish(want)}
	case count > 1:
		return []Finding{problem("spf", "%s has %d SPF records, which is an error to everybody: leave one", name, count)}
	case l.s.Smarthost:
		return []Finding{note("spf", "%s has %q; whether it has your smarthost's addresses has to be asked of its operator", name, record)}
	case len(l.public()) == 0:
		return []Finding{note("spf", "%s has %q; which addresses to look for is not known", name, record)}
	}
	var found []Finding
	for _, a := range l.public() {
		result, err := spf.CheckHostWithSender(net.IP(a.AsSlice()), l.s.Hostname, "postmaster@"+name,
			spf.WithContext(l.ctx), spf.WithResolver(spfResolver{l.o.Resolver}))
		switch result {
		case spf.Pass:
		case spf.TempError:
			found = append(found, note("spf", "%s could not be judged for %s: %v", name, a, err))
		case spf.PermError:
			found = append(found, problem("spf", "%s has %q, which is an error: %v", name, record, err).publish(want))
		default:
			found = append(found, problem("spf", "%s has %q, by which %s may not send (%s): add mx, or ip%d:%s", name, record, a, result, version(a), a))
		}
	}
	if found == nil {
		found = []Finding{good("spf", "%s has %q", name, record)}
	}
	return found
}

func version(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// spfResolver is our resolver in the words of package net, which package spf speaks.
type spfResolver struct{ r resolve.Resolver }

var _ spf.DNSResolver = spfResolver{}

func dnsError(name string, err error) error {
	if err == nil {
		return nil
	}
	gone := errors.Is(err, resolve.ErrNotFound)
	return &net.DNSError{Err: err.Error(), Name: name, IsNotFound: gone, IsTemporary: !gone}
}

func (s spfResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	answer, err := s.r.TXT(ctx, strings.TrimSuffix(name, "."))
	return answer.Records, dnsError(name, err)
}

func (s spfResolver) LookupMX(ctx context.Context, name string) (all []*net.MX, err error) {
	answer, err := s.r.MX(ctx, strings.TrimSuffix(name, "."))
	for _, mx := range answer.Records {
		all = append(all, &net.MX{Host: mx.Host, Pref: mx.Preference})
	}
	return all, dnsError(name, err)
}

func (s spfResolver) LookupIPAddr(ctx context.Context, name string) (all []net.IPAddr, err error) {
	answer, err := s.r.Addresses(ctx, strings.TrimSuffix(name, "."))
	for _, a := range answer.Records {
		all = append(all, net.IPAddr{IP: a.AsSlice()})
	}
	return all, dnsError(name, err)
}

func (s spfResolver) LookupAddr(ctx context.Context, address string) ([]string, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	answer, err := s.r.PTR(ctx, a)
	return answer.Records, dnsError(address, err)
}

// dkim looks whether our keys are published.
func (l *looker) dkim(d Domain) []Finding {
	if !slices.ContainsFunc(d.Keys, func(k mailauth.Key) bool { return k.Signs }) {
		return []Finding{problem("dkim", "%s has no key, its mail is not signed: mailsrv dkim new %s", d.Name, d.Name)}
	}
	var found []Finding
	for i := range d.Keys {
		found = append(found, l.dkimKey(&d.Keys[i]))
	}
	return found
}

func (l *looker) dkimKey(k *mailauth.Key) Finding {
	answer, err := l.o.Resolver.TXT(l.ctx, k.Name())
	gone, unsure := missing("dkim", k.Name(), err)
	bad := problem
	state := "signs"
	if !k.Signs {
		bad, state = note, "does not sign"
	}
	switch {
	case unsure != nil:
		return *unsure
	case gone || len(answer.Records) == 0:
		return bad("dkim", "%s is not published, and %s", k.Name(), state).publish(keyRecord(k))
	case len(answer.Records) > 1:
		return bad("dkim", "%s has %d records, which is as bad as none: leave one", k.Name(), len(answer.Records)).publish(keyRecord(k))
	case !k.Matches(answer.Records[0]):
		return bad("dkim", "%s has another key than ours, which %s", k.Name(), state).publish(keyRecord(k))
	}
	return good("dkim", "%s is published, and %s", k.Name(), state)
}

// dmarc looks at the domain's policy, its own or that of the organization (RFC 7489 section 6.6.3).
func (l *looker) dmarc(d Domain) []Finding {
	names := []string{d.Name}
	if org, err := publicsuffix.EffectiveTLDPlusOne(d.Name); err == nil && org != d.Name {
		names = append(names, org)
	}
	for _, name := range names {
		record, count, err := text(l.ctx, l.o.Resolver, "_dmarc."+name, "v=DMARC1")
		gone, unsure := missing("dmarc", "_dmarc."+name, err)
		switch {
		case unsure != nil:
			return []Finding{*unsure}
		case gone:
			continue
		case count > 1:
			return []Finding{problem("dmarc", "_dmarc.%s has %d records, which count as none: leave one", name, count)}
		}
		return []Finding{l.judgeDMARC(d, name, record)}
	}
	return []Finding{problem("dmarc", "%s has no DMARC policy; big providers ask for one", d.Name).publish(dmarcRecord(d))}
}

func (l *looker) judgeDMARC(d Domain, name, record string) Finding {
	t, err := tagList(record)
	if err != nil {
		return problem("dmarc", "_dmarc.%s has %q: %v", name, record, err).publish(dmarcRecord(d))
	}
	policy := strings.ToLower(t["p"])
	if sp := strings.ToLower(t["sp"]); name != d.Name && sp != "" {
		policy = sp
	}
	switch policy {
	case "reject", "quarantine":
	case "none":
		return note("dmarc", "_dmarc.%s has p=none, which asks nobody to act: once reports are good, write p=quarantine", name)
	default:
		return problem("dmarc", "_dmarc.%s has %q, without a policy", name, record).publish(dmarcRecord(d))
	}
	for _, uri := range strings.Split(t["rua"], ",") {
		if to, ok := strings.CutPrefix(strings.TrimSpace(uri), "mailto:"); ok {
			if f := l.reportsAllowed(name, to); f != nil {
				return *f
			}
		}
	}
	return good("dmarc", "_dmarc.%s has %q", name, record)
}

// reportsAllowed looks whether reports that go to another organization are wanted there (RFC 7489 section 7.1).
func (l *looker) reportsAllowed(name, to string) *Finding {
	to, _, _ = strings.Cut(to, "!")
	domain := to[strings.LastIndexByte(to, '@')+1:]
	if organization(domain) == organization(name) {
		return nil
	}
	consent := name + "._report._dmarc." + domain
	_, _, err := text(l.ctx, l.o.Resolver, consent, "v=DMARC1")
	if errors.Is(err, resolve.ErrNotFound) {
		f := note("dmarc", "_dmarc.%s sends reports to %s, which has not agreed, so nobody does", name, domain).
			publish(Record{consent, "TXT", "v=DMARC1", "consent to reports", ""})
		return &f
	}
	return nil
}

func organization(domain string) string {
	domain = strings.ToLower(domain)
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// tagList reads "a=b; c=d" of records that are not secret about their syntax.
func tagList(record string) (map[string]string, error) {
	t := make(map[string]string)
	for part := range strings.SplitSeq(record, ";") {
		name, value, ok := strings.Cut(part, "=")
		if !ok && strings.TrimSpace(part) == "" {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("%.40q is no tag=value", strings.TrimSpace(part))
		}
		t[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return t, nil
}
