package imapd

// COPY, MOVE (RFC 9051 sections 6.4.7, 6.4.8), EXPUNGE (6.4.3), and their UID forms.

import (
	"mailsrv/storage"
)

func (s *session) copy() reply { return s.copyOrMove(false) }
func (s *session) move() reply { return s.copyOrMove(true) }

// copyOrMove is COPY and MOVE.
func (s *session) copyOrMove(move bool) reply {
	m := s.sel
	s.in.SP()
	set := s.in.NumSet(s.byUID())
	s.in.SP()
	dest := s.in.Mailbox()
	if !s.in.End() {
		return s.in.Refusal()
	}
	uids, inside := m.uids(set)
	if !inside {
		return bad("Message number out of range")
	}
	if _, err := s.account.Mailbox(dest); err != nil {
		return refusedDest("copy", err)
	}
	if len(uids) == 0 {
		return ok("", "No messages to place")
	}
	what, done := s.account.Copy, "Copied"
	if move {
		what, done = s.account.Move, "Moved"
	}
	copied, err := what(m.id, uids, dest)
	switch {
	case err != nil:
		return refusedDest("copy", err)
	case len(copied.Dest) == 0:
		return no("EXPUNGEISSUED", "The messages are gone")
	}
	code := copyUID(copied)
	if !move {
		return ok(code, done)
	}
	s.tell(ok(code, done)) // before the EXPUNGE responses: RFC 6851 section 4.3
	s.sync()
	return ok(s.modSeqCode(), "Done")
}

// copyUID is the COPYUID response code (RFC 4315 section 3): both sets in the same order.
func copyUID(c storage.Copied) string {
	return "COPYUID " + num(uint64(c.UIDValidity)) + " " + uidSetText(c.Source) + " " + uidSetText(c.Dest)
}

// expunge removes what is \Deleted; UID EXPUNGE only among the given UIDs (RFC 4315 section 2.1).
func (s *session) expunge() reply {
	m := s.sel
	var uids []storage.UID // nil: all
	if s.byUID() {
		s.in.SP()
		set := s.in.UIDSet()
		if !s.in.Failed() {
			uids, _ = m.uids(set)
		}
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	if _, _, err := s.account.Expunge(m.id, uids, true); err != nil {
		return refused("expunge", err)
	}
	s.sync()
	return ok(s.modSeqCode(), "Expunged")
}

// modSeqCode is the HIGHESTMODSEQ code after an expunge, for a client that keeps mod-sequences (RFC 7162 section 3.2.10). It
// is that of the client's picture, which sync just brought up to date.
func (s *session) modSeqCode() string {
	if s.sel == nil || !s.enabled(featCondstore) {
		return ""
	}
	return "HIGHESTMODSEQ " + num(uint64(s.sel.view.ModSeq()))
}
