package message

import (
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// lookup finds how to decode a charset. htmlindex comes first: it takes names for what people mean by them (iso-8859-1 is
// windows-1252, gb2312 is GBK).
func lookup(charset string) (t transform.Transformer, known bool) {
	name := strings.ToLower(strings.Trim(charset, " \t\"'"))
	switch name {
	case "", "us-ascii", "ascii", "ansi_x3.4-1968", "iso-ir-6", "646":
		return &utf8Reader{windows1252: true}, true
	case "utf-8", "utf8", "unicode-1-1-utf-8", "x-utf_8j", "utf8mb4", "utf-8mb4":
		return &utf8Reader{}, true
	case "utf-7", "unicode-1-1-utf-7", "csunicode11utf7":
		return &utf7Reader{}, true
	case "utf-16", "csutf16", "iso-10646-ucs-2": // RFC 2781 section 4.3: big-endian without a mark
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewDecoder(), true
	case "8bit", "x-user-defined", "unknown-8bit", "x-unknown", "unknown", "default", "none":
		return &utf8Reader{windows1252: true}, true
	}
	if len(name) > 64 {
		return &utf8Reader{windows1252: true}, false
	}
	if e, err := htmlindex.Get(name); err == nil && e != nil && e != encoding.Replacement {
		return e.NewDecoder(), true
	}
	for _, try := range []string{name, "cs" + name} {
		if e, err := ianaindex.MIME.Encoding(try); err == nil && e != nil {
			return e.NewDecoder(), true
		}
	}
	if cp, ok := strings.CutPrefix(name, "cp"); ok { // QUIRK: cp1252 for windows-1252
		if e, err := htmlindex.Get("windows-" + cp); err == nil {
			return e.NewDecoder(), true
		}
	}
	return &utf8Reader{windows1252: true}, false
}

func knownCharset(charset string) bool {
	_, known := lookup(charset)
	return known
}

// charsetText decodes b; an unknown charset is taken for UTF-8 or windows-1252, whichever fits each byte. The result is
// valid UTF-8.
func charsetText(charset string, b []byte) string {
	t, _ := lookup(charset)
	if u, ok := t.(*utf8Reader); ok && (u.windows1252 || len(b) == 0) && utf8.Valid(b) {
		return string(b)
	}
	out, _, err := transform.Bytes(t, b)
	if err != nil {
		t, _ = lookup("")
		out, _, _ = transform.Bytes(t, b)
	}
	return strings.ToValidUTF8(string(out), "\uFFFD")
}

// charsetReader decodes r to valid UTF-8.
func charsetReader(charset string, r io.Reader) io.Reader {
	t, _ := lookup(charset)
	return transform.NewReader(r, t)
}

// utf8Reader passes UTF-8 on and repairs the rest: bytes that are no UTF-8 are taken for windows-1252, or become U+FFFD.
type utf8Reader struct {
	transform.NopResetter
	windows1252 bool
}

func (u *utf8Reader) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		c, n := rune(src[nSrc]), 1
		if c >= utf8.RuneSelf {
			if !atEOF && !utf8.FullRune(src[nSrc:]) {
				return nDst, nSrc, transform.ErrShortSrc
			}
			if c, n = utf8.DecodeRune(src[nSrc:]); c == utf8.RuneError && n == 1 && u.windows1252 {
				c = charmap.Windows1252.DecodeByte(src[nSrc])
			}
		}
		if nDst+utf8.RuneLen(c) > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], c)
		nSrc += n
	}
	return nDst, nSrc, nil
}
