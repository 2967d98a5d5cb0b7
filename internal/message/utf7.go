package message

import (
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/transform"
)

// utf7Reader decodes RFC 2152's UTF-7, which a few old mailers wrote. What is broken becomes U+FFFD.
type utf7Reader struct {
	shifted bool
	empty   bool   // nothing after the "+" yet
	bits    uint32 // base64 bits not used yet
	n       uint   // their number
	high    rune   // a high surrogate that waits for its other half
}

// Reset makes it ready for another text.
func (u *utf7Reader) Reset() { *u = utf7Reader{} }

// Transform decodes one byte of src after the other; each makes at most two characters.
func (u *utf7Reader) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for ; nSrc < len(src); nSrc++ {
		if len(dst)-nDst < 2*utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += u.byte(dst[nDst:], src[nSrc])
	}
	return nDst, nSrc, nil
}

// byte decodes c into dst and returns the number of bytes written.
func (u *utf7Reader) byte(dst []byte, c byte) (n int) {
	switch {
	case !u.shifted && c == '+':
		*u = utf7Reader{shifted: true, empty: true}
		return 0
	case u.shifted && base64Value[c] >= 0:
		u.empty = false
		u.bits, u.n = u.bits<<6|uint32(base64Value[c]), u.n+6
		if u.n >= 16 {
			u.n -= 16
			return u.unit(dst, rune(u.bits>>u.n&0xffff))
		}
		return 0
	case u.shifted:
		plus := u.empty && c == '-'
		if u.high != 0 {
			n = utf8.EncodeRune(dst, utf8.RuneError)
		}
		*u = utf7Reader{}
		if plus {
			return n + utf8.EncodeRune(dst[n:], '+')
		}
		if c == '-' {
			return n
		}
	}
	r := rune(c)
	if c >= utf8.RuneSelf {
		r = utf8.RuneError
	}
	return n + utf8.EncodeRune(dst[n:], r)
}

// unit takes a UTF-16 code unit in.
func (u *utf7Reader) unit(dst []byte, r rune) (n int) {
	if high := u.high; high != 0 {
		u.high = 0
		if pair := utf16.DecodeRune(high, r); pair != utf8.RuneError {
			return utf8.EncodeRune(dst, pair)
		}
		n = utf8.EncodeRune(dst, utf8.RuneError)
	}
	switch {
	case r >= 0xd800 && r < 0xdc00:
		u.high = r
		return n
	case utf16.IsSurrogate(r):
		r = utf8.RuneError
	}
	return n + utf8.EncodeRune(dst[n:], r)
}
