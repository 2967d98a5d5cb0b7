// Package message reads RFC 5322 messages with MIME in one pass, and composes them. What a reader will ever ask
// (ENVELOPE, BODYSTRUCTURE, part offsets, preview, dates, thread terms) is computed once, when the message arrives,
// and stored as a [Summary]; reading is a copy.
//
// Nothing here fails a delivery: hostile or broken input yields a Summary that says less. What is kept of a message is
// bounded by the constants in limits.go.
//
// Offsets and sizes are those of the bytes as they were scanned, with CRLF or bare LF line ends. The work is divided
// by file:
//
//	scanner.go    lines, boundaries, the MIME tree      RFC 2046
//	header.go     fields; what of them is kept          RFC 5322
//	mime.go       Content-* fields, parameters          RFC 2045, 2183, 2231, 3282
//	address.go    address lists                         RFC 5322, 6854
//	date.go       dates, as they really are             RFC 5322
//	words.go      encoded words                         RFC 2047
//	envelope.go   ENVELOPE                              RFC 9051
//	structure.go  BODYSTRUCTURE, BODY                   RFC 9051
//	section.go    section numbers                       RFC 9051
//	decode.go     transfer encodings                    RFC 2045
//	charset.go    charsets to UTF-8; utf7.go            RFC 2152
//	html.go       HTML as text
//	text.go       what a person reads; the preview      RFC 8970
//	encode.go     the stored form of a Summary
//	compose.go    new messages                          RFC 5322, 2045, 2047, 2231, 6532
package message

import "time"

// Summary is what is known of a message after one pass over its bytes. It is immutable, encodes to a few hundred
// bytes (AppendBinary, ParseSummary) and is stored once per message.
type Summary struct {
	Size       int64 // bytes of the message as scanned
	HeaderSize int64 // bytes of the top header with the empty line that ends it

	// Envelope is the ENVELOPE of RFC 9051 section 7.5.2 as wire text, "(" … ")". Strings with octets above 127 or
	// that cannot be quoted are literals ({n} CRLF bytes), so the text is valid for rev1 and rev2 clients alike.
	Envelope string
	// BodyStructure is the BODYSTRUCTURE wire text with extension data; [BodyOf] derives BODY from it.
	BodyStructure string
	// Preview is the RFC 8970 preview: at most 200 characters (section 3.1; not octets) of decoded text with white space
	// folded, valid UTF-8; may be empty.
	Preview string

	// Fields are those fields of the top header that clients list mailboxes by ([Listed]) as they stand in the message, in its
	// order and with their folds, and the empty line. "" if that is not known: the header is odd or big, or the summary
	// is of an older version; then the message's bytes say it.
	Fields string

	// Date is the Date header's instant, or zero if there is none that can be read (SENTBEFORE … of RFC 9051
	// use the date as written, disregarding time and zone: SentDay keeps that as YYYYMMDD, 0 if unknown).
	Date    time.Time
	SentDay int

	MessageID  string   // without angle brackets; "" if none
	InReplyTo  string   // first id
	References []string // ids in order, bounded
	Subject    string   // decoded (RFC 2047), for search, threads and people

	Root Part
}

// Part is a node of the MIME tree. Offsets count from the message's first byte.
type Part struct {
	// Header is where the part's own MIME header begins; Body where its body begins (after the empty line); End
	// one past the body's last byte (the CRLF before a boundary line belongs to the boundary, RFC 2046 section 5.1.1).
	Header, Body, End int64
	Lines             int64
	Type, Subtype     string // lower case
	Charset           string // as declared, "" if not
	Encoding          string // lower case content-transfer-encoding; "7bit" if absent
	Disposition       string // lower case, "" if none
	Filename          string // decoded
	// Children are the parts of a multipart, or the one message inside a message/rfc822 (message/global): that child
	// is the embedded message as a whole: Header at its first header byte, Type and Children its own.
	Children []Part
}

// Multipart reports whether the part is a multipart with parsed children.
func (p *Part) Multipart() bool { return p.Type == "multipart" }

// Embedded reports whether the part is a message/rfc822 or message/global whose message was parsed as the one child.
func (p *Part) Embedded() bool { return p.Type == "message" && len(p.Children) == 1 }
