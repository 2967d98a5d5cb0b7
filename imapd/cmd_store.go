package imapd

// STORE and UID STORE (RFC 9051 section 6.4.6), conditional ones too (RFC 7162 section 3.1.3).

import (
	"slices"
	"strings"

	"mailsrv/storage"
)

// store changes flags.
func (s *session) store() reply {
	m := s.sel
	s.in.SP()
	set := s.in.NumSet(s.byUID())
	s.in.SP()
	change, silent := s.storeArguments()
	if !s.in.End() {
		return s.in.Refusal()
	}
	if change.Conditional {
		s.enableCondstore()
	}
	uids, inside := m.uids(set)
	if !inside {
		return bad("Message number out of range")
	}
	if len(uids) == 0 {
		return ok("", "No messages to change")
	}
	stored, err := s.account.Store(m.id, uids, change)
	if err != nil {
		return refused("store", err)
	}
	if err := s.tellStored(uids, stored, change, silent); err != nil {
		return refused("store", err)
	}
	switch {
	case len(stored.Modified) > 0:
		return ok("MODIFIED "+s.numbersText(stored.Modified), "Some messages were changed by others meanwhile")
	case len(stored.Missing) > 0:
		return ok("EXPUNGEISSUED", "Some messages are gone")
	}
	return ok("", "Flags changed")
}

// storeArguments reads [store-modifiers SP] store-att-flags.
func (s *session) storeArguments() (change storage.FlagChange, silent bool) {
	if s.in.Peek() == '(' {
		s.in.List(func() {
			if s.in.Keyword() != "UNCHANGEDSINCE" {
				s.in.fail("Unknown STORE modifier")
			}
			s.in.SP()
			change.Conditional, change.UnchangedSince = true, storage.ModSeq(s.in.ModSeq())
		})
		s.in.SP()
	}
	switch {
	case s.in.Try('+'):
		change.Op = storage.AddFlags
	case s.in.Try('-'):
		change.Op = storage.RemoveFlags
	}
	switch s.in.Keyword() {
	case "FLAGS":
	case "FLAGS.SILENT":
		silent = true
	default:
		s.in.fail("Unknown STORE item")
	}
	s.in.SP()
	var flags []string
	if s.in.Peek() == '(' {
		flags = s.in.FlagList()
	} else {
		for flags = append(flags, s.in.Flag()); s.in.Try(' '); {
			flags = append(flags, s.in.Flag())
		}
	}
	change.Flags = s.messageFlags(flags)
	return change, silent
}

// tellStored sends the FETCH responses that a STORE owes: all its messages' flags; with .SILENT only what the client could
// not know: flags that another session changed at the same time, and the new mod-sequence under CONDSTORE (RFC 7162
// section 3.1.3). The picture is not moved on by it; sync, which does that, passes over what was told here.
func (s *session) tellStored(uids []storage.UID, stored storage.Stored, change storage.FlagChange, silent bool) error {
	m := s.sel
	if m.told = 0; len(stored.Changed) > 0 {
		m.told = stored.ModSeq
	}
	view, err := s.account.View(m.id)
	if err != nil {
		return err
	}
	if now := view.Mailbox().Keywords; now&^m.keywords != 0 {
		m.keywords |= now
		s.tellFlagNames()
	}
	changed := stored.Changed // ascending, as are uids
	flags, _ := s.account.FlagSet(change.Flags)
	for _, uid := range uids {
		i, _ := m.view.Find(uid)
		old := m.view.At(i)
		row, isChanged := old, len(changed) > 0 && changed[0].UID == uid
		if isChanged {
			row, changed = changed[0], changed[1:]
		}
		switch {
		case !isChanged:
			if silent || contained(stored.Modified, uid) || contained(stored.Missing, uid) {
				continue
			}
			if j, there := view.Find(uid); there {
				row = view.At(j)
			}
		case silent && row.Flags == applied(change.Op, old.Flags, flags):
			if s.enabled(featCondstore) {
				s.out.Star().Num(uint64(m.seqOf(i, uid))).Raw(" FETCH (UID ").Num(uint64(uid))
				s.tellModSeq(row)
				s.out.Raw(")").CRLF()
			}
			continue
		}
		s.tellFlags(m.seqOf(i, uid), row)
	}
	return nil
}

// applied is what a change makes of flags.
func applied(op storage.FlagOp, old, flags storage.Flags) storage.Flags {
	switch op {
	case storage.AddFlags:
		return old | flags
	case storage.RemoveFlags:
		return old &^ flags
	}
	return flags
}

func contained(sorted []storage.UID, uid storage.UID) bool {
	_, there := slices.BinarySearch(sorted, uid)
	return there
}

// numbersText writes messages as the running command numbers them: UIDs, or the client's message numbers.
func (s *session) numbersText(uids []storage.UID) string {
	if s.byUID() {
		return uidSetText(uids)
	}
	nums := make([]uint32, 0, len(uids))
	for _, uid := range uids {
		i, _ := s.sel.view.Find(uid)
		nums = append(nums, uint32(s.sel.seqOf(i, uid)))
	}
	return setText(nums)
}

// uidSetText writes ascending UIDs as a uid-set.
func uidSetText(uids []storage.UID) string { return setText(uids) }

// setText writes ascending numbers as a set, runs as ranges.
func setText[N ~uint32](nums []N) string {
	var b strings.Builder
	for i := 0; i < len(nums); {
		j := i
		for j+1 < len(nums) && nums[j+1] == nums[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(num(uint64(nums[i])))
		if j > i {
			b.WriteString(":" + num(uint64(nums[j])))
		}
		i = j + 1
	}
	return b.String()
}
