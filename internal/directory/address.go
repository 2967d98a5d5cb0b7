package directory

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// Limits of RFC 5321 section 4.5.3.1, in octets. A path is 256 with its angle brackets; a domain in A-labels has to fit
// into DNS (RFC 1035 section 2.3.4, in text form without the final dot).
const (
	maxLocal   = 64
	maxDomain  = 253
	maxAddress = 254
	maxLabel   = 63
)

// address is a parsed address: what was written, and what it is known by.
type address struct {
	written string // local part as it came, quotes kept: what another server must get (RFC 5321 section 2.4)
	local   string // canonical; quoted only if it has to be
	domain  string // lower-case A-labels; "" only for a bare postmaster
}

// canonical is how the address is known here.
func (a address) canonical() string {
	if a.domain == "" {
		return a.local
	}
	return a.local + "@" + a.domain
}

// elsewhere is how the address is written for another server: its local part is not ours to change.
func (a address) elsewhere() string { return a.written + "@" + a.domain }

// Canonical splits and normalises an address: the domain in lower-case A-labels (IDNA, UTS 46), the local part in
// Unicode NFC and lower case (local parts are matched without case here; RFC 5321 section 2.4 leaves it to us), without
// quotes unless it needs them. "postmaster" alone stays as it is: the Directory's methods take it for the postmaster at
// the first domain (RFC 5321 section 4.5.1). ErrBadAddress says why.
func Canonical(text string) (string, error) {
	a, err := parseAddress(text)
	if err != nil {
		return "", err
	}
	return a.canonical(), nil
}

// CanonicalDomain is Canonical for a domain name alone.
func CanonicalDomain(name string) (string, error) {
	d, why := canonicalDomain(name)
	if why != "" {
		return "", fmt.Errorf("%w: %s", ErrBadAddress, why)
	}
	return d, nil
}

// SplitAddress cuts a canonical address into local part and domain.
func SplitAddress(canonical string) (local, domain string) {
	i := strings.LastIndexByte(canonical, '@')
	if i < 0 {
		return canonical, ""
	}
	return canonical[:i], canonical[i+1:]
}

func parseAddress(text string) (address, error) {
	bad := func(why string) (address, error) {
		return address{}, fmt.Errorf("%w %q: %s", ErrBadAddress, clip(text), why)
	}
	switch {
	case text == "":
		return bad("it is empty")
	case len(text) > 4*maxAddress: // a domain in U-labels may be longer than in A-labels, but not for ever
		return bad("it is too long")
	case !utf8.ValidString(text):
		return bad("it is not UTF-8")
	case strings.EqualFold(text, "postmaster"):
		return address{written: text, local: "postmaster"}, nil
	}
	written, domain, why := cutLocal(text)
	if why != "" {
		return bad(why)
	}
	local, why := canonicalLocal(written)
	if why != "" {
		return bad(why)
	}
	if domain, why = canonicalDomain(domain); why != "" {
		return bad(why)
	}
	a := address{written: written, local: local, domain: domain}
	if len(a.canonical()) > maxAddress || len(a.elsewhere()) > maxAddress {
		return bad(fmt.Sprintf("it is longer than %d octets", maxAddress))
	}
	return a, nil
}

// cutLocal finds the @ that ends the local part: the first one outside a quoted string.
func cutLocal(text string) (local, domain, why string) {
	end := strings.IndexByte(text, '@')
	if strings.HasPrefix(text, `"`) {
		end = 1
		for end < len(text) && text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		end++ // the closing quote
		if end > len(text) {
			return "", "", "its quoted local part does not end"
		}
		if end == len(text) || text[end] != '@' {
			return "", "", "after the quoted local part there has to be @ and a domain"
		}
	}
	switch {
	case end < 0:
		return "", "", "it has no @ and domain"
	case end == 0:
		return "", "", "it has nothing before the @"
	}
	return text[:end], text[end+1:], ""
}

// canonicalLocal undoes needless quoting, then case and composition.
func canonicalLocal(written string) (local, why string) {
	if len(written) > maxLocal {
		return "", fmt.Sprintf("its local part is longer than %d octets", maxLocal)
	}
	content := written
	if written[0] == '"' {
		content = unquote(written)
		if content == "" {
			return "", "its local part is empty"
		}
	} else if !dotAtom(written) {
		return "", localWhy(written)
	}
	for _, r := range content {
		// A C1 control or a line separator is nothing a person could have meant, and a risk in logs and headers.
		if unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || r == utf8.RuneError {
			return "", "its local part has control characters"
		}
	}
	content = fold(content)
	if !dotAtom(content) {
		content = quote(content)
	}
	if len(content) > maxLocal {
		return "", fmt.Sprintf("its local part is longer than %d octets", maxLocal)
	}
	return content, ""
}

// fold is lower case in NFC. Lowering can undo composition and composing can make a letter that has a lower case, so both run
// until nothing changes: twice at most for any assigned character, the bound is for those not yet assigned.
func fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	// The final sigma would depend on what follows: the same word must be the same address in every spelling.
	lower := cases.Lower(language.Und, cases.HandleFinalSigma(false))
	for range 4 {
		next := norm.NFC.String(lower.String(norm.NFC.String(s)))
		if next == s {
			break
		}
		s = next
	}
	return s
}

func canonicalDomain(domain string) (canonical, why string) {
	switch {
	case domain == "":
		return "", "it has no domain after the @"
	case domain[0] == '[':
		return "", "address literals such as [192.0.2.1] are not accepted"
	case strings.ContainsRune(domain, '@'):
		return "", "it has more than one @ (a local part with @ has to be quoted)"
	}
	if !isASCII(domain) || strings.Contains(strings.ToLower(domain), "xn--") {
		a, err := idna.Lookup.ToASCII(domain)
		if err != nil {
			return "", "its domain is not a valid internationalised name"
		}
		domain = a
	}
	domain = strings.ToLower(domain)
	if len(domain) > maxDomain {
		return "", fmt.Sprintf("its domain is longer than %d octets", maxDomain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if why := labelWhy(label); why != "" {
			return "", why
		}
	}
	return domain, ""
}

// labelWhy says what is wrong with a label of letters, digits and hyphens (RFC 5321 section 4.1.2: sub-domain).
func labelWhy(label string) string {
	switch {
	case label == "":
		return "its domain has an empty label (two dots, or one at an end)"
	case len(label) > maxLabel:
		return fmt.Sprintf("its domain has a label longer than %d octets", maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return "a label of its domain begins or ends with a hyphen"
	}
	for i := range len(label) {
		c := label[i]
		// QUIRK: underscores are no host names, but senders with them exist; refusing their mail helps nobody.
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return "its domain has a character that is not a letter, digit or hyphen"
		}
	}
	return ""
}

// dotAtom reports whether s is Dot-string of RFC 5321 section 4.1.2 with the UTF-8 of RFC 6531 section 3.3.
func dotAtom(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		if r != '.' && !atext(r) {
			return false
		}
	}
	return true
}

func atext(r rune) bool {
	return r >= utf8.RuneSelf || r > ' ' && r < 0x7f && !strings.ContainsRune(`"(),.:;<>@[\]`, r)
}

func localWhy(s string) string {
	if strings.Trim(s, ".") != s || strings.Contains(s, "..") {
		return "its local part has a dot at an end or two in a row"
	}
	return "its local part has a space or special character that needs quoting"
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// unquote takes a well-formed quoted string, as cutLocal leaves it.
func unquote(s string) string {
	var b strings.Builder
	s = s[1 : len(s)-1]
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// clip bounds what an error quotes of its input.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
