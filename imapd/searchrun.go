package imapd

// SEARCH: running a program over the selected mailbox, and answering.

import (
	"errors"

	"github.com/emersion/go-imap/v2"

	"mailsrv/storage"
)

// messageBatch is how many messages are read from the index at a time: a snapshot is not held while the client is slow, nor
// summaries of a whole mailbox kept in memory.
const messageBatch = 128

// found is a message that a SEARCH found.
type found struct {
	num    uint32 // message number, or UID in UID SEARCH
	uid    storage.UID
	modSeq storage.ModSeq
}

// search is SEARCH and UID SEARCH (RFC 9051 section 6.4.4).
func (s *session) search() reply {
	p := &searchParser{
		reader:  s.in,
		exists:  uint32(s.sel.count()),
		lastUID: uint32(s.sel.lastUID()),
		saved:   func() []span { return s.sel.uidSpans(imap.SearchRes()) },
		flag:    s.keywordFlag,
		// RFC 6855 section 3: with UTF8=ACCEPT everything is UTF-8, and naming a charset is an error.
		noCharset: s.enabled(featUTF8),
	}
	prog := p.Search()
	if !s.in.End() {
		r := s.in.Refusal()
		if prog.ReturnSave && r.status == "NO" {
			s.sel.saved = nil // RFC 5182 section 2.1
		}
		return r
	}
	if prog.modSeq {
		s.enableCondstore()
	}
	hits, err := s.runSearch(prog.key)
	if err != nil {
		if prog.ReturnSave {
			s.sel.saved = nil
		}
		return refused("search", err)
	}
	if prog.ReturnSave {
		s.sel.saved = prog.toSave(hits)
	}
	if prog.extended || s.enabled(featRev2) {
		s.tellESearch(&prog, hits)
	} else {
		s.tellSearch(&prog, hits)
	}
	return ok("", "Search done")
}

// keywordFlag finds the bit of a keyword.
func (s *session) keywordFlag(name string) (storage.Flags, bool) {
	f, known := s.account.FlagSet([]string{name})
	return f, known && f != 0
}

// runSearch finds the messages that the key hits, ascending. Rows in memory decide most; the rest goes through the index in
// batches, and what is still undecided has its bytes read.
func (s *session) runSearch(key searchKey) ([]found, error) {
	rows, _ := s.sel.rows(imap.SeqSet{{Start: 1, Stop: 0}})
	var hits []found
	var batch []candidate
	decide := func() error {
		more, err := s.searchBatch(key, batch)
		hits, batch = append(hits, more...), batch[:0]
		return err
	}
	for seq, row := range rows {
		c := candidate{seq: seq, row: row, recent: s.sel.isRecent(row.UID)}
		// Once something is undecided, what follows waits with it: the result is ascending.
		switch v := key.test(&c); {
		case v == differs:
			continue
		case v == matches && len(batch) == 0:
			hits = append(hits, s.found(&c))
			continue
		}
		if batch = append(batch, c); len(batch) == messageBatch {
			if err := decide(); err != nil {
				return nil, err
			}
		}
	}
	return hits, decide()
}

// found is what a hit is remembered by.
func (s *session) found(c *candidate) found {
	f := found{num: uint32(c.seq), uid: c.row.UID, modSeq: c.row.ModSeq}
	if s.byUID() {
		f.num = uint32(c.row.UID)
	}
	return f
}

// searchBatch decides candidates with what the index knows of them, and with their bytes where that is not enough. Those
// that went away meanwhile are no hits.
func (s *session) searchBatch(key searchKey, batch []candidate) ([]found, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	if err := s.ctx.Err(); err != nil {
		return nil, storage.ErrClosed // the server is shutting down: a long search does not hold it up
	}
	var hits []found
	msgs, err := s.messages(batchUIDs(batch), key.cost() >= costSummary)
	if err != nil {
		return nil, err
	}
	for i := range batch {
		c := &batch[i]
		v := key.test(c)
		if v == unknown {
			if c.msg = msgs.next(c.row.UID); c.msg == nil {
				continue
			}
			if v = key.test(c); v == unknown {
				v = s.searchBody(key, c)
			}
		}
		if v == matches {
			hits = append(hits, s.found(c))
		}
	}
	return hits, nil
}

func batchUIDs(batch []candidate) []storage.UID {
	uids := make([]storage.UID, len(batch))
	for i := range batch {
		uids[i] = batch[i].row.UID
	}
	return uids
}

// known is what the index knows of some messages, by ascending UID.
type known []storage.Message

// messages reads what the index knows of some messages (ascending) of the selected mailbox.
func (s *session) messages(uids []storage.UID, withSummary bool) (known, error) {
	msgs := make(known, 0, len(uids))
	for m, err := range s.account.Messages(s.sel.id, uids, withSummary) {
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// next takes the message out of the front, or nil if it is gone; to be asked in ascending order.
func (k *known) next(uid storage.UID) *storage.Message {
	for len(*k) > 0 && (*k)[0].UID <= uid {
		m := &(*k)[0]
		if *k = (*k)[1:]; m.UID == uid {
			return m
		}
	}
	return nil
}

// searchBody decides a candidate by its bytes. A message that cannot be read is found by what can be read of it; the log has
// the reason.
func (s *session) searchBody(key searchKey, c *candidate) verdict {
	body, err := s.account.OpenMessage(s.sel.id, c.row.UID)
	if err == nil {
		defer body.Close()
		c.body = body
		v := key.test(c)
		if err = c.err; err == nil {
			return v
		}
		s.log.Error("search: reading message", "mailbox", s.sel.name, "uid", c.row.UID, "err", err)
		return v
	}
	if !errors.Is(err, storage.ErrNoMessage) {
		s.log.Error("search: opening message", "mailbox", s.sel.name, "uid", c.row.UID, "err", err)
	}
	return differs
}

// toSave is what "$" holds after RETURN (SAVE …): RFC 5182 section 2.1 has only the extremes if only they were asked for.
func (prog *searchProgram) toSave(hits []found) []storage.UID {
	saved := []storage.UID{}
	if n := len(hits); n > 1 && (prog.ReturnMin || prog.ReturnMax) && !prog.ReturnAll && !prog.ReturnCount {
		if prog.ReturnMin {
			saved = append(saved, hits[0].uid)
		}
		if prog.ReturnMax {
			saved = append(saved, hits[n-1].uid)
		}
		return saved
	}
	for _, h := range hits {
		saved = append(saved, h.uid)
	}
	return saved
}

// tellSearch sends SEARCH (RFC 3501 section 7.2.5), with the mod-sequence of RFC 7162 section 3.1.5 if one was asked about.
func (s *session) tellSearch(prog *searchProgram, hits []found) {
	s.out.Star().Raw("SEARCH")
	for _, h := range hits {
		s.out.SP().Num(uint64(h.num))
	}
	if prog.modSeq && len(hits) > 0 {
		s.out.Raw(" (MODSEQ ").Num(uint64(highestModSeq(hits))).Raw(")")
	}
	s.out.CRLF()
}

// tellESearch sends ESEARCH (RFC 9051 section 7.3.4). RETURN (SAVE) alone asks for no data: then nothing is sent.
func (s *session) tellESearch(prog *searchProgram, hits []found) {
	if prog.SearchOptions == (imap.SearchOptions{ReturnSave: true}) {
		return
	}
	n := len(hits)
	all := prog.ReturnAll || prog.SearchOptions == (imap.SearchOptions{}) // IMAP4rev2 without RETURN
	s.out.Star().Raw(`ESEARCH (TAG "`).Raw(s.tag).Raw(`")`)
	if s.byUID() {
		s.out.Raw(" UID")
	}
	if prog.ReturnMin && n > 0 {
		s.out.Raw(" MIN ").Num(uint64(hits[0].num))
	}
	if prog.ReturnMax && n > 0 {
		s.out.Raw(" MAX ").Num(uint64(hits[n-1].num))
	}
	if prog.ReturnCount {
		s.out.Raw(" COUNT ").Num(uint64(n))
	}
	if all && n > 0 {
		s.out.Raw(" ALL ").ranges(hits)
	}
	if prog.modSeq && n > 0 {
		s.out.Raw(" MODSEQ ").Num(uint64(prog.reportedModSeq(hits)))
	}
	s.out.CRLF()
}

// reportedModSeq is ESEARCH's MODSEQ: of the extremes if only they are told, else of all that was found (RFC 7162 section 3.1.5).
func (prog *searchProgram) reportedModSeq(hits []found) storage.ModSeq {
	first, last := hits[0].modSeq, hits[len(hits)-1].modSeq
	switch {
	case prog.ReturnAll || prog.ReturnCount || !prog.ReturnMin && !prog.ReturnMax:
		return highestModSeq(hits)
	case !prog.ReturnMax:
		return first
	case !prog.ReturnMin:
		return last
	}
	return max(first, last)
}

func highestModSeq(hits []found) storage.ModSeq {
	var highest storage.ModSeq
	for _, h := range hits {
		highest = max(highest, h.modSeq)
	}
	return highest
}

// ranges appends ascending numbers as a sequence-set.
func (w *writer) ranges(hits []found) {
	for i := 0; i < len(hits); {
		j := i
		for j+1 < len(hits) && hits[j+1].num == hits[j].num+1 {
			j++
		}
		if i > 0 {
			w.Raw(",")
		}
		if w.Num(uint64(hits[i].num)); j > i {
			w.Raw(":").Num(uint64(hits[j].num))
		}
		i = j + 1
	}
}
