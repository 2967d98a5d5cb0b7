package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// Server accepts connections and runs Handle for each in a goroutine of its own. Set the fields before Serve.
type Server struct {
	Name   string // "imap": for logs
	Limits Limits
	TLS    *tls.Config // nil: plain; else every connection starts with a handshake, bounded in time
	// HandshakeTimeout bounds the TLS handshake; 0 is 15 seconds.
	HandshakeTimeout time.Duration
	// Handle serves one connection; the Server closes it afterwards. ctx ends when Shutdown begins: the handler then says
	// goodbye at its next safe point. A panic in Handle is logged with its stack and ends only this connection. With TLS
	// set, c is a *tls.Conn that has done its handshake.
	Handle func(ctx context.Context, c net.Conn)
	// Refuse, if set, writes the protocol's words for "too many connections". It gets two seconds, after a handshake if
	// TLS is set.
	Refuse func(c net.Conn, perAddress bool)
	Logger *slog.Logger // nil discards
	Meter  Meter        // nil: none

	mu        sync.Mutex
	started   bool
	closing   bool
	ctx       context.Context // ends when Shutdown or Close begins
	cancel    context.CancelFunc
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{}
	census    census
	no        refuser
	wg        sync.WaitGroup // connection goroutines
	log       *slog.Logger
	meter     Meter
}

// begin prepares the server at its first Serve, Shutdown or Close. s.mu is held.
func (s *Server) begin() {
	if s.started {
		return
	}
	s.started = true
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.listeners = make(map[net.Listener]struct{})
	s.conns = make(map[net.Conn]struct{})
	s.census.limits = s.Limits
	s.log = cmp.Or(s.Logger, slog.New(slog.DiscardHandler)).With("service", s.Name)
	s.meter = s.Meter
	if s.meter == nil {
		s.meter = noMeter{}
	}
}

// Serve accepts on l until Shutdown or Close; it always returns a non-nil error: ErrServerClosed after those, else what
// Accept said. It closes l. Any number of listeners can be served at once. Errors of Accept that pass (too many open files,
// a client that gave up) are logged and waited out.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	s.begin()
	if s.closing {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	var pause time.Duration
	for {
		c, err := l.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return ErrServerClosed
		}
		if err != nil {
			if !passing(err) {
				return fmt.Errorf("%s: accept: %w", s.Name, err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed, waiting", "err", err, "pause", pause)
			if !sleep(s.ctx, pause) {
				return ErrServerClosed
			}
			continue
		}
		pause = 0
		s.admit(c)
	}
}

// passing reports whether an Accept error says something about the moment and not about the listener.
func passing(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET,
		syscall.EINTR, syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// admit starts a connection's goroutine, or refuses the connection.
func (s *Server) admit(c net.Conn) {
	a := PeerAddr(c)
	switch v := s.census.enter(a); v {
	case tooMany, tooManyFromAddress:
		reason := "total"
		if v == tooManyFromAddress {
			reason = "address"
		}
		s.log.Info("connection refused: too many", "peer", a, "limit", reason)
		s.meter.ConnectionRefused(s.Name, reason)
		s.no.refuse(c, s.refusal(v == tooManyFromAddress))
		return
	}
	keepAlive(c)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		s.census.leave(a)
		c.Close()
		return
	}
	s.conns[c] = struct{}{}
	// Under mu, so that Shutdown's Wait never runs beside an Add from zero.
	s.wg.Add(1)
	s.mu.Unlock()
	s.meter.ConnectionOpened(s.Name)
	go s.run(c)
}

// refusal is the words for a connection over a limit, nil if there are none.
func (s *Server) refusal(perAddress bool) func(net.Conn) {
	if s.Refuse == nil {
		return nil
	}
	return func(c net.Conn) {
		defer s.catch(c)
		if s.TLS != nil {
			t := tls.Server(c, s.TLS)
			if t.Handshake() != nil { // the refusal's deadline is set on c
				return
			}
			defer t.CloseWrite()
			s.Refuse(t, perAddress)
			return
		}
		s.Refuse(c, perAddress)
	}
}

// run is the goroutine of one connection.
func (s *Server) run(c net.Conn) {
	defer s.wg.Done()
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.census.leave(PeerAddr(c))
		s.meter.ConnectionClosed(s.Name)
	}()
	defer s.catch(c)
	if s.TLS == nil {
		s.Handle(s.ctx, c)
		return
	}
	t := tls.Server(c, s.TLS)
	ctx, cancel := context.WithTimeout(s.ctx, cmp.Or(s.HandshakeTimeout, 15*time.Second))
	err := t.HandshakeContext(ctx)
	cancel()
	if err != nil {
		s.log.Info("TLS handshake failed", "peer", PeerAddr(c), "err", err)
		s.meter.ConnectionRefused(s.Name, "handshake")
		return
	}
	s.Handle(s.ctx, t)
	t.Close() // says close_notify, with a deadline of its own
}

// catch keeps a panic to its connection. It is deferred.
func (s *Server) catch(c net.Conn) {
	if p := recover(); p != nil {
		s.log.Error("panic while serving a connection", "peer", PeerAddr(c), "panic", p, "stack", string(debug.Stack()))
		s.meter.ConnectionPanicked(s.Name)
	}
}

// stop ends accepting and tells the handlers.
func (s *Server) stop() {
	s.mu.Lock()
	s.begin()
	s.closing = true
	s.cancel()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.no.close()
}

// Shutdown stops accepting, cancels the handlers' context and waits for them until ctx ends; then it returns ctx's error
// and leaves the rest to Close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	done := make(chan struct{})
	go func() { // ends with the last handler, which Close can force
		s.wg.Wait()
		s.no.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts everything and waits for no one. Handlers see their connection fail and their context ended.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	return nil
}

// Connections is the number of connections open now.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
