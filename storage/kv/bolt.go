package kv

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The one bucket that holds all pairs.
var boltBucket = []byte("kv")

// boltLockWait is how long OpenBolt waits for another process to let go of the file: a restart overlaps its
// predecessor's end by less.
const boltLockWait = time.Second

const boltMapping = 64 << 20

// boltGrowth is what the file grows by beyond what is needed, a sync each time. bbolt's own 16 MiB are much for an account
// of a few messages, in every backup that does not know of holes.
const boltGrowth = 256 << 10

// boltFill is how full a page stays when it is split. Our keys grow at the end of their kind (ids, UIDs, mod-sequences): bbolt's own half
// would leave every page half empty for ever. 100,000 messages took 215 MiB with it.
const boltFill = 0.95

// ErrLocked is returned by OpenBolt while another process (or this one) has the file open.
var ErrLocked = errors.New("the database is in use by another process")

// OpenBolt opens the bbolt file at path, and makes it if it is not there (its directory must be, and the caller syncs the
// directory: a new file's name is not durable before). ErrLocked if somebody has it open, after a second.
//
// A commit is synced (fdatasync, twice: pages, then the meta page that names them) before Update returns.
func OpenBolt(path string) (DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      boltLockWait,
		FreelistType: bbolt.FreelistMapType,
		// A commit that outgrows the mapping waits for all readers, and readers for it. This is address space, not memory.
		InitialMmapSize: boltMapping,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	db.AllocSize = boltGrowth
	err = db.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(boltBucket) != nil {
			return errReady
		}
		_, err := tx.CreateBucket(boltBucket)
		return err
	})
	if err != nil && !errors.Is(err, errReady) {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return &bolt{db, path}, nil
}

// errReady rolls back where there is nothing to commit: opening an existing file must not cost a sync.
var errReady = errors.New("the bucket is there")

type bolt struct {
	db   *bbolt.DB
	path string
}

func (b *bolt) View(fn func(Reader) error) error {
	return b.outcome(b.db.View(func(tx *bbolt.Tx) error {
		return tell(fn(&boltTx{bucket: tx.Bucket(boltBucket)}))
	}))
}

func (b *bolt) Update(fn func(Tx) error) error {
	return b.outcome(b.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(boltBucket)
		bucket.FillPercent = boltFill
		return tell(fn(&boltTx{bucket: bucket}))
	}))
}

func (b *bolt) Close() error { return b.db.Close() }

// callersError marks what fn returned, so that outcome hands it back untouched.
type callersError struct{ error }

func tell(err error) error {
	if err == nil {
		return nil
	}
	return callersError{err}
}

func (b *bolt) outcome(err error) error {
	if err == nil {
		return nil
	}
	if own, ok := err.(callersError); ok {
		return own.error
	}
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return fmt.Errorf("%s: %w", b.path, err)
}

type boltTx struct {
	bucket *bbolt.Bucket
	writes int
}

func (t *boltTx) Get(key []byte) []byte { return t.bucket.Get(key) }

func (t *boltTx) Put(key, value []byte) error {
	t.writes++
	// bbolt keeps the value's slice until the commit; the caller may reuse his buffer at once. (It copies the key.)
	return t.bucket.Put(key, append(make([]byte, 0, len(value)), value...))
}

func (t *boltTx) Delete(key []byte) error {
	t.writes++
	return t.bucket.Delete(key)
}

func (t *boltTx) Scan(from, to []byte, fn func(key, value []byte) bool) {
	c := t.bucket.Cursor()
	k, v := c.Seek(from)
	for k != nil && before(k, to) {
		writes := t.writes
		if !fn(k, v) {
			return
		}
		if t.writes != writes {
			// A cursor counts places in a page, and fn's write outside the range may have shifted them.
			at := k
			if k, v = c.Seek(at); !bytes.Equal(k, at) {
				continue
			}
		}
		k, v = c.Next()
	}
}

func (t *boltTx) Last(from, to []byte) (key, value []byte) {
	c := t.bucket.Cursor()
	// Deletes leave empty pages until the commit, and bbolt's way back over them has no floor (1.5.0: Last never returns
	// when all are empty, Prev says nil at each). So make sure first that there is a pair to be found.
	if k, _ := c.First(); k == nil || !before(k, to) {
		return nil, nil
	}
	key, value = lastBefore(c, to)
	for key == nil {
		key, value = c.Prev()
	}
	if bytes.Compare(key, from) < 0 {
		return nil, nil
	}
	return key, value
}

func lastBefore(c *bbolt.Cursor, to []byte) (key, value []byte) {
	if to == nil {
		return c.Last()
	}
	if k, _ := c.Seek(to); k == nil { // all keys are before to
		return c.Last()
	}
	return c.Prev()
}

// before reports key < to, where a nil to is after everything.
func before(key, to []byte) bool { return to == nil || bytes.Compare(key, to) < 0 }
