package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"mailsrv/internal/delivery"
	"mailsrv/internal/mailauth"
	"mailsrv/storage/kv"
)

// Signer puts this server's name to what leaves: DKIM, ARC. *mailauth.Signer is one.
type Signer interface {
	// Fields returns the header fields to put in front of a message, with CRLFs. An error that is mailauth.ErrARC is passed
	// over: the message goes without.
	Fields(ctx context.Context, m mailauth.Mail) ([]byte, error)
}

// maxFront bounds what is kept in front of a message.
const maxFront = 64 << 10

// sign asks for the fields in front of a message, once, as it is taken over: every attempt sends the same octets. An error is
// one that the sender should hear of now, rather than that others refuse what should have been signed.
func (q *Queue) sign(ctx context.Context, m *message, file io.ReaderAt, via string) error {
	if q.signer == nil {
		return nil
	}
	leaving := mailauth.Mail{
		Message: io.NewSectionReader(file, m.skip, m.size-m.skip), Size: m.size - m.skip, Sender: m.sender,
		Ours: m.account != "" || m.kind != mail, For: via,
	}
	if a, err := netip.ParseAddr(m.peer); err == nil {
		leaving.Peer = a
	}
	front, err := q.signer.Fields(ctx, leaving)
	switch {
	case errors.Is(err, mailauth.ErrARC):
		q.log.Warn("a message is sent on without an ARC seal", "id", m.id, "err", err)
		return nil
	case err == nil && len(front) > maxFront:
		err = fmt.Errorf("%d octets of signatures", len(front))
	}
	if err != nil {
		return fmt.Errorf("sign %s: %w", m.id, err)
	}
	m.front = front
	return nil
}

// sentOnBy is the address here that the message is sent on for, "" if its recipients are those it was sent to.
func sentOnBy(to []delivery.Onward) string {
	for _, o := range to {
		if o.For.Address != "" && !strings.EqualFold(o.For.Address, o.Address) {
			return o.For.Address
		}
	}
	return ""
}

// frontOf reads what goes in front of a message.
func (q *Queue) frontOf(id string) (front []byte, err error) {
	err = q.db.View(func(r kv.Reader) error {
		front = append(front, r.Get(keyFront(id))...)
		return nil
	})
	return front, err
}

// fronted is a message with fields in front of it.
type fronted struct {
	front []byte
	body  *io.SectionReader
}

func (f fronted) size() int64 { return int64(len(f.front)) + f.body.Size() }

// ReadAt is io.ReaderAt's.
func (f fronted) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("queue: negative offset")
	}
	if off < int64(len(f.front)) {
		n = copy(p, f.front[off:])
	}
	if n == len(p) {
		return n, nil
	}
	more, err := f.body.ReadAt(p[n:], off+int64(n)-int64(len(f.front)))
	return n + more, err
}
