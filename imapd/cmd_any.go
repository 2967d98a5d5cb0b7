package imapd

// Commands of any state: CAPABILITY, NOOP (and CHECK), ID, LOGOUT; and ENABLE.

import (
	"strings"
)

// noop tells what is new (RFC 9051 section 6.1.2). CHECK is the same for us: nothing waits to be written (RFC 3501 section 6.4.1).
func (s *session) noop() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.refreshSelected()
	return ok("", "Done")
}

func (s *session) capability() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.out.Star().Raw("CAPABILITY ").Raw(s.capabilities()).CRLF()
	return ok("", "Done")
}

// RFC 2971 section 3.3.
const (
	maxIDPairs = 30
	maxIDField = 30
	maxIDValue = 1024
)

// id exchanges names (RFC 2971). What the client says of itself is logged, nothing more.
func (s *session) id() reply {
	s.in.SP()
	var said []string
	if c := s.in.Peek(); c == 'N' || c == 'n' {
		s.in.NString()
	} else {
		s.in.List(func() {
			field := s.in.Str()
			s.in.SP()
			value, there := s.in.NString()
			if len(field) > maxIDField || len(value) > maxIDValue || len(said) >= maxIDPairs {
				s.in.fail("Too much ID")
			}
			if there {
				said = append(said, field+"="+value)
			}
		})
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.log.Debug("client", "id", strings.Join(said, " "))
	s.out.Star().Raw(`ID ("name" "mailsrv")`).CRLF()
	return ok("", "Done")
}

func (s *session) logout() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.goodbye("Logging out")
	return ok("", "Good bye")
}

// enable switches features on for the rest of the session (RFC 5161, RFC 9051 section 6.3.1). What is not known is
// passed over in silence, as is what is on already.
func (s *session) enable() reply {
	var names []string
	for s.in.SP(); !s.in.Failed(); s.in.SP() {
		if names = append(names, s.in.Keyword()); s.in.AtEnd() {
			break
		}
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	known := map[string]feature{"IMAP4REV2": featRev2, "CONDSTORE": featCondstore, "UTF8=ACCEPT": featUTF8}
	spelling := map[feature]string{featRev2: "IMAP4rev2", featCondstore: "CONDSTORE", featUTF8: "UTF8=ACCEPT"}
	var now []feature
	text := "ENABLED"
	for _, n := range names {
		if f, there := known[n]; there && !s.enabled(f) {
			now = append(now, f)
			text += " " + spelling[f]
			s.features |= f &^ featCondstore
		}
	}
	s.out.Star().Raw(text).CRLF()
	for _, f := range now {
		if f == featCondstore {
			s.enableCondstore()
		}
	}
	speaksUTF8 := s.enabled(featRev2) || s.enabled(featUTF8)
	s.in.utf8, s.out.utf8 = speaksUTF8, speaksUTF8
	return ok("", "Done")
}

// enableCondstore switches CONDSTORE on: by ENABLE, or by the first command that uses it (RFC 7162 section 3.1: SELECT
// (CONDSTORE), STATUS (HIGHESTMODSEQ), FETCH MODSEQ or CHANGEDSINCE, STORE UNCHANGEDSINCE, SEARCH MODSEQ). If a mailbox is
// selected, the client hears from which mod-sequence on it can count.
func (s *session) enableCondstore() {
	if s.enabled(featCondstore) {
		return
	}
	s.features |= featCondstore
	if s.sel != nil {
		s.tell(ok("HIGHESTMODSEQ "+num(uint64(s.sel.view.ModSeq())), "Highest mod-sequence"))
	}
}
