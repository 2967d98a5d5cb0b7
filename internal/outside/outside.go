// Package outside is a mail server as the world sees it: which DNS records it should have, and which it has; whether its ports
// answer, with which certificates; whether somebody lists it as a spammer.
//
//	outside.go    what there is to be seen; findings
//	records.go    the records to publish, and why            docs/dns.md
//	look.go       all looks, side by side, bounded in time
//	host.go       addresses, reverse names, blocklists
//	domain.go     MX, SPF, DKIM, DMARC                        RFC 5321, 7208, 6376, 7489
//	transport.go  MTA-STS, TLS-RPT, DANE                      RFC 8461, 8460, 7672
//	ports.go      ports and certificates
package outside

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"time"

	"mailsrv/internal/mailauth"
	"mailsrv/internal/resolve"
)

// Setup is the server that is looked at.
type Setup struct {
	Hostname    string // lower case
	Domains     []Domain
	Services    []Service
	Certificate *x509.Certificate // what the server shows; nil if unknown
	// Addresses are the server's, where the DNS is not to be asked: for records to write. Empty: placeholders are written.
	Addresses []netip.Addr
	// Smarthost says that mail for everybody leaves through another server, whose addresses count for SPF then.
	Smarthost bool
}

// Domain is one of the server's.
type Domain struct {
	Name string // in A-labels, lower case
	Keys []mailauth.Key
}

// Service is a protocol as it is offered to the world.
type Service struct {
	Name string // "smtp", "submission", "submissions", "imap", "imaps"
	Port uint16
}

// usualPort is IANA's port of a service.
var usualPort = map[string]uint16{"smtp": 25, "submission": 587, "submissions": 465, "imap": 143, "imaps": 993}

// Implicit reports whether TLS begins with the connection.
func (s Service) Implicit() bool { return s.Name == "submissions" || s.Name == "imaps" }

func (s *Setup) offers(name string) (port uint16, ok bool) {
	for _, service := range s.Services {
		if service.Name == name {
			return service.Port, true
		}
	}
	return 0, false
}

// Level says how bad a finding is.
type Level int

// The levels.
const (
	Good    Level = iota
	Note          // could be better, or could not be found out
	Problem       // mail suffers from it
)

// Finding is one thing that was found.
type Finding struct {
	Level   Level
	What    string // "mx", "spf" …
	Text    string // one line; what to do, unless Publish says it
	Publish []Record
}

// Options are how to look. Resolver is required.
type Options struct {
	Resolver resolve.Resolver
	Timeout  time.Duration // of everything; 0 is 40 s
	// Dial opens connections to the server's ports; nil is the system's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Policy fetches an MTA-STS policy by its URL, HTTPS checked; nil does so over Dial.
	Policy     func(ctx context.Context, url string) ([]byte, error)
	Roots      *x509.CertPool // nil is the system's
	Blocklists []Blocklist    // nil is the usual ones
	Now        func() time.Time
}

// under reports whether name is domain or below it.
func under(name, domain string) bool {
	return strings.EqualFold(name, domain) || strings.HasSuffix(strings.ToLower(name), "."+strings.ToLower(domain))
}

// ForItself reports whether a name is of those that the DNS of the world never has (RFC 6761, 6762, 7686).
func ForItself(name string) bool {
	for _, top := range []string{"test", "local", "localhost", "invalid", "onion", "home.arpa", "internal"} {
		if under(name, top) {
			return true
		}
	}
	return !strings.Contains(name, ".")
}
