package message

import "strings"

// address is an entry of an ENVELOPE's address list. A group is an address without host whose mailbox is the group's
// name, its members, and an address with nothing at all (RFC 9051 section 7.5.2).
type address struct {
	name, route, mailbox, host nstring
}

// What stands for the part of an address that is missing, as in Dovecot: an address without host would be a group.
const (
	missingMailbox = "MISSING_MAILBOX"
	missingDomain  = "MISSING_DOMAIN"
)

func some(s string) nstring { return nstring{s, true} }

// parseAddresses reads an address list (RFC 5322 section 3.4 with the obsolete forms of section 4.4) and calls fn for each
// entry until it returns false. It takes whatever people send: ";" between addresses, names with unquoted specials, text
// that is no address at all.
func parseAddresses(v string, fn func(address) bool) {
	p := addressParser{s: v, fn: fn}
	for !p.stopped && p.next() {
		p.entry()
	}
	if p.group {
		p.emit(address{})
	}
}

type addressParser struct {
	s       string
	fn      func(address) bool
	group   bool // inside one
	stopped bool
	words   []word // before an entry's "<", ":" or end
}

// word is an atom, quoted string, comment or "@".
type word struct {
	kind   byte // 'a' atom (with dots and domain literals), 'q' quoted, 'c' comment, '@'
	text   string
	spaced bool // white space or a comment before it
}

func (p *addressParser) emit(a address) {
	if !p.stopped && !p.fn(a) {
		p.stopped = true
	}
}

// next skips to an entry's first byte, past empty entries and the ends of groups.
func (p *addressParser) next() bool {
	for {
		p.s = strings.TrimLeft(p.s, " \t\r\n,")
		if !strings.HasPrefix(p.s, ";") {
			return p.s != ""
		}
		p.s = p.s[1:]
		if p.group {
			p.group = false
			p.emit(address{})
		}
	}
}

// entry reads one address, or the beginning of a group.
func (p *addressParser) entry() {
	p.words = p.words[:0]
	spaced := false
	for p.s != "" {
		switch c := p.s[0]; c {
		case ' ', '\t', '\r', '\n':
			p.s = p.s[1:]
			spaced = true
			continue
		case ',', ';':
			p.bare(p.words)
			return
		case '<':
			p.s = p.s[1:]
			p.angle()
			return
		case ':':
			if !p.group && !hasAt(p.words) {
				p.s = p.s[1:]
				p.group = true
				p.emit(address{mailbox: some(phrase(p.words))})
				return
			}
		}
		w := p.word()
		w.spaced = spaced
		spaced = w.kind == 'c'
		p.words = append(p.words, w)
	}
	p.bare(p.words)
}

// word takes one word; the byte it begins with is neither white space nor a separator.
func (p *addressParser) word() word {
	var w word
	switch p.s[0] {
	case '"':
		w.kind = 'q'
		w.text, p.s = cutQuoted(p.s)
	case '(':
		w.kind = 'c'
		w.text, p.s = cutComment(p.s)
	case '@':
		w.kind, w.text, p.s = '@', "@", p.s[1:]
	default:
		w.kind = 'a'
		n := atomLen(p.s)
		w.text, p.s = p.s[:n], p.s[n:]
	}
	return w
}

// atomLen is the length of the atom that s begins with, at least 1. Domain literals and encoded words are atoms whatever
// is in them (QUIRK: encoded words with a comma).
func atomLen(s string) int {
	if n := encodedWordLen(s); n > 0 && !strings.ContainsAny(s[:n], " \t\r\n\"<>@") {
		return n
	}
	if s[0] == '[' {
		if n := strings.IndexAny(s[:min(len(s), maxLiteral)], "]<"); n > 0 && s[n] == ']' {
			return n + 1
		}
	}
	if n := strings.IndexAny(s[1:], " \t\r\n,;:<>@\"("); n >= 0 {
		return n + 1
	}
	return len(s)
}

const maxLiteral = 300 // bytes of a domain literal: looking for its end must not take all day

func hasAt(words []word) bool { return indexAt(words) >= 0 }

func indexAt(words []word) int {
	for i, w := range words {
		if w.kind == '@' {
			return i
		}
	}
	return -1
}

// phrase is the words as a display name: comments go, one space stands where there was any.
func phrase(words []word) string {
	var b strings.Builder
	for i, w := range words {
		if w.kind == 'c' {
			continue
		}
		if b.Len() > 0 && (w.spaced || w.kind == 'q' || i > 0 && words[i-1].kind == 'q') {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// lastComment is what stands for a name with old mailers: user@host (Full Name).
func lastComment(words []word) string {
	for i := len(words) - 1; i >= 0; i-- {
		if words[i].kind == 'c' && words[i].text != "" {
			return words[i].text
		}
	}
	return ""
}

func optional(s string) nstring { return nstring{s, s != ""} }

// bare emits what has no angle brackets: usually one address, QUIRK: or several with only spaces between.
func (p *addressParser) bare(words []word) {
	for {
		rest := p.addrSpec(words)
		if !hasAt(rest) || rest[0].kind == '@' {
			return
		}
		words = rest
	}
}

// addrSpec emits the first address in words and returns what is behind it. The local part is what hangs together before
// the "@"; earlier words are a name somebody forgot to set off.
func (p *addressParser) addrSpec(words []word) (rest []word) {
	at := indexAt(words)
	if at < 0 {
		p.noAddress(words)
		return nil
	}
	skipComments := func(i, step int) int {
		for i >= 0 && i < len(words) && words[i].kind == 'c' {
			i += step
		}
		return i
	}
	localEnd, hostBegin := skipComments(at-1, -1)+1, skipComments(at+1, 1)
	begin, end := localEnd, hostBegin
	for begin > 0 && words[begin-1].kind != 'c' && (begin == localEnd || joins(words[begin-1], words[begin])) {
		begin--
	}
	for end < len(words) && words[end].kind == 'a' && (end == hostBegin || joins(words[end-1], words[end])) {
		end++
	}
	after := skipComments(end, 1)
	name := phrase(words[:begin])
	if name == "" {
		name = lastComment(words[:after])
	}
	p.emit(address{
		name:    optional(name),
		mailbox: some(orElse(spec(words[begin:localEnd]), missingMailbox)),
		host:    some(orElse(spec(words[hostBegin:end]), missingDomain)),
	})
	return words[after:]
}

// noAddress emits words without "@": one atom is a mailbox, more are a name.
func (p *addressParser) noAddress(words []word) {
	var only []word
	for _, w := range words {
		if w.kind != 'c' {
			only = append(only, w)
		}
	}
	a := address{mailbox: some(missingMailbox), host: some(missingDomain)}
	switch {
	case len(only) == 0:
		return
	case len(only) == 1 && only[0].kind == 'a':
		a.name, a.mailbox = optional(lastComment(words)), some(only[0].text)
	default:
		a.name = optional(phrase(only))
	}
	p.emit(a)
}

// joins reports whether two words belong to one local part or domain: a dot holds them together, whatever white space is
// there (RFC 5322 section 4.4), or nothing is between them.
func joins(a, b word) bool {
	return a.kind != 'c' && b.kind != 'c' && a.kind != '@' && b.kind != '@' &&
		(!b.spaced || a.kind == 'a' && strings.HasSuffix(a.text, ".") || b.kind == 'a' && strings.HasPrefix(b.text, "."))
}

func orElse(s, missing string) string {
	if s == "" {
		return missing
	}
	return s
}

// angle emits the address after "<": [route] addr-spec ">". What follows the ">" up to the next separator is dropped, if
// it holds no address of its own.
func (p *addressParser) angle() {
	inside := p.s
	if i := closingAngle(p.s); i >= 0 {
		inside, p.s = p.s[:i], p.s[i+1:]
	} else if i := strings.IndexAny(p.s, ",;"); i >= 0 {
		inside, p.s = p.s[:i], p.s[i:]
	} else {
		p.s = ""
	}
	a := address{name: optional(phrase(p.words))}
	a.route, inside = cutRoute(inside)
	a.mailbox, a.host = splitSpec(inside)
	after := p.rest()
	if !a.name.present {
		a.name = optional(lastComment(append(p.words, after...)))
	}
	p.emit(a)
	if hasAt(after) {
		p.bare(after)
	}
}

// closingAngle finds the ">" that ends an angle address, -1 if there is none. Another "<" before it means there is none.
func closingAngle(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			_, rest := cutQuoted(s[i:])
			i = len(s) - len(rest) - 1
		case '\\':
			i++
		case '>':
			return i
		case '<':
			return -1
		}
	}
	return -1
}

// cutRoute takes off RFC 5322's obs-route, "@a,@b:", as "@a,@b".
func cutRoute(s string) (route nstring, rest string) {
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, "@") {
		return nstring{}, s
	}
	hops, rest, ok := strings.Cut(s, ":")
	if !ok {
		return nstring{}, s
	}
	names := strings.FieldsFunc(hops, func(r rune) bool { return strings.ContainsRune("@, \t", r) })
	return some("@" + strings.Join(names, ",@")), rest
}

// splitSpec splits an addr-spec at its last "@".
func splitSpec(s string) (mailbox, host nstring) {
	p := addressParser{s: s}
	at := -1
	var words []word
	spaced := false
	for p.s != "" {
		if strings.ContainsRune(" \t\r\n", rune(p.s[0])) {
			p.s, spaced = p.s[1:], true
			continue
		}
		w := p.word()
		w.spaced = spaced
		if spaced = w.kind == 'c'; spaced {
			continue
		}
		if w.kind == '@' {
			at = len(words)
		}
		words = append(words, w)
	}
	if at < 0 {
		return some(orElse(spec(words), missingMailbox)), some(missingDomain)
	}
	return some(orElse(spec(words[:at]), missingMailbox)), some(orElse(spec(words[at+1:]), missingDomain))
}

// spec puts the words of a local part or domain together; white space that belongs to nothing stays, for the eye.
func spec(words []word) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 && w.spaced && !joins(words[i-1], w) {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// rest takes the words up to the next separator or "<".
func (p *addressParser) rest() []word {
	var words []word
	spaced := false
	for p.s != "" {
		switch p.s[0] {
		case ',', ';', '<':
			return words
		case ' ', '\t', '\r', '\n':
			p.s, spaced = p.s[1:], true
			continue
		}
		w := p.word()
		w.spaced = spaced
		spaced = false
		words = append(words, w)
	}
	return words
}
