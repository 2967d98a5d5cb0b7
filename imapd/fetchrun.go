package imapd

import (
	"errors"

	"mailsrv/internal/message"
	"mailsrv/storage"
)

// target is a message that a FETCH is about.
type target struct {
	seq    SeqNum
	row    storage.Row
	marked bool // this FETCH made it \Seen: its flags are told (RFC 9051 section 6.4.5)
}

// fetchRun is a FETCH under way.
type fetchRun struct {
	fetchProgram
	s *session

	bodyAsked   bool // see needsBody
	listedAsked bool // see fieldsOnly

	gone   bool  // a message went away meanwhile
	noCTE  bool  // a content-transfer-encoding was unknown
	failed error // reading a message failed
}

// fetch is FETCH and UID FETCH (RFC 9051 section 6.4.5).
func (s *session) fetch() reply {
	f := &fetchRun{s: s, fetchProgram: s.in.Fetch(s.byUID())}
	if !s.in.End() {
		return s.in.Refusal()
	}
	f.bodyAsked, f.listedAsked = f.needsBody(), f.fieldsOnly()
	rows, inside := s.sel.rows(f.set)
	if !inside {
		return bad("Message number out of range")
	}
	if f.has(fetchModSeq) {
		s.enableCondstore()
	}
	var targets []target
	for seq, row := range rows {
		if !f.conditional || row.ModSeq > f.changedSince {
			targets = append(targets, target{seq: seq, row: row})
		}
	}
	f.markSeen(targets)
	for len(targets) > 0 && s.out.err == nil {
		n := min(len(targets), messageBatch)
		if err := f.batch(targets[:n]); err != nil {
			return refused("fetch", err)
		}
		targets = targets[n:]
	}
	switch {
	case f.failed != nil:
		return refused("fetch", f.failed)
	case f.noCTE:
		return no("UNKNOWN-CTE", "Unknown content-transfer-encoding")
	case f.gone:
		return ok("EXPUNGEISSUED", "Some messages are gone")
	}
	return ok("", "Fetched")
}

// markSeen sets \Seen on what is about to be read, in one change, and takes the rows as they are after it. If that cannot be
// done (a full disk, say), mail can be read all the same.
func (f *fetchRun) markSeen(targets []target) {
	sets := false
	for i := range f.items {
		sets = sets || f.items[i].sets()
	}
	if !sets || f.s.sel.readOnly {
		return
	}
	var uids []storage.UID
	for _, t := range targets {
		if t.row.Flags&storage.Seen == 0 {
			uids = append(uids, t.row.UID)
		}
	}
	if len(uids) == 0 {
		return
	}
	stored, err := f.s.account.Store(f.s.sel.id, uids, storage.FlagChange{Op: storage.AddFlags, Flags: []string{`\Seen`}})
	if err != nil {
		f.s.log.Warn("fetch: setting \\Seen", "mailbox", f.s.sel.name, "err", err)
		return
	}
	changed := stored.Changed
	if len(changed) > 0 {
		f.s.sel.told = stored.ModSeq
	}
	for i := range targets {
		for len(changed) > 0 && changed[0].UID < targets[i].row.UID {
			changed = changed[1:]
		}
		if len(changed) > 0 && changed[0].UID == targets[i].row.UID {
			targets[i].row, targets[i].marked = changed[0], true
		}
	}
}

// batch answers for some messages. What the index knows is copied out of its snapshot first: nothing is sent while that is open.
func (f *fetchRun) batch(targets []target) error {
	var msgs known
	if f.needsMessage() {
		uids := make([]storage.UID, len(targets))
		for i := range targets {
			uids[i] = targets[i].row.UID
		}
		var err error
		if msgs, err = f.s.messages(uids, f.needsSummary()); err != nil {
			return err
		}
	}
	for i := range targets {
		t := &targets[i]
		msg := msgs.next(t.row.UID)
		if msg == nil && f.needsMessage() {
			f.gone = true // left out: never a response for a message that is not there
			continue
		}
		if f.s.out.err != nil {
			return nil // nobody listens any more
		}
		f.message(t, msg)
	}
	return nil
}

// message answers for one message.
func (f *fetchRun) message(t *target, msg *storage.Message) {
	var contents []content
	switch {
	case !f.bodyAsked:
	case f.listedAsked && msg.Summary.Fields != "":
		contents = make([]content, len(f.items))
		for i := range f.items {
			if it := &f.items[i]; it.kind == fetchSection {
				contents[i] = listedContent(msg.Summary, &it.section)
			}
		}
	default:
		body, err := f.s.account.OpenMessage(f.s.sel.id, t.row.UID)
		switch {
		case errors.Is(err, storage.ErrNoMessage):
			f.gone = true
			return
		case err != nil:
			f.failed = err
			return
		}
		defer body.Close()
		if contents, err = f.contents(body, msg.Summary); err != nil {
			f.failed = err
			return
		}
	}
	out := f.s.out.Star().Num(uint64(t.seq)).Raw(" FETCH (")
	for i := range f.items {
		if i > 0 {
			out.SP()
		}
		if contents != nil {
			f.item(&f.items[i], t, msg, &contents[i])
		} else {
			f.item(&f.items[i], t, msg, nil)
		}
	}
	if t.marked && !f.has(fetchFlags) {
		out.Raw(" FLAGS ").Raw(f.s.flagList(t.row))
	}
	if t.marked && !f.has(fetchModSeq) {
		f.s.tellModSeq(t.row)
	}
	out.Raw(")").CRLF()
}

// contents finds what each item names in the message, before anything of the response is written: an error can still
// leave the message out.
func (f *fetchRun) contents(body storage.Body, sum *message.Summary) ([]content, error) {
	contents := make([]content, len(f.items))
	for i := range f.items {
		it := &f.items[i]
		c := &contents[i]
		var err error
		switch it.kind {
		case fetchSection:
			*c, c.there, err = bodySection(body, sum, &it.section)
		case fetchBinary, fetchBinarySize:
			var known bool
			*c, c.there, known, err = binarySection(body, sum, it.section.Part)
			if !known {
				f.noCTE, c.there = true, false
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return contents, nil
}

// item appends one data item.
func (f *fetchRun) item(it *fetchItem, t *target, msg *storage.Message, c *content) {
	out := f.s.out
	switch it.kind {
	case fetchSection, fetchBinary, fetchBinarySize:
		if it.plain {
			out.Raw(it.name)
		} else {
			out.sectionLabel(it.name, &it.section)
		}
	default:
		out.Raw(it.name)
	}
	switch out.SP(); it.kind {
	case fetchUID:
		out.Num(uint64(t.row.UID))
	case fetchFlags:
		out.Raw(f.s.flagList(t.row))
	case fetchModSeq:
		out.Raw("(").Num(uint64(t.row.ModSeq)).Raw(")")
	case fetchInternalDate:
		out.DateTime(internalDate(msg))
	case fetchSize:
		out.Num(uint64(msg.Size))
	case fetchEnvelope:
		out.Raw(msg.Summary.Envelope)
	case fetchBodyStructure:
		out.Raw(msg.Summary.BodyStructure)
	case fetchBodyShort:
		out.Raw(message.BodyOf(msg.Summary.BodyStructure))
	case fetchBinarySize:
		f.binarySize(c)
	default:
		f.send(it, c)
	}
}

// binarySize appends BINARY.SIZE's number; "0" for a part that is not there or cannot be decoded, since the grammar has no NIL
// here.
func (f *fetchRun) binarySize(c *content) {
	if !c.there {
		f.s.out.Num(0)
		return
	}
	f.s.out.Num(uint64(c.size))
}

// send appends a content or the asked part of it. Beyond its end there is the empty string (RFC 9051 section 6.4.5).
func (f *fetchRun) send(it *fetchItem, c *content) {
	out := f.s.out
	if !c.there {
		out.Raw("NIL")
		return
	}
	off, n := int64(0), c.size
	if p := it.section.Partial; p != nil {
		off = min(p.Offset, c.size)
		n = min(p.Size, c.size-off)
	}
	if n == 0 {
		out.Raw(`""`)
		return
	}
	r, err := c.from(off)
	if err != nil {
		r = failingReader{err}
	}
	if err := out.LiteralFrom(r, n, it.kind == fetchBinary && c.nul); err != nil {
		f.failed = err
	}
}

// failingReader lets LiteralFrom keep its promise of so many octets when there are none.
type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
