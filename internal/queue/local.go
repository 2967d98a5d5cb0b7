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

// Mailboxes is the Local there is: notices to people here go the way of all mail, through aliases, quotas and filters. The
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
func (b *Mailboxes) Deliver(ctx context.Context, id, recipient string, message io.Reader) (err error) {
	in, err := b.Store.Incoming()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if _, err := io.WriteString(in, "Return-Path: <>\r\n"); err != nil {
		return err
	}
	if _, err := io.Copy(in, message); err != nil {
		return err
	}
	if err := in.Seal(); err != nil {
		return err
	}
	env := &delivery.Envelope{ID: id, Origin: delivery.Origin{Service: "queue"}, Recipients: []delivery.Recipient{
		{Address: recipient, Notify: []string{"NEVER"}}}}
	return b.Deliverer.Deliver(ctx, env, in)[0]
}
