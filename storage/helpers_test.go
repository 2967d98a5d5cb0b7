package storage

import "mailsrv/storage/blob"

// listingStore counts listings of folders.
type listingStore struct {
	blob.Store
	n *int
}

func (l listingStore) List(folder string, fn func(blob.Entry) error) error {
	*l.n++
	return l.Store.List(folder, fn)
}
