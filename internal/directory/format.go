package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The directory's part of system.db. Keys are text; uvarint is that of encoding/binary; "str" is a uvarint length and
// that many bytes of UTF-8.
//
//	key                          value
//	"directory/format"           | version uvarint |                        today 1
//	"directory/account/" ADDR    | flags u8 | quota bytes uvarint | quota messages uvarint | hash str |
//	"directory/alias/" ADDR      | count uvarint | target str | target str ... |
//
// ADDR is the canonical address (see Canonical) and is not repeated in the value.
//
//	flags: bit 0 legacy, bit 1 disabled; others are zero
//	hash:  a PHC string ($argon2id$...), or empty: the account has no password and nobody can log in with one
//	target: the local part as it was written (another server may tell A from a), "@", the domain in lower-case A-labels
//
// Version rule: a change to any of this is a new version. A newer version is refused (ErrNewerFormat) before anything is
// read or written; a missing one means that nothing was ever written. A value that does not decode, or that has bytes
// left over, is damage: Open refuses with the key, and changes nothing.
const formatVersion = 1

const (
	prefixAccount = "directory/account/"
	prefixAlias   = "directory/alias/"
	keyFormat     = "directory/format"

	flagLegacy   = 1 << 0
	flagDisabled = 1 << 1
	flagsKnown   = flagLegacy | flagDisabled
)

// Errors of what is stored.
var (
	ErrNewerFormat = errors.New("written by a newer mailsrv")
	ErrDamaged     = errors.New("damaged record")
)

// record is a stored account.
type record struct {
	Account
	hash string
}

func (r record) encode() []byte {
	var flags byte
	if r.Legacy {
		flags |= flagLegacy
	}
	if r.Disabled {
		flags |= flagDisabled
	}
	b := []byte{flags}
	b = binary.AppendUvarint(b, uint64(max(r.QuotaBytes, 0)))
	b = binary.AppendUvarint(b, uint64(max(r.QuotaMessages, 0)))
	return appendString(b, r.hash)
}

func decodeRecord(address string, value []byte) (record, error) {
	d := decoder{b: value}
	flags := d.byte()
	r := record{Account: Account{
		Address:       address,
		Legacy:        flags&flagLegacy != 0,
		Disabled:      flags&flagDisabled != 0,
		QuotaBytes:    d.int(),
		QuotaMessages: d.int(),
	}}
	r.hash = d.string()
	if flags&^flagsKnown != 0 {
		d.failed = true
	}
	return r, d.end(prefixAccount + address)
}

func encodeTargets(targets []string) []byte {
	b := binary.AppendUvarint(nil, uint64(len(targets)))
	for _, t := range targets {
		b = appendString(b, t)
	}
	return b
}

func decodeTargets(address string, value []byte) ([]string, error) {
	d := decoder{b: value}
	n := d.uvarint()
	if n > maxTargets {
		d.failed = true
	}
	var targets []string
	for i := uint64(0); i < n && !d.failed; i++ {
		targets = append(targets, d.string())
	}
	return targets, d.end(prefixAlias + address)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder takes a value apart; the first failure sticks and end reports it.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.failed = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v := d.uvarint()
	if v > 1<<63-1 {
		d.failed = true
		return 0
	}
	return int64(v)
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.failed = true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) end(key string) error {
	if d.failed || len(d.b) > 0 {
		return fmt.Errorf("system.db key %q: %w", key, ErrDamaged)
	}
	return nil
}
