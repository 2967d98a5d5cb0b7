package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
)

// A Summary is stored as
//
//	| 2 u8 | an S2 block (github.com/klauspost/compress/s2): its length in the clear as a varint, and its bytes |
//
// and in the clear that is
//
//	| Size | HeaderSize | flags | [Date] [zone] [SentDay] | strings … | nrefs | ref … | parts |
//
// Every number is an unsigned LEB128 varint unless it says otherwise, every string a varint length and its bytes.
//
//	flags    bit 0: Date, a signed varint of seconds since 1970, and zone, a signed varint of seconds east, follow
//	         bit 1: SentDay follows
//	strings  Envelope, BodyStructure, Preview, MessageID, InReplyTo, Subject, Fields
//	parts    the tree in pre-order, each part as
//
//	| Header - start | Body - Header | End - Body | Lines | type | subtype | encoding | disposition | Charset | Filename | nkids |
//
// start is the previous sibling's End, or the parent's Body for a first child, 0 for the root. type, subtype, encoding and
// disposition are words: a varint n > 0 is commonWords[n-1]; 0 is followed by a string.
//
// Version 1 had the same in the clear behind its version byte, without Fields: it is read, and means a Summary whose Fields is
// empty. Version 2 is compressed because it says most things twice: for the generated mail of cmd/mailbench 1,420 bytes are 870, less
// than version 1 took without Fields (900), for a microsecond's work.
//
// Readers refuse a version they do not know (ErrVersion): the message is there to be scanned again. New fields make a new
// version; commonWords may grow at its end only within a new version too.
const (
	summaryVersion = 2
	summaryInClear = 1

	// maxSummary bounds what a damaged length can make a reader allocate. The limits of limits.go add up to less.
	maxSummary = 8 << 20
)

// ErrVersion and ErrDamaged are what ParseSummary fails with; both mean: scan the message again.
var (
	ErrVersion = errors.New("summary has an unknown version")
	ErrDamaged = errors.New("summary is damaged")
)

const (
	hasDate = 1 << iota
	hasSentDay
)

var commonWords = [...]string{
	"", "text", "plain", "html", "7bit", "8bit", "base64", "quoted-printable", "multipart", "mixed", "alternative",
	"related", "attachment", "inline", "message", "rfc822", "application", "pdf", "octet-stream", "image", "png", "jpeg",
	"gif", "binary", "signed", "report", "delivery-status", "calendar", "pgp-signature", "pkcs7-signature", "audio", "video",
	"digest", "zip", "encrypted", "pgp-encrypted", "x-pkcs7-signature", "csv", "xml", "json", "svg+xml", "rfc822-headers",
}

var commonWordNumber = func() map[string]uint64 {
	m := make(map[string]uint64, len(commonWords))
	for i, w := range commonWords {
		m[w] = uint64(i) + 1
	}
	return m
}()

// AppendBinary appends the summary's versioned encoding, drawn in encode.go.
func (s *Summary) AppendBinary(b []byte) []byte {
	return append(append(b, summaryVersion), s2.Encode(nil, s.appendClear(nil))...)
}

func (s *Summary) appendClear(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.Size))
	b = binary.AppendUvarint(b, uint64(s.HeaderSize))
	var flags uint64
	if !s.Date.IsZero() {
		flags |= hasDate
	}
	if s.SentDay != 0 {
		flags |= hasSentDay
	}
	b = binary.AppendUvarint(b, flags)
	if flags&hasDate != 0 {
		_, zone := s.Date.Zone()
		b = binary.AppendVarint(b, s.Date.Unix())
		b = binary.AppendVarint(b, int64(zone))
	}
	if flags&hasSentDay != 0 {
		b = binary.AppendUvarint(b, uint64(s.SentDay))
	}
	for _, text := range []string{s.Envelope, s.BodyStructure, s.Preview, s.MessageID, s.InReplyTo, s.Subject, s.Fields} {
		b = appendText(b, text)
	}
	b = binary.AppendUvarint(b, uint64(len(s.References)))
	for _, ref := range s.References {
		b = appendText(b, ref)
	}
	return s.Root.appendBinary(b, 0)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendWord(b []byte, s string) []byte {
	if n := commonWordNumber[s]; n > 0 {
		return binary.AppendUvarint(b, n)
	}
	return appendText(append(b, 0), s)
}

func (p *Part) appendBinary(b []byte, start int64) []byte {
	for _, n := range []int64{p.Header - start, p.Body - p.Header, p.End - p.Body, p.Lines} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, word := range []string{p.Type, p.Subtype, p.Encoding, p.Disposition} {
		b = appendWord(b, word)
	}
	b = appendText(appendText(b, p.Charset), p.Filename)
	b = binary.AppendUvarint(b, uint64(len(p.Children)))
	start = p.Body
	for i := range p.Children {
		b = p.Children[i].appendBinary(b, start)
		start = p.Children[i].End
	}
	return b
}

// ParseSummary reads what AppendBinary wrote. b is not kept. It fails with ErrVersion or ErrDamaged.
func ParseSummary(b []byte) (*Summary, error) {
	clear, version, err := summaryText(b)
	if err != nil {
		return nil, err
	}
	r := summaryReader{s: clear, left: maxParts + 2*maxDepth}
	s := &Summary{Size: r.offset(1 << 62), HeaderSize: r.offset(1 << 62)}
	flags := r.uvarint()
	if flags&hasDate != 0 {
		seconds, zone := r.varint(), r.varint()
		s.Date = time.Unix(seconds, 0).In(zoneOf(int(zone)))
	}
	if flags&hasSentDay != 0 {
		s.SentDay = int(r.offset(99991231))
	}
	for _, text := range []*string{&s.Envelope, &s.BodyStructure, &s.Preview, &s.MessageID, &s.InReplyTo, &s.Subject} {
		*text = r.text()
	}
	if version > summaryInClear {
		s.Fields = r.text()
	}
	if n := r.count(); n > 0 {
		s.References = make([]string, n)
		for i := range s.References {
			s.References[i] = r.text()
		}
	}
	r.part(&s.Root, 0, s.Size, 0)
	if r.bad || r.s != "" || flags >= hasSentDay<<1 {
		return nil, ErrDamaged
	}
	return s, nil
}

// clearBuffers holds what S2 blocks are undone into, before the one copy that all strings of a Summary are cut from.
var clearBuffers = sync.Pool{New: func() any { return new([]byte) }}

// summaryText is an encoding in the clear, behind its version.
func summaryText(b []byte) (clear string, version byte, err error) {
	if len(b) == 0 {
		return "", 0, ErrDamaged
	}
	switch b[0] {
	case summaryInClear:
		return string(b[1:]), b[0], nil
	case summaryVersion:
		if n, err := s2.DecodedLen(b[1:]); err != nil || n > maxSummary {
			return "", 0, ErrDamaged
		}
		buf := clearBuffers.Get().(*[]byte)
		defer clearBuffers.Put(buf)
		text, err := s2.Decode((*buf)[:cap(*buf)], b[1:])
		if err != nil {
			return "", 0, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if cap(text) <= 64<<10 {
			*buf = text
		}
		return string(text), b[0], nil
	}
	return "", 0, fmt.Errorf("%w: %d", ErrVersion, b[0])
}

func zoneOf(seconds int) *time.Location {
	if seconds == 0 {
		return time.UTC
	}
	return time.FixedZone("", seconds)
}

// summaryReader takes an encoding apart; after the first fault everything is zero.
type summaryReader struct {
	s    string
	bad  bool
	left int // parts that may still come
}

func (r *summaryReader) fail() {
	r.bad, r.s = true, ""
}

func (r *summaryReader) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		c := r.s[i]
		if i == 9 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.s = r.s[i+1:]
			return v
		}
	}
	r.fail()
	return 0
}

func (r *summaryReader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// offset reads a number that must not be above limit.
func (r *summaryReader) offset(limit int64) int64 {
	v := r.uvarint()
	if v > uint64(max(limit, 0)) {
		r.fail()
		return 0
	}
	return int64(v)
}

// count reads the number of things that follow, each at least a byte.
func (r *summaryReader) count() int {
	return int(r.offset(int64(len(r.s))))
}

func (r *summaryReader) text() string {
	n := r.count()
	if n > len(r.s) {
		r.fail()
		return ""
	}
	t := r.s[:n]
	r.s = r.s[n:]
	return t
}

func (r *summaryReader) word() string {
	n := r.offset(int64(len(commonWords)))
	if n == 0 {
		return r.text()
	}
	return commonWords[n-1]
}

// part reads a part that lies between start and end.
func (r *summaryReader) part(p *Part, start, end int64, depth int) {
	if depth > maxDepth+1 {
		r.fail()
		return
	}
	p.Header = start + r.offset(end-start)
	p.Body = p.Header + r.offset(end-p.Header)
	p.End = p.Body + r.offset(end-p.Body)
	p.Lines = r.offset(p.End - p.Body)
	for _, word := range []*string{&p.Type, &p.Subtype, &p.Encoding, &p.Disposition} {
		*word = r.word()
	}
	p.Charset, p.Filename = r.text(), r.text()
	n := r.count()
	if n == 0 || r.bad {
		return
	}
	if r.left -= n; r.left < 0 {
		r.fail()
		return
	}
	p.Children = make([]Part, n)
	at := p.Body
	for i := range p.Children {
		r.part(&p.Children[i], at, p.End, depth+1)
		at = p.Children[i].End
	}
}
