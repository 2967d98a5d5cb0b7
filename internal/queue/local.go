package queue

import (
	"context"
	"errors"
	"io"
	"strings"

	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/storage"
)

// Mailboxes is the Local there is: what waited for people here goes the way of all mail, through aliases, quotas and filters. The
// Deliverer, which needs the queue first, is set before Start.
type Mailboxes struct {
	Directory *directory.Directory
	Store     *storage.Store
	Deliverer *delivery.Deliverer
}

// Here reports whether an address is of this server, whether or not somebody has it.
func (b *Mailboxes) Here(address string) bool {
	return strings.EqualFold(address, postmaster) || b.Directory.Local(address)
}

// Deliver is Local's.
func (b *Mailboxes) Deliver(ctx context.Context, env *delivery.Envelope, message io.Reader) (err error) {
	in, err := b.Store.Incoming()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if _, err := io.WriteString(in, "Return-Path: <"+env.Sender+">\r\n"); err != nil {
		return err
	}
	if _, err := io.Copy(in, message); err != nil {
		return err
	}
	if err := in.Seal(); err != nil {
		return err
	}
	return b.Deliverer.Deliver(ctx, env, in)[0]
}
