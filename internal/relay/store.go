package relay

import (
	"mailsrv/storage/kv"
)

// Store keeps small records by key over a restart: MTA-STS policies ("sts/" and the domain) and the TLS counters
// ("tlsrpt"). Losing it costs a fetch and a report.
type Store interface {
	Load(key string) ([]byte, error) // nil, nil if there is none
	Save(key string, value []byte) error
	Delete(key string) error
}

// KVStore keeps the records in a database (system.db) below a prefix of keys that nobody else uses.
func KVStore(db kv.DB, prefix string) Store { return kvStore{db, prefix} }

type kvStore struct {
	db     kv.DB
	prefix string
}

func (s kvStore) Load(key string) (value []byte, err error) {
	err = s.db.View(func(r kv.Reader) error {
		if v := r.Get([]byte(s.prefix + key)); v != nil {
			value = append([]byte{}, v...)
		}
		return nil
	})
	return value, err
}

func (s kvStore) Save(key string, value []byte) error {
	return s.db.Update(func(tx kv.Tx) error { return tx.Put([]byte(s.prefix+key), value) })
}

func (s kvStore) Delete(key string) error {
	return s.db.Update(func(tx kv.Tx) error { return tx.Delete([]byte(s.prefix + key)) })
}

// noStore forgets.
type noStore struct{}

func (noStore) Load(string) ([]byte, error) { return nil, nil }
func (noStore) Save(string, []byte) error   { return nil }
func (noStore) Delete(string) error         { return nil }
