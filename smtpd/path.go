package smtpd

import (
	"strings"
	"unicode/utf8"
)

// Bounds on an address. RFC 5321 section 4.5.3.1 has 64, 255 and 256 as what everybody must take; long local parts occur
// (VERP), long domains do not.
const (
	maxLocal  = 255
	maxDomain = 255
	maxLabel  = 63
)

// parsePath reads "<" [A-d-l ":"] Mailbox ">" (RFC 5321 section 4.1.2, with RFC 6531 section 3.3's UTF-8) and returns the
// mailbox and what follows. "<>" is the empty address. A source route is read and forgotten (appendix C). A quoted
// local part that needs no quotes loses them, so that one mailbox has one spelling.
//
// bareLocal allows an address without a domain: only <postmaster> may come so, which is for the caller to see.
func parsePath(s string, bareLocal bool) (address, rest string, good bool) {
	if strings.HasPrefix(s, "<>") {
		return "", s[2:], true
	}
	s, good = strings.CutPrefix(s, "<")
	if !good {
		return "", "", false
	}
	if strings.HasPrefix(s, "@") {
		route, after, found := strings.Cut(s, ":")
		if !found || !goodRoute(route) {
			return "", "", false
		}
		s = after
	}
	local, s, good := localPart(s)
	if !good || len(local) > maxLocal {
		return "", "", false
	}
	if rest, good := strings.CutPrefix(s, ">"); good && bareLocal {
		return local, rest, true
	}
	s, good = strings.CutPrefix(s, "@")
	if !good {
		return "", "", false
	}
	end := strings.IndexByte(s, '>')
	if end < 0 || !goodDomain(s[:end]) {
		return "", "", false
	}
	return local + "@" + s[:end], s[end+1:], true
}

// localPart reads a Dot-string or a Quoted-string.
func localPart(s string) (local, rest string, good bool) {
	if strings.HasPrefix(s, `"`) {
		return quotedLocal(s[1:])
	}
	// QUIRK: dots may lead, trail and repeat; some Japanese providers gave out such addresses.
	n := 0
	for n < len(s) && (isAtext(s[n]) || s[n] == '.') {
		n++
	}
	return s[:n], s[n:], n > 0 && utf8.ValidString(s[:n])
}

// quotedLocal reads after the opening quote.
func quotedLocal(s string) (local, rest string, good bool) {
	var text strings.Builder
	plain := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			t := text.String()
			if t == "" || !utf8.ValidString(t) {
				return "", "", false
			}
			if !plain {
				t = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(t) + `"`
			}
			return t, s[i+1:], true
		case c == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return "", "", false
			}
			c = s[i]
		case c < ' ' || c == 0x7f:
			return "", "", false
		}
		plain = plain && (isAtext(c) || c == '.')
		text.WriteByte(c)
	}
	return "", "", false
}

// goodRoute checks "@a,@b", which nobody follows any more.
func goodRoute(route string) bool {
	for at := range strings.SplitSeq(route, ",") {
		name, found := strings.CutPrefix(at, "@")
		if !found || !goodDomain(name) {
			return false
		}
	}
	return true
}

// goodDomain checks a Domain or an address-literal by its letters; whether it exists is another question.
func goodDomain(s string) bool {
	if len(s) > maxDomain || !utf8.ValidString(s) {
		return false
	}
	if inside, found := strings.CutPrefix(s, "["); found {
		inside, found = strings.CutSuffix(inside, "]")
		return found && inside != "" && !strings.ContainsFunc(inside, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || strings.ContainsRune(`[\]<>"`, r)
		})
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			// QUIRK: underscores are no host names, and in use.
			if c := label[i]; c < 0x80 && c != '-' && c != '_' && !isAlnum(c) {
				return false
			}
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isAtext is RFC 5322 section 3.2.3's atext and RFC 6532's UTF-8.
func isAtext(c byte) bool {
	return c >= 0x80 || isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// isASCII reports whether s can be said without SMTPUTF8.
func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
