package imapd

import (
	"cmp"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/text/unicode/norm"

	"mailsrv/storage"
)

// listNode is a name that LIST may speak of: a mailbox, a subscription, or a level of hierarchy above one of them.
type listNode struct {
	name       string
	box        *storage.Mailbox // nil: there is no such mailbox
	subscribed bool
	parentOf   bool // a mailbox exists below it
	matchBelow bool // something below it meets the selection options
	subBelow   bool // something below it is subscribed
}

// listTree holds an account's names with their levels, INBOX first, then by name.
type listTree struct {
	nodes  []*listNode
	byName map[string]*listNode
}

func newListTree(boxes []storage.Mailbox, subscriptions []string) *listTree {
	t := &listTree{byName: make(map[string]*listNode, len(boxes))}
	for i := range boxes {
		n := t.node(boxes[i].Name)
		n.box = &boxes[i]
		t.above(n.name, func(p *listNode) { p.parentOf = true })
	}
	for _, name := range subscriptions {
		n := t.node(name)
		n.subscribed = true
		t.above(n.name, func(p *listNode) { p.subBelow = true })
	}
	slices.SortFunc(t.nodes, func(a, b *listNode) int {
		if (a.name == "INBOX") != (b.name == "INBOX") {
			if a.name == "INBOX" {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	return t
}

func (t *listTree) node(name string) *listNode {
	n := t.byName[name]
	if n == nil {
		n = &listNode{name: name}
		t.byName[name] = n
		t.nodes = append(t.nodes, n)
	}
	return n
}

// above visits the levels above a name, making those that are missing.
func (t *listTree) above(name string, visit func(*listNode)) {
	for i := strings.LastIndexByte(name, delimiter); i > 0; i = strings.LastIndexByte(name[:i], delimiter) {
		visit(t.node(name[:i]))
	}
}

// listQuery is a LIST command as asked.
type listQuery struct {
	imap.ListOptions
	patterns []listPattern
	extended bool // any LIST-EXTENDED syntax was used
	utf8     bool // names on the wire are UTF-8
}

// add adds a pattern, and its composed form if that is another: names are composed (see netUnicode), if not all of them.
func (q *listQuery) add(reference, pattern string) {
	q.patterns = append(q.patterns, newListPattern(reference, pattern))
	if (q.utf8 || rawUTF8(reference+pattern)) && !norm.NFC.IsNormalString(reference+pattern) {
		q.patterns = append(q.patterns, newListPattern(norm.NFC.String(reference), norm.NFC.String(pattern)))
	}
}

// listRow is one LIST response.
type listRow struct {
	name      string
	attrs     []imap.MailboxAttr
	childInfo []string         // selection options that something below meets (RFC 5258 section 3.5)
	oldName   string           // RFC 9051 section 6.3.9.7
	box       *storage.Mailbox // nil if it does not exist
}

// list answers a LIST.
func (t *listTree) list(q *listQuery) []listRow {
	for _, n := range t.nodes {
		if q.SelectRecursiveMatch && q.selects(n) {
			t.above(n.name, func(p *listNode) { p.matchBelow = true })
		}
	}
	var rows []listRow
	for _, n := range t.nodes {
		if !q.wants(n) {
			continue
		}
		for _, p := range q.patterns {
			if p.match(encodeMailboxName(n.name, q.utf8 || p.utf8)) {
				rows = append(rows, q.row(n))
				break // once, however many patterns match
			}
		}
	}
	return rows
}

// selects reports whether the node meets the selection options.
func (q *listQuery) selects(n *listNode) bool {
	if q.SelectSubscribed && !n.subscribed || q.SelectSpecialUse && (n.box == nil || n.box.SpecialUse == "") {
		return false
	}
	return q.SelectSubscribed || n.box != nil
}

// wants reports whether the node is to be told of if a pattern matches its name. Levels without a mailbox are told too: RFC 3501
// section 6.3.8 demands that for patterns that end in "%", and clients that draw trees want them with "*" as well.
func (q *listQuery) wants(n *listNode) bool {
	switch {
	case q.selects(n):
		return true
	case q.SelectRecursiveMatch:
		return n.matchBelow
	case q.SelectSubscribed || q.SelectSpecialUse:
		return false
	}
	return n.parentOf
}

func (q *listQuery) row(n *listNode) listRow {
	r := listRow{name: n.name, box: n.box}
	if n.box == nil {
		// \NonExistent implies \Noselect, but a client that knows only RFC 3501 has not heard of it.
		if q.extended {
			r.attrs = append(r.attrs, imap.MailboxAttrNonExistent)
		} else {
			r.attrs = append(r.attrs, imap.MailboxAttrNoSelect)
		}
	}
	if n.parentOf {
		r.attrs = append(r.attrs, imap.MailboxAttrHasChildren)
	} else {
		r.attrs = append(r.attrs, imap.MailboxAttrHasNoChildren)
	}
	if n.subscribed && (q.SelectSubscribed || q.ReturnSubscribed) {
		r.attrs = append(r.attrs, imap.MailboxAttrSubscribed)
	}
	if n.box != nil && n.box.SpecialUse != "" {
		r.attrs = append(r.attrs, imap.MailboxAttr(n.box.SpecialUse))
	}
	if n.matchBelow {
		if q.SelectSubscribed {
			r.childInfo = append(r.childInfo, "SUBSCRIBED")
		}
		if q.SelectSpecialUse {
			r.childInfo = append(r.childInfo, "SPECIAL-USE")
		}
	}
	return r
}

// lsub answers an LSUB: subscribed names whether or not there is such a mailbox; and where "%" stops above a subscribed
// name, that level, with \Noselect even if it is a mailbox (RFC 3501 section 6.3.9).
func (t *listTree) lsub(p listPattern, utf8Names bool) []listRow {
	var rows []listRow
	for _, n := range t.nodes {
		level := !n.subscribed && n.subBelow && p.endsWithPercent()
		if !n.subscribed && !level || !p.match(encodeMailboxName(n.name, utf8Names || p.utf8)) {
			continue
		}
		r := listRow{name: n.name}
		if level {
			r.attrs = []imap.MailboxAttr{imap.MailboxAttrNoSelect}
		}
		rows = append(rows, r)
	}
	return rows
}
