package outside

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/resolve"
)

// maxPolicy is RFC 8461 section 3.2's suggestion.
const maxPolicy = 64 << 10

// fetchPolicy gets a policy as RFC 8461 section 3.3 says: HTTPS with a valid certificate, no redirects.
func (l *looker) fetchPolicy(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: l.dialName,
			TLSClientConfig: &tls.Config{RootCAs: l.o.Roots, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
	if err == nil && len(body) > maxPolicy {
		err = fmt.Errorf("is longer than %d octets", maxPolicy)
	}
	return body, err
}

// dialName connects to a name as the DNS that is asked here has it.
func (l *looker) dialName(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	answer, err := l.o.Resolver.Addresses(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	for _, a := range answer.Records[:min(len(answer.Records), maxPortAddresses)] {
		var conn net.Conn
		if conn, err = l.o.Dial(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// mtaSTS looks whether a policy that is announced is there and names us: one that does not stops mail.
func (l *looker) mtaSTS(d Domain) []Finding {
	name := "_mta-sts." + d.Name
	_, count, err := text(l.ctx, l.o.Resolver, name, "v=STSv1")
	gone, unsure := missing("mta-sts", name, err)
	switch {
	case unsure != nil:
		return []Finding{*unsure}
	case gone:
		return []Finding{note("mta-sts", "%s has none: see docs/dns.md for how senders can be made to insist on TLS", d.Name)}
	case count > 1:
		return []Finding{problem("mta-sts", "%s has %d records, which count as none: leave one", name, count)}
	}
	url := "https://mta-sts." + d.Name + "/.well-known/mta-sts.txt"
	body, err := l.o.Policy(l.ctx, url)
	if err != nil {
		return []Finding{problem("mta-sts", "%s is announced and cannot be fetched: %v", url, err)}
	}
	mode, why := l.judgePolicy(string(body))
	switch {
	case why != "" && mode == "enforce":
		return []Finding{problem("mta-sts", "%s %s, so senders will not deliver: serve %q", url, why, l.s.Policy())}
	case why != "":
		return []Finding{problem("mta-sts", "%s %s: serve %q", url, why, l.s.Policy())}
	case mode != "enforce":
		return []Finding{note("mta-sts", "%s has mode %s: once TLS reports are good, write enforce and a new id", url, mode)}
	}
	return []Finding{good("mta-sts", "%s is enforced", d.Name)}
}

// judgePolicy reads a policy (RFC 8461 section 3.2): its mode, and what is wrong with it.
func (l *looker) judgePolicy(body string) (mode, why string) {
	version, age, names, ours := "", -1, 0, false
	for line := range strings.Lines(body) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "version":
			version = value
		case "mode":
			mode = value
		case "max_age":
			if n, err := strconv.Atoi(value); err == nil {
				age = n
			}
		case "mx":
			names++
			ours = ours || policyNames(value, l.s.Hostname)
		}
	}
	switch {
	case version != "STSv1":
		return mode, "has no version: STSv1"
	case mode != "enforce" && mode != "testing" && mode != "none":
		return mode, "has no mode"
	case age < 0 || age > 31557600:
		return mode, "has no max_age up to 31557600"
	case mode != "none" && (names == 0 || !ours):
		return mode, "does not name " + l.s.Hostname + " as mx"
	}
	return mode, ""
}

// policyNames reports whether a policy's mx pattern is for a host; a leading "*." stands for one label (section 4.1).
func policyNames(pattern, host string) bool {
	if rest, wild := strings.CutPrefix(pattern, "*."); wild {
		_, parent, _ := strings.Cut(host, ".")
		return strings.EqualFold(parent, rest)
	}
	return strings.EqualFold(pattern, host)
}

func (l *looker) tlsRPT(d Domain) []Finding {
	name := "_smtp._tls." + d.Name
	record, count, err := text(l.ctx, l.o.Resolver, name, "v=TLSRPTv1")
	gone, unsure := missing("tls-rpt", name, err)
	switch {
	case unsure != nil:
		return []Finding{*unsure}
	case gone:
		return []Finding{note("tls-rpt", "%s gets no reports when TLS to it fails", d.Name).publish(tlsrptRecord(d))}
	case count > 1:
		return []Finding{problem("tls-rpt", "%s has %d records, which count as none: leave one", name, count)}
	}
	if t, err := tagList(record); err != nil || t["rua"] == "" {
		return []Finding{problem("tls-rpt", "%s has %q, without rua=", name, record).publish(tlsrptRecord(d))}
	}
	return []Finding{good("tls-rpt", "%s has %q", name, record)}
}

// dane looks whether TLSA records are for the certificate that is shown: if not, DANE senders do not deliver (RFC 7672 section
// 2.2).
func (l *looker) dane() []Finding {
	port, offered := l.s.offers("smtp")
	if !offered || l.s.Certificate == nil {
		return nil
	}
	want := l.s.tlsaRecord()
	name := fmt.Sprintf("_%d._tcp.%s", port, l.s.Hostname)
	answer, err := l.o.Resolver.TLSA(l.ctx, name)
	gone, unsure := missing("dane", name, err)
	switch {
	case unsure != nil:
		// A zone that is signed and cannot be looked up stops mail as well (RFC 7672 section 2.1).
		return []Finding{*unsure}
	case gone && !l.addresses.Secure:
		return nil // nothing to be gained without DNSSEC
	case gone:
		return []Finding{note("dane", "%s is signed with DNSSEC and has no TLSA record: senders could verify the certificate by one",
			l.s.Hostname).publish(want)}
	case !answer.Secure:
		return []Finding{note("dane", "%s has TLSA records that DNSSEC does not vouch for, as far as this resolver says: nobody looks at them", name)}
	}
	usable := 0
	for _, r := range answer.Records {
		if r.Usage != 2 && r.Usage != 3 || r.Selector > 1 || r.Matching > 2 {
			continue
		}
		usable++
		if r.Usage == 3 && matchesTLSA(r, l.s.Certificate) {
			return []Finding{good("dane", "%s is for the certificate", name)}
		}
		if r.Usage == 2 { // an authority's: what it matches is the chain's, which the ports show
			return []Finding{note("dane", "%s names an authority, which is not looked at here", name)}
		}
	}
	if usable == 0 {
		return []Finding{problem("dane", "%s has no record that mail servers use (usage 3 or 2)", name).publish(want)}
	}
	return []Finding{problem("dane", "%s is for another certificate: DANE senders will not deliver", name).publish(want)}
}

// matchesTLSA compares a record with a certificate (RFC 6698 section 2.1).
func matchesTLSA(r resolve.TLSA, cert *x509.Certificate) bool {
	data := cert.Raw
	if r.Selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}
