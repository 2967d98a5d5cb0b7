package storage

import (
	"iter"
	"slices"
	"sort"
)

// chunk is the rows of 256 UIDs, immutable once it is part of a View. It is also what one "r" key holds.
type chunk struct {
	run  uint32 // uid >> 8
	rows []Row  // ascending, not empty
}

func runOf(uid UID) uint32 { return uint32(uid) >> 8 }

// find returns where uid is in the chunk, or would be.
func (c *chunk) find(uid UID) (int, bool) {
	return slices.BinarySearchFunc(c.rows, uid, func(r Row, u UID) int { return int(int64(r.UID) - int64(u)) })
}

// View is a mailbox's rows at one moment, in UID order, immutable and shared. Rows live in chunks of 256 UIDs
// (UID >> 8); views of one mailbox share the chunks that are equal, so a difference costs what differs.
type View struct {
	box    Mailbox
	chunks []*chunk // ascending runs
	before []int    // before[i]: rows in chunks[:i]
	n      int
}

func newView(box Mailbox, chunks []*chunk) *View {
	v := &View{box: box, chunks: chunks, before: make([]int, len(chunks))}
	for i, c := range chunks {
		v.before[i] = v.n
		v.n += len(c.rows)
	}
	return v
}

// with is the view after a change: changed replaces chunks by run, nil takes one out.
func (v *View) with(box Mailbox, changed map[uint32]*chunk) *View {
	if len(changed) == 0 {
		w := *v
		w.box = box
		return &w
	}
	runs := make([]uint32, 0, len(changed))
	for run := range changed {
		runs = append(runs, run)
	}
	slices.Sort(runs)
	chunks := make([]*chunk, 0, len(v.chunks)+len(runs))
	old := v.chunks
	for _, run := range runs {
		i := chunkFrom(old, run)
		chunks = append(chunks, old[:i]...)
		if c := changed[run]; c != nil && len(c.rows) > 0 {
			chunks = append(chunks, c)
		}
		if i < len(old) && old[i].run == run {
			i++
		}
		old = old[i:]
	}
	return newView(box, append(chunks, old...))
}

// chunkFrom is the index of the first chunk whose run is at least run.
func chunkFrom(chunks []*chunk, run uint32) int {
	return sort.Search(len(chunks), func(i int) bool { return chunks[i].run >= run })
}

// chunk returns the chunk of a run, or nil.
func (v *View) chunk(run uint32) *chunk {
	if i := chunkFrom(v.chunks, run); i < len(v.chunks) && v.chunks[i].run == run {
		return v.chunks[i]
	}
	return nil
}

// Mailbox is the mailbox's state at the same moment as the rows.
func (v *View) Mailbox() Mailbox { return v.box }

// ModSeq is the mailbox's HIGHESTMODSEQ at that moment.
func (v *View) ModSeq() ModSeq { return v.box.HighestModSeq }

// Len is the number of messages.
func (v *View) Len() int { return v.n }

// At returns row i, 0 <= i < Len: the message with sequence number i+1.
func (v *View) At(i int) Row {
	k := v.chunkAt(i)
	return v.chunks[k].rows[i-v.before[k]]
}

// chunkAt is the index of the chunk that holds row i.
func (v *View) chunkAt(i int) int {
	return sort.Search(len(v.before), func(k int) bool { return v.before[k] > i }) - 1
}

// Find returns the index of the first row with a UID of at least uid, and whether it is that very UID.
func (v *View) Find(uid UID) (i int, found bool) {
	k := chunkFrom(v.chunks, runOf(uid))
	if k == len(v.chunks) {
		return v.n, false
	}
	if v.chunks[k].run != runOf(uid) {
		return v.before[k], false
	}
	i, found = v.chunks[k].find(uid)
	return v.before[k] + i, found
}

// Rows iterates over rows from..to-1 with their indexes.
func (v *View) Rows(from, to int) iter.Seq2[int, Row] {
	return func(yield func(int, Row) bool) {
		from, to := max(from, 0), min(to, v.n)
		if from >= to {
			return
		}
		for k := v.chunkAt(from); from < to; k++ {
			for _, r := range v.chunks[k].rows[from-v.before[k]:] {
				if from == to || !yield(from, r) {
					return
				}
				from++
			}
		}
	}
}

// Delta is what happened between two views: UIDs gone, rows whose mod-sequence changed, rows that are new; each ascending.
type Delta struct {
	Expunged []UID
	Changed  []Row
	Arrived  []Row
}

// Diff compares an older view of the same mailbox with a newer one.
func Diff(older, newer *View) Delta {
	var d Delta
	a, b := older.chunks, newer.chunks
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0].run == b[0].run:
			if a[0] != b[0] {
				d.compare(a[0].rows, b[0].rows)
			}
			a, b = a[1:], b[1:]
		case len(b) == 0 || len(a) > 0 && a[0].run < b[0].run:
			d.compare(a[0].rows, nil)
			a = a[1:]
		default:
			d.compare(nil, b[0].rows)
			b = b[1:]
		}
	}
	return d
}

func (d *Delta) compare(a, b []Row) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0].UID == b[0].UID:
			if a[0].ModSeq != b[0].ModSeq {
				d.Changed = append(d.Changed, b[0])
			}
			a, b = a[1:], b[1:]
		case len(b) == 0 || len(a) > 0 && a[0].UID < b[0].UID:
			d.Expunged = append(d.Expunged, a[0].UID)
			a = a[1:]
		default:
			d.Arrived = append(d.Arrived, b[0])
			b = b[1:]
		}
	}
}

// rangesOf packs ascending UIDs.
func rangesOf(uids []UID) []UIDRange {
	var rs []UIDRange
	for _, u := range uids {
		if n := len(rs); n > 0 && rs[n-1].Last+1 == u {
			rs[n-1].Last = u
		} else {
			rs = append(rs, UIDRange{u, u})
		}
	}
	return rs
}
