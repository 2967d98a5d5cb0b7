package legacyd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"mailsrv/internal/wire"
	"mailsrv/storage"
)

// The published error texts, word for word.
const (
	textTaken       = "Such user is already logged in"
	textDestination = "Invalid destination address"
	textNoMail      = "Mail with such index does not exist"
	textDenied      = "Access denied"
)

// refusal is an error whose text is for the client; the session goes on.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(text string) error { return refusal(text) }

// session is one connection. One goroutine runs it.
type session struct {
	s       *Server
	conn    *wire.Timed
	peer    netip.Addr
	trusted bool
	log     *slog.Logger

	// After a successful entry; account is nil before.
	address string // canonical
	name    string // as the client spelled it
	proved  bool   // by a password
	account *storage.Account
	inbox   storage.MailboxID
}

// handle is wire.Server.Handle.
func (s *Server) handle(ctx context.Context, c net.Conn) {
	pace := wire.Pace{Idle: s.o.IdleTimeout, Request: requestTime, Write: writeTime, Rate: leastRate}
	se := &session{s: s, conn: wire.NewTimed(c, pace), peer: wire.PeerAddr(c)}
	se.trusted = s.o.Trusted.Contains(se.peer)
	se.log = s.log.With("peer", se.peer)
	stop := context.AfterFunc(ctx, se.conn.Interrupt)
	defer stop()
	defer se.leave()
	se.run(ctx)
}

// run serves requests until the client quits or leaves, is idle too long, sends a frame that cannot be trusted, or ctx ends.
func (se *session) run(ctx context.Context) {
	in := bufio.NewReader(se.conn)
	frames := &frameReader{r: in, max: se.s.o.MaxFrame}
	for ctx.Err() == nil {
		if in.Buffered() == 0 {
			se.conn.Await()
		} else {
			se.conn.Begin() // it came with the one before
		}
		if frames.keep = se.s.o.MaxFrame; se.account == nil {
			frames.keep = min(keepStrangers, se.s.o.MaxFrame)
		}
		f, err := frames.next()
		var bad *badFrame
		switch {
		case errors.As(err, &bad):
			se.log.Info("bad frame", "err", bad)
			if se.write(typeError, bad.text) == nil {
				se.hangup()
			}
			return
		case err != nil:
			se.log.Debug("connection ended", "err", err)
			return
		case f.kind == typeQuit: // whatever its body: the client does not read an answer
			se.hangup()
			return
		}
		if err := se.answer(ctx, f); err != nil {
			se.log.Debug("connection ended while replying", "err", err)
			return
		}
	}
}

// hangup ends the connection so that the last reply arrives. The address is given back first: once the client sees the end it
// may enter again.
func (se *session) hangup() {
	se.leave()
	wire.Hangup(se.conn)
}

// answer runs one request and writes its reply. The error is the connection's.
func (se *session) answer(ctx context.Context, f frame) error {
	reply, err := se.serve(ctx, f)
	if err == nil {
		_, err = se.conn.Write(reply)
		return err
	}
	var r refusal
	if errors.As(err, &r) {
		return se.write(typeError, string(r))
	}
	se.log.Error("request failed", "account", se.address, "type", f.kind, "err", err)
	return se.write(typeError, failure(err))
}

// failure is what a client may know of an error that is ours.
func failure(err error) string {
	switch {
	case errors.Is(err, storage.ErrDiskFull):
		return "Server is out of disk space, try again later"
	case errors.Is(err, storage.ErrOverQuota):
		return "Mailbox is full"
	case errors.Is(err, storage.ErrClosed):
		return "Server is shutting down"
	}
	return "Server error, try again later"
}

// serve runs one request and returns the reply's frame. A refusal's text goes to the client, other errors to the log.
func (se *session) serve(ctx context.Context, f frame) ([]byte, error) {
	switch {
	case f.long && f.kind == typeEntry:
		return nil, refuse(fmt.Sprintf("Request body is longer than %d bytes", keepStrangers))
	case f.long:
		return nil, refuse("Enter a mailbox first")
	}
	switch f.kind {
	case typeEntry, typeSend, typeOpen, typeDel:
		r, err := parseRequest(f.body)
		if err != nil {
			return nil, err
		}
		return se.serveObject(ctx, f.kind, r)
	case typeMailbox:
		// A client written from the lab's text may send no body where the published one sends null.
		if len(f.body) > 0 {
			if err := checkJSON(f.body); err != nil {
				return nil, err
			}
		}
		if err := se.entered(); err != nil {
			return nil, err
		}
		return se.list()
	}
	return nil, refuse("Unknown command type")
}

// serveObject runs a request whose body is a JSON object.
func (se *session) serveObject(ctx context.Context, kind int32, r request) ([]byte, error) {
	var err error
	if kind == typeEntry {
		err = se.entry(ctx, r)
		return ok(err)
	}
	if err := se.entered(); err != nil {
		return nil, err
	}
	switch kind {
	case typeOpen:
		return se.open(r)
	case typeDel:
		err = se.del(r)
	default:
		err = se.send(ctx, r)
	}
	return ok(err)
}

func ok(err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return encodeFrame(typeEntry, "OK")
}

func (se *session) write(kind int32, body any) error {
	b, err := encodeFrame(kind, body)
	if err != nil {
		return err
	}
	_, err = se.conn.Write(b)
	return err
}
