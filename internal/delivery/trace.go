package delivery

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Trace is what goes before a message as it is taken in: Return-Path (RFC 5321 section 4.4) and Received, with CRLFs.
func (d *Deliverer) Trace(env *Envelope) string {
	return "Return-Path: <" + printable(env.Sender) + ">\r\n" + d.Received(env)
}

// Received is the trace header for the envelope, with CRLF: "Received: from … by … with … id …; date"; "for" only
// when there is one recipient: naming one of several would give away blind copies (RFC 5321 section 7.6).
func (d *Deliverer) Received(env *Envelope) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from %s (%s)\r\n", atomOr(env.Origin.Hello, "unknown"), literal(env.Origin.Addr))
	if env.Origin.TLS != "" {
		fmt.Fprintf(&b, "\t(using %s)\r\n", printable(env.Origin.TLS))
	}
	fmt.Fprintf(&b, "\tby %s with %s id %s", atomOr(d.host, "localhost"), atomOr(env.Origin.Protocol, "SMTP"), env.ID)
	if len(env.Recipients) == 1 {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", printable(env.Recipients[0].Address))
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", d.now().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	return b.String()
}

// literal is an address as an RFC 5321 section 4.1.3 literal.
func literal(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "local"
	case a.Unmap().Is4():
		return "[" + a.Unmap().String() + "]"
	}
	return "[IPv6:" + a.WithZone("").String() + "]"
}

// atomOr keeps of a client's word what may stand in a Received field outside of a comment.
func atomOr(s, otherwise string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>,;\"`, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	if s == "" {
		return otherwise
	}
	return s
}

// printable takes away what could end or break a header line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// NewID makes a queue ID: sixteen digits and lower-case letters, no vowels that look like digits, ascending with time
// (microseconds, until the year 3112) and made unique by 25 random bits.
func NewID() string {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz"
	var r [4]byte
	_, _ = rand.Read(r[:]) // never fails
	low := uint64(binary.BigEndian.Uint32(r[:]) & (1<<25 - 1))
	high := uint64(time.Now().UnixMicro())
	var id [16]byte
	for i := 15; i >= 11; i-- {
		id[i], low = digits[low&31], low>>5
	}
	for i := 10; i >= 0; i-- {
		id[i], high = digits[high&31], high>>5
	}
	return string(id[:])
}
