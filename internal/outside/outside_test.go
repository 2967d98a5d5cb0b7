package outside

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/internal/mailauth"
	"mailsrv/internal/resolve"
)

// zone is a DNS: "NAME TYPE" to lines. The type "FAIL" of a name is a server that fails.
type zone map[string][]string

func records[T any](z zone, name, kind string, parse func(string) T) (a resolve.Answer[T], err error) {
	name = strings.ToLower(name)
	if z[name+" FAIL"] != nil {
		return a, resolve.ErrTemporary
	}
	for _, line := range z[name+" "+kind] {
		a.Records = append(a.Records, parse(line))
	}
	a.Secure, a.Name = z["SECURE"] != nil, name
	if a.Records == nil {
		err = resolve.ErrNotFound
	}
	return a, err
}

func (z zone) TXT(_ context.Context, name string) (resolve.Answer[string], error) {
	return records(z, name, "TXT", func(s string) string { return s })
}
func (z zone) MX(_ context.Context, name string) (resolve.Answer[resolve.MX], error) {
	return records(z, name, "MX", func(s string) (mx resolve.MX) { mx.Host = strings.TrimSuffix(s, "."); return mx })
}
func (z zone) Addresses(_ context.Context, name string) (resolve.Answer[netip.Addr], error) {
	return records(z, name, "A", netip.MustParseAddr)
}
func (z zone) PTR(_ context.Context, a netip.Addr) (resolve.Answer[string], error) {
	return records(z, a.String(), "PTR", func(s string) string { return s })
}
func (z zone) TLSA(_ context.Context, name string) (resolve.Answer[resolve.TLSA], error) {
	return records(z, name, "TLSA", func(s string) (r resolve.TLSA) {
		var data string
		if _, err := fmt.Sscanf(s, "%d %d %d %s", &r.Usage, &r.Selector, &r.Matching, &data); err != nil {
			panic(err)
		}
		r.Data, _ = hex.DecodeString(data)
		return r
	})
}

const address = "9.9.9.10"

// authority makes certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{key: key}
	a.cert = a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(1e5 * time.Hour)}, nil).Leaf
	return a
}

func (a authority) issue(t *testing.T, template, parent *x509.Certificate) *tls.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key, Leaf: leaf}
}

// house is a server whose world is all in order, until a test changes something.
type house struct {
	setup *Setup
	zone  zone
	o     Options
	shown *tls.Certificate
	ca    authority
}

func newHouse(t *testing.T) *house {
	keys := mailauth.OpenKeys(disk.OS(), t.TempDir())
	key, err := keys.New("example.org", "s1", mailauth.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{ca: newAuthority(t)}
	h.shown = h.ca.issue(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}, NotAfter: time.Now().Add(2000 * time.Hour)}, h.ca.cert)
	h.setup = &Setup{Hostname: "mail.example.org", Domains: []Domain{{"example.org", []mailauth.Key{key}}}, Certificate: h.shown.Leaf,
		Services: []Service{{"smtp", 25}, {"submissions", 465}, {"submission", 587}, {"imap", 143}, {"imaps", 993}}}
	h.zone = zone{"mail.example.org A": {address, "2620:fe::fe"}, address + " PTR": {"mail.example.org"}, "2620:fe::fe PTR": {"mail.example.org"}}
	h.setup.Addresses = []netip.Addr{netip.MustParseAddr(address)}
	for _, r := range append(h.setup.HostRecords()[1:], h.setup.DomainRecords(h.setup.Domains[0], time.Now())...) {
		data := r.Data
		if r.Type == "MX" {
			_, data, _ = strings.Cut(data, " ")
		}
		h.zone[r.Name+" "+r.Type] = append(h.zone[r.Name+" "+r.Type], data)
	}
	h.zone["SECURE"] = []string{}
	pool := x509.NewCertPool()
	pool.AddCert(h.ca.cert)
	h.o = Options{Resolver: h.zone, Roots: pool, Dial: h.dial, Policy: func(context.Context, string) ([]byte, error) {
		return []byte(strings.Replace(h.setup.Policy(), "testing", "enforce", 1)), nil
	}}
	return h
}

// dial is a connection to a server that greets as its port does.
func (h *house) dial(_ context.Context, _, to string) (net.Conn, error) {
	here, there := net.Pipe()
	_, port, _ := net.SplitHostPort(to)
	go func() { // until the other side closes
		defer there.Close()
		h.serve(there, port)
	}()
	return here, nil
}

func (h *house) serve(c net.Conn, port string) {
	config := &tls.Config{Certificates: []tls.Certificate{*h.shown}}
	greeting := "220-hello\r\n220 mail\r\n"
	if port == "143" || port == "993" {
		greeting = "* OK IMAP\r\n"
	}
	if port == "465" || port == "993" {
		t := tls.Server(c, config)
		_, _ = io.WriteString(t, greeting)
		_, _ = io.Copy(io.Discard, t)
		return
	}
	_, _ = io.WriteString(c, greeting)
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return
		case strings.HasPrefix(line, "EHLO"):
			_, _ = io.WriteString(c, "250-mail\r\n250 STARTTLS\r\n")
			continue
		case line == "a STARTTLS\r\n":
			_, _ = io.WriteString(c, "a OK\r\n")
		default:
			_, _ = io.WriteString(c, "220 go\r\n")
		}
		_ = tls.Server(c, config).Handshake()
		_, _ = io.Copy(io.Discard, c)
		return
	}
}

func (h *house) look(t *testing.T) string {
	var b strings.Builder
	for _, f := range Look(t.Context(), h.setup, h.o) {
		fmt.Fprintf(&b, "%s %s %s\n", [...]string{"ok", "--", "!!"}[f.Level], f.What, f.Text)
		for _, r := range f.Publish {
			fmt.Fprintf(&b, "    %s\n", r)
		}
	}
	return b.String()
}

// What is published as we say is good, all of it.
func TestAllGood(t *testing.T) {
	got := newHouse(t).look(t)
	if strings.Contains(got, "!!") || strings.Contains(got, "--") {
		t.Error(got)
	}
	for _, what := range []string{"host", "spf", "ptr", "port", "dane", "blocklist", "mx", "dkim", "dmarc", "mta-sts", "tls-rpt"} {
		if !strings.Contains(got, "ok "+what) {
			t.Errorf("nothing about %s:\n%s", what, got)
		}
	}
	if n := strings.Count(got, "ok port"); n != 10 {
		t.Errorf("%d ports:\n%s", n, got)
	}
}

// Each thing that can be wrong is told, with what to publish.
func TestWrong(t *testing.T) {
	type zoneChange = map[string][]string
	far := "far.example.net"
	for name, c := range map[string]struct {
		zone  zoneChange // nil takes away
		other func(t *testing.T, h *house)
		want  []string
	}{
		"no address": {zone: zoneChange{"mail.example.org A": nil},
			want: []string{"!! host mail.example.org has no address", "    mail.example.org. IN A " + address}},
		"private":         {zone: zoneChange{"mail.example.org A": {"10.0.0.1"}}, want: []string{"!! host mail.example.org is 10.0.0.1, which the world cannot reach"}},
		"placeholder":     {zone: zoneChange{"mail.example.org A": {"192.0.2.1"}}, want: []string{"!! host mail.example.org is 192.0.2.1, which the world cannot"}},
		"one of two":      {zone: zoneChange{"mail.example.org A": {address, "fe80::1"}}, want: []string{"!! host not all of these"}},
		"no PTR":          {zone: zoneChange{address + " PTR": nil}, want: []string{"!! ptr 9.9.9.10 has no reverse name"}},
		"PTR lies":        {zone: zoneChange{address + " PTR": {"x.example.net"}}, want: []string{"!! ptr 9.9.9.10 is x.example.net, which does not lead back"}},
		"PTR of provider": {zone: zoneChange{address + " PTR": {far}, far + " A": {address}}, want: []string{"-- ptr 9.9.9.10 is far.example.net, which leads back"}},
		"no MX":           {zone: zoneChange{"example.org MX": nil}, want: []string{"!! mx example.org has no MX", "    example.org. IN MX 10 mail.example.org."}},
		"null MX":         {zone: zoneChange{"example.org MX": {"."}}, want: []string{"!! mx example.org has a null MX"}},
		"MX elsewhere":    {zone: zoneChange{"example.org MX": {far}}, want: []string{"!! mx example.org goes to far.example.net"}},
		"MX also":         {zone: zoneChange{"example.org MX": {far, "MAIL.example.org"}}, want: []string{"-- mx example.org comes to mail.example.org, and also"}},
		"no SPF":          {zone: zoneChange{"example.org TXT": nil}, want: []string{"!! spf example.org has no SPF", `    example.org. IN TXT "v=spf1 mx -all"`}},
		"two SPF":         {zone: zoneChange{"example.org TXT": {"v=spf1 mx -all", "v=spf1 a -all"}}, want: []string{"!! spf example.org has 2 SPF records"}},
		"SPF of another":  {zone: zoneChange{"example.org TXT": {"v=spf1 ip4:1.1.1.1 -all"}}, want: []string{"by which 9.9.9.10 may not send (fail): add mx, or ip4:9.9.9.10", "ip6:2620:fe::fe"}},
		"SPF broken":      {zone: zoneChange{"example.org TXT": {"v=spf1 mxx -all"}}, want: []string{"which is an error"}},
		"SPF loops":       {zone: zoneChange{"example.org TXT": {"v=spf1 include:example.org -all"}}, want: []string{"which is an error"}},
		"host SPF":        {zone: zoneChange{"mail.example.org TXT": nil}, want: []string{"-- spf mail.example.org has no SPF", `"v=spf1 a -all"`}},
		"no DKIM":         {zone: zoneChange{"s1._domainkey.example.org TXT": nil}, want: []string{"!! dkim s1._domainkey.example.org is not published", `IN TXT "v=DKIM1; k=ed25519`}},
		"other DKIM": {zone: zoneChange{"s1._domainkey.example.org TXT": {"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}},
			want: []string{"!! dkim s1._domainkey.example.org has another key"}},
		"two DKIM":   {zone: zoneChange{"s1._domainkey.example.org TXT": {"a", "b"}}, want: []string{"!! dkim s1._domainkey.example.org has 2 records"}},
		"no key":     {other: func(_ *testing.T, h *house) { h.setup.Domains[0].Keys = nil }, want: []string{"!! dkim example.org has no key", "mailsrv dkim new example.org"}},
		"no DMARC":   {zone: zoneChange{"_dmarc.example.org TXT": nil}, want: []string{"!! dmarc example.org has no DMARC", `    _dmarc.example.org. IN TXT "v=DMARC1; p=quarantine`}},
		"two DMARC":  {zone: zoneChange{"_dmarc.example.org TXT": {"v=DMARC1; p=none", "v=DMARC1; p=none"}}, want: []string{"!! dmarc _dmarc.example.org has 2"}},
		"DMARC none": {zone: zoneChange{"_dmarc.example.org TXT": {"v=DMARC1;p=none"}}, want: []string{"-- dmarc _dmarc.example.org has p=none"}},
		"DMARC bad":  {zone: zoneChange{"_dmarc.example.org TXT": {"v=DMARC1; rua=mailto:x@example.org"}}, want: []string{"!! dmarc", "without a policy"}},
		"DMARC reports": {zone: zoneChange{"_dmarc.example.org TXT": {"v=DMARC1; p=reject; rua=mailto:a@example.org,mailto:x@reports.example.net!10m"}},
			want: []string{"-- dmarc _dmarc.example.org sends reports to reports.example.net, which has not agreed", "example.org._report._dmarc.reports.example.net. IN TXT"}},
		"no TLS-RPT":       {zone: zoneChange{"_smtp._tls.example.org TXT": nil}, want: []string{"-- tls-rpt", `    _smtp._tls.example.org. IN TXT "v=TLSRPTv1`}},
		"TLS-RPT bad":      {zone: zoneChange{"_smtp._tls.example.org TXT": {"v=TLSRPTv1"}}, want: []string{"!! tls-rpt"}},
		"no STS":           {zone: zoneChange{"_mta-sts.example.org TXT": nil}, want: []string{"-- mta-sts example.org has none"}},
		"DANE of another":  {zone: zoneChange{"_25._tcp.mail.example.org TLSA": {"3 1 1 00"}}, want: []string{"!! dane _25._tcp.mail.example.org is for another certificate", "TLSA 3 1 1"}},
		"DANE of none":     {zone: zoneChange{"_25._tcp.mail.example.org TLSA": {"1 1 1 00"}}, want: []string{"!! dane", "no record that mail servers use"}},
		"DANE missing":     {zone: zoneChange{"_25._tcp.mail.example.org TLSA": nil}, want: []string{"-- dane mail.example.org is signed with DNSSEC and has no"}},
		"DANE without":     {zone: zoneChange{"SECURE": nil}, want: []string{"-- dane", "DNSSEC does not vouch"}},
		"on a list":        {zone: zoneChange{"10.9.9.9.zen.spamhaus.org A": {"127.0.0.4"}}, want: []string{"!! blocklist 9.9.9.10 is on zen.spamhaus.org (127.0.0.4): see https://check.spamhaus.org/"}},
		"domain on a list": {zone: zoneChange{"example.org.dbl.spamhaus.org A": {"127.0.1.2"}}, want: []string{"!! blocklist example.org is on dbl"}},
		"list refuses":     {zone: zoneChange{"10.9.9.9.zen.spamhaus.org A": {"127.255.255.254"}}, want: []string{"-- blocklist zen.spamhaus.org does not answer this resolver"}},
		"resolver lies":    {zone: zoneChange{"10.9.9.9.zen.spamhaus.org A": {"1.2.3.4"}}, want: []string{"-- blocklist zen.spamhaus.org does not answer this resolver"}},
		"DNS fails": {zone: zoneChange{"example.org FAIL": {}, "_dmarc.example.org FAIL": {}, "s1._domainkey.example.org FAIL": {}},
			want: []string{"-- mx example.org could not be looked up", "-- spf", "-- dkim", "-- dmarc"}},
		"policy gone": {other: func(_ *testing.T, h *house) {
			h.o.Policy = func(context.Context, string) ([]byte, error) { return nil, errors.New("404") }
		}, want: []string{"!! mta-sts https://mta-sts.example.org/.well-known/mta-sts.txt is announced and cannot be fetched: 404"}},
		"policy for another": {other: func(_ *testing.T, h *house) {
			h.o.Policy = func(context.Context, string) ([]byte, error) {
				return []byte("version: STSv1\r\nmode: enforce\r\nmx: *.example.net\r\nmax_age: 1\r\n"), nil
			}
		}, want: []string{"does not name mail.example.org as mx, so senders will not deliver"}},
		"policy testing": {other: func(_ *testing.T, h *house) {
			h.o.Policy = func(context.Context, string) ([]byte, error) {
				return []byte("version: STSv1\nmode: testing\nmx: *.example.org\nmax_age: 1\n"), nil
			}
		}, want: []string{"-- mta-sts https://mta-sts.example.org/.well-known/mta-sts.txt has mode testing"}},
		"ports closed": {other: func(_ *testing.T, h *house) {
			h.o.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
		}, want: []string{"!! port smtp 9.9.9.10:25 does not answer: refused", "!! port imaps [2620:fe::fe]:993 does not answer"}},
		"other port": {other: func(_ *testing.T, h *house) { h.setup.Services[0].Port = 2525 }, want: []string{"-- port smtp listens on 2525; the world comes to 25"}},
		"no ports":   {other: func(_ *testing.T, h *house) { h.setup.Services = nil }, want: []string{"-- port no service listens"}},
		"self-signed": {other: func(_ *testing.T, h *house) { h.o.Roots = x509.NewCertPool() },
			want: []string{"-- port smtp 9.9.9.10:25 answers; its certificate is of no known", "!! port imaps 9.9.9.10:993: its certificate is of no known authority"}},
		"wrong name": {other: func(t *testing.T, h *house) {
			h.shown = h.ca.issue(t, &x509.Certificate{DNSNames: []string{"other.example.org"}, NotAfter: time.Now().Add(2000 * time.Hour)}, h.ca.cert)
		}, want: []string{"!! port imap 9.9.9.10:143: its certificate is not for mail.example.org but other.example.org"}},
		"ended": {other: func(t *testing.T, h *house) {
			h.shown = h.ca.issue(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}, NotAfter: time.Now().Add(-time.Hour)}, h.ca.cert)
		}, want: []string{"!! port submission 9.9.9.10:587: its certificate ended on"}},
		"ends soon": {other: func(t *testing.T, h *house) {
			h.shown = h.ca.issue(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}, NotAfter: time.Now().Add(100 * time.Hour)}, h.ca.cert)
		}, want: []string{"!! port submissions 9.9.9.10:465: its certificate ends soon"}},
		"no STARTTLS": {other: func(_ *testing.T, h *house) {
			h.o.Dial = func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go func() { // TLS from the start cannot make anything of it either
					go io.Copy(io.Discard, there) // until it is closed
					_, _ = io.WriteString(there, "554 go away\r\n")
					there.Close()
				}()
				return here, nil
			}
		}, want: []string{`!! port smtp 9.9.9.10:25 answers, but not as it should: it says "554 go away"`}},
		"smarthost": {other: func(_ *testing.T, h *house) { h.setup.Smarthost = true }, want: []string{"-- spf example.org has", "smarthost's addresses"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			for key, lines := range c.zone {
				if lines == nil {
					delete(h.zone, key)
				} else {
					h.zone[key] = lines
				}
			}
			if c.other != nil {
				c.other(t, h)
			}
			got := h.look(t)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}

func TestReversed(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1":          "1.2.0.192",
		"2001:db8::567:89ab": "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2", // RFC 3596 section 2.5's form
	} {
		if got := reversed(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s", a, got)
		}
	}
}

// The policy is fetched by the name and the certificate that RFC 8461 section 3.3 asks for, at the address that our DNS has.
func TestPolicyOverTheWire(t *testing.T) {
	h := newHouse(t)
	h.o.Policy = nil
	h.zone["mta-sts.example.org A"] = []string{address}
	answer := "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + strings.Replace(h.setup.Policy(), "testing", "enforce", 1)
	cert := h.ca.issue(t, &x509.Certificate{DNSNames: []string{"mta-sts.example.org"}, NotAfter: time.Now().Add(2000 * time.Hour)}, h.ca.cert)
	h.o.Dial = func(ctx context.Context, network, to string) (net.Conn, error) {
		if to != address+":443" {
			return h.dial(ctx, network, to)
		}
		here, there := net.Pipe()
		go func() { // until the other side closes
			s := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{*cert}})
			for r := bufio.NewReader(s); ; {
				if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
					break
				}
			}
			_, _ = io.WriteString(s, answer)
			there.Close()
		}()
		return here, nil
	}
	for _, c := range []struct{ answer, want string }{
		{answer, "ok mta-sts example.org is enforced"},
		{"HTTP/1.1 301 Moved\r\nLocation: https://x.example.net/\r\nContent-Length: 0\r\n\r\n", "cannot be fetched: 301"},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + strings.Repeat("x", maxPolicy+1), "is longer than"},
	} {
		answer = c.answer
		if got := h.look(t); !strings.Contains(got, c.want) {
			t.Errorf("no %q in\n%s", c.want, got)
		}
	}
	answer, cert = "", h.shown // a certificate for another name
	if got := h.look(t); !strings.Contains(got, "!! mta-sts") || !strings.Contains(got, "certificate is valid for mail.example.org") {
		t.Error(got)
	}
}

// A parent's policy counts, with what it says of names below it.
func TestDMARCOfOrganization(t *testing.T) {
	h := newHouse(t)
	h.setup.Domains[0].Name = "sub.example.org"
	for record, want := range map[string]string{
		"v=DMARC1; p=reject":          "ok dmarc _dmarc.example.org",
		"v=DMARC1; p=reject; sp=none": "-- dmarc _dmarc.example.org has p=none",
	} {
		h.zone["_dmarc.example.org TXT"] = []string{record}
		if got := h.look(t); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", record, want, got)
		}
	}
}

// Whatever does not answer, it ends in time.
func TestEndsInTime(t *testing.T) {
	h := newHouse(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h.o.Timeout = 7 * time.Second
		h.o.Now = func() time.Time { return began }
		h.o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			context.AfterFunc(ctx, func() { there.Close() })
			return here, nil // and never a word
		}
		h.o.Policy = func(ctx context.Context, _ string) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
		got := h.look(t)
		if took := time.Since(began); took > 8*time.Second || !strings.Contains(got, "!! port smtp") || !strings.Contains(got, "!! mta-sts") {
			t.Errorf("%v\n%s", took, got)
		}
	})
}

func TestForItself(t *testing.T) {
	for name, want := range map[string]bool{"example.test": true, "test": true, "a.local": true, "printer": true, "a.home.arpa": true,
		"example.org": false, "mytest.org": false, "latest": true} {
		if ForItself(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// docs/dns.md has the records word by word.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t)
	h.setup.Addresses = nil
	for _, r := range append(h.setup.HostRecords(), h.setup.DomainRecords(h.setup.Domains[0], time.Now())...) {
		line := r.String()
		switch { // what differs from one server to the next
		case r.Type == "TLSA":
			line, _, _ = strings.Cut(line, " 3 1 1 ")
		case strings.Contains(r.Name, "_domainkey"):
			line = `_domainkey.example.org. IN TXT "v=DKIM1; k=`
		case strings.HasPrefix(r.Name, "_mta-sts"):
			line, _, _ = strings.Cut(line, "id=")
		}
		if !strings.Contains(string(page), line) {
			t.Errorf("docs/dns.md does not have %s", line)
		}
	}
	if indented := strings.ReplaceAll("    "+strings.TrimSpace(h.setup.Policy()), "\n", "\n    "); !strings.Contains(string(page), indented) {
		t.Errorf("docs/dns.md does not have the policy\n%s", indented)
	}
	for _, list := range usualBlocklists {
		if !strings.Contains(string(page), list.Zone) {
			t.Errorf("docs/dns.md does not name %s", list.Zone)
		}
	}
}
