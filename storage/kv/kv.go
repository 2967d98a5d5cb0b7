// Package kv is the seam between the mail rules above and the engine below: an ordered map of byte strings with
// durable transactions. Today the engine is bbolt, synced at every commit; a journal over it comes behind the same
// interface. [Conformance] (package kvtest) is what any engine must pass.
package kv

import "errors"

// ErrClosed is returned by every call after Close.
var ErrClosed = errors.New("kv: database is closed")

// DB is one database file. Any number of readers run beside one writer.
type DB interface {
	// View runs fn on a consistent snapshot. Keys and values are valid only inside fn.
	View(fn func(Reader) error) error
	// Update runs fn with the only write transaction. When it returns nil, all of fn's writes are durable (synced);
	// when it returns an error, none of them happened. fn must not call View or Update.
	Update(fn func(Tx) error) error
	// Close waits for running transactions.
	Close() error
}

// Reader reads in key order (bytewise). A nil value is "not there"; a value of length zero is there.
type Reader interface {
	// Get returns the value, or nil if the key is absent. The slice must not be changed, nor kept after the
	// transaction.
	Get(key []byte) []byte
	// Scan calls fn for each pair with from <= key < to in ascending order until fn returns false; to == nil means to
	// the end. fn must not write to the range being scanned.
	Scan(from, to []byte, fn func(key, value []byte) bool)
	// Last returns the greatest pair with from <= key < to, or nil, nil.
	Last(from, to []byte) (key, value []byte)
}

// Tx is a Reader that sees its own writes. The engine copies keys and values, so callers may reuse their buffers.
type Tx interface {
	Reader
	Put(key, value []byte) error
	Delete(key []byte) error
}
