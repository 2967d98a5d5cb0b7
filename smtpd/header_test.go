package smtpd

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

// However the octets of a header come, its fields are what they are, and lie in the one text that it keeps.
func TestHeaderGrows(t *testing.T) {
	var text strings.Builder
	var want []string
	for i := range 300 {
		f := fmt.Sprintf("X-%d: %s\r\n", i, strings.Repeat("x", i))
		if i%3 == 0 {
			f += "\tfolded\r\n"
		}
		want = append(want, f)
		text.WriteString(f)
	}
	whole := []byte(text.String() + "\r\nbody")
	for _, step := range []int{1, 7, 100, 5000, len(whole)} {
		var h header
		done := false
		for p := whole; len(p) > 0; p = p[min(step, len(p)):] {
			done = h.add(p[:min(step, len(p))]) || done
			if done {
				break
			}
		}
		if !done || len(h.fields) != len(want) {
			t.Fatalf("by %d: %d fields, whole %v", step, len(h.fields), done)
		}
		begin := uintptr(unsafe.Pointer(unsafe.SliceData(h.text)))
		for i, f := range h.fields {
			at := uintptr(unsafe.Pointer(unsafe.SliceData(f.raw)))
			if !bytes.Equal(f.raw, []byte(want[i])) || at < begin || at >= begin+uintptr(cap(h.text)) {
				t.Errorf("by %d: field %d is %.30q, in the text: %v", step, i, f.raw, at >= begin && at < begin+uintptr(cap(h.text)))
			}
		}
	}
}
