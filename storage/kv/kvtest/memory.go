package kvtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
)

// OpenSnapshot is an engine for tests: a map in memory, written whole to one file of a disk.FS (by Replace) at each
// commit, so that a database can live on a crashable or failing disk. Slow by design, correct by its size.
func OpenSnapshot(fsys disk.FS, path string) (kv.DB, error) {
	data, err := fsys.ReadFile(path, 1<<30)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = nil, fsys.Replace(path, nil, 0o600)
	}
	if err != nil {
		return nil, err
	}
	db := &snapshotDB{fsys: fsys, path: path, now: map[string]string{}}
	for len(data) > 0 {
		var pair [2]string
		for i := range pair {
			n, w := binary.Uvarint(data)
			if w <= 0 || n > uint64(len(data)-w) {
				return nil, fmt.Errorf("%s: damaged", path)
			}
			pair[i], data = string(data[w:w+int(n)]), data[w+int(n):]
		}
		db.now[pair[0]] = pair[1]
	}
	return db, nil
}

type snapshotDB struct {
	fsys  disk.FS
	path  string
	write sync.Mutex // held by Update
	mu    sync.RWMutex
	now   map[string]string // never changed, only replaced
	users sync.WaitGroup
	ended bool
}

// begin returns the pairs of this moment, which Close waits for until users.Done.
func (db *snapshotDB) begin() (map[string]string, error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.ended {
		return nil, kv.ErrClosed
	}
	db.users.Add(1)
	return db.now, nil
}

func (db *snapshotDB) View(fn func(kv.Reader) error) error {
	pairs, err := db.begin()
	if err != nil {
		return err
	}
	defer db.users.Done()
	return fn(snapshotTx(pairs))
}

func (db *snapshotDB) Update(fn func(kv.Tx) error) error {
	db.write.Lock()
	defer db.write.Unlock()
	pairs, err := db.begin()
	if err != nil {
		return err
	}
	defer db.users.Done()
	changed := maps.Clone(pairs)
	if err := fn(snapshotTx(changed)); err != nil {
		return err
	}
	var data []byte
	for k, v := range changed {
		data = binary.AppendUvarint(data, uint64(len(k)))
		data = append(data, k...)
		data = binary.AppendUvarint(data, uint64(len(v)))
		data = append(data, v...)
	}
	if err := db.fsys.Replace(db.path, data, 0o600); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.now = changed
	return nil
}

func (db *snapshotDB) Close() error {
	db.mu.Lock()
	db.ended = true
	db.mu.Unlock()
	db.users.Wait()
	return nil
}

type snapshotTx map[string]string

func (t snapshotTx) Get(key []byte) []byte {
	if v, ok := t[string(key)]; ok {
		return []byte(v)
	}
	return nil
}

func (t snapshotTx) keys(from, to []byte) []string {
	var keys []string
	for k := range t {
		if k >= string(from) && (to == nil || k < string(to)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (t snapshotTx) Scan(from, to []byte, fn func(key, value []byte) bool) {
	for _, k := range t.keys(from, to) {
		if !fn([]byte(k), []byte(t[k])) {
			return
		}
	}
}

func (t snapshotTx) Last(from, to []byte) (key, value []byte) {
	keys := t.keys(from, to)
	if len(keys) == 0 {
		return nil, nil
	}
	last := keys[len(keys)-1]
	return []byte(last), []byte(t[last])
}

func (t snapshotTx) Put(key, value []byte) error {
	if len(key) == 0 {
		return errors.New("kv: empty key")
	}
	t[string(key)] = string(value)
	return nil
}

func (t snapshotTx) Delete(key []byte) error {
	delete(t, string(key))
	return nil
}
