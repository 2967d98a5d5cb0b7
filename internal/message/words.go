package message

import (
	"encoding/base64"
	"strings"
)

// DecodeHeader undoes RFC 2047 in a header value (unfolded), whatever the charset; what cannot be decoded stays. Bytes
// outside encoded words are UTF-8, or, where they cannot be, windows-1252. The result is valid UTF-8.
func DecodeHeader(value string) string {
	if !strings.Contains(value, "=?") {
		return charsetText("", []byte(value))
	}
	var out strings.Builder
	var run wordRun
	for rest := value; rest != ""; {
		i := strings.Index(rest, "=?")
		if i < 0 {
			i = len(rest)
		}
		n := encodedWordLen(rest[i:])
		for n == 0 && i < len(rest) { // "=?" that begins no word is text
			next := strings.Index(rest[i+2:], "=?")
			if next < 0 {
				i = len(rest)
				break
			}
			i += 2 + next
			n = encodedWordLen(rest[i:])
		}
		between := rest[:i]
		if n == 0 || strings.Trim(between, " \t\r\n") != "" {
			run.flush(&out)
			out.WriteString(charsetText("", []byte(between)))
		} else if !run.active {
			out.WriteString(between)
		}
		if n > 0 {
			run.add(&out, rest[i:i+n])
		}
		rest = rest[i+n:]
	}
	run.flush(&out)
	return out.String()
}

// wordRun collects the bytes of adjacent encoded words of one charset, so that a character split between words is whole
// again (QUIRK: RFC 2047 section 5 forbids that; many do it). White space between encoded words goes (section 6.2).
type wordRun struct {
	active  bool
	charset string
	data    []byte
}

func (r *wordRun) add(out *strings.Builder, word string) {
	charset, data, ok := splitEncodedWord(word)
	if !ok {
		r.flush(out)
		out.WriteString(charsetText("", []byte(word)))
		return
	}
	if r.active && !strings.EqualFold(charset, r.charset) {
		r.flush(out)
	}
	r.active, r.charset = true, charset
	r.data = append(r.data, data...)
}

func (r *wordRun) flush(out *strings.Builder) {
	if r.active {
		out.WriteString(charsetText(r.charset, r.data))
	}
	*r = wordRun{data: r.data[:0]}
}

// maxEncodedWord bounds the search for an encoded word's end. RFC 2047 section 2 says 75; many write longer ones.
const maxEncodedWord = 2000

// encodedWordLen is the length of the encoded word that s begins with, 0 if there is none: "=?" charset "?" encoding "?"
// text "?=". QUIRK: spaces in the text of Q words are taken.
func encodedWordLen(s string) int {
	if !strings.HasPrefix(s, "=?") {
		return 0
	}
	s = s[:min(len(s), maxEncodedWord)]
	i := strings.IndexByte(s[2:], '?') + 2
	if i < 3 || i+2 >= len(s) || s[i+2] != '?' || strings.ContainsAny(s[2:i], " \t\r\n\"(),<>@[]") {
		return 0
	}
	if c := s[i+1] | 0x20; c != 'q' && c != 'b' {
		return 0
	}
	end := strings.Index(s[i+3:], "?=")
	if end < 0 || strings.Contains(s[i+3:i+3+end], "=?") {
		return 0
	}
	return i + 3 + end + 2
}

// splitEncodedWord takes an encoded word apart and undoes its encoding. ok is false if the charset is unknown.
func splitEncodedWord(word string) (charset string, data []byte, ok bool) {
	charset, rest, _ := strings.Cut(word[2:len(word)-2], "?")
	encoding, text, _ := strings.Cut(rest, "?")
	charset, _, _ = strings.Cut(charset, "*") // RFC 2231 section 5: a language
	if !knownCharset(charset) {
		return "", nil, false
	}
	if encoding == "Q" || encoding == "q" {
		return charset, decodeQ(text), true
	}
	return charset, decodeB(text), true
}

// decodeQ undoes the Q encoding (RFC 2047 section 4.2). What is no hexadecimal stays.
func decodeQ(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '_':
			b = append(b, ' ')
		case s[i] == '=' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return b
}

// decodeB undoes base64, as far as it goes: padding may lack, and what is no base64 is passed over.
func decodeB(s string) []byte {
	clean := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if base64Value[s[i]] >= 0 {
			clean = append(clean, s[i])
		}
	}
	b := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	n, _ := base64.RawStdEncoding.Decode(b, clean) // only alphabet left: no error that matters
	return b[:n]
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
