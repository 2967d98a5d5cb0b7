// Package resolve asks the DNS: one interface for everything that does (relay, mailauth, check), so that every test runs
// against a fake DNS. Answers say whether the resolver vouched for them (AD), and how long they hold.
package resolve

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Errors that callers branch on. Anything else (timeouts, SERVFAIL) is temporary: errors.Is(err, ErrTemporary).
var (
	ErrNotFound  = errors.New("no such record")             // NXDOMAIN or no data
	ErrTemporary = errors.New("the DNS did not answer now") // try again later
)

// Resolver looks names up. Names are without a final dot, in A-labels. secure is the AD bit of an answer whose resolver we
// trust (RFC 4035 section 3.2.3; only a loopback or explicitly trusted resolver counts, RFC 7672 section 2.1.1).
type Resolver interface {
	MX(ctx context.Context, name string) (Answer[MX], error)
	Addresses(ctx context.Context, name string) (Answer[netip.Addr], error) // A and AAAA, CNAMEs followed
	TXT(ctx context.Context, name string) (Answer[string], error)           // strings of a record joined
	TLSA(ctx context.Context, name string) (Answer[TLSA], error)
	PTR(ctx context.Context, addr netip.Addr) (Answer[string], error)
}

// Answer is a record set.
type Answer[T any] struct {
	Records []T
	Secure  bool
	TTL     time.Duration
	Name    string // the name after CNAMEs
}

// MX is one mail exchanger; Host "" is RFC 7505's null MX.
type MX struct {
	Preference uint16
	Host       string
}

// TLSA is one RFC 6698 record.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}
