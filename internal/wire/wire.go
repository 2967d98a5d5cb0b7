// Package wire is what all our TCP listeners share: accepting within limits, deadlines, panics kept to their
// connection, and the http.Server shape of life: Serve, Shutdown, Close.
//
// A [Server] serves connections itself; [Limit] gives the same limits to servers that accept by themselves (net/http).
// [Timed] puts deadlines on a connection: so long for the next request to begin, so long for it to be complete, so long
// for a client to take an answer. [Hangup] ends a connection so that its last words arrive.
package wire

import (
	"errors"
	"net"
	"net/netip"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("wire: server closed")

// Networks is a list of address ranges, such as trusted_networks.
type Networks []netip.Prefix

// Contains reports whether the address is in one of them (IPv4-mapped IPv6 counts as IPv4).
func (n Networks) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// PeerAddr is the address of a connection's other end; the zero Addr if it has none.
func PeerAddr(c net.Conn) netip.Addr {
	if c.RemoteAddr() == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
