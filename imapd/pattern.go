package imapd

import "strings"

// listPattern is a LIST pattern: "*" stands for any text, "%" for any text without the delimiter (RFC 9051 section 6.3.9).
// Patterns and names are compared in the form the client sees, so a pattern is never invalid: at worst nothing matches.
type listPattern struct {
	text    string // runs of wildcards reduced to one
	literal int    // octets in text that are no wildcards
	utf8    bool   // text is UTF-8 whatever was enabled: see rawUTF8
}

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
	return listPattern{b.String(), literal, rawUTF8(name)}
}

func isListWildcard(c byte) bool { return c == '*' || c == '%' }

// endsWithPercent reports whether LSUB is to stop at levels of hierarchy (RFC 3501 section 6.3.9).
func (p listPattern) endsWithPercent() bool { return strings.HasSuffix(p.text, "%") }

// match reports whether the name matches. INBOX as first level matches in any case.
//
// It follows all ways through the pattern at once: at most len(name) × len(pattern) steps, and since a name cannot
// match more literal octets than it has, the pattern's part is bounded by the name. "*%*%*%a" costs nothing extra.
func (p listPattern) match(name string) bool {
	if p.literal > len(name) {
		return false
	}
	fold := 0
	if underInbox(name) {
		fold = len("INBOX")
	}
	// at[j]: text[:j] matches what was read of the name.
	at := make([]bool, len(p.text)+1)
	next := make([]bool, len(p.text)+1)
	at[0] = true
	p.skipWildcards(at)
	for i := 0; i < len(name); i++ {
		clear(next)
		any := false
		for j := 0; j < len(p.text); j++ {
			if !at[j] {
				continue
			}
			switch w := p.text[j]; {
			case w == '*' || w == '%' && name[i] != delimiter:
				next[j], any = true, true
			case w == '%':
			case w == name[i] || i < fold && lower(w) == lower(name[i]):
				next[j+1], any = true, true
			}
		}
		if !any {
			return false
		}
		p.skipWildcards(next)
		at, next = next, at
	}
	return at[len(p.text)]
}

// skipWildcards lets wildcards stand for nothing.
func (p listPattern) skipWildcards(at []bool) {
	for j := 0; j < len(p.text); j++ {
		if at[j] && isListWildcard(p.text[j]) {
			at[j+1] = true
		}
	}
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
