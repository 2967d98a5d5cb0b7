package imapd

import (
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// folded is what a character becomes when texts are compared: decomposed (NFKD), then case-folded.
type folded struct {
	text string
	// A character that begins with a mark behind one that ends with one: such marks have an order of their own.
	beginsWithMark, endsWithMark bool
}

// foldPages holds the folded forms of 256 characters each, up to U+1FFFF, made when the first of them is met: normalizing
// text as a whole takes five times as long.
var foldPages [0x200]atomic.Pointer[[256]folded]

// appendFolded appends text in the form in which texts are compared.
func appendFolded(out, text []byte) []byte {
	begun, mark := len(out), false
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			out = append(out, lower(c))
			mark = false
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		f := foldedRune(r)
		if r == utf8.RuneError && n == 1 || mark && f.beginsWithMark {
			return append(out[:begun], foldWhole(text)...)
		}
		out = append(out, f.text...)
		mark = f.endsWithMark
		i += n
	}
	return out
}

// foldWhole is appendFolded for text that cannot be taken character by character.
func foldWhole(text []byte) []byte { return cases.Fold().Bytes(norm.NFKD.Bytes(text)) }

func foldedRune(r rune) folded {
	page := int(r >> 8)
	if page >= len(foldPages) {
		return foldRune(r)
	}
	p := foldPages[page].Load()
	if p == nil {
		p = new([256]folded)
		for i := range p {
			p[i] = foldRune(rune(page<<8 | i))
		}
		foldPages[page].Store(p)
	}
	return p[r&0xff]
}

func foldRune(r rune) folded {
	whole := norm.NFKD.AppendString(nil, string(r))
	first, _ := utf8.DecodeRune(whole)
	last, _ := utf8.DecodeLastRune(whole)
	isMark := func(r rune) bool { return norm.NFKD.PropertiesString(string(r)).CCC() != 0 }
	return folded{string(cases.Fold().Bytes(whole)), isMark(first), isMark(last)}
}
