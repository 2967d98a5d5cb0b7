package kv

import "encoding/binary"

// Values are made of octets, varints (encoding/binary's: Uvarint, and Varint with a sign) and strings, which are a uvarint
// of their length and their bytes.

// Value takes a stored value apart from the front: Value{Rest: v}. The first thing that is wrong sticks in Bad, and everything
// read from then on is zero, so that a reader asks once, with Whole at the end. Nothing it returns is larger than
// the value itself.
type Value struct {
	Rest []byte
	Bad  bool
}

// Byte reads an octet that has no bits beyond the mask.
func (v *Value) Byte(mask byte) byte {
	if v.Bad || len(v.Rest) == 0 || v.Rest[0]&^mask != 0 {
		v.Bad = true
		return 0
	}
	c := v.Rest[0]
	v.Rest = v.Rest[1:]
	return c
}

// Uint reads a uvarint.
func (v *Value) Uint() uint64 {
	n, used := binary.Uvarint(v.Rest)
	v.take(used)
	if v.Bad {
		return 0
	}
	return n
}

// Below reads a uvarint that is less than limit.
func (v *Value) Below(limit uint64) uint64 {
	n := v.Uint()
	if n >= limit {
		v.Bad = true
		return 0
	}
	return n
}

// Int reads a varint.
func (v *Value) Int() int64 {
	n, used := binary.Varint(v.Rest)
	v.take(used)
	if v.Bad {
		return 0
	}
	return n
}

// take passes over a varint of so many octets; binary has none or a negative number for one that is cut or too large.
func (v *Value) take(used int) {
	if v.Bad || used <= 0 {
		v.Bad = true
		return
	}
	v.Rest = v.Rest[used:]
}

// Text reads a string.
func (v *Value) Text() string {
	n := v.Count(1)
	s := string(v.Rest[:n])
	v.Rest = v.Rest[n:]
	return s
}

// Count reads the number of things that follow, each of at least size octets: damage must not make anyone allocate.
func (v *Value) Count(size int) int {
	n := v.Uint()
	if n > uint64(len(v.Rest)/size) {
		v.Bad = true
		return 0
	}
	return int(n)
}

// Whole reports whether the value was read to its end, and nothing was wrong.
func (v *Value) Whole() bool { return !v.Bad && len(v.Rest) == 0 }

// AppendText appends a string as Text reads it.
func AppendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
