package relay

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"mailsrv/internal/resolve"
)

// RFC 6698 section 2.1, RFC 7671.
const (
	usageTA = 2 // DANE-TA: the certificate of an authority in the chain
	usageEE = 3 // DANE-EE: the server's own; names and dates do not count (RFC 7672 section 3.1.1)

	selectorCert = 0
	selectorKey  = 1

	matchExact  = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// usable are the records that SMTP can use (RFC 7672 section 3.1), and of the digests of one kind only the strongest (RFC
// 7671 section 9).
func usable(records []resolve.TLSA) (out []resolve.TLSA) {
	for _, t := range records {
		ok := (t.Usage == usageTA || t.Usage == usageEE) && t.Selector <= selectorKey
		switch t.Matching {
		case matchExact:
			ok = ok && parses(t)
		case matchSHA256:
			ok = ok && len(t.Data) == sha256.Size
		case matchSHA512:
			ok = ok && len(t.Data) == sha512.Size
		default:
			ok = false
		}
		if ok {
			out = append(out, t)
		}
	}
	return slices.DeleteFunc(slices.Clone(out), func(t resolve.TLSA) bool {
		return t.Matching == matchSHA256 && slices.ContainsFunc(out, func(o resolve.TLSA) bool {
			return o.Usage == t.Usage && o.Selector == t.Selector && o.Matching == matchSHA512
		})
	})
}

// parses reports whether a record's data is what it says it is.
func parses(t resolve.TLSA) bool {
	var err error
	if t.Selector == selectorKey {
		_, err = x509.ParsePKIXPublicKey(t.Data)
	} else {
		_, err = x509.ParseCertificate(t.Data)
	}
	return err == nil
}

// matches reports whether a record is of the certificate.
func matches(t resolve.TLSA, c *x509.Certificate) bool {
	data := c.Raw
	if t.Selector == selectorKey {
		data = c.RawSubjectPublicKeyInfo
	}
	switch t.Matching {
	case matchExact:
		return bytes.Equal(t.Data, data)
	case matchSHA256:
		sum := sha256.Sum256(data)
		return bytes.Equal(t.Data, sum[:])
	case matchSHA512:
		sum := sha512.Sum512(data)
		return bytes.Equal(t.Data, sum[:])
	}
	return false
}

// verifyDANE checks a chain against usable records: one that matches is enough.
func verifyDANE(chain []*x509.Certificate, records []resolve.TLSA, names []string, now time.Time) *tlsProblem {
	anchors := x509.NewCertPool()
	found := false
	for _, t := range records {
		if t.Usage == usageEE {
			if matches(t, chain[0]) {
				return nil
			}
			continue
		}
		for _, c := range chain {
			if matches(t, c) {
				anchors.AddCert(c)
				found = true
			}
		}
		if t.Matching == matchExact && t.Selector == selectorCert { // the authority may be left out of the chain
			if c, err := x509.ParseCertificate(t.Data); err == nil {
				anchors.AddCert(c)
				found = true
			}
		}
	}
	if !found {
		return &tlsProblem{"validation-failure", "the certificate matches none of the TLSA records"}
	}
	var err error
	for _, name := range names {
		opts := x509.VerifyOptions{Roots: anchors, DNSName: name, Intermediates: intermediates(chain), CurrentTime: now}
		if _, err = chain[0].Verify(opts); err == nil {
			return nil
		}
	}
	return certProblem(err)
}

// tlsaLines are the records as RFC 8460 section 4.2 reports them.
func tlsaLines(records []resolve.TLSA) (lines []string) {
	for _, t := range records {
		lines = append(lines, fmt.Sprintf("%d %d %d %X", t.Usage, t.Selector, t.Matching, t.Data))
	}
	return lines
}
