package imapd

import (
	"strings"
	"testing"
	"testing/iotest"
)

func TestNeedle(t *testing.T) {
	for _, c := range []struct {
		needle, text string
		want         bool
	}{
		{"", "", true},
		{"x", "", false},
		{"Hello", "say HELLO!", true},
		{"straße", "STRASSE", true},
		{"é", "E\u0301", true}, // composed and not
		{"e\u0301", "caf\u00e9", true},
		{"e", "É", true}, // as RFC 5051 has it
		{"É", "e", false},
		{"ПРИВЕТ", "привет", true},
		{"ﬁ", "FI", true},
		{"日本", "これは日本語", true},
		{"\xff", "a\xffb", true}, // what is no UTF-8 is itself
	} {
		n := newNeedle(c.needle)
		if got := n.in(c.text); got != c.want {
			t.Errorf("%q in %q: %v", c.needle, c.text, got)
		}
		got, err := n.inReader(iotest.OneByteReader(strings.NewReader(c.text)))
		if err != nil || got != c.want {
			t.Errorf("%q in a stream of %q: %v, %v", c.needle, c.text, got, err)
		}
	}
}

// A text is found wherever the chunks' borders fall.
func TestNeedleAcrossChunks(t *testing.T) {
	for _, text := range []string{"needle", "näe\u0301dle", "日本語"} {
		n := newNeedle(text)
		for at := searchChunk - 24; at <= searchChunk+2; at++ {
			hay := strings.Repeat("x", at) + strings.ToUpper(text) + strings.Repeat("y", 50)
			if got, err := n.inReader(strings.NewReader(hay)); !got || err != nil {
				t.Errorf("%q at %d: %v, %v", text, at, got, err)
			}
			if got, _ := n.inReader(strings.NewReader(hay[:at+3])); got {
				t.Errorf("%q cut off at %d was found", text, at)
			}
		}
	}
	// Nothing but continuation bytes: no boundary anywhere, and still it ends.
	if got, err := newNeedle("z").inReader(strings.NewReader(strings.Repeat("\x80", 3*searchChunk) + "z")); !got || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}
