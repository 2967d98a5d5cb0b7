package imapd

// LIST: the command's words and its responses; what they mean is in listtree.go.

import (
	"github.com/emersion/go-imap/v2"

	"mailsrv/storage"
)

// maxListPatterns bounds the patterns of one LIST: each is compared with every name.
const maxListPatterns = 100

// list is LIST, basic and extended (RFC 9051 section 6.3.9, RFC 5258, RFC 5819, RFC 6154).
func (s *session) list() reply {
	q := &listQuery{utf8: s.in.utf8}
	s.in.SP()
	if s.in.Peek() == '(' {
		q.extended = true
		s.in.listSelection(q)
		s.in.SP()
	}
	root := s.in.listPatterns(q)
	var items []string
	if !s.in.AtEnd() {
		q.extended = true
		items = s.in.listReturn(q)
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	if root {
		// RFC 3501 section 6.3.8: the empty pattern asks for the delimiter and the root of the reference, "" for us.
		s.out.Star().Raw(`LIST (\Noselect) "/" ""`).CRLF()
		return ok("", "Listed")
	}
	q.extended = q.extended || s.enabled(featRev2)
	tree, err := s.listTree()
	if err != nil {
		return refused("list", err)
	}
	s.statusUses(items)
	for _, row := range tree.list(q) {
		s.tellList("LIST", row)
		if len(items) > 0 && row.box != nil {
			s.tellStatus(row.box, items)
		}
	}
	return ok("", "Listed")
}

func (s *session) listTree() (*listTree, error) {
	boxes, err := s.account.Mailboxes()
	if err != nil {
		return nil, err
	}
	subscriptions, err := s.account.Subscriptions()
	if err != nil {
		return nil, err
	}
	return newListTree(boxes, subscriptions), nil
}

// listSelection reads list-select-opts.
func (r *reader) listSelection(q *listQuery) {
	any := false
	r.List(func() {
		switch opt := r.Keyword(); opt {
		case "SUBSCRIBED":
			q.SelectSubscribed, any = true, true
		case "SPECIAL-USE":
			q.SelectSpecialUse, any = true, true
		case "REMOTE":
			q.SelectRemote = true // there are none
		case "RECURSIVEMATCH":
			q.SelectRecursiveMatch = true
		default:
			r.fail("Unknown LIST selection option %s", opt)
		}
	})
	if q.SelectRecursiveMatch && !any {
		r.fail("RECURSIVEMATCH needs another selection option") // RFC 9051 section 6.3.9.1
	}
}

// listPatterns reads the reference and mbox-or-pat. root reports whether it was the one empty pattern of basic LIST.
func (r *reader) listPatterns(q *listQuery) (root bool) {
	reference := r.ListMailbox()
	r.SP()
	if r.Peek() != '(' {
		pattern := r.ListMailbox()
		q.add(reference, pattern)
		return pattern == "" && !q.extended
	}
	q.extended = true
	r.List(func() {
		if q.add(reference, r.ListMailbox()); len(q.patterns) > maxListPatterns {
			r.refuse(no("LIMIT", "Too many patterns"))
		}
	})
	if len(q.patterns) == 0 {
		r.fail("Empty list of patterns")
	}
	return false
}

// listReturn reads SP "RETURN" SP list-return-opts, and returns the items of STATUS if that is among them.
func (r *reader) listReturn(q *listQuery) (items []string) {
	r.SP()
	if !r.TryFold("RETURN") {
		r.fail("Expected RETURN before %s", quoteForError(r.line[r.pos:]))
	}
	r.SP()
	r.List(func() {
		switch opt := r.Keyword(); opt {
		case "SUBSCRIBED":
			q.ReturnSubscribed = true
		case "CHILDREN":
			q.ReturnChildren = true
		case "SPECIAL-USE":
			q.ReturnSpecialUse = true
		case "STATUS":
			r.SP()
			items = r.StatusItems()
		default:
			r.fail("Unknown LIST return option %s", opt)
		}
	})
	return items
}

// tellList sends one LIST or LSUB response.
func (s *session) tellList(name string, row listRow) {
	s.out.Star().Raw(name).Raw(" (")
	for i, a := range row.attrs {
		if i > 0 {
			s.out.SP()
		}
		s.out.Raw(string(a))
	}
	s.out.Raw(`) "/" `).Mailbox(row.name)
	switch {
	case row.childInfo != nil:
		s.out.Raw(` ("CHILDINFO" (`)
		for i, opt := range row.childInfo {
			if i > 0 {
				s.out.SP()
			}
			s.out.Str(opt)
		}
		s.out.Raw("))")
	case row.oldName != "":
		s.out.Raw(` ("OLDNAME" (`).Mailbox(row.oldName).Raw("))")
	}
	s.out.CRLF()
}

// tellRenamed tells an IMAP4rev2 client under which name it will find what it called otherwise (RFC 9051 section 6.3.9.7).
func (s *session) tellRenamed(mb *storage.Mailbox, oldName string) {
	row := listRow{name: mb.Name, oldName: oldName}
	if mb.SpecialUse != "" {
		row.attrs = append(row.attrs, imap.MailboxAttr(mb.SpecialUse))
	}
	s.tellList("LIST", row)
}
