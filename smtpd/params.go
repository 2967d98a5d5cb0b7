package smtpd

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// Bounds on DSN parameters, decoded (RFC 3461 sections 4.2 and 4.4).
const (
	maxEnvelopeID = 100
	maxOriginal   = 500
)

// eachParameter calls fn for "KEY=VALUE KEY …" (RFC 5321 section 4.1.2, Mail-parameters) until it refuses; a key said twice
// is refused here. Keys come in capitals.
func eachParameter(s string, fn func(key, value string) *reply) *reply {
	if s != "" && s[0] != ' ' {
		r := badParameter(oneLine(s))
		return &r
	}
	var seen []string
	for word := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(word, "=")
		key = strings.ToUpper(key)
		if slices.Contains(seen, key) {
			r := badParameter(oneLine(key))
			return &r
		}
		seen = append(seen, key)
		if r := fn(key, value); r != nil {
			return r
		}
	}
	return nil
}

// mailParameters reads what follows the reverse-path. SIZE beyond 2^63-1 reads as 2^63-1: it is too large in any case.
func mailParameters(s string, can offers) (o mailOptions, refused *reply) {
	refused = eachParameter(s, func(key, value string) *reply {
		good := true
		switch key {
		case "SIZE":
			n, err := strconv.ParseUint(value, 10, 63)
			good = err == nil || errors.Is(err, strconv.ErrRange) && len(value) <= 20
			o.Size = int64(min(n, math.MaxInt64))
		case "BODY":
			o.Body = smtp.BodyType(strings.ToUpper(value))
			good = o.Body == smtp.Body7Bit || o.Body == smtp.Body8BitMIME || o.Body == smtp.BodyBinaryMIME
		case "SMTPUTF8":
			o.UTF8, good = true, value == ""
		case "RET":
			o.Return = smtp.DSNReturn(strings.ToUpper(value))
			good = o.Return == smtp.DSNReturnFull || o.Return == smtp.DSNReturnHeaders
		case "ENVID":
			o.EnvelopeID, good = unxtext(value)
			good = good && o.EnvelopeID != "" && len(o.EnvelopeID) <= maxEnvelopeID
		case "AUTH":
			// RFC 4954 section 5. It is accepted and not passed on: we trust nobody's word for who wrote a message.
			who, decoded := unxtext(value)
			o.Auth, good = &who, decoded && who != ""
		case "REQUIRETLS":
			if !can.tls {
				return &requireTLSNeeds
			}
			o.RequireTLS, good = true, value == ""
		default:
			var known bool
			if good, known = o.wish(can, key, value); !known {
				r := unknownParameter(oneLine(key))
				return &r
			}
		}
		return unless(good, key)
	})
	if refused == nil {
		refused = unless(!o.contradict(), "BY")
	}
	return o, refused
}

// unless is the answer to a parameter whose value is none of those it may have.
func unless(good bool, key string) *reply {
	if good {
		return nil
	}
	r := badParameter(key)
	return &r
}

// rcptParameters reads what follows the forward-path.
func rcptParameters(s string) (o smtp.RcptOptions, refused *reply) {
	refused = eachParameter(s, func(key, value string) *reply {
		good := true
		switch key {
		case "NOTIFY":
			o.Notify, good = notify(value)
		case "ORCPT":
			o.OriginalRecipientType, o.OriginalRecipient, good = original(value)
		default:
			r := unknownParameter(oneLine(key))
			return &r
		}
		return unless(good, key)
	})
	return o, refused
}

// notify reads NEVER alone, or some of the others, each once (RFC 3461 section 4.1).
func notify(value string) (all []smtp.DSNNotify, good bool) {
	for word := range strings.SplitSeq(strings.ToUpper(value), ",") {
		n := smtp.DSNNotify(word)
		switch n {
		case smtp.DSNNotifyNever, smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
		default:
			return nil, false
		}
		if slices.Contains(all, n) {
			return nil, false
		}
		all = append(all, n)
	}
	return all, len(all) == 1 || !slices.Contains(all, smtp.DSNNotifyNever)
}

// original reads "type;xtext", and RFC 6533 section 3's forms for type utf-8.
func original(value string) (smtp.DSNAddressType, string, bool) {
	kind, text, found := strings.Cut(value, ";")
	if !found || kind == "" || strings.ContainsFunc(kind, func(r rune) bool { return r >= 0x80 || !isAtext(byte(r)) }) {
		return "", "", false
	}
	decode := unxtext
	if strings.EqualFold(kind, "utf-8") {
		decode = unutf8
	}
	address, good := decode(text)
	if !good || address == "" || len(address) > maxOriginal {
		return "", "", false
	}
	return smtp.DSNAddressType(strings.ToLower(kind)), address, true
}

// unxtext undoes RFC 3461 section 4's xtext. What it hides must be printable ASCII: these values end up in reports.
func unxtext(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil || s[i+1:i+3] != strings.ToUpper(s[i+1:i+3]) {
				return "", false
			}
			c, i = byte(n), i+2
			if c < ' ' || c > '~' {
				return "", false
			}
		case c < '!' || c > '~' || c == '=':
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}

// unutf8 undoes utf-8-addr-xtext and utf-8-addr-unitext: \x{HEX} for what cannot stand for itself.
func unutf8(s string) (string, bool) {
	if !utf8.ValidString(s) {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			if s[i] <= ' ' || s[i] == 0x7f || s[i] == '+' || s[i] == '=' {
				return "", false
			}
			b.WriteByte(s[i])
			i++
			continue
		}
		hex, found := strings.CutPrefix(s[i:], `\x{`)
		end := strings.IndexByte(hex, '}')
		if !found || end < 2 || end > 6 {
			return "", false
		}
		n, err := strconv.ParseUint(hex[:end], 16, 32)
		if err != nil || hex[:end] != strings.ToUpper(hex[:end]) || !utf8.ValidRune(rune(n)) || n < ' ' || n == 0x7f {
			return "", false
		}
		b.WriteRune(rune(n))
		i += len(`\x{`) + end + 1
	}
	return b.String(), true
}
