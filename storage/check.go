package storage

import (
	"errors"
	"fmt"
	"io/fs"

	"mailsrv/internal/message"
	"mailsrv/storage/kv"
)

// Problem is something that Check found: what is wrong, and in which mailbox if in one.
type Problem struct {
	Mailbox string
	Text    string
}

func (p Problem) String() string {
	if p.Mailbox == "" {
		return p.Text
	}
	return fmt.Sprintf("mailbox %q: %s", p.Mailbox, p.Text)
}

// Check compares all that the account says about itself: records with rows, rows with placements, placements with
// summaries and files, files with the index, counts, the change log, and memory with disk. Changes wait meanwhile. What a
// foreign hand did since the last Refresh is a problem too. It repairs nothing.
func (a *Account) Check() ([]Problem, error) {
	c := checker{a: a, refs: map[MessageID]int{}}
	err := a.alone(func(t *tx) error {
		c.t, c.kv = t, t.kv
		return c.run()
	})
	return c.problems, err
}

type checker struct {
	a        *Account
	t        *tx
	kv       kv.Reader
	problems []Problem
	box      string // that is being checked
	usage    Usage
	refs     map[MessageID]int // placements seen
}

func (c *checker) bad(format string, args ...any) {
	const enough = 1000
	if len(c.problems) < enough {
		c.problems = append(c.problems, Problem{c.box, fmt.Sprintf(format, args...)})
	}
}

func (c *checker) run() error {
	rec, err := decodeAccount(c.kv.Get(keyAccount()))
	if err != nil {
		return err
	}
	if rec != c.t.rec {
		c.bad("account record is %+v on disk, %+v in memory", rec, c.t.rec)
	}
	folders := map[string]bool{}
	list, err := c.a.blobs.Folders()
	if err != nil {
		return err
	}
	for _, f := range list {
		folders[f] = true
	}
	if err := c.mailboxes(folders); err != nil {
		return err
	}
	c.box = ""
	from, to := rangeOf(prefixRemoved)
	c.kv.Scan(from, to, func(k, v []byte) bool {
		if key8Number(k) == 0 {
			delete(folders, string(v))
		}
		return true
	})
	for f := range folders {
		c.bad("folder %s belongs to no mailbox", f)
	}
	if c.usage != rec.usage {
		c.bad("usage is said to be %+v and is %+v", rec.usage, c.usage)
	}
	c.messages()
	c.log(rec)
	c.strayKeys()
	return nil
}

// mailboxes checks each mailbox, and takes its folder out of folders.
func (c *checker) mailboxes(folders map[string]bool) error {
	c.a.mu.RLock()
	boxes := map[MailboxID]mailboxRecord{}
	for id, m := range c.a.boxes {
		boxes[id] = m.rec
	}
	names := len(c.a.names)
	c.a.mu.RUnlock()
	if names != len(boxes) {
		c.bad("%d names for %d mailboxes", names, len(boxes))
	}
	seen := 0
	var err error
	from, to := rangeOf(prefixMailbox)
	c.kv.Scan(from, to, func(k, v []byte) bool {
		var rec mailboxRecord
		if rec, err = decodeMailbox(k, v); err != nil {
			return false
		}
		seen++
		c.box = rec.Name
		mem, ok := boxes[rec.ID]
		if !ok {
			c.bad("is not in memory")
			return true
		}
		c.record(rec, mem)
		if !folders[rec.folder] {
			c.bad("its folder %s is missing", rec.folder)
			return true
		}
		delete(folders, rec.folder)
		err = c.mailbox(rec)
		return err == nil
	})
	if seen != len(boxes) {
		c.bad("%d mailboxes on disk, %d in memory", seen, len(boxes))
	}
	return err
}

// record compares a mailbox's record with memory and with the folder's state file.
func (c *checker) record(rec, mem mailboxRecord) {
	same := mem
	same.firstRecent, same.Recent, same.Subscribed = rec.firstRecent, rec.Recent, rec.Subscribed // claims are lazy
	same.Created, same.newTime, same.curTime, same.reserved = rec.Created, rec.newTime, rec.curTime, rec.reserved
	if same != rec {
		c.bad("record is %+v on disk, %+v in memory", rec, mem)
	}
	if c.t.lookUp(rec.Name) != rec.ID {
		c.bad("its name leads to mailbox %d", c.t.lookUp(rec.Name))
	}
	if rec.ID > c.t.rec.lastMailbox || rec.UIDValidity > c.t.rec.lastValidity || rec.HighestModSeq > c.t.rec.modSeq ||
		rec.HighestModSeq == 0 {
		c.bad("numbers beyond what was given out: %+v", rec)
	}
	data, err := c.a.blobs.State(rec.folder)
	s, ok := parseState(data)
	switch {
	case err != nil || !ok:
		c.bad("state file cannot be read: %v", err)
	case s.Name != rec.Name || s.ID != rec.ID || s.UIDValidity != rec.UIDValidity || s.ObjectID != rec.ObjectID ||
		s.SpecialUse != rec.SpecialUse || s.ceiling < rec.UIDNext:
		c.bad("state file says %+v, the index %+v", s, rec)
	}
}

// mailbox checks rows, placements and files against each other and the record's numbers against the rows.
func (c *checker) mailbox(rec mailboxRecord) error {
	v, err := readView(c.kv, rec.ID)
	if err != nil {
		return err
	}
	c.a.mu.RLock()
	var mem *View
	if m := c.a.boxes[rec.ID]; m != nil {
		mem = m.view
	}
	c.a.mu.RUnlock()
	if mem != nil {
		if d := Diff(mem, v); len(d.Arrived)+len(d.Changed)+len(d.Expunged) > 0 {
			c.bad("rows on disk and in memory differ: %+v", d)
		}
	}
	count := rec
	count.Messages, count.Unseen, count.Deleted, count.Recent, count.Size = 0, 0, 0, 0, 0
	i := 0
	from, to := range8(prefixPlacement, rec.ID)
	c.kv.Scan(from, to, func(k, val []byte) bool {
		uid := UID(key8Number(k))
		for ; i < v.Len() && v.At(i).UID < uid; i++ {
			c.bad("UID %d has a row and no placement", v.At(i).UID)
		}
		if i == v.Len() || v.At(i).UID != uid {
			c.bad("UID %d has a placement and no row", uid)
			return true
		}
		var p placement
		if p, err = decodePlacement(val); err != nil {
			return false
		}
		c.row(&count, v.At(i), p)
		i++
		return true
	})
	if err != nil {
		return err
	}
	for ; i < v.Len(); i++ {
		c.bad("UID %d has a row and no placement", v.At(i).UID)
	}
	if count != rec {
		c.bad("numbers are said to be %+v and are %+v", rec.Mailbox, count.Mailbox)
	}
	c.usage.Messages += int64(count.Messages)
	c.usage.Bytes += count.Size
	return c.files(rec)
}

func (c *checker) row(count *mailboxRecord, r Row, p placement) {
	count.Messages++
	count.Size += p.size
	if r.Flags&Seen == 0 {
		count.Unseen++
	}
	if r.Flags&Deleted != 0 {
		count.Deleted++
	}
	if r.UID >= count.firstRecent {
		count.Recent++
	}
	if r.UID >= count.UIDNext || r.ModSeq > count.HighestModSeq || r.ModSeq == 0 {
		c.bad("UID %d, modseq %d beyond UIDNEXT %d, HIGHESTMODSEQ %d", r.UID, r.ModSeq, count.UIDNext, count.HighestModSeq)
	}
	if r.Flags&^c.t.knownFlags() != 0 || keywordsOf(r.Flags)&^count.Keywords != 0 {
		c.bad("UID %d has flags %x that nobody knows of", r.UID, r.Flags)
	}
	if p.shown != r.Flags && !count.lagging {
		c.bad("UID %d: its file shows flags %x, not %x, and nothing says that it may", r.UID, p.shown, r.Flags)
	}
	c.refs[p.id]++
	if p.id > c.t.rec.lastMessage {
		c.bad("UID %d: message id %d beyond the last given out", r.UID, p.id)
	}
}

// files compares the folder's files with the index.
func (c *checker) files(rec mailboxRecord) error {
	d, err := c.a.differ(c.kv, rec.ID, rec.folder, c.t.rec.host)
	if err != nil {
		return err
	}
	for _, e := range append(d.arrivals(), d.doubles...) {
		c.bad("file %s%s is not in the index", e.Stem, e.Info)
	}
	for _, r := range d.renamed {
		c.bad("UID %d: file has been renamed to %s%s", r.uid, r.at.Stem, r.at.Info)
	}
	for _, uid := range d.missing {
		c.bad("UID %d has no file", uid)
	}
	from, to := range8(prefixPlacement, rec.ID)
	c.kv.Scan(from, to, func(k, v []byte) bool {
		p, err := decodePlacement(v)
		if err != nil {
			return true // told already
		}
		e := p.entry(c.t.rec.host, UID(key8Number(k)))
		size, _, err := c.a.blobs.Stat(rec.folder, e)
		if err == nil && size != p.size {
			c.bad("UID %d: file has %d bytes, not %d", key8Number(k), size, p.size)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.bad("UID %d: %v", key8Number(k), err)
		}
		return true
	})
	return nil
}

// messages checks summaries and link counts against the placements seen.
func (c *checker) messages() {
	links := map[MessageID]int{}
	from, to := rangeOf(prefixLinks)
	c.kv.Scan(from, to, func(k, v []byte) bool {
		d := decoder{kv.Value{Rest: v}}
		links[MessageID(changeOf(k))] = int(d.Uint())
		return true
	})
	from, to = rangeOf(prefixMessage)
	c.kv.Scan(from, to, func(k, v []byte) bool {
		id := MessageID(changeOf(k))
		want := c.refs[id]
		if have := max(links[id], 1); have != want {
			c.bad("message %d is said to have %d placements and has %d", id, have, want)
		}
		if _, err := message.ParseSummary(v); err != nil {
			c.bad("message %d: %v", id, err)
		}
		delete(c.refs, id)
		delete(links, id)
		return true
	})
	for id := range c.refs {
		c.bad("message %d has placements and no summary", id)
	}
	for id := range links {
		c.bad("message %d has a link count and no summary", id)
	}
}

func (c *checker) log(rec accountRecord) {
	var n uint64
	from, to := rangeOf(prefixChange)
	c.kv.Scan(from, to, func(k, v []byte) bool {
		n++
		if m := changeOf(k); m <= rec.logFloor || m > rec.modSeq {
			c.bad("change %d lies outside the log, %d to %d", m, rec.logFloor, rec.modSeq)
		}
		if _, err := decodeChange(k, v); err != nil {
			c.bad("change %d: %v", changeOf(k), err)
		}
		return true
	})
	if n != rec.logEntries {
		c.bad("the log is said to have %d entries and has %d", rec.logEntries, n)
	}
}

// strayKeys looks for rows and placements of mailboxes that are no more.
func (c *checker) strayKeys() {
	for _, prefix := range []byte{prefixRows, prefixPlacement} {
		from, to := rangeOf(prefix)
		c.kv.Scan(from, to, func(k, _ []byte) bool {
			if c.kv.Get(keyMailbox(key8Mailbox(k))) == nil {
				c.bad("key %x belongs to no mailbox", k)
			}
			return true
		})
	}
}
