package imapd

import (
	"slices"

	"mailsrv/storage"
)

// statusItems are the items of STATUS (RFC 9051 section 6.3.11, RFC 3501's RECENT, RFC 7162, RFC 7889, RFC 8438).
var statusItems = map[string]func(*session, *storage.Mailbox) uint64{
	"MESSAGES":      func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.Messages) },
	"UIDNEXT":       func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.UIDNext) },
	"UIDVALIDITY":   func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.UIDValidity) },
	"UNSEEN":        func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.Unseen) },
	"DELETED":       func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.Deleted) },
	"SIZE":          func(_ *session, mb *storage.Mailbox) uint64 { return uint64(max(0, mb.Size)) },
	"RECENT":        func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.Recent) },
	"HIGHESTMODSEQ": func(_ *session, mb *storage.Mailbox) uint64 { return uint64(mb.HighestModSeq) },
	"APPENDLIMIT":   func(s *session, _ *storage.Mailbox) uint64 { return uint64(s.srv.o.MaxMessage) },
}

// StatusItems reads "(" status-att *(SP status-att) ")"; each is told once, in the order asked.
func (r *reader) StatusItems() []string {
	var items []string
	r.List(func() {
		item := r.Keyword()
		if statusItems[item] == nil {
			r.fail("Unknown STATUS item %s", quoteForError([]byte(item)))
		} else if !slices.Contains(items, item) {
			items = append(items, item)
		}
	})
	if len(items) == 0 {
		r.fail("Empty list of STATUS items")
	}
	return items
}

// status is STATUS.
func (s *session) status() reply {
	s.in.SP()
	name := s.in.Mailbox()
	s.in.SP()
	items := s.in.StatusItems()
	if !s.in.End() {
		return s.in.Refusal()
	}
	mb, err := s.account.Mailbox(name)
	if err != nil {
		return refused("status", err)
	}
	// A foreign hand may have put mail there, and this is how clients look for it in mailboxes they have not selected.
	if err := s.account.Refresh(mb.ID); err != nil {
		s.log.Warn("refresh", "mailbox", mb.Name, "err", err)
	} else if mb, err = s.account.MailboxByID(mb.ID); err != nil {
		return refused("status", err)
	}
	s.statusUses(items)
	s.tellStatus(&mb, items)
	return ok("", "Done")
}

// statusUses switches on what asking for the items implies.
func (s *session) statusUses(items []string) {
	if slices.Contains(items, "HIGHESTMODSEQ") {
		s.enableCondstore()
	}
}

// tellStatus sends a STATUS response.
func (s *session) tellStatus(mb *storage.Mailbox, items []string) {
	s.out.Star().Raw("STATUS ").Mailbox(mb.Name).Raw(" (")
	for i, item := range items {
		if i > 0 {
			s.out.SP()
		}
		s.out.Raw(item).SP().Num(statusItems[item](s, mb))
	}
	s.out.Raw(")").CRLF()
}
