package directory

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"mailsrv/storage/kv"
)

// memDB is a kv.DB in memory; fail makes the next commits fail.
type memDB struct {
	mu   sync.RWMutex
	data map[string][]byte
	fail bool
}

var errDisk = errors.New("disk failed")

func newMemDB() *memDB { return &memDB{data: make(map[string][]byte)} }

func (m *memDB) View(fn func(kv.Reader) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return fn(memTx{m.data})
}

func (m *memDB) Update(fn func(kv.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(m.data)
	if err := fn(memTx{next}); err != nil {
		return err
	}
	if m.fail {
		return errDisk
	}
	m.data = next
	return nil
}

func (m *memDB) Close() error { return nil }

type memTx struct{ data map[string][]byte }

func (t memTx) Get(key []byte) []byte { return t.data[string(key)] }

func (t memTx) Scan(from, to []byte, fn func(key, value []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(t.data)) {
		if k >= string(from) && (to == nil || k < string(to)) && !fn([]byte(k), t.data[k]) {
			return
		}
	}
}

func (t memTx) Last(from, to []byte) (key, value []byte) {
	t.Scan(from, to, func(k, v []byte) bool { key, value = k, v; return true })
	return key, value
}

func (t memTx) Put(key, value []byte) error {
	t.data[string(key)] = slices.Clone(value)
	return nil
}

func (t memTx) Delete(key []byte) error {
	delete(t.data, string(key))
	return nil
}
