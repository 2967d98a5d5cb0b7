//go:build !linux

package wire

import "net"

// Hurry does nothing where the system has no TCP_QUICKACK.
func Hurry(net.Conn) {}
