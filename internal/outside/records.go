package outside

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"mailsrv/internal/mailauth"
)

// Record is a DNS record as it is to be published.
type Record struct {
	Name string // without a final dot
	Type string
	Data string // TXT: the text, unquoted; else as in a zone file
	Why  string // in a few words
	// If says under which condition it may be published at all; "" is always. Such records are written as comments.
	If string
}

// String is a line of a zone file.
func (r Record) String() string {
	data := r.Data
	if r.Type == "TXT" {
		data = mailauth.ZoneText(data)
	}
	return fmt.Sprintf("%s. IN %s %s", r.Name, r.Type, data)
}

// Placeholders for addresses that are not known (RFC 5737, 3849).
var placeholders = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// The texts of the records that are the same for everybody but for names. docs/dns.md has them word by word.
const (
	spfText     = "v=spf1 mx -all"
	spfHostText = "v=spf1 a -all"
	dmarcText   = "v=DMARC1; p=quarantine; rua=mailto:postmaster@%s"
	tlsrptText  = "v=TLSRPTv1; rua=mailto:postmaster@%s"
	stsText     = "v=STSv1; id=%s"
	stsPolicy   = "version: STSv1\nmode: testing\nmx: %s\nmax_age: 86400\n"
)

// HostRecords are those of the server's own name.
func (s *Setup) HostRecords() []Record {
	addresses, why := s.Addresses, "where the server is"
	if len(addresses) == 0 {
		addresses, why = placeholders, "where the server is: write its own address here"
	}
	var rs []Record
	for _, a := range addresses {
		kind := "A"
		if a.Is6() {
			kind = "AAAA"
		}
		rs = append(rs, Record{s.Hostname, kind, a.String(), why, ""})
	}
	rs = append(rs, s.hostSPF())
	if s.Certificate != nil {
		rs = append(rs, s.tlsaRecord())
	}
	return rs
}

func (s *Setup) hostSPF() Record {
	return Record{s.Hostname, "TXT", spfHostText, "bounces, which have no sender but the server's name", ""}
}

func (s *Setup) tlsaRecord() Record {
	port, _ := s.offers("smtp")
	if port == 0 {
		port = 25
	}
	return Record{fmt.Sprintf("_%d._tcp.%s", port, s.Hostname), "TLSA", tlsaData(s.Certificate),
		"DANE: senders verify the certificate by it", "the zone is signed with DNSSEC, and the record changes before the key does"}
}

// tlsaData is the "3 1 1" record of a certificate, RFC 7671 section 5.1: the key, whoever signed it.
func tlsaData(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "3 1 1 " + hex.EncodeToString(sum[:])
}

// DomainRecords are those of one domain.
func (s *Setup) DomainRecords(d Domain, now time.Time) []Record {
	rs := []Record{s.mxRecord(d), s.spfRecord(d)}
	for i := range d.Keys {
		rs = append(rs, keyRecord(&d.Keys[i]))
	}
	rs = append(rs, dmarcRecord(d), tlsrptRecord(d), stsRecord(d, now),
		Record{"mta-sts." + d.Name, "CNAME", s.Hostname + ".", "where the policy is fetched", stsCondition})
	return append(rs, s.serviceRecords(d)...)
}

func (s *Setup) mxRecord(d Domain) Record {
	return Record{d.Name, "MX", "10 " + s.Hostname + ".", "mail for the domain comes here", ""}
}

func (s *Setup) spfRecord(d Domain) Record {
	r := Record{d.Name, "TXT", spfText, "SPF: only the MX sends mail of the domain", ""}
	if s.Smarthost {
		r.Data, r.If = "v=spf1 include:SMARTHOST -all", "SMARTHOST is what your smarthost's operator tells to include"
	}
	return r
}

func keyRecord(k *mailauth.Key) Record {
	why := "DKIM: the key that signs"
	if !k.Signs {
		why = "DKIM: a key that does not sign now"
	}
	return Record{k.Name(), "TXT", k.Record(), why, ""}
}

func dmarcRecord(d Domain) Record {
	return Record{"_dmarc." + d.Name, "TXT", fmt.Sprintf(dmarcText, d.Name), "DMARC: what is neither signed nor from here is suspicious", ""}
}

func tlsrptRecord(d Domain) Record {
	return Record{"_smtp._tls." + d.Name, "TXT", fmt.Sprintf(tlsrptText, d.Name), "others report when TLS to us fails", ""}
}

const stsCondition = "the certificate is from a public authority and the policy is served (see docs/dns.md)"

func stsRecord(d Domain, now time.Time) Record {
	return Record{"_mta-sts." + d.Name, "TXT", fmt.Sprintf(stsText, now.UTC().Format("20060102150405")),
		"MTA-STS: senders insist on TLS", stsCondition}
}

// Policy is the MTA-STS policy to serve at https://mta-sts.DOMAIN/.well-known/mta-sts.txt (RFC 8461 section 3.2), lines with LF.
func (s *Setup) Policy() string { return fmt.Sprintf(stsPolicy, s.Hostname) }

// serviceRecords let mail programs find the services (RFC 6186, RFC 8314 section 5.1).
func (s *Setup) serviceRecords(d Domain) (rs []Record) {
	for _, name := range []string{"imaps", "imap", "submissions", "submission"} {
		if port, ok := s.offers(name); ok {
			priority := 0
			if name == "imap" || name == "submission" {
				priority = 10 // TLS from the start is preferred
			}
			rs = append(rs, Record{fmt.Sprintf("_%s._tcp.%s", name, d.Name), "SRV",
				fmt.Sprintf("%d 1 %d %s.", priority, port, s.Hostname), "mail programs find the server", ""})
		}
	}
	return rs
}

// WriteZone prints all records as a fragment of a zone file, those with a condition as comments.
func (s *Setup) WriteZone(w io.Writer, now time.Time) error {
	var b strings.Builder
	section := func(title string, rs []Record) {
		fmt.Fprintf(&b, "; %s\n", title)
		why := ""
		for _, r := range rs {
			if r.Why != why {
				why = r.Why
				fmt.Fprintf(&b, "; %s", why)
				if r.If != "" {
					fmt.Fprintf(&b, "; only if %s", r.If)
				}
				b.WriteString("\n")
			}
			if r.If != "" {
				b.WriteString(";")
			}
			b.WriteString(r.String() + "\n")
		}
	}
	section("--- the server "+s.Hostname, s.HostRecords())
	fmt.Fprintf(&b, "; and at whoever gave you the address: its reverse name (PTR) is to be %s\n", s.Hostname)
	for _, d := range s.Domains {
		section("--- the domain "+d.Name, s.DomainRecords(d, now))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
