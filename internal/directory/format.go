package directory

import (
	"encoding/binary"
	"errors"
	"fmt"

	"mailsrv/storage/kv"
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
	return kv.AppendText(b, r.hash)
}

func decodeRecord(address string, value []byte) (record, error) {
	d := decoder{kv.Value{Rest: value}}
	flags := d.Byte(flagsKnown)
	r := record{Account: Account{
		Address:       address,
		Legacy:        flags&flagLegacy != 0,
		Disabled:      flags&flagDisabled != 0,
		QuotaBytes:    int64(d.Below(1 << 63)),
		QuotaMessages: int64(d.Below(1 << 63)),
	}}
	r.hash = d.Text()
	return r, d.end(prefixAccount + address)
}

func encodeTargets(targets []string) []byte {
	b := binary.AppendUvarint(nil, uint64(len(targets)))
	for _, t := range targets {
		b = kv.AppendText(b, t)
	}
	return b
}

func decodeTargets(address string, value []byte) ([]string, error) {
	d := decoder{kv.Value{Rest: value}}
	var targets []string
	for range min(d.Count(1), maxTargets) { // of more, end finds the rest
		targets = append(targets, d.Text())
	}
	return targets, d.end(prefixAlias + address)
}

// decoder takes a value apart; the first failure sticks and end reports it.
type decoder struct{ kv.Value }

func (d *decoder) end(key string) error {
	if !d.Whole() {
		return fmt.Errorf("system.db key %q: %w", key, ErrDamaged)
	}
	return nil
}
