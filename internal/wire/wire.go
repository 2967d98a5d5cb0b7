// Package wire is what all our TCP listeners share: accepting within limits, deadlines, panics kept to their
// connection, and the http.Server shape of life: Serve, Shutdown, Close.
package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("wire: server closed")

// Networks is a list of address ranges, such as trusted_networks.
type Networks []netip.Prefix

// Contains reports whether the address is in one of them (IPv4-mapped IPv6 counts as IPv4).
func (n Networks) Contains(a netip.Addr) bool {
	a = a.Unmap()
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

// Limits on connections. Zero is no limit. Exempt addresses are counted only in Total.
type Limits struct {
	Total      int
	PerAddress int
	Exempt     Networks
}

// Server accepts connections and runs Handle for each in a goroutine of its own.
type Server struct {
	Name   string // "imap": for logs
	Limits Limits
	TLS    *tls.Config // nil: plain; else every connection starts with a handshake, bounded in time
	// Handle serves one connection; the Server closes it afterwards. ctx ends when Shutdown begins: the handler then says
	// goodbye at its next safe point. A panic in Handle is logged with its stack and ends only this connection.
	Handle func(ctx context.Context, c net.Conn)
	// Refuse, if set, writes the protocol's words for "too many connections" (a short write with a deadline).
	Refuse func(c net.Conn, perAddress bool)
	Logger *slog.Logger
}

// Serve accepts on l until Shutdown or Close; it always returns a non-nil error.
func (s *Server) Serve(l net.Listener) error { panic("wire room") }

// Shutdown stops accepting, cancels the handlers' context and waits for them until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { panic("wire room") }

// Close cuts everything.
func (s *Server) Close() error { panic("wire room") }

// Limit wraps a listener for servers that accept by themselves (go-smtp): connections over the limits are refused with
// refuse's words and never seen.
func Limit(l net.Listener, limits Limits, refuse func(c net.Conn, perAddress bool)) net.Listener {
	panic("wire room")
}
