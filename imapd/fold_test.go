package imapd

import (
	"bytes"
	"testing"
)

// Folding character by character gives what folding the text gives.
func FuzzFold(f *testing.F) {
	for _, s := range []string{
		"Hello", "SMÖRGÅSBORD straße ΣΊΣΥΦΟΣ ﬁne", "q\u0307\u0323 q\u0323\u0307 \u1e69 s\u0323\u0307", "é\u0323", "한국어 会議 добрый",
		"bad \xff\xc3 utf-8", "\u0344 a\u0345\u0301", "👍🏽 𐐀 \U000e0041", "İstanbul ı ǅ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		whole := bytes.Clone(text)
		if got, want := appendFolded([]byte("x"), text), foldWhole(whole); string(got[1:]) != string(want) {
			t.Fatalf("%q: got %q, want %q", text, got[1:], want)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	text := bytes.Repeat([]byte("see know with an all are of said sound 会議 has 請求書 most добрый number Zürich smörgåsbord\r\n"), 40)
	b.SetBytes(int64(len(text)))
	var out []byte
	for b.Loop() {
		out = appendFolded(out[:0], text)
	}
}
