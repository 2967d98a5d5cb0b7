package imapd

import (
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"mailsrv/storage"
)

// Mailbox names. Inside the server a name is UTF-8 in Net-Unicode form with "/" between levels, and INBOX is in capitals
// where it is the first level. On the wire it is that text for clients that enabled IMAP4rev2 or UTF8=ACCEPT, and modified
// UTF-7 (RFC 3501 section 5.1.3) for all others.

// delimiter separates levels of hierarchy in mailbox names.
const delimiter = '/'

// nameError says in words for people why a name on the wire is none; it becomes NO [CANNOT].
type nameError string

func (e nameError) Error() string { return string(e) }

const (
	errNotUTF7      nameError = "mailbox name is not valid modified UTF-7"
	errNotCanonical nameError = "mailbox name is not canonical modified UTF-7 (RFC 3501 section 5.1.3)"
	errRawOctet     nameError = "mailbox name has octets that are neither US-ASCII nor UTF-8"
	errNotUTF8      nameError = "mailbox name is not valid UTF-8"
	errControl      nameError = "mailbox name has control characters"
	errEmptyName    nameError = "mailbox name is empty"
)

// decodeMailboxName reads a mailbox name as a client wrote it (without quotes). utf8Names says which of the two forms the
// connection speaks. Errors are of type nameError.
func decodeMailboxName(wire string, utf8Names bool) (string, error) {
	name := wire
	if utf8Names || rawUTF8(wire) {
		if !utf8.ValidString(name) {
			return "", errNotUTF8
		}
	} else {
		var err error
		if name, err = decodeUTF7(wire); err != nil {
			return "", err
		}
	}
	if name == "" {
		return "", errEmptyName
	}
	if strings.ContainsFunc(name, forbiddenInNames) {
		return "", errControl
	}
	return canonicalInbox(name), nil
}

// rawUTF8 reports whether text that should be modified UTF-7 is UTF-8 beyond US-ASCII, which can only be meant as such.
//
// QUIRK: Thunderbird 153 enables UTF8=ACCEPT on most of its connections and, once it has seen the capability, writes names in
// UTF-8 on all of them, the first one (which it never enables) included. What it then reads in modified UTF-7 it takes for
// another mailbox, so the answers on such a connection are in UTF-8 from its first such name on.
func rawUTF8(wire string) bool {
	return strings.ContainsFunc(wire, func(c rune) bool { return c >= utf8.RuneSelf }) && utf8.ValidString(wire)
}

// netUnicode puts a name into NFC, since RFC 9051 section 5.1 wants Net-Unicode (RFC 5198): what one device writes composed and
// another decomposed is one name. But a mailbox that is called otherwise (a foreign Maildir can hold one) keeps its name.
func (r *reader) netUnicode(name string) string {
	if norm.NFC.IsNormalString(name) || r.exists != nil && r.exists(name) {
		return name
	}
	return norm.NFC.String(name)
}

// encodeMailboxName is the inverse of decodeMailboxName; the result still needs quoting.
func encodeMailboxName(name string, utf8Names bool) string {
	if utf8Names {
		return name
	}
	return encodeUTF7(name)
}

// forbiddenInNames are the characters that RFC 6855 section 3 takes out of Net-Unicode for mailbox names.
func forbiddenInNames(r rune) bool {
	return r < 0x20 || r >= 0x7f && r <= 0x9f || r == '\u2028' || r == '\u2029'
}

// canonicalInbox puts INBOX as a first level in capitals (RFC 9051 section 5.1: INBOX in any case is INBOX).
func canonicalInbox(name string) string {
	if underInbox(name) {
		return "INBOX" + name[len("INBOX"):]
	}
	return name
}

// underInbox reports whether the name's first level is INBOX, in any case.
func underInbox(name string) bool {
	const n = len("INBOX")
	return len(name) >= n && strings.EqualFold(name[:n], "INBOX") && (len(name) == n || name[n] == delimiter)
}

// utf7Alphabet is base64's with "," for "/" (RFC 3501 section 5.1.3).
const utf7Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"

// encodeUTF7 writes UTF-8 as modified UTF-7. Invalid UTF-8 becomes U+FFFD.
func encodeUTF7(s string) string {
	plain := func(r rune) bool { return r >= 0x20 && r <= 0x7e }
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) || r == '&' }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '&':
			b.WriteString("&-")
			s = s[n:]
		case plain(r):
			b.WriteByte(byte(r))
			s = s[n:]
		default:
			end := strings.IndexFunc(s, plain)
			if end < 0 {
				end = len(s)
			}
			encodeShifted(&b, s[:end])
			s = s[end:]
		}
	}
	return b.String()
}

// encodeShifted writes one "&" base64 "-" run.
func encodeShifted(b *strings.Builder, s string) {
	b.WriteByte('&')
	var acc uint32
	bits := 0
	for _, unit := range utf16.Encode([]rune(s)) {
		acc = acc<<16 | uint32(unit)
		for bits += 16; bits >= 6; {
			bits -= 6
			b.WriteByte(utf7Alphabet[acc>>bits&0x3f])
		}
	}
	if bits > 0 {
		b.WriteByte(utf7Alphabet[acc<<(6-bits)&0x3f])
	}
	b.WriteByte('-')
}

// decodeUTF7 reads modified UTF-7 and takes only its one canonical spelling: no printable US-ASCII in base64, no two shifts
// in a row, no loose bits. So every name has one spelling on the wire, and what we send is what the client sent.
func decodeUTF7(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		if c < 0x20 || c > 0x7e {
			if c >= 0x80 {
				return "", errRawOctet
			}
			return "", errControl
		}
		if c != '&' {
			b.WriteByte(c)
			i++
			continue
		}
		end := strings.IndexByte(s[i:], '-')
		if end < 0 {
			return "", errNotUTF7
		}
		if err := decodeShifted(&b, s[i+1:i+end]); err != nil {
			return "", err
		}
		i += end + 1
	}
	name := b.String()
	if encodeUTF7(name) != s {
		return "", errNotCanonical
	}
	return name, nil
}

// decodeShifted reads what stands between "&" and "-".
func decodeShifted(b *strings.Builder, run string) error {
	if run == "" {
		b.WriteByte('&')
		return nil
	}
	var units []uint16
	var acc uint32
	bits := 0
	for i := 0; i < len(run); i++ {
		v := strings.IndexByte(utf7Alphabet, run[i])
		if v < 0 {
			return errNotUTF7
		}
		acc = acc<<6 | uint32(v)
		if bits += 6; bits >= 16 {
			bits -= 16
			units = append(units, uint16(acc>>bits))
		}
	}
	for _, r := range utf16.Decode(units) {
		b.WriteRune(r)
	}
	return nil
}

// reasonOf is the text for people of a name's fault, found here or in storage.
func reasonOf(err error) string {
	var n nameError
	var bad *storage.BadNameError
	switch {
	case errors.As(err, &n):
		return string(n)
	case errors.As(err, &bad):
		return "mailbox name " + bad.Why
	}
	return "invalid mailbox name"
}
