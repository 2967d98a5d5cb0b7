package delivery

import (
	"errors"

	"mailsrv/internal/directory"
	"mailsrv/storage"
)

// store is storage as delivery sees it: by account address, accounts made when first needed.
type store struct{ *storage.Store }

// open opens the account; one that the directory knows and the store does not is made: it was added, or its folder was
// taken away.
func (s store) open(address string) (*storage.Account, error) {
	a, err := s.Account(address)
	if !errors.Is(err, storage.ErrNoAccount) {
		return a, err
	}
	if err := s.Create(address); err != nil && !errors.Is(err, storage.ErrAccountExists) {
		return nil, err
	}
	return s.Account(address)
}

// Usage is zero for an account that the store has not seen yet.
func (s store) Usage(address string) (storage.Usage, error) {
	a, err := s.Account(address)
	if errors.Is(err, storage.ErrNoAccount) {
		return storage.Usage{}, nil
	}
	if err != nil {
		return storage.Usage{}, err
	}
	defer a.Release()
	return a.Usage()
}

// File appends the message to the account's mailbox.
func (s store) File(address, mailbox string, in *storage.Incoming) error {
	a, err := s.open(address)
	if err != nil {
		return err
	}
	defer a.Release()
	_, err = a.Append(mailbox, storage.NewMessage{Incoming: in})
	return err
}

// QuotaOf is an account's limits: its own, else its domain's, else none. It is what [storage.Options].Quota is to be.
func QuotaOf(d *directory.Directory, address string) storage.Quota { return quotaOf(d, address) }

func quotaOf(p people, address string) storage.Quota {
	bytes, messages := p.Quota(address)
	return storage.Quota{Bytes: bytes, Messages: messages}
}
