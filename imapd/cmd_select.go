package imapd

// SELECT, EXAMINE, CLOSE, UNSELECT.

import (
	"errors"
	"slices"
	"strconv"

	"mailsrv/storage"
)

func num(n uint64) string { return strconv.FormatUint(n, 10) }

func (s *session) selectMailbox() reply { return s.open(false) }
func (s *session) examine() reply       { return s.open(true) }

// open is SELECT and EXAMINE (RFC 9051 sections 6.3.2, 6.3.3). Whatever comes of it, the mailbox that was selected is not any
// more.
func (s *session) open(readOnly bool) reply {
	s.in.SP()
	name := s.in.Mailbox()
	condstore := false
	if !s.in.AtEnd() {
		s.in.SP()
		s.in.List(func() {
			if p := s.in.Keyword(); p == "CONDSTORE" { // RFC 7162 section 3.1.8
				condstore = true
			} else {
				s.in.fail("Unknown parameter")
			}
		})
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	if s.state == selected {
		s.enter(authenticated)
		s.tell(ok("CLOSED", "Previous mailbox closed")) // RFC 7162 section 3.2.11, RFC 9051 section 7.1
	}
	m, err := s.openMailbox(name, readOnly)
	if err != nil {
		return refused("select", err)
	}
	if condstore {
		s.features |= featCondstore
	}
	s.enter(selected)
	s.sel = m
	s.tellSelected()
	if readOnly {
		return ok("READ-ONLY", "Examined")
	}
	return ok("READ-WRITE", "Selected")
}

// openMailbox takes the first look at a mailbox.
func (s *session) openMailbox(name string, readOnly bool) (*mailbox, error) {
	mb, err := s.account.Mailbox(name)
	if err != nil {
		return nil, err
	}
	if err := s.account.Refresh(mb.ID); err != nil {
		s.log.Warn("refresh", "mailbox", mb.Name, "err", err)
	}
	m := &mailbox{id: mb.ID, name: mb.Name, readOnly: readOnly}
	var first storage.UID
	claim := !readOnly && !s.enabled(featRev2)
	if claim { // before the view, so that what is claimed is in it
		if first, err = s.account.ClaimRecent(m.id); err != nil {
			return nil, err
		}
	}
	if m.view, err = s.account.View(m.id); err != nil {
		return nil, err
	}
	switch n, recent := m.view.Len(), int(m.view.Mailbox().Recent); {
	case claim:
		m.addRecent(first, m.view)
	case !s.enabled(featRev2) && recent > 0 && recent <= n: // EXAMINE looks, and leaves them recent
		m.addRecent(m.view.At(n-recent).UID, m.view)
	}
	return m, nil
}

// tellSelected sends the untagged responses of SELECT.
func (s *session) tellSelected() {
	m := s.sel
	state := m.view.Mailbox()
	m.keywords = state.Keywords
	s.tellFlagNames()
	s.out.Star().Num(uint64(m.count())).Raw(" EXISTS").CRLF()
	if !s.enabled(featRev2) {
		s.out.Star().Num(uint64(m.countRecent())).Raw(" RECENT").CRLF()
		if i := m.firstUnseen(); i >= 0 {
			s.tell(ok("UNSEEN "+num(uint64(i+1)), "First unseen message"))
		}
	}
	s.tell(ok("UIDVALIDITY "+num(uint64(state.UIDValidity)), "UIDs valid"))
	s.tell(ok("UIDNEXT "+num(uint64(state.UIDNext)), "Predicted next UID"))
	// HIGHESTMODSEQ is for all: RFC 7162 section 3.1.2.1 has the server say it whether or not it was asked.
	s.tell(ok("HIGHESTMODSEQ "+num(uint64(m.view.ModSeq())), "Highest mod-sequence"))
	if s.enabled(featRev2) {
		s.out.Star().Raw("LIST (")
		if state.SpecialUse != "" {
			s.out.Raw(state.SpecialUse)
		}
		s.out.Raw(`) "/" `).Mailbox(m.name).CRLF()
	}
}

// tellFlagNames sends FLAGS and PERMANENTFLAGS: the system flags and the mailbox's keywords.
func (s *session) tellFlagNames() {
	m := s.sel
	system := storage.Seen | storage.Answered | storage.Flagged | storage.Deleted | storage.Draft
	names := s.account.FlagNames(system | m.keywords)
	s.out.Star().Raw("FLAGS ").Flags(names).CRLF()
	permanent := []string{}
	if !m.readOnly {
		permanent = slices.Clone(names)
		if len(s.account.Keywords()) < storage.MaxKeywords {
			permanent = append(permanent, `\*`)
		}
	}
	s.out.Star().Raw("OK [PERMANENTFLAGS ").Flags(permanent).Raw("] Flags that are kept").CRLF()
}

// firstUnseen is the index of the first message without \Seen, or -1.
func (m *mailbox) firstUnseen() int {
	if m.view.Mailbox().Unseen == 0 {
		return -1
	}
	for i, row := range m.view.Rows(0, m.view.Len()) {
		if row.Flags&storage.Seen == 0 {
			return i
		}
	}
	return -1
}

// closeMailbox is CLOSE (RFC 9051 section 6.4.1): what is \Deleted goes without a word; nothing does after EXAMINE.
func (s *session) closeMailbox() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	m := s.sel
	s.enter(authenticated)
	if !m.readOnly {
		if _, _, err := s.account.Expunge(m.id, nil, true); err != nil && !errors.Is(err, storage.ErrNoMailbox) {
			return refused("close", err)
		}
	}
	return ok("", "Closed")
}

// unselect is UNSELECT (RFC 9051 section 6.4.2): CLOSE without the expunging.
func (s *session) unselect() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.enter(authenticated)
	return ok("", "Unselected")
}
