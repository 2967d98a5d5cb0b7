package imapd

import (
	"errors"
	"iter"
	"slices"

	"github.com/emersion/go-imap/v2"

	"mailsrv/storage"
)

// mailbox is a selected mailbox as the client pictures it: the rows of the view it was last told about, and the ghosts, rows
// that are gone from the store but not yet from the client's picture. Both together, in UID order, are the client's
// sequence numbers. Only sync changes it, and only while it tells the client.
type mailbox struct {
	id       storage.MailboxID
	name     string
	readOnly bool

	view     *storage.View
	ghosts   []ghost            // ascending
	recent   []storage.UIDRange // this session's \Recent messages (rev1)
	keywords storage.Flags      // those the client was told of in FLAGS
	told     storage.ModSeq     // rows with this mod-sequence were changed by our own STORE and reported by it
	saved    []storage.UID      // SEARCH's saved result "$", ascending (RFC 9051 section 6.4.4.1)
	flags    map[flagKey]string // flag lists already spelt
}

// ghost is an expunged message that still has a number.
type ghost struct {
	uid storage.UID
	pos int // its index in the client's picture
}

type flagKey struct {
	flags  storage.Flags
	recent bool
}

// count is EXISTS: what the client believes the mailbox holds.
func (m *mailbox) count() int { return m.view.Len() + len(m.ghosts) }

// seqOf returns the number that the client has for row i of the view.
func (m *mailbox) seqOf(i int, uid storage.UID) SeqNum {
	before, _ := slices.BinarySearchFunc(m.ghosts, uid, func(g ghost, u storage.UID) int { return int(int64(g.uid) - int64(u)) })
	return SeqNum(i + before + 1)
}

// lastUID is the highest UID in the client's picture, 0 if that is empty.
func (m *mailbox) lastUID() storage.UID {
	var last storage.UID
	if n := len(m.ghosts); n > 0 {
		last = m.ghosts[n-1].uid
	}
	if n := m.view.Len(); n > 0 {
		last = max(last, m.view.At(n-1).UID)
	}
	return last
}

// uidSpans resolves "*" and "$" in a set of UIDs.
func (m *mailbox) uidSpans(set imap.UIDSet) []span {
	if imap.IsSearchRes(set) {
		out := make([]span, 0, len(m.saved))
		for _, u := range m.saved {
			out = append(out, span{uint32(u), uint32(u)})
		}
		return normal(out)
	}
	return resolve(spansOf(set), uint32(m.lastUID()))
}

// seqSpans resolves "*" in a set of message numbers. inside is false if the set names numbers that the client does not
// have: BAD (RFC 9051 section 9, seq-number). QUIRK: "n:*" beyond the end is the last message, as with UIDs, and nothing
// in an empty mailbox: clients ask so for what is new.
func (m *mailbox) seqSpans(set imap.SeqSet) (spans []span, inside bool) {
	n := uint32(m.count())
	ranges := spansOf(set)
	return resolve(ranges, n), !slices.ContainsFunc(ranges, func(s span) bool { return s.last > n })
}

// rows iterates over the messages that a set names, ascending, with the client's number of each. Ghosts and UIDs that are
// not there are left out. ok is false if the set holds message numbers beyond the client's picture: answer BAD.
func (m *mailbox) rows(set imap.NumSet) (seq iter.Seq2[SeqNum, storage.Row], ok bool) {
	switch set := set.(type) {
	case imap.UIDSet:
		return m.rowsByUID(m.uidSpans(set)), true
	case imap.SeqSet:
		spans, inside := m.seqSpans(set)
		return m.rowsBySeq(spans), inside
	}
	return func(func(SeqNum, storage.Row) bool) {}, true
}

func (m *mailbox) rowsByUID(spans []span) iter.Seq2[SeqNum, storage.Row] {
	return func(yield func(SeqNum, storage.Row) bool) {
		for _, s := range spans {
			from, _ := m.view.Find(storage.UID(s.first))
			for i, row := range m.view.Rows(from, m.view.Len()) {
				if uint32(row.UID) > s.last {
					break
				}
				if !yield(m.seqOf(i, row.UID), row) {
					return
				}
			}
		}
	}
}

func (m *mailbox) rowsBySeq(spans []span) iter.Seq2[SeqNum, storage.Row] {
	return func(yield func(SeqNum, storage.Row) bool) {
		for _, s := range spans {
			// Index p of the picture is row p-k of the view if k ghosts stand before it.
			p := int(s.first) - 1
			k, _ := slices.BinarySearchFunc(m.ghosts, p, func(g ghost, p int) int { return g.pos - p })
			for _, row := range m.view.Rows(min(p-k, m.view.Len()), m.view.Len()) {
				for k < len(m.ghosts) && m.ghosts[k].pos == p {
					k++
					p++
				}
				if p >= int(s.last) {
					break
				}
				if p++; !yield(SeqNum(p), row) {
					return
				}
			}
		}
	}
}

// uids collects the UIDs that a set names; see rows.
func (m *mailbox) uids(set imap.NumSet) (uids []storage.UID, ok bool) {
	seq, ok := m.rows(set)
	uids = []storage.UID{} // not nil: that is "all" to storage.Expunge
	for _, row := range seq {
		uids = append(uids, row.UID)
	}
	return uids, ok
}

// isRecent reports whether a message is \Recent in this session.
func (m *mailbox) isRecent(uid storage.UID) bool {
	i, _ := slices.BinarySearchFunc(m.recent, uid, func(r storage.UIDRange, u storage.UID) int { return int(int64(r.Last) - int64(u)) })
	return i < len(m.recent) && m.recent[i].First <= uid
}

// countRecent is the number in the RECENT response.
func (m *mailbox) countRecent() int {
	n := 0
	for _, r := range m.recent {
		from, _ := m.view.Find(r.First)
		to, exact := m.view.Find(r.Last)
		if n += to - from; exact {
			n++
		}
	}
	return n
}

// flagList spells the flags of a message as the FLAGS item has them: `(\Seen $Forwarded \Recent)`.
func (s *session) flagList(row storage.Row) string {
	key := flagKey{row.Flags, !s.enabled(featRev2) && s.sel.isRecent(row.UID)}
	if text, known := s.sel.flags[key]; known {
		return text
	}
	text := "("
	for i, f := range s.account.FlagNames(row.Flags) {
		if i > 0 {
			text += " "
		}
		text += f
	}
	if key.recent {
		if len(text) > 1 {
			text += " "
		}
		text += `\Recent`
	}
	text += ")"
	if s.sel.flags == nil || len(s.sel.flags) > 1000 {
		s.sel.flags = map[flagKey]string{}
	}
	s.sel.flags[key] = text
	return text
}

// sync brings the client's picture of the selected mailbox up to date with the store, as far as the running command
// allows: EXPUNGE only if it does not hold it back. The dispatcher calls it when a command is done; handlers that promise more
// than that (EXPUNGE, MOVE) call it themselves. If the mailbox is gone, so is the session.
func (s *session) sync() { s.syncWith(s.cmd.run != nil && s.cmd.traits&holdsExpunge == 0) }

// syncBefore is sync before a command runs that looks at the mailbox: it sees what is new, but nothing loses its number, for the
// command may use numbers. Commands that write go without: a STORE.SILENT's client has made its change in its picture already,
// and flags from before it would undo that.
func (s *session) syncBefore() { s.syncWith(false) }

func (s *session) syncWith(mayExpunge bool) {
	if err := s.catchUp(mayExpunge); err != nil {
		s.mailboxGone(err)
	}
}

// catchUp is sync without consequences; for IDLE.
func (s *session) catchUp(mayExpunge bool) error {
	m := s.sel
	if m == nil || s.cmd.traits&leaves != 0 {
		return nil
	}
	newer, delta, err := s.changes(m)
	if err != nil {
		return err
	}
	m.haunt(delta.Expunged)
	m.view = newer
	if mayExpunge {
		s.tellExpunged()
	}
	m.numberGhosts()
	s.tellArrived(delta.Arrived)
	s.tellKeywords()
	for _, row := range delta.Changed {
		if row.ModSeq != m.told {
			i, _ := m.view.Find(row.UID)
			s.tellFlags(m.seqOf(i, row.UID), row)
		}
	}
	return nil
}

// changes fetches the newest view. Under rev1, messages that arrived are claimed as \Recent; what is claimed must be
// in the view, so that is taken once more after the claim.
func (s *session) changes(m *mailbox) (*storage.View, storage.Delta, error) {
	newer, err := s.account.View(m.id)
	if err != nil || newer == m.view {
		return newer, storage.Delta{}, err
	}
	if newer.Mailbox().UIDValidity != m.view.Mailbox().UIDValidity {
		return nil, storage.Delta{}, errRenumbered
	}
	delta := storage.Diff(m.view, newer)
	if len(delta.Arrived) == 0 || s.enabled(featRev2) {
		return newer, delta, nil
	}
	first := delta.Arrived[0].UID
	if !m.readOnly {
		if first, err = s.account.ClaimRecent(m.id); err != nil {
			return nil, storage.Delta{}, err
		}
		if newer, err = s.account.View(m.id); err != nil {
			return nil, storage.Delta{}, err
		}
		delta = storage.Diff(m.view, newer)
	}
	m.addRecent(first, newer)
	return newer, delta, nil
}

// addRecent makes the messages from first on \Recent.
func (m *mailbox) addRecent(first storage.UID, view *storage.View) {
	n := view.Len()
	if n == 0 || view.At(n-1).UID < first {
		return
	}
	if k := len(m.recent); k > 0 {
		first = max(first, m.recent[k-1].Last+1)
	}
	if last := view.At(n - 1).UID; last >= first {
		m.recent = append(m.recent, storage.UIDRange{First: first, Last: last})
	}
}

// haunt makes ghosts of messages that the store no longer has.
func (m *mailbox) haunt(gone []storage.UID) {
	for _, uid := range gone {
		m.ghosts = append(m.ghosts, ghost{uid: uid})
	}
	if len(gone) > 0 {
		slices.SortFunc(m.ghosts, func(a, b ghost) int { return int(int64(a.uid) - int64(b.uid)) })
	}
}

// numberGhosts computes where the ghosts stand in the client's picture.
func (m *mailbox) numberGhosts() {
	for k := range m.ghosts {
		i, _ := m.view.Find(m.ghosts[k].uid)
		m.ghosts[k].pos = i + k
	}
}

// tellExpunged sends EXPUNGE for all ghosts. Each response counts down the numbers behind it.
func (s *session) tellExpunged() {
	m := s.sel
	for _, g := range m.ghosts {
		i, _ := m.view.Find(g.uid) // the ghosts before it are told already
		s.out.Star().Num(uint64(i + 1)).Raw(" EXPUNGE").CRLF()
	}
	m.ghosts = nil
}

// tellArrived sends EXISTS, and RECENT to clients that know it.
func (s *session) tellArrived(rows []storage.Row) {
	if len(rows) == 0 {
		return
	}
	s.out.Star().Num(uint64(s.sel.count())).Raw(" EXISTS").CRLF()
	if !s.enabled(featRev2) {
		s.out.Star().Num(uint64(s.sel.countRecent())).Raw(" RECENT").CRLF()
	}
}

// tellKeywords sends FLAGS anew when keywords have come up that the client was not told of (RFC 9051 section 7.3.5).
func (s *session) tellKeywords() {
	m := s.sel
	if now := m.view.Mailbox().Keywords; now&^m.keywords != 0 {
		m.keywords |= now
		s.tellFlagNames()
	}
}

// tellFlags sends an unsolicited FETCH with the flags of a message, and its mod-sequence to a client that keeps them.
func (s *session) tellFlags(seq SeqNum, row storage.Row) {
	s.out.Star().Num(uint64(seq)).Raw(" FETCH (UID ").Num(uint64(row.UID)).Raw(" FLAGS ").Raw(s.flagList(row))
	s.tellModSeq(row)
	s.out.Raw(")").CRLF()
}

// tellModSeq appends the MODSEQ item if CONDSTORE is enabled (RFC 7162 section 3.1: all FETCH responses have it then).
func (s *session) tellModSeq(row storage.Row) {
	if s.enabled(featCondstore) {
		s.out.Raw(" MODSEQ (").Num(uint64(row.ModSeq)).Raw(")")
	}
}

var errRenumbered = errors.New("UIDs of the mailbox were given anew")

// mailboxGone ends the session because its selected mailbox is no more: the client's picture is of nothing.
func (s *session) mailboxGone(err error) {
	switch {
	case errors.Is(err, storage.ErrNoMailbox):
		s.goodbye("Selected mailbox was deleted")
	case errors.Is(err, errRenumbered):
		s.goodbye("Selected mailbox was rebuilt, select it again")
	case errors.Is(err, storage.ErrNoAccount) || errors.Is(err, storage.ErrClosed):
		s.goodbye("[UNAVAILABLE] Account is not available")
	default:
		s.log.Error("reading the selected mailbox", "mailbox", s.sel.name, "err", err)
		s.goodbye("[UNAVAILABLE] Selected mailbox cannot be read now")
	}
}
