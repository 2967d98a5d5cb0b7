package kv

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

func TestValue(t *testing.T) {
	whole := []byte{5}
	whole = binary.AppendUvarint(whole, math.MaxUint64)
	whole = binary.AppendVarint(whole, math.MinInt64)
	whole = AppendText(whole, "text")
	whole = AppendText(whole, "")
	read := func(v *Value) (byte, uint64, int64, string, string) {
		return v.Byte(7), v.Uint(), v.Int(), v.Text(), v.Text()
	}
	v := &Value{Rest: whole}
	if b, u, i, s, empty := read(v); b != 5 || u != math.MaxUint64 || i != math.MinInt64 || s != "text" || empty != "" || !v.Whole() {
		t.Error(b, u, i, s, empty, v)
	}
	for n := range whole { // cut anywhere, and with something behind
		v := &Value{Rest: whole[:n]}
		if read(v); v.Whole() {
			t.Errorf("%d of %d octets are whole", n, len(whole))
		}
	}
	v = &Value{Rest: append(bytes.Clone(whole), 0)}
	if read(v); v.Bad || v.Whole() {
		t.Error("an octet too many:", v)
	}
	overlong := bytes.Repeat([]byte{0xff}, 11)
	for name, wrong := range map[string]func(v *Value){
		"mask":            func(v *Value) { v.Byte(0x7f) },
		"uvarint":         func(v *Value) { v.Uint() },
		"varint":          func(v *Value) { v.Int() },
		"limit":           func(v *Value) { v.Rest = []byte{7, 1}; v.Below(7) },
		"text too long":   func(v *Value) { v.Rest = []byte{3, 'a', 'b'}; v.Text() },
		"length overflow": func(v *Value) { v.Rest = AppendText(binary.AppendUvarint(nil, math.MaxUint64), "x"); v.Text() },
		"count":           func(v *Value) { v.Rest = []byte{2, 1, 1, 1}; v.Count(2) },
	} {
		v := &Value{Rest: overlong}
		wrong(v)
		if !v.Bad {
			t.Errorf("%s: not noticed", name)
		}
		v.Rest = whole // once bad, always
		if b, u, i, s, _ := read(v); b != 0 || u != 0 || i != 0 || s != "" || v.Whole() {
			t.Errorf("%s: reading goes on: %v", name, v)
		}
	}
}
