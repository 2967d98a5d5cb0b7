package imapd

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"mailsrv/internal/message"
	"mailsrv/storage"
)

// Bounds on what one FETCH may ask of each message.
const (
	maxSectionDepth = 200 // part numbers in a section; a MIME tree of ours is not that deep
	maxHeaderFields = 1000
)

// Section reads section or section-binary behind its "[": part numbers, what of the part, header fields, and "]"
// (RFC 9051 section 9, section).
func (r *reader) Section(binary bool) imap.FetchItemBodySection {
	var s imap.FetchItemBodySection
	text := ""
	if c := r.Peek(); c != ']' {
		text = strings.ToUpper(r.span("a section", maxAtomBefore*4, func(c byte) bool { return c == '.' || isDigit(c) || isLetter(c) }))
	}
	for text != "" && isDigit(text[0]) {
		number, rest, more := strings.Cut(text, ".")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 || number[0] == '0' || more && rest == "" || len(s.Part) == maxSectionDepth {
			r.fail("Invalid part number in a section")
			return s
		}
		s.Part = append(s.Part, int(n))
		text = rest
	}
	switch {
	case r.Failed() || text == "":
	case binary:
		r.fail("BINARY takes part numbers only")
	case text == "HEADER" || text == "TEXT":
		s.Specifier = imap.PartSpecifier(text)
	case text == "MIME" && len(s.Part) > 0:
		s.Specifier = imap.PartSpecifierMIME
	case text == "HEADER.FIELDS":
		s.Specifier, s.HeaderFields = imap.PartSpecifierHeader, r.headerList()
	case text == "HEADER.FIELDS.NOT":
		s.Specifier, s.HeaderFieldsNot = imap.PartSpecifierHeader, r.headerList()
	default:
		r.fail("Unknown section %s", quoteForError([]byte(text)))
	}
	r.Expect(']')
	return s
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// headerList reads SP header-list: at least one name.
func (r *reader) headerList() []string {
	r.SP()
	var names []string
	r.List(func() {
		if names = append(names, r.AString()); len(names) > maxHeaderFields {
			r.fail("Too many header fields in a section")
		}
	})
	if len(names) == 0 {
		r.fail("Empty list of header fields")
	}
	return names
}

// Partial reads "<" number64 "." nz-number64 ">" if it is next.
func (r *reader) Partial() *imap.SectionPartial {
	if !r.Try('<') {
		return nil
	}
	var p imap.SectionPartial
	p.Offset = r.Number64()
	r.Expect('.')
	if p.Size = r.Number64(); p.Size == 0 {
		r.fail("Partial of zero octets")
	}
	r.Expect('>')
	return &p
}

// sectionLabel spells a section as it stands in the response: keywords in capitals, field names as the client wrote them,
// the origin octet of a partial (RFC 9051 section 7.5.2).
func (w *writer) sectionLabel(name string, s *imap.FetchItemBodySection) {
	w.Raw(name).Raw("[")
	for i, n := range s.Part {
		if i > 0 {
			w.Raw(".")
		}
		w.Num(uint64(n))
	}
	if s.Specifier != imap.PartSpecifierNone {
		if len(s.Part) > 0 {
			w.Raw(".")
		}
		w.Raw(string(s.Specifier))
	}
	if s.HeaderFields != nil {
		w.Raw(".FIELDS ").headerNames(s.HeaderFields)
	} else if s.HeaderFieldsNot != nil {
		w.Raw(".FIELDS.NOT ").headerNames(s.HeaderFieldsNot)
	}
	w.Raw("]")
	if s.Partial != nil {
		w.Raw("<").Num(uint64(s.Partial.Offset)).Raw(">")
	}
}

func (w *writer) headerNames(names []string) {
	for i, name := range names {
		w.Raw([]string{"(", " "}[min(i, 1)])
		if name != "" && strings.IndexFunc(name, func(c rune) bool { return c >= 0x7f || !isAStringChar(byte(c)) }) < 0 {
			w.Raw(name)
		} else {
			w.Str(name)
		}
	}
	w.Raw(")")
}

// content is what a section names in one message: a run of the message's octets, a few made from them and held here, or
// many that are made again each time they are read.
type content struct {
	there bool // false: the message has no such part
	size  int64
	nul   bool // has NUL: needs literal8
	raw   *io.SectionReader
	held  []byte
	make  func() io.Reader
}

// from reads the content from offset off on, which is at most size.
func (c *content) from(off int64) (io.Reader, error) {
	switch {
	case c.raw != nil:
		return io.NewSectionReader(c.raw, off, c.size-off), nil
	case c.make == nil:
		return bytes.NewReader(c.held[off:]), nil
	}
	r := c.make()
	_, err := io.CopyN(io.Discard, r, off)
	return r, err
}

// extent is the run of octets that a section without HEADER.FIELDS names: from..to. ok is false if the message has no such part.
// RFC 9051 section 6.4.5.1 has the meaning of each.
func extent(sum *message.Summary, s *imap.FetchItemBodySection) (from, to int64, ok bool) {
	what := message.Whole
	switch s.Specifier {
	case imap.PartSpecifierHeader:
		what = message.HeaderOnly
	case imap.PartSpecifierText:
		what = message.TextOnly
	case imap.PartSpecifierMIME:
		what = message.MIMEOnly
	}
	return sum.Section(s.Part, what)
}

// bodySection finds the content of BODY[…]; ok is false, and the answer NIL, if the message has no such part.
func bodySection(body storage.Body, sum *message.Summary, s *imap.FetchItemBodySection) (c content, ok bool, err error) {
	from, to, ok := extent(sum, s)
	if !ok {
		return content{}, false, nil
	}
	// A foreign hand may have cut the file: what is not there is not announced.
	if from, to = min(from, body.Size()), min(to, body.Size()); len(s.Part) == 0 && s.Specifier == imap.PartSpecifierNone {
		to = body.Size()
	}
	run := io.NewSectionReader(body, from, to-from)
	if s.HeaderFields == nil && s.HeaderFieldsNot == nil {
		return content{size: to - from, raw: run}, true, nil
	}
	c, err = headerContent(run, s)
	return c, true, err
}

// keptFields is the choice that HEADER.FIELDS or HEADER.FIELDS.NOT makes.
func keptFields(s *imap.FetchItemBodySection) func(name []byte) bool {
	names, not := s.HeaderFields, s.HeaderFieldsNot != nil
	if not {
		names = s.HeaderFieldsNot
	}
	return func(name []byte) bool {
		for _, n := range names {
			if len(n) == len(name) && strings.EqualFold(n, string(name)) {
				return !not
			}
		}
		return not
	}
}

// listedContent is HEADER.FIELDS of fields that the summary lists: no file need be opened.
func listedContent(sum *message.Summary, s *imap.FetchItemBodySection) content {
	held := filterHeader([]byte(sum.Fields), keptFields(s))
	return content{there: true, size: int64(len(held)), held: held}
}

// headerContent is the part of a header block that HEADER.FIELDS or HEADER.FIELDS.NOT names.
func headerContent(block *io.SectionReader, s *imap.FetchItemBodySection) (content, error) {
	keep := keptFields(s)
	if block.Size() <= heldHeader {
		raw := make([]byte, block.Size())
		if _, err := io.ReadFull(block, raw); err != nil {
			return content{}, err
		}
		held := filterHeader(raw, keep)
		return content{size: int64(len(held)), held: held}, nil
	}
	c := content{make: func() io.Reader { return newHeaderFilter(block, keep) }}
	var err error
	c.size, err = io.Copy(io.Discard, c.make())
	return c, err
}
