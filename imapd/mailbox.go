package imapd

// CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE.

import (
	"errors"
	"slices"
	"strings"

	"mailsrv/storage"
)

// create is CREATE (RFC 9051 section 6.3.4), with USE (RFC 6154 section 3).
func (s *session) create() reply {
	s.in.SP()
	wire := s.in.AString()
	use := ""
	if !s.in.AtEnd() {
		s.in.SP()
		use = s.in.createUse()
	}
	if !s.in.End() {
		return s.in.Refusal()
	}
	// A delimiter at the end says that mailboxes below will follow; the mailbox is called so without it.
	wire = strings.TrimSuffix(wire, string(delimiter))
	name, err := s.in.decodeName(wire)
	if err != nil {
		return no("CANNOT", reasonOf(err))
	}
	mb, err := s.account.CreateMailbox(s.in.netUnicode(name), use)
	if err != nil {
		return refused("create", err)
	}
	if s.enabled(featRev2) && mb.Name != wire {
		s.tellRenamed(&mb, wire)
	}
	return ok("", "Created")
}

// createUse reads "(USE (" use-attr *(SP use-attr) "))". A mailbox of ours has one use at most; \All and \Flagged would be
// views over other mailboxes, which a mailbox that is created cannot be.
func (r *reader) createUse() string {
	var uses []string
	r.List(func() {
		if param := r.Keyword(); param != "USE" {
			r.fail("Unknown CREATE parameter %s", quoteForError([]byte(param)))
		}
		r.SP()
		r.List(func() { uses = append(uses, r.Flag()) })
	})
	if r.Failed() || len(uses) == 0 {
		return ""
	}
	known := []string{`\Archive`, `\Drafts`, `\Junk`, `\Sent`, `\Trash`}
	i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, uses[0]) })
	if len(uses) > 1 || i < 0 {
		r.refuse(no("USEATTR", "A mailbox can have one of the uses "+strings.Join(known, " ")))
		return ""
	}
	return known[i]
}

// delete is DELETE (RFC 9051 section 6.3.5).
func (s *session) delete() reply {
	s.in.SP()
	name := s.in.Mailbox()
	if !s.in.End() {
		return s.in.Refusal()
	}
	mb, err := s.account.Mailbox(name)
	if err == nil {
		err = s.account.DeleteMailbox(name)
	}
	switch {
	case errors.Is(err, storage.ErrNoMailbox) && s.isLevel(name):
		return no("HASCHILDREN", "Not a mailbox, but a level above others: delete those")
	case err != nil:
		return refused("delete", err)
	}
	if s.sel != nil && s.sel.id == mb.ID {
		s.enter(authenticated)
		s.tell(ok("CLOSED", "Selected mailbox was deleted"))
	}
	return ok("", "Deleted")
}

// isLevel reports whether mailboxes are below a name.
func (s *session) isLevel(name string) bool {
	boxes, err := s.account.Mailboxes()
	return err == nil && slices.ContainsFunc(boxes, func(mb storage.Mailbox) bool {
		return strings.HasPrefix(mb.Name, name+string(delimiter))
	})
}

// rename is RENAME (RFC 9051 section 6.3.6).
func (s *session) rename() reply {
	s.in.SP()
	from := s.in.Mailbox()
	s.in.SP()
	to := s.in.Mailbox()
	if !s.in.End() {
		return s.in.Refusal()
	}
	if err := s.account.RenameMailbox(from, to); err != nil {
		return refused("rename", err)
	}
	if s.enabled(featRev2) && from != "INBOX" {
		boxes, err := s.account.Mailboxes()
		if err != nil {
			return refused("rename", err)
		}
		for i := range boxes {
			if rest, below := strings.CutPrefix(boxes[i].Name, to); below && (rest == "" || rest[0] == delimiter) {
				s.tellRenamed(&boxes[i], from+rest)
			}
		}
	}
	return ok("", "Renamed")
}

// subscribe is SUBSCRIBE (RFC 9051 section 6.3.7): names may be subscribed before there is such a mailbox, and after.
func (s *session) subscribe() reply { return s.setSubscribed(true) }

// unsubscribe is UNSUBSCRIBE (RFC 9051 section 6.3.8).
func (s *session) unsubscribe() reply { return s.setSubscribed(false) }

func (s *session) setSubscribed(on bool) reply {
	s.in.SP()
	name := s.in.Mailbox()
	if !s.in.End() {
		return s.in.Refusal()
	}
	if err := s.account.Subscribe(name, on); err != nil {
		return refused("subscribe", err)
	}
	return ok("", "Done")
}
