package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"mailsrv/internal/queue"
	"mailsrv/internal/resolve"
)

// security is what a session to one host must be.
type security struct {
	kind       string // how the other side is verified: "none", "unverified", "pkix", "mta-sts", "dane"
	tls        bool   // STARTTLS if it is offered
	required   bool   // no TLS, no mail
	enforce    bool   // and only with the right certificate
	implicit   bool
	requireTLS bool // the message's REQUIRETLS (RFC 8689): failure is for good
	sni        string
	names      []string // of which the certificate must have one
	tlsa       []resolve.TLSA
	policy     policyUsed // for TLS-RPT
}

// requiresTLS reports whether the message must not go without. RFC 8689 section 5: a bounce says REQUIRETLS where that is
// known, and is not lost where it is not.
func requiresTLS(m *queue.Outgoing) bool { return m.RequireTLS && m.Sender != "" }

// routeSecurity is what a route's tls word asks for.
func routeSecurity(route *Route, one *host, m *queue.Outgoing) *security {
	sec := &security{kind: "unverified", tls: true, sni: one.name, names: []string{one.name}, requireTLS: requiresTLS(m)}
	mode := route.TLS
	if requiresTLS(m) && mode != TLSImplicit {
		mode = TLSRequire
	}
	switch mode {
	case TLSNone:
		sec.kind, sec.tls = "none", false
	case TLSRequire, TLSImplicit:
		sec.kind, sec.required, sec.enforce, sec.implicit = "pkix", true, true, mode == TLSImplicit
	}
	return sec
}

// secure finds out what a session to a host must be: DANE if the host has usable TLSA records, else the domain's MTA-STS
// policy (RFC 8461 section 2: never instead of DANE), else whatever the other side can.
func (r *Relay) secure(ctx context.Context, h *hop, one *host, a *attempt) (*security, *failure) {
	if h.route != nil {
		return routeSecurity(h.route, one, a.m), nil
	}
	sec := &security{
		kind: "unverified", tls: true, sni: one.name, requireTLS: requiresTLS(a.m),
		policy: policyUsed{kind: "no-policy-found", domain: h.domain},
	}
	if one.name == "" || a.tlsOptional {
		if requiresTLS(a.m) {
			return nil, permFailure("policy", "5.7.30",
				"the message requires TLS (REQUIRETLS), which nothing can vouch for at an address literal")
		}
		return sec, nil
	}
	if has, f := r.danePolicy(ctx, h, one, sec); f != nil {
		return nil, f
	} else if has && (sec.kind == "dane" || !requiresTLS(a.m)) {
		return sec, nil
	}
	policy := a.stsPolicy(ctx, h)
	if f := stsSecurity(policy, h, one, sec); f != nil {
		r.tlsrpt.session(target{hop: h, host: one}, nil, sec, &tlsProblem{kind: "validation-failure", text: f.text})
		return nil, f
	}
	if requiresTLS(a.m) && sec.kind != "mta-sts" {
		if !h.secureMX {
			return nil, permFailure("policy", "5.7.30",
				"the message requires TLS (REQUIRETLS), and neither DNSSEC nor MTA-STS vouches for where the mail of %s goes", h.domain)
		}
		sec.kind, sec.names = "pkix", []string{one.name}
	}
	if requiresTLS(a.m) {
		sec.required, sec.enforce = true, true
	}
	return sec, nil
}

// tlsProblem is what is wrong with the other side's TLS, in RFC 8460's word and ours.
type tlsProblem struct{ kind, text string }

func (p *tlsProblem) Error() string { return p.text }

// verify checks a certificate chain as sec asks for, nil if it will do.
func (r *Relay) verify(chain []*x509.Certificate, sec *security) *tlsProblem {
	if len(chain) == 0 {
		return &tlsProblem{"validation-failure", "no certificate"}
	}
	switch sec.kind {
	case "dane":
		return verifyDANE(chain, sec.tlsa, sec.names, time.Now())
	case "mta-sts", "pkix":
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots: r.o.Roots, DNSName: sec.names[0], Intermediates: intermediates(chain), CurrentTime: time.Now(),
		})
		return certProblem(err)
	}
	return nil
}

func intermediates(chain []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	return pool
}

// certProblem names an error of package x509 as RFC 8460 section 4.3.1 does.
func certProblem(err error) *tlsProblem {
	if err == nil {
		return nil
	}
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	kind := "certificate-not-trusted"
	switch {
	case errors.As(err, &host):
		kind = "certificate-host-mismatch"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		kind = "certificate-expired"
	}
	return &tlsProblem{kind, printable(err.Error())}
}

// danePolicy looks for TLSA records of a host whose addresses DNSSEC vouches for (RFC 7672 section 2.2), and sets sec if there
// are any. An answer that does not come must not mean that there are none: then the host is passed over.
func (r *Relay) danePolicy(ctx context.Context, h *hop, one *host, sec *security) (has bool, f *failure) {
	if !h.secureMX || !one.secure {
		return false, nil
	}
	for _, base := range append(append([]string{}, one.names...), one.name) {
		found, err := r.o.Resolver.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", one.port, base))
		switch {
		case errors.Is(err, resolve.ErrNotFound):
			continue
		case err != nil:
			r.tlsrpt.session(target{hop: h, host: one}, nil, sec, &tlsProblem{"dnssec-invalid", printable(err.Error())})
			return false, tempFailure("policy", "4.7.0", "%s may have DANE, and its TLSA records cannot be had now: %v", one.name, err)
		case !found.Secure || len(found.Records) == 0:
			continue
		}
		sec.required, sec.sni, sec.tlsa = true, base, usable(found.Records)
		if len(sec.tlsa) > 0 { // else section 2.2: TLS, with whomever
			sec.kind, sec.enforce = "dane", true
		}
		sec.names = []string{base, one.name, h.domain} // RFC 7672 section 3.2.2
		sec.policy = policyUsed{kind: "tlsa", domain: h.domain, lines: tlsaLines(found.Records)}
		return true, nil
	}
	return false, nil
}
