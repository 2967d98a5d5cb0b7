package imapd

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"time"

	"mailsrv/internal/message"
	"mailsrv/storage"
)

// verdict is what a key says of a message. Most of a search can be decided from the rows in memory, and most of the rest from
// what the index knows; only what is unknown after that has its bytes read.
type verdict int8

const (
	differs verdict = -1
	unknown verdict = 0 // not enough was loaded to tell
	matches verdict = 1
)

func verdictOf(b bool) verdict {
	if b {
		return matches
	}
	return differs
}

// candidate is a message that a search looks at. row is always there; the rest is nil until the search needs it.
type candidate struct {
	seq    SeqNum
	row    storage.Row
	recent bool
	msg    *storage.Message
	body   storage.Body // with it msg and its Summary are there too

	header []byte // the top header, once read
	err    error  // reading body failed
}

// searchKey is one key of a search program.
type searchKey interface {
	test(c *candidate) verdict
	// cost orders keys: what needs more to be loaded, and more to be read, is asked later.
	cost() int
}

// The costs of keys.
const (
	costRow = iota
	costMessage
	costSummary
	costHeader
	costBody
)

func sortByCost(keys []searchKey) {
	slices.SortStableFunc(keys, func(a, b searchKey) int { return a.cost() - b.cost() })
}

func highestCost(keys []searchKey) int {
	n := 0
	for _, k := range keys {
		n = max(n, k.cost())
	}
	return n
}

type andKey []searchKey

func (k andKey) cost() int { return highestCost(k) }

func (k andKey) test(c *candidate) verdict {
	v := matches
	for _, sub := range k {
		if v = min(v, sub.test(c)); v == differs {
			break
		}
	}
	return v
}

type orKey []searchKey

func (k orKey) cost() int { return highestCost(k) }

func (k orKey) test(c *candidate) verdict {
	v := differs
	for _, sub := range k {
		if v = max(v, sub.test(c)); v == matches {
			break
		}
	}
	return v
}

type notKey struct{ key searchKey }

func (k notKey) cost() int                 { return k.key.cost() }
func (k notKey) test(c *candidate) verdict { return -k.key.test(c) }

type allKey struct{}

func (allKey) cost() int               { return costRow }
func (allKey) test(*candidate) verdict { return matches }

// setKey is a set of message numbers or UIDs, resolved.
type setKey struct {
	set []span
	uid bool
}

func (setKey) cost() int { return costRow }

func (k setKey) test(c *candidate) verdict {
	if k.uid {
		return verdictOf(contains(k.set, uint32(c.row.UID)))
	}
	return verdictOf(contains(k.set, uint32(c.seq)))
}

type hasFlagKey struct {
	flag storage.Flags
	set  bool
}

func (hasFlagKey) cost() int                   { return costRow }
func (k hasFlagKey) test(c *candidate) verdict { return verdictOf(c.row.Flags&k.flag != 0 == k.set) }

type recentKey struct{}

func (recentKey) cost() int                 { return costRow }
func (recentKey) test(c *candidate) verdict { return verdictOf(c.recent) }

type modSeqKey struct{ atLeast storage.ModSeq }

func (modSeqKey) cost() int                   { return costRow }
func (k modSeqKey) test(c *candidate) verdict { return verdictOf(c.row.ModSeq >= k.atLeast) }

type sizeKey struct {
	size   int64
	larger bool
}

func (sizeKey) cost() int { return costMessage }

func (k sizeKey) test(c *candidate) verdict {
	if c.msg == nil {
		return unknown
	}
	if k.larger {
		return verdictOf(c.msg.Size > k.size)
	}
	return verdictOf(c.msg.Size < k.size)
}

// dateKey asks for days from..to, both included, of the internal date or the Date header.
type dateKey struct {
	sent     bool
	from, to int
}

func (k dateKey) cost() int {
	if k.sent {
		return costSummary
	}
	return costMessage
}

func (k dateKey) test(c *candidate) verdict {
	day := 0
	switch {
	case c.msg == nil || k.sent && c.msg.Summary == nil:
		return unknown
	case k.sent:
		d := c.msg.Summary.SentDay
		if d == 0 {
			return differs // no date is neither before nor after another
		}
		day = dayNumber(d/10000, time.Month(d/100%100), d%100)
	default:
		day = dayNumber(internalDate(c.msg).Date())
	}
	return verdictOf(k.from <= day && day <= k.to)
}

// internalDate is the date as FETCH INTERNALDATE shows it, which is the one that SEARCH must agree with.
func internalDate(m *storage.Message) time.Time { return m.InternalDate.UTC() }

// headerKey asks for text in a field of the top header; the empty text asks for the field (RFC 9051 section 6.4.4).
type headerKey struct {
	field string
	text  *needle
}

func (k headerKey) cost() int {
	if k.field == "Subject" && !k.text.empty() || message.Listed(k.field) {
		return costSummary // mostly: see test
	}
	return costHeader
}

func (k headerKey) test(c *candidate) verdict {
	var header []byte
	switch known := c.msg != nil && c.msg.Summary != nil; {
	case known && k.field == "Subject" && !k.text.empty() && len(c.msg.Summary.Subject) < wholeSubject:
		return verdictOf(k.text.in(c.msg.Summary.Subject)) // the one header that nearly every search asks for
	case known && c.msg.Summary.Fields != "" && message.Listed(k.field):
		header = []byte(c.msg.Summary.Fields)
	case c.body == nil:
		return unknown
	default:
		header = c.topHeader()
	}
	found := false
	message.Fields(header, func(name string, raw []byte) bool {
		found = strings.EqualFold(name, k.field) && k.text.inField(raw)
		return !found
	})
	return verdictOf(found)
}

// wholeSubject: a summary's Subject that is shorter was not cut.
const wholeSubject = 1000

// maxHeaderSearched is how much of one header is looked through, 1 MiB: what is longer is not mail.
const maxHeaderSearched = 1 << 20

func (c *candidate) topHeader() []byte {
	if c.header == nil {
		c.header = c.read(0, c.msg.Summary.HeaderSize)
	}
	return c.header
}

// read reads a header block, from..to; what goes wrong is kept in err.
func (c *candidate) read(from, to int64) []byte {
	b := make([]byte, max(0, min(to-from, maxHeaderSearched)))
	n, err := io.ReadFull(io.NewSectionReader(c.body, from, to-from), b)
	if err != nil && len(b) > 0 {
		c.err = err
	}
	return b[:n]
}

// contentKey is BODY, or TEXT if the top header counts too.
type contentKey struct {
	text   *needle
	header bool
}

func (contentKey) cost() int { return costBody }

func (k contentKey) test(c *candidate) verdict {
	switch {
	case k.text.empty():
		return matches
	case c.body == nil:
		return unknown
	case k.header && k.text.inHeader(c.topHeader()):
		return matches
	}
	root := &c.msg.Summary.Root
	return verdictOf(c.inPart(root, k.text))
}

// inPart looks through a part's body: text decoded, and what is below with its headers. Other media types are not looked
// through, which RFC 9051 section 6.4.4 leaves to us, but their headers are: they hold the names of attachments.
func (c *candidate) inPart(p *message.Part, text *needle) bool {
	for i := range p.Children {
		sub := &p.Children[i]
		if text.inHeader(c.read(sub.Header, sub.Body)) || c.inPart(sub, text) {
			return true
		}
	}
	if len(p.Children) > 0 || p.Type != "text" && p.Type != "message" && p.Type != "" {
		return false
	}
	decoded, _ := message.Decode(c.body, p)
	if found, err := text.inReader(charsetReader(decoded, p.Charset)); found || err != nil {
		c.err = err
		return found
	}
	if p.Type != "text" || p.Subtype != "html" {
		return false
	}
	// A phrase in HTML may be cut by tags and entities: what a person reads is looked through too.
	plain, err := message.Text(c.body, p, maxHTMLSearched)
	if err != nil {
		c.err = err
	}
	return text.in(plain)
}

// maxHTMLSearched is how much of an HTML part is reduced to its text for a search; its source is looked through whole.
const maxHTMLSearched = 4 << 20

// charsetReader turns text into UTF-8; text of unknown charset comes as it is.
func charsetReader(r io.Reader, charset string) io.Reader {
	if charset == "" || isUTF8(charset) || strings.EqualFold(charset, "US-ASCII") {
		return r
	}
	if enc := charsetNamed(charset); enc != nil {
		return enc.NewDecoder().Reader(bufio.NewReader(r))
	}
	return r
}
