package wire

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// ErrInterrupted is what a Read of a Timed connection returns while it waits for a request and Interrupt was called.
var ErrInterrupted = errors.New("wire: interrupted while waiting for a request")

// Pace says how long a connection may take. Zero durations wait for ever; a zero Rate adds nothing.
type Pace struct {
	Idle    time.Duration // from Await to the request's first byte
	Request time.Duration // from there to its last byte, plus what Rate allows
	Write   time.Duration // for a client to take one Write, plus what Rate allows
	Rate    int           // bytes a second at which Request and Write grow longer
}

// Timed is a connection with deadlines. A client that sends one byte a minute resets no clock: once a request has begun it
// has Request's time, lengthened only by the bytes that did arrive. One goroutine reads, one writes, any may Interrupt.
type Timed struct {
	net.Conn
	pace Pace

	mu          sync.Mutex
	waiting     bool      // Await was called and no byte has come since
	interrupted bool      // Interrupt was called
	due         time.Time // of the request being read
}

// NewTimed puts the pace on c; it begins waiting for a request.
func NewTimed(c net.Conn, p Pace) *Timed { return &Timed{Conn: c, pace: p, waiting: true} }

// Await says that the next byte begins a new request. If the reader above has already buffered that byte, say Begin instead.
func (t *Timed) Await() {
	t.mu.Lock()
	t.waiting = true
	t.mu.Unlock()
}

// Begin says that a request has begun though its first byte was not read from here: the reader above had it already. From
// now on it has Pace.Request, and Interrupt lets it come in.
func (t *Timed) Begin() {
	t.mu.Lock()
	t.waiting, t.due = false, after(time.Now(), t.pace.Request)
	t.mu.Unlock()
}

// Interrupt makes Reads that wait for a request return ErrInterrupted, now and from now on; a request that has begun may
// still come in. It is for Shutdown: stop := context.AfterFunc(ctx, t.Interrupt).
func (t *Timed) Interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interrupted = true
	if t.waiting {
		_ = t.Conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose Read ends anyway
	}
}

// Read reads with the deadline that the state calls for.
func (t *Timed) Read(p []byte) (int, error) {
	if err := t.beforeRead(); err != nil {
		return 0, err
	}
	n, err := t.Conn.Read(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > 0 {
		now := time.Now()
		if t.waiting {
			t.waiting = false
			t.due = after(now, t.pace.Request)
		}
		if t.pace.Rate > 0 && !t.due.IsZero() {
			t.due = t.due.Add(time.Duration(n) * time.Second / time.Duration(t.pace.Rate))
		}
	}
	if n == 0 && err != nil && t.waiting && t.interrupted {
		err = ErrInterrupted
	}
	return n, err
}

func (t *Timed) beforeRead() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting && t.interrupted {
		return ErrInterrupted
	}
	due := t.due
	if t.waiting {
		due = after(time.Now(), t.pace.Idle)
	}
	return t.Conn.SetReadDeadline(due)
}

// Write writes all of p in one call below, within Pace.Write.
func (t *Timed) Write(p []byte) (int, error) {
	due := after(time.Now(), t.pace.Write)
	if t.pace.Rate > 0 && !due.IsZero() {
		due = due.Add(time.Duration(len(p)) * time.Second / time.Duration(t.pace.Rate))
	}
	if err := t.Conn.SetWriteDeadline(due); err != nil {
		return 0, err
	}
	return t.Conn.Write(p)
}

// NetConn is the connection below.
func (t *Timed) NetConn() net.Conn { return t.Conn }

// CloseWrite is TCP's half-close; errors.ErrUnsupported if the connection below has none.
func (t *Timed) CloseWrite() error { return closeWrite(t.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

func after(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(d)
}

const (
	hangupTime  = 2 * time.Second
	hangupBytes = 8 << 20
)

// Hangup closes c so that what was written last arrives: a socket that is closed while bytes are unread sends a reset, and
// a reset makes the other side's system throw away what it had not read yet. So it closes the writing half and reads, for
// two seconds and 8 MiB at most, until the client closes too.
func Hangup(c net.Conn) {
	defer c.Close()
	if closeWrite(c) != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(hangupTime)) != nil {
		return
	}
	// Around tls.Conn and Timed: what comes is not looked at, and Timed would set its own deadline.
	_, _ = io.CopyN(io.Discard, below(c), hangupBytes)
}

// below is the innermost connection.
func below(c net.Conn) net.Conn {
	for {
		u, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = u.NetConn()
	}
}
