package imapd

// FETCH: the command's words. What it does is in fetchrun.go, what sections are in section.go and binary.go.

import (
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"mailsrv/internal/message"
	"mailsrv/storage"
)

// maxFetchItems bounds the data items of one FETCH: each may be a whole message.
const maxFetchItems = 500

// fetchKind says where an item's data comes from.
type fetchKind uint8

const (
	fetchUID fetchKind = iota
	fetchFlags
	fetchModSeq
	fetchInternalDate
	fetchSize
	fetchEnvelope
	fetchBodyStructure
	fetchBodyShort // BODY: BODYSTRUCTURE without extension data
	fetchSection   // BODY[…] and its old names
	fetchBinary
	fetchBinarySize
)

// fetchItem is one data item of a FETCH.
type fetchItem struct {
	kind    fetchKind
	name    string // as answered: "RFC822.SIZE", "BODY", "RFC822.TEXT"
	section imap.FetchItemBodySection
	plain   bool // the name stands for the section: RFC822 and its kin
}

// sets reports whether fetching the item makes the message \Seen.
func (it *fetchItem) sets() bool {
	return (it.kind == fetchSection || it.kind == fetchBinary) && !it.section.Peek
}

// fetchProgram is a FETCH command as read.
type fetchProgram struct {
	set          imap.NumSet
	items        []fetchItem
	changedSince storage.ModSeq
	conditional  bool // CHANGEDSINCE was given
}

// has reports whether one of the items is of the kind.
func (f *fetchProgram) has(kinds ...fetchKind) bool {
	return slices.ContainsFunc(f.items, func(it fetchItem) bool { return slices.Contains(kinds, it.kind) })
}

func (f *fetchProgram) needsBody() bool {
	return f.has(fetchSection, fetchBinary, fetchBinarySize)
}

// fieldsOnly reports whether all that is asked of the body is fields that a summary lists.
func (f *fetchProgram) fieldsOnly() bool {
	return !slices.ContainsFunc(f.items, func(it fetchItem) bool { return it.kind >= fetchSection && !it.listed() })
}

// listed reports whether the item is HEADER.FIELDS of the message with none but fields that a summary lists.
func (it *fetchItem) listed() bool {
	return it.kind == fetchSection && len(it.section.Part) == 0 && it.section.HeaderFields != nil &&
		!slices.ContainsFunc(it.section.HeaderFields, func(name string) bool { return !message.Listed(name) })
}

func (f *fetchProgram) needsSummary() bool {
	return f.needsBody() || f.has(fetchEnvelope, fetchBodyStructure, fetchBodyShort)
}

func (f *fetchProgram) needsMessage() bool {
	return f.needsSummary() || f.has(fetchInternalDate, fetchSize)
}

// Fetch reads what follows "FETCH" up to the command's end.
func (r *reader) Fetch(uid bool) fetchProgram {
	var f fetchProgram
	r.SP()
	f.set = r.NumSet(uid)
	r.SP()
	if r.Peek() == '(' {
		r.List(func() {
			it := r.FetchItem()
			if it.kind < fetchSection && f.has(it.kind) {
				return // asked twice, told once
			}
			if f.items = append(f.items, it); len(f.items) > maxFetchItems {
				r.refuse(no("LIMIT", "Too many FETCH items"))
			}
		})
		if len(f.items) == 0 {
			r.fail("Empty list of FETCH items")
		}
	} else {
		f.items = r.fetchMacro()
	}
	if !r.AtEnd() {
		r.SP()
		r.List(func() { r.fetchModifier(&f) })
	}
	if uid && !f.has(fetchUID) {
		f.items = slices.Insert(f.items, 0, fetchItem{kind: fetchUID, name: "UID"}) // RFC 9051 section 6.4.9
	}
	if f.conditional && !f.has(fetchModSeq) {
		f.items = append(f.items, fetchItem{kind: fetchModSeq, name: "MODSEQ"}) // RFC 7162 section 3.1.4.1
	}
	return f
}

// fetchMacro reads ALL, FAST, FULL or a single item.
func (r *reader) fetchMacro() []fetchItem {
	fast := []fetchItem{
		{kind: fetchFlags, name: "FLAGS"}, {kind: fetchInternalDate, name: "INTERNALDATE"}, {kind: fetchSize, name: "RFC822.SIZE"},
	}
	all := append(slices.Clone(fast), fetchItem{kind: fetchEnvelope, name: "ENVELOPE"})
	switch name := r.fetchName(); name {
	case "FAST":
		return fast
	case "ALL":
		return all
	case "FULL":
		return append(all, fetchItem{kind: fetchBodyShort, name: "BODY"})
	default:
		return []fetchItem{r.fetchItem(name)}
	}
}

// FetchItem reads fetch-att.
func (r *reader) FetchItem() fetchItem { return r.fetchItem(r.fetchName()) }

// fetchName reads an item's name, up to its "[" if it has one.
func (r *reader) fetchName() string {
	return strings.ToUpper(r.span("a FETCH item", 64, func(c byte) bool { return c == '.' || isDigit(c) || isLetter(c) }))
}

func (r *reader) fetchItem(name string) fetchItem {
	it := fetchItem{name: name}
	if r.Try('[') {
		r.fetchSection(&it)
		return it
	}
	switch name {
	case "UID":
		it.kind = fetchUID
	case "FLAGS":
		it.kind = fetchFlags
	case "MODSEQ":
		it.kind = fetchModSeq
	case "INTERNALDATE":
		it.kind = fetchInternalDate
	case "RFC822.SIZE":
		it.kind = fetchSize
	case "ENVELOPE":
		it.kind = fetchEnvelope
	case "BODYSTRUCTURE":
		it.kind = fetchBodyStructure
	case "BODY":
		it.kind = fetchBodyShort
	case "RFC822":
		it.kind, it.plain = fetchSection, true
	case "RFC822.HEADER":
		it.kind, it.plain = fetchSection, true
		it.section = imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Peek: true}
	case "RFC822.TEXT":
		it.kind, it.plain = fetchSection, true
		it.section.Specifier = imap.PartSpecifierText
	default:
		r.fail("Unknown FETCH item %s", quoteForError([]byte(name)))
	}
	return it
}

// fetchSection reads what follows "BODY[", "BINARY.PEEK[" and so on.
func (r *reader) fetchSection(it *fetchItem) {
	peek := false
	switch it.name {
	case "BODY", "BODY.PEEK":
		it.kind, peek, it.name = fetchSection, it.name == "BODY.PEEK", "BODY"
	case "BINARY", "BINARY.PEEK":
		it.kind, peek, it.name = fetchBinary, it.name == "BINARY.PEEK", "BINARY"
	case "BINARY.SIZE":
		it.kind, peek = fetchBinarySize, true
	default:
		r.fail("Unknown FETCH item %s[", quoteForError([]byte(it.name)))
		return
	}
	it.section = r.Section(it.kind != fetchSection)
	it.section.Peek = peek
	if it.kind != fetchBinarySize {
		it.section.Partial = r.Partial()
	}
}

// fetchModifier reads fetch-modifier: CHANGEDSINCE (RFC 7162 section 3.1.4.1).
func (r *reader) fetchModifier(f *fetchProgram) {
	if name := r.Keyword(); name != "CHANGEDSINCE" || f.conditional {
		r.fail("Unknown FETCH modifier %s", quoteForError([]byte(name)))
		return
	}
	r.SP()
	f.conditional, f.changedSince = true, storage.ModSeq(r.ModSeq())
}
