package storage

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on mailboxes.
const (
	maxMailboxes = 20_000
	maxNameBytes = 1_000 // a whole name, in UTF-8
	maxLevel     = 255   // one level of it
	maxDepth     = 50    // levels
)

const inbox = "INBOX"

// BadNameError is ErrBadMailboxName with the reason: "is empty", "has a level longer than 255 bytes" …
type BadNameError struct{ Name, Why string }

// Error quotes the name, or how it begins.
func (e *BadNameError) Error() string {
	return fmt.Sprintf("%v: %.80q %s", ErrBadMailboxName, e.Name, e.Why)
}

// Is makes it ErrBadMailboxName.
func (e *BadNameError) Is(target error) bool { return target == ErrBadMailboxName }

// mailboxName checks a name and spells INBOX, alone or as first level, in capitals (RFC 9051 section 5.1).
func mailboxName(name string) (string, error) {
	bad := func(why string) (string, error) { return "", &BadNameError{Name: name, Why: why} }
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > maxNameBytes:
		return bad(fmt.Sprintf("is longer than %d bytes", maxNameBytes))
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsFunc(name, forbidden):
		return bad("has control characters")
	}
	levels := strings.Split(name, "/")
	if len(levels) > maxDepth {
		return bad(fmt.Sprintf("has more than %d levels", maxDepth))
	}
	for _, l := range levels {
		if l == "" {
			return bad(`has an empty level: "/" begins it, ends it, or stands twice`)
		}
		if len(l) > maxLevel {
			return bad(fmt.Sprintf("has a level longer than %d bytes", maxLevel))
		}
	}
	if strings.EqualFold(levels[0], inbox) {
		return inbox + name[len(inbox):], nil
	}
	return name, nil
}

// forbidden is what RFC 9051 section 5.1 keeps out of names: controls and the two separators of lines and paragraphs.
func forbidden(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// parents lists the names above a name, the topmost first.
func parents(name string) []string {
	var up []string
	for i, c := range name {
		if c == '/' {
			up = append(up, name[:i])
		}
	}
	return up
}

// accountPath is where an account of the address lives, below the folder of all accounts.
func accountPath(address string) (string, error) {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || at == len(address)-1 {
		return "", fmt.Errorf("%w: %q is not local@domain", ErrNoAccount, address)
	}
	local, domain := fileName(address[:at]), fileName(address[at+1:])
	if len(local) > 255 || len(domain) > 255 {
		return "", fmt.Errorf("%w: the address is too long for a folder", ErrNoAccount)
	}
	return filepath.Join(domain, local), nil
}

// fileName makes a file name of any string: what a file system or a shell user could stumble over is percent-encoded.
func fileName(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == 0x7f || c == '/' || c == '\\' || c == '%' || i == 0 && (c == '.' || c == '-' || c == '~') {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unFileName is the inverse of fileName; ok is false for what fileName does not make.
func unFileName(name string) (s string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' {
			if _, err := fmt.Sscanf(name[i:min(i+3, len(name))], "%%%02X", &c); err != nil {
				return "", false
			}
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), fileName(b.String()) == name
}
