package storage

// Store changes flags of the given UIDs (ascending).
func (a *Account) Store(id MailboxID, uids []UID, change FlagChange) (Stored, error) {
	uids = ascending(uids)
	var out Stored
	err := a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return err
		}
		out, err = t.store(b, uids, change)
		return err
	})
	return out, a.wrap("store", err)
}

func (t *tx) store(b *txBox, uids []UID, change FlagChange) (out Stored, err error) {
	var f Flags
	if change.Op == RemoveFlags { // what no message has cannot be removed
		f, _ = lookUpFlags(change.Flags, t.keywords)
	} else if f, err = t.flags(change.Flags); err != nil {
		return out, err
	}
	err = byRun(uids, func(run uint32, uids []UID) error {
		n := len(out.Changed)
		if err := t.storeRun(b, run, uids, change, f, &out); err != nil {
			return err
		}
		if len(out.Changed) > n {
			b.lag = append(b.lag, run)
		}
		return nil
	})
	if err != nil || len(out.Changed) == 0 {
		return out, err
	}
	out.ModSeq = t.seq
	b.rec.Keywords |= keywordsOf(f)
	b.rec.lagging = true
	t.changedAt(b)
	t.event(Change{Kind: FlagsChanged, Mailbox: b.rec.ID, UIDs: rangesOf(uidsOf(out.Changed))})
	t.op.after = append(t.op.after, func() { t.a.store.kick(t.a) })
	return out, nil
}

func uidsOf(rows []Row) []UID {
	uids := make([]UID, len(rows))
	for i, r := range rows {
		uids[i] = r.UID
	}
	return uids
}

// storeRun is store for UIDs of one run. The run is copied at the first row that changes.
func (t *tx) storeRun(b *txBox, run uint32, uids []UID, change FlagChange, f Flags, out *Stored) error {
	c, err := t.chunk(b, run)
	if err != nil {
		return err
	}
	if c == nil {
		out.Missing = append(out.Missing, uids...)
		return nil
	}
	own := false
	for _, uid := range uids {
		i, ok := c.find(uid)
		if !ok {
			out.Missing = append(out.Missing, uid)
			continue
		}
		r := c.rows[i]
		if change.Conditional && r.ModSeq > change.UnchangedSince {
			out.Modified = append(out.Modified, uid)
			continue
		}
		after := apply(r.Flags, change.Op, f)
		if after == r.Flags {
			continue
		}
		if !own {
			if c, err = t.own(b, run); err != nil {
				return err
			}
			own = true
		}
		c.rows[i] = t.reflag(b, r, after)
		out.Changed = append(out.Changed, c.rows[i])
	}
	return nil
}

func apply(have Flags, op FlagOp, f Flags) Flags {
	switch op {
	case AddFlags:
		return have | f
	case RemoveFlags:
		return have &^ f
	}
	return f
}

// reflag is the row with other flags; the mailbox's numbers follow.
func (t *tx) reflag(b *txBox, r Row, after Flags) Row {
	t.count(b, r, 0, -1)
	r.Flags, r.ModSeq = after, t.modSeq()
	t.count(b, r, 0, 1)
	return r
}
