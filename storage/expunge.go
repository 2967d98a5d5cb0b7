package storage

// Expunge removes messages for good. uids nil: all that have \Deleted; else, with onlyDeleted, those of uids that have
// \Deleted; else all of uids. Returns what went, ascending.
func (a *Account) Expunge(id MailboxID, uids []UID, onlyDeleted bool) ([]UID, ModSeq, error) {
	uids = ascending(uids)
	var went []UID
	var seq ModSeq
	err := a.change(func(t *tx) error {
		b, err := t.box(id)
		if err != nil {
			return err
		}
		if went, err = t.expungeable(b, uids, onlyDeleted); err != nil || len(went) == 0 {
			return err
		}
		err = t.expunge(b, went)
		seq = t.seq
		return err
	})
	if err != nil {
		return nil, 0, a.wrap("expunge", err)
	}
	return went, seq, nil
}

func (t *tx) expungeable(b *txBox, uids []UID, onlyDeleted bool) ([]UID, error) {
	if uids == nil {
		if b.rec.Deleted == 0 {
			return nil, nil
		}
		return t.uids(b, func(r Row) bool { return r.Flags&Deleted != 0 })
	}
	rows, err := t.live(b, uids)
	went := make([]UID, 0, len(rows))
	for _, r := range rows {
		if !onlyDeleted || r.Flags&Deleted != 0 {
			went = append(went, r.UID)
		}
	}
	return went, err
}

// expunge takes messages that are there out of the index; their files go once that is durable.
func (t *tx) expunge(b *txBox, uids []UID) error {
	if err := t.forget(b, uids, true); err != nil {
		return err
	}
	id := b.rec.ID
	if len(uids) <= expungeAtOnce {
		t.op.after = append(t.op.after, func() { t.a.unlink(id, uids) })
	}
	t.op.after = append(t.op.after, t.a.removeSoon)
	return nil
}

// expungeAtOnce is how many files an expunge removes before it returns; more are removed soon after.
const expungeAtOnce = 256

// forget takes messages out of the index. With files, what is known of their files is kept until these are gone.
func (t *tx) forget(b *txBox, uids []UID, files bool) error {
	id := b.rec.ID
	err := byRun(uids, func(run uint32, uids []UID) error {
		c, err := t.own(b, run)
		if err != nil {
			return err
		}
		keep := c.rows[:0]
		for _, r := range c.rows {
			if len(uids) == 0 || r.UID != uids[0] {
				keep = append(keep, r)
				continue
			}
			uids = uids[1:]
			p, err := readPlacement(t.kv, id, r.UID)
			if err != nil {
				return err
			}
			if err := t.forgetOne(b, r, p, files); err != nil {
				return err
			}
		}
		c.rows = keep
		return nil
	})
	if err != nil {
		return err
	}
	if b.rec.Messages == 0 {
		b.rec.Keywords = 0
	}
	t.changedAt(b)
	t.event(Change{Kind: Expunged, Mailbox: id, UIDs: rangesOf(uids)})
	return nil
}

func (t *tx) forgetOne(b *txBox, r Row, p placement, files bool) error {
	t.count(b, r, p.size, -1)
	if err := t.kv.Delete(key8(prefixPlacement, b.rec.ID, uint32(r.UID))); err != nil {
		return err
	}
	if files {
		if err := t.kv.Put(key8(prefixRemoved, b.rec.ID, uint32(r.UID)), p.append(nil)); err != nil {
			return err
		}
	}
	return t.links(p.id, -1)
}
