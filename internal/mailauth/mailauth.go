// Package mailauth puts our name to what leaves: DKIM signatures on our people's mail, ARC seals on mail of others that an
// address here sends on. And it judges ARC chains that others made.
//
//	keys.go     keys by domain and selector, on disk     RFC 6376 section 3.6, RFC 8463
//	record.go   key records as the DNS has them          RFC 6376 section 3.6.1
//	sign.go     what is signed, by whom                  RFC 6376 (by go-msgauth), RFC 8301
//	arc.go      sealing                                  RFC 8617 section 5.1
//	chain.go    validating chains                        RFC 8617 section 5.2
//	canon.go    canonical forms                          RFC 6376 section 3.4
//	tags.go     tag=value lists                          RFC 6376 section 3.2
//
// Nothing here changes a message: out come header fields to put in front of it.
package mailauth

import (
	"bytes"
	"errors"
	"io"
	"net/mail"
	"strings"

	"golang.org/x/net/idna"

	"mailsrv/internal/message"
)

// maxHeader bounds what is read as a header. smtpd takes 256 KiB; what is longer came another way, and is not signed.
const maxHeader = 1 << 20

// errHeader means that there is no end to a message's header.
var errHeader = errors.New("the header does not end")

// field is one header field, with its folds and final CRLF.
type field struct {
	name string
	raw  []byte
}

// header is a message's header, top first.
type header []field

// readHeader returns a message's fields, and the offset of the body.
func readHeader(r io.ReaderAt, size int64) (header, int64, error) {
	var block []byte
	for {
		end := bytes.Index(block, []byte("\r\n\r\n"))
		switch {
		case bytes.HasPrefix(block, []byte("\r\n")):
			return nil, 2, nil
		case end >= 0:
			return splitHeader(block[:end+2]), int64(end) + 4, nil
		case int64(len(block)) == size:
			return splitHeader(block), size, nil // RFC 5322 section 3.5: a message may have no body
		case len(block) >= maxHeader:
			return nil, 0, errHeader
		}
		chunk := make([]byte, min(32<<10, size-int64(len(block))))
		n, err := r.ReadAt(chunk, int64(len(block)))
		block = append(block, chunk[:n]...)
		if n < len(chunk) {
			return nil, 0, errors.Join(errors.New("read header"), err)
		}
	}
}

func splitHeader(block []byte) header {
	var h header
	message.Fields(block, func(name string, raw []byte) bool {
		h = append(h, field{name, raw})
		return true
	})
	return h
}

// count says how many fields there are of a name.
func (h header) count(name string) (n int) {
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			n++
		}
	}
	return n
}

// pick returns the fields that a signature's h= list names: for each name the lowest that no earlier mention took, nothing
// where there is none left (RFC 6376 section 5.4.2).
func (h header) pick(names []string) (picked []field) {
	left := make(map[string][]field) // by name, lowest last; an index, since both lists may be long and hostile
	for _, f := range h {
		name := strings.ToLower(f.name)
		left[name] = append(left[name], f)
	}
	for _, name := range names {
		name = strings.ToLower(name)
		if n := len(left[name]); n > 0 {
			picked = append(picked, left[name][n-1])
			left[name] = left[name][:n-1]
		}
	}
	return picked
}

// fromDomain is the domain of the author: of the first address of the From field, lower case; "" if there is none, or
// several fields, which are several readings.
func (h header) fromDomain() string {
	if h.count("From") != 1 {
		return ""
	}
	value := ""
	for _, f := range h {
		if strings.EqualFold(f.name, "From") {
			value = message.FieldValue(f.raw)
		}
	}
	if list, err := mail.ParseAddressList(value); err == nil {
		return domainOf(list[0].Address)
	}
	// QUIRK: names that would have to be quoted, as in: a@b.test (Sales) via C <a@b.test>.
	if open, end := strings.LastIndexByte(value, '<'), strings.LastIndexByte(value, '>'); open >= 0 && open < end {
		return domainOf(value[open+1 : end])
	}
	return ""
}

// domainOf is what stands behind an address's last @, in lower-case A-labels; "" without one.
func domainOf(address string) string {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return ""
	}
	domain, err := idna.Lookup.ToASCII(address[i+1:])
	if err != nil {
		return ""
	}
	return strings.ToLower(domain)
}
