package imapd

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"

	"mailsrv/storage"
)

// Bounds on a SEARCH. A client may OR together a thousand Message-IDs; it may not make every message be read a thousand times.
const (
	maxSearchKeys    = 20000
	maxSearchDepth   = 2000 // NOT, OR and parentheses within each other: long chains of OR nest one level each
	maxContentKeys   = 100  // keys that read bodies: BODY and TEXT
	maxSearchStrings = 64 << 10
)

// searchProgram is a SEARCH command as read. go-imap's SearchCriteria is not used for it: it has no place for SMALLER 0, NEW, OLD, or
// keys to come such as EMAILID, and no order of its own.
type searchProgram struct {
	imap.SearchOptions
	key      searchKey
	extended bool // RETURN was given: the answer is ESEARCH
	modSeq   bool // MODSEQ was asked about: the answer tells one (RFC 7162 section 3.1.5)
}

// searchParser reads search programs. Message sets and keywords are resolved while reading: the session's view stands
// still during a command.
type searchParser struct {
	*reader
	exists  uint32                                   // highest message number, 0 if there is none
	lastUID uint32                                   // highest UID
	saved   func() []span                            // what "$" holds, as UIDs
	flag    func(name string) (storage.Flags, bool)  // a keyword's bit
	charset func(s string) (text string, valid bool) // undoes CHARSET

	noCharset bool // CHARSET is refused

	keys, content, strings int
	depth                  int
	modSeq                 bool
}

// Search reads what follows "SEARCH" up to the command's end.
func (p *searchParser) Search() searchProgram {
	var prog searchProgram
	p.SP()
	if p.TryFold("RETURN ") {
		prog.extended = true
		prog.SearchOptions = p.returnOptions()
		p.SP()
	}
	p.charset = func(s string) (string, bool) { return s, true }
	if p.TryFold("CHARSET ") {
		p.charsetName()
		p.SP()
	}
	prog.key = p.all(func() bool { return p.AtEnd() })
	prog.modSeq = p.modSeq
	return prog
}

// returnOptions reads RETURN's list (RFC 9051 section 6.4.4.1); "()" is ALL.
func (p *searchParser) returnOptions() imap.SearchOptions {
	var o imap.SearchOptions
	p.List(func() {
		switch opt := p.Keyword(); opt {
		case "MIN":
			o.ReturnMin = true
		case "MAX":
			o.ReturnMax = true
		case "ALL":
			o.ReturnAll = true
		case "COUNT":
			o.ReturnCount = true
		case "SAVE":
			o.ReturnSave = true
		default:
			p.fail("Unknown SEARCH return option %s", opt)
		}
	})
	if o == (imap.SearchOptions{}) {
		o.ReturnAll = true
	}
	return o
}

// badCharset lists what we are sure that clients know by name.
const badCharset = "BADCHARSET (US-ASCII UTF-8 ISO-8859-1 ISO-8859-15 WINDOWS-1252 KOI8-R ISO-2022-JP SHIFT_JIS EUC-JP GB18030 BIG5 EUC-KR)"

func (p *searchParser) charsetName() {
	if p.noCharset {
		p.fail("CHARSET is not allowed with UTF8=ACCEPT")
	}
	name := p.AString()
	if p.Failed() || strings.EqualFold(name, "US-ASCII") {
		return
	}
	enc := charsetNamed(name)
	if enc == nil {
		p.refuse(no(badCharset, "Unknown charset"))
		return
	}
	if isUTF8(name) {
		p.charset = func(s string) (string, bool) { return s, utf8.ValidString(s) }
		return
	}
	p.charset = func(s string) (string, bool) {
		text, err := enc.NewDecoder().String(s)
		return text, err == nil && !strings.ContainsRune(text, utf8.RuneError)
	}
}

func isUTF8(charset string) bool {
	return strings.EqualFold(charset, "UTF-8") || strings.EqualFold(charset, "UTF8")
}

// charsetNamed finds a charset, nil if unknown. The web's names go first: they read mail's iso-8859-1 as the windows-1252 that
// it mostly is.
func charsetNamed(name string) encoding.Encoding {
	if enc, err := htmlindex.Get(name); err == nil && enc != encoding.Replacement {
		return enc
	}
	if enc, err := ianaindex.MIME.Encoding(name); err == nil {
		return enc // nil for charsets that are registered and not supported
	}
	return nil
}

// all reads keys with spaces between, until atEnd; all of them must hold.
func (p *searchParser) all(atEnd func() bool) searchKey {
	var keys andKey
	for {
		if k := p.Key(); !p.Failed() {
			keys = append(keys, k)
		}
		if p.Failed() || atEnd() {
			break
		}
		p.SP()
	}
	if len(keys) == 1 {
		return keys[0]
	}
	sortByCost(keys)
	return keys
}

// Key reads search-key.
func (p *searchParser) Key() searchKey {
	if p.keys++; p.keys > maxSearchKeys {
		p.refuse(no("LIMIT", "Too many search keys"))
	}
	if p.depth++; p.depth > maxSearchDepth {
		p.refuse(no("LIMIT", "Search keys are nested too deeply"))
	}
	defer func() { p.depth-- }()
	switch c := p.Peek(); {
	case p.Failed():
		return allKey{}
	case c == '(':
		p.Expect('(')
		k := p.all(func() bool { return p.Peek() == ')' })
		p.Expect(')')
		return k
	case c == '*' || isDigit(c):
		return setKey{set: resolve(spansOf(p.SeqSet()), p.exists)}
	case c == '$':
		p.Expect('$')
		return setKey{set: p.saved(), uid: true}
	}
	switch name := p.Keyword(); name {
	case "NOT":
		p.SP()
		return notKey{p.Key()}
	case "OR":
		p.SP()
		a := p.Key()
		p.SP()
		k := orKey{a, p.Key()}
		sortByCost(k)
		return k
	default:
		if parse := searchKeys[name]; parse != nil {
			return parse(p)
		}
		p.fail("Unknown search key %s", quoteForError([]byte(name)))
		return allKey{}
	}
}

// searchKeys is the language of SEARCH beside NOT, OR and parentheses: RFC 9051 section 6.4.4, with RFC 3501's NEW, OLD and RECENT,
// and RFC 7162's MODSEQ.
var searchKeys = searchKeyTable()

func searchKeyTable() map[string]func(*searchParser) searchKey {
	flag := func(f storage.Flags, set bool) func(*searchParser) searchKey {
		return func(*searchParser) searchKey { return hasFlagKey{f, set} }
	}
	header := func(field string) func(*searchParser) searchKey {
		return func(p *searchParser) searchKey { p.SP(); return headerKey{field, p.text()} }
	}
	date := func(sent bool, from, to int) func(*searchParser) searchKey {
		return func(p *searchParser) searchKey { p.SP(); return newDateKey(p.Date(), sent, from, to) }
	}
	const ever = 1 << 30
	return map[string]func(*searchParser) searchKey{
		"ALL":        func(*searchParser) searchKey { return allKey{} },
		"ANSWERED":   flag(storage.Answered, true),
		"UNANSWERED": flag(storage.Answered, false),
		"DELETED":    flag(storage.Deleted, true),
		"UNDELETED":  flag(storage.Deleted, false),
		"DRAFT":      flag(storage.Draft, true),
		"UNDRAFT":    flag(storage.Draft, false),
		"FLAGGED":    flag(storage.Flagged, true),
		"UNFLAGGED":  flag(storage.Flagged, false),
		"SEEN":       flag(storage.Seen, true),
		"UNSEEN":     flag(storage.Seen, false),
		"KEYWORD":    func(p *searchParser) searchKey { return p.keyword(true) },
		"UNKEYWORD":  func(p *searchParser) searchKey { return p.keyword(false) },
		"RECENT":     func(*searchParser) searchKey { return recentKey{} },
		"OLD":        func(*searchParser) searchKey { return notKey{recentKey{}} },
		"NEW":        func(*searchParser) searchKey { return andKey{recentKey{}, hasFlagKey{storage.Seen, false}} },

		"LARGER":  func(p *searchParser) searchKey { p.SP(); return sizeKey{p.Number64(), true} },
		"SMALLER": func(p *searchParser) searchKey { p.SP(); return sizeKey{p.Number64(), false} },

		"BEFORE":     date(false, -ever, -1),
		"ON":         date(false, 0, 0),
		"SINCE":      date(false, 0, ever),
		"SENTBEFORE": date(true, -ever, -1),
		"SENTON":     date(true, 0, 0),
		"SENTSINCE":  date(true, 0, ever),

		"BCC":     header("Bcc"),
		"CC":      header("Cc"),
		"FROM":    header("From"),
		"SUBJECT": header("Subject"),
		"TO":      header("To"),
		"HEADER":  (*searchParser).headerKey,
		"BODY":    func(p *searchParser) searchKey { return p.contentKey(false) },
		"TEXT":    func(p *searchParser) searchKey { return p.contentKey(true) },

		"UID": func(p *searchParser) searchKey {
			p.SP()
			set := p.UIDSet()
			if imap.IsSearchRes(set) {
				return setKey{set: p.saved(), uid: true}
			}
			return setKey{set: resolve(spansOf(set), p.lastUID), uid: true}
		},
		"MODSEQ": (*searchParser).modSeqKey,
	}
}

// text reads astring and undoes the charset.
func (p *searchParser) text() *needle {
	s := p.AString()
	if p.Failed() {
		return newNeedle("")
	}
	if p.strings += len(s); p.strings > maxSearchStrings {
		p.refuse(no("LIMIT", "Search strings are too long"))
	}
	text, valid := p.charset(s)
	if !valid {
		p.fail("Search string is not valid in its charset")
	}
	return newNeedle(text)
}

func (p *searchParser) keyword(set bool) searchKey {
	p.SP()
	name := p.Flag()
	if strings.EqualFold(name, `\Recent`) {
		if set {
			return recentKey{}
		}
		return notKey{recentKey{}}
	}
	f, known := p.flag(name)
	switch {
	case known:
		return hasFlagKey{f, set}
	case set:
		return notKey{allKey{}} // nobody ever used it
	}
	return allKey{}
}

func (p *searchParser) headerKey() searchKey {
	p.SP()
	field := p.AString()
	if !p.Failed() && (field == "" || strings.ContainsFunc(field, func(c rune) bool { return c <= ' ' || c == ':' || c >= 0x7f })) {
		p.fail("Invalid header field name %s", quoteForError([]byte(field)))
	}
	p.SP()
	return headerKey{field, p.text()}
}

func (p *searchParser) contentKey(header bool) searchKey {
	p.SP()
	if p.content++; p.content > maxContentKeys {
		p.refuse(no("LIMIT", "Too many BODY and TEXT keys"))
	}
	return contentKey{p.text(), header}
}

// modSeqKey reads what follows MODSEQ: [entry-name SP entry-type-req SP] mod-sequence (RFC 7162 section 3.1.5). We keep one
// mod-sequence for all of a message's metadata, which the RFC allows; so the entry is read and not used.
func (p *searchParser) modSeqKey() searchKey {
	p.SP()
	p.modSeq = true
	if p.Peek() == '"' {
		entry := p.Str()
		p.SP()
		switch kind := p.Keyword(); {
		case p.Failed():
		case !strings.HasPrefix(strings.ToLower(entry), "/flags/"):
			p.fail("Unknown metadata entry %s", quoteForError([]byte(entry)))
		case kind != "PRIV" && kind != "SHARED" && kind != "ALL":
			p.fail("Unknown metadata type %s", kind)
		}
		p.SP()
	}
	return modSeqKey{storage.ModSeq(p.ModSeq())}
}

// dayNumber numbers days without gaps, as written, whatever the zone (RFC 9051 section 6.4.4: time and zone are disregarded).
func dayNumber(year int, month time.Month, day int) int {
	return int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// newDateKey asks for days from..to around the given one.
func newDateKey(day time.Time, sent bool, from, to int) searchKey {
	n := dayNumber(day.Date())
	return dateKey{sent: sent, from: n + from, to: n + to}
}
