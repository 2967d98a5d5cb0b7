package imapd

import "strings"

// listPattern is a LIST pattern: "*" stands for any text, "%" for any text without the delimiter (RFC 9051 section 6.3.9).
// Patterns and names are compared in the form the client sees, so a pattern is never invalid: at worst nothing matches.
type listPattern struct {
	text    string // runs of wildcards reduced to one
	literal int    // octets in text that are no wildcards
	utf8    bool   // text is UTF-8 whatever was enabled: see rawUTF8

	octet      map[byte]bits // where in text an octet stands that is no wildcard
	star, wild bits          // where "*" stands; where either wildcard
}

// bits is a set of places in a pattern.
type bits []uint64

func newBits(n int) bits      { return make(bits, n/64+1) }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) has(i int) bool { return b[i/64]>>(i%64)&1 != 0 }

// newListPattern joins a reference and a mailbox name with wildcards: our names are not rooted, so the canonical form is
// the one behind the other. A name that begins with the delimiter stands for itself, as in RFC 9051's "~smith/Mail/" with
// "/usr/doc/foo"; no mailbox of ours is called so.
func newListPattern(reference, name string) listPattern {
	if !strings.HasPrefix(name, string(delimiter)) {
		name = reference + name
	}
	var b strings.Builder
	literal := 0
	for i := 0; i < len(name); {
		if !isListWildcard(name[i]) {
			b.WriteByte(name[i])
			literal++
			i++
			continue
		}
		// "*%", "%*" and "**" say what "*" says.
		wild := byte('%')
		for ; i < len(name) && isListWildcard(name[i]); i++ {
			if name[i] == '*' {
				wild = '*'
			}
		}
		b.WriteByte(wild)
	}
	p := listPattern{text: b.String(), literal: literal, utf8: rawUTF8(name)}
	p.prepare()
	return p
}

// prepare finds where each octet of the text stands.
func (p *listPattern) prepare() {
	n := len(p.text)
	p.octet, p.star, p.wild = map[byte]bits{}, newBits(n), newBits(n)
	for i := range n {
		switch c := p.text[i]; {
		case isListWildcard(c):
			p.wild.set(i)
			if c == '*' {
				p.star.set(i)
			}
		default:
			if p.octet[c] == nil {
				p.octet[c] = newBits(n)
			}
			p.octet[c].set(i)
		}
	}
}

func isListWildcard(c byte) bool { return c == '*' || c == '%' }

// endsWithPercent reports whether LSUB is to stop at levels of hierarchy (RFC 3501 section 6.3.9).
func (p listPattern) endsWithPercent() bool { return strings.HasSuffix(p.text, "%") }

// match reports whether the name matches. INBOX as first level matches in any case.
//
// It follows all ways through the pattern at once, 64 places of it in one step, and since a name cannot match more literal
// octets than it has, the pattern's part is bounded by the name: a hundred patterns against twenty thousand long
// names take seconds, not an hour.
func (p listPattern) match(name string) bool {
	if p.literal > len(name) {
		return false
	}
	fold := 0
	if underInbox(name) {
		fold = len("INBOX")
	}
	at := newBits(len(p.text)) // has j: text[:j] matches what was read of the name
	at.set(0)
	p.skipWildcards(at)
	for i := 0; i < len(name); i++ {
		c := name[i]
		here, other := p.octet[c], bits(nil)
		if i < fold {
			other = p.octet[otherCase(c)]
		}
		stay := p.wild
		if c == delimiter {
			stay = p.star
		}
		if !at.advance(here, other, stay) {
			return false
		}
		p.skipWildcards(at)
	}
	return at.has(len(p.text))
}

// advance moves the places that are in here or other one on and keeps those that are in stay; false if none are left.
func (b bits) advance(here, other, stay bits) bool {
	var carry, any uint64
	for w, v := range b {
		var step uint64
		if here != nil {
			step = v & here[w]
		}
		if other != nil {
			step |= v & other[w]
		}
		b[w] = step<<1 | carry | v&stay[w]
		carry = step >> 63
		any |= b[w]
	}
	return any != 0
}

// skipWildcards lets wildcards stand for nothing. No two of them stand side by side.
func (p listPattern) skipWildcards(at bits) {
	var carry uint64
	for w, v := range at {
		skip := v & p.wild[w]
		at[w] = v | skip<<1 | carry
		carry = skip >> 63
	}
}

func otherCase(c byte) byte {
	if l := lower(c); l != c {
		return l
	}
	if 'a' <= c && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
