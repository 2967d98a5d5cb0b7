package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailsrv/internal/directory"
	"mailsrv/storage"
)

// CheckRecipient says at RCPT whether mail for the address would be taken: nil or *Error (550 5.1.1 unknown, 550 5.7.1
// relaying, 452 4.2.2 over quota, 550 5.2.1 disabled …). size is MAIL's SIZE or 0.
//
// An address that stands for several accounts is over quota only when all of them are: one full mailbox must not
// silence a group.
func (d *Deliverer) CheckRecipient(ctx context.Context, env *Envelope, r Recipient, size int64) error {
	to, refused := d.expand(env, r)
	if refused != nil {
		return refused
	}
	if len(to.Remote) > 0 || len(to.Local) == 0 {
		return nil
	}
	for _, dest := range to.Local {
		q := quotaOf(d.people, dest.Account.Address)
		if q == (storage.Quota{}) {
			return nil
		}
		used, err := d.mail.Usage(dest.Account.Address)
		if err != nil {
			return refusal(r.Address, err)
		}
		if (q.Bytes == 0 || used.Bytes+size <= q.Bytes) && (q.Messages == 0 || used.Messages < q.Messages) {
			return nil
		}
	}
	return overQuota(r.Address, nil)
}

// expand says where mail for a recipient goes, or why nowhere.
func (d *Deliverer) expand(env *Envelope, r Recipient) (directory.Resolution, *Error) {
	if !d.isHere(r.Address) {
		return d.elsewhere(env, r.Address)
	}
	if !d.people.MaySendTo(d.sender(env), r.Address) {
		return directory.Resolution{}, &Error{Code: 550, Status: "5.7.1",
			Text: fmt.Sprintf("<%s>: only members of this group may send to it", r.Address)}
	}
	to, err := d.people.Resolve(r.Address)
	if err != nil {
		return directory.Resolution{}, refusal(r.Address, err)
	}
	if len(to.Remote) > 0 && d.queue == nil {
		return directory.Resolution{}, &Error{Code: 550, Status: "5.7.1", Text: fmt.Sprintf(
			"<%s>: forwards to another domain, and this server does not send mail to other domains", r.Address)}
	}
	return to, nil
}

// isHere reports whether the address is ours to know: RFC 5321 section 4.5.1 has <postmaster> without a domain.
func (d *Deliverer) isHere(address string) bool {
	return strings.EqualFold(address, "postmaster") || d.people.Local(address)
}

// elsewhere is the answer for addresses of other domains: only who has logged in may send there, and only where there is a
// queue.
func (d *Deliverer) elsewhere(env *Envelope, address string) (directory.Resolution, *Error) {
	switch {
	case env.Origin.Account == "":
		return directory.Resolution{}, &Error{Code: 550, Status: "5.7.1",
			Text: fmt.Sprintf("<%s>: relaying denied", address)}
	case d.queue == nil:
		return directory.Resolution{}, &Error{Code: 550, Status: "5.7.1",
			Text: fmt.Sprintf("<%s>: this server does not send mail to other domains", address)}
	}
	return directory.Resolution{Remote: []string{address}}, nil
}

// sender is who a private group may know as its member. A reverse-path proves nothing, so it has to be a login; on LMTP,
// where nobody logs in, the mail server in front vouches for the reverse-path.
func (d *Deliverer) sender(env *Envelope) string {
	if env.Origin.Account == "" && env.Origin.Service == "lmtp" {
		return env.Sender
	}
	return env.Origin.Account
}

// CheckSender says at MAIL whether an authenticated account may use the reverse-path (550 5.7.1), and whether there is
// room on the disk for size bytes (452 4.3.1).
func (d *Deliverer) CheckSender(ctx context.Context, env *Envelope, size int64) error {
	if env.Sender != "" {
		if err := d.CheckFrom(env, env.Sender); err != nil {
			return err
		}
	}
	return d.Room(size)
}

// CheckFrom says whether the envelope's authenticated account may use the address as a sender, in the envelope or in a
// From or Sender field: nil or 550 5.7.1. Who has not logged in is not asked here.
func (d *Deliverer) CheckFrom(env *Envelope, address string) error {
	if env.Origin.Account == "" || d.people.MaySendAs(env.Origin.Account, address) {
		return nil
	}
	return &Error{Code: 550, Status: "5.7.1",
		Text: fmt.Sprintf("<%s>: %s may not send as this address", address, env.Origin.Account)}
}

// Room says whether size more bytes would be taken: nil, 452 4.3.1 or 451 4.3.0. Cheap enough for every MAIL and DATA.
func (d *Deliverer) Room(size int64) error {
	if err := d.mail.Room(size); err != nil {
		return Refusal(err)
	}
	return nil
}

// Refusal is the answer for an error of the store that has nothing to do with one recipient.
func Refusal(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, storage.ErrDiskFull):
		return &Error{Code: 452, Status: "4.3.1", Text: "not enough disk space here, try again later", Cause: err}
	}
	return &Error{Code: 451, Status: "4.3.0", Text: "local storage trouble, try again later", Cause: err}
}

// refusal is the answer for what the directory or the store said of a recipient.
func refusal(address string, err error) *Error {
	e := func(code int, status, text string) *Error {
		return &Error{Code: code, Status: status, Text: fmt.Sprintf("<%s>: %s", address, text), Cause: err}
	}
	switch {
	case errors.Is(err, directory.ErrNoRecipient), errors.Is(err, directory.ErrNoAccount):
		return e(550, "5.1.1", "no such recipient here")
	case errors.Is(err, directory.ErrNoDomain):
		return e(550, "5.7.1", "relaying denied")
	case errors.Is(err, directory.ErrDisabled):
		return e(550, "5.2.1", "this account takes no mail")
	case errors.Is(err, directory.ErrAliasLoop):
		return e(550, "5.4.6", "alias leads back to itself")
	case errors.Is(err, directory.ErrAliasTooBig):
		return e(550, "5.3.5", "stands for too many recipients")
	case errors.Is(err, directory.ErrBadAddress):
		return e(501, "5.1.3", "not a valid address")
	case errors.Is(err, storage.ErrOverQuota):
		return overQuota(address, err)
	}
	return Refusal(err)
}

// overQuota is temporary: people clear their mailboxes (RFC 3463 X.2.2 with Postfix's and Dovecot's choice of 4).
func overQuota(address string, err error) *Error {
	return &Error{Code: 452, Status: "4.2.2", Text: fmt.Sprintf("<%s>: mailbox is full", address), Cause: err}
}
