package storage

import (
	"slices"
)

// chunk returns the rows of a run as the tx sees them, to be read only; nil if there are none.
func (t *tx) chunk(b *txBox, run uint32) (*chunk, error) {
	if c, ok := b.chunks[run]; ok {
		return c, nil
	}
	if b.base != nil {
		return b.base.chunk(run), nil
	}
	v := t.kv.Get(key8(prefixRows, b.rec.ID, run))
	if v == nil {
		return nil, nil
	}
	return decodeRows(run, v)
}

// own returns the rows of a run for changing.
func (t *tx) own(b *txBox, run uint32) (*chunk, error) {
	if c := b.chunks[run]; c != nil {
		return c, nil
	}
	c, err := t.chunk(b, run)
	if err != nil {
		return nil, err
	}
	mine := &chunk{run: run}
	if c != nil {
		mine.rows = append(make([]Row, 0, len(c.rows)+8), c.rows...)
	}
	b.chunks[run], b.changed, t.wrote = mine, true, true
	return mine, nil
}

// runs lists the runs that have rows, ascending.
func (t *tx) runs(b *txBox) []uint32 {
	var runs []uint32
	if b.base != nil {
		for _, c := range b.base.chunks {
			runs = append(runs, c.run)
		}
	} else {
		from, to := range8(prefixRows, b.rec.ID)
		t.kv.Scan(from, to, func(k, _ []byte) bool {
			runs = append(runs, key8Number(k))
			return true
		})
	}
	for run := range b.chunks {
		runs = append(runs, run)
	}
	slices.Sort(runs)
	return slices.Compact(runs)
}

// uids lists the UIDs whose rows pass, ascending.
func (t *tx) uids(b *txBox, pass func(Row) bool) ([]UID, error) {
	var uids []UID
	for _, run := range t.runs(b) {
		c, err := t.chunk(b, run)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		for _, r := range c.rows {
			if pass(r) {
				uids = append(uids, r.UID)
			}
		}
	}
	return uids, nil
}

// ascending is uids in order, each once: what callers promise, and a few bytes' work to be sure of.
func ascending(uids []UID) []UID {
	for i := 1; i < len(uids); i++ {
		if uids[i] <= uids[i-1] {
			return slices.Compact(slices.Sorted(slices.Values(uids)))
		}
	}
	return uids
}

// byRun calls fn for each stretch of ascending uids that belong to one run.
func byRun(uids []UID, fn func(run uint32, uids []UID) error) error {
	for len(uids) > 0 {
		run, n := runOf(uids[0]), 1
		for n < len(uids) && runOf(uids[n]) == run {
			n++
		}
		if err := fn(run, uids[:n]); err != nil {
			return err
		}
		uids = uids[n:]
	}
	return nil
}

// live narrows ascending uids to those that are there, with their rows.
func (t *tx) live(b *txBox, uids []UID) ([]Row, error) {
	var rows []Row
	err := byRun(uids, func(run uint32, uids []UID) error {
		c, err := t.chunk(b, run)
		if err != nil || c == nil {
			return err
		}
		for _, u := range uids {
			if i, ok := c.find(u); ok {
				rows = append(rows, c.rows[i])
			}
		}
		return nil
	})
	return rows, err
}

// count keeps a mailbox's and the account's numbers: sign 1 for a row that comes, -1 for one that goes.
func (t *tx) count(b *txBox, r Row, size int64, sign int) {
	n := uint32(sign) // two's complement: adding it subtracts
	b.rec.Messages += n
	if r.Flags&Seen == 0 {
		b.rec.Unseen += n
	}
	if r.Flags&Deleted != 0 {
		b.rec.Deleted += n
	}
	if r.UID >= b.rec.firstRecent {
		b.rec.Recent += n
	}
	b.rec.Size += int64(sign) * size
	t.rec.usage.Messages += int64(sign)
	t.rec.usage.Bytes += int64(sign) * size
}
