package wire

import (
	"net"
	"syscall"
)

// Hurry has the kernel acknowledge what has come on c at once instead of waiting for an answer to carry the acknowledgement
// (tcp(7), TCP_QUICKACK; it holds only for now). Call it before waiting for the rest of something that a client may have
// written in two pieces.
func Hurry(c net.Conn) {
	sc, ok := below(c).(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	// It is a hint: a socket that is no TCP does without.
	_ = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) })
}
