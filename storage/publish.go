package storage

import (
	"time"
)

// publish makes the committed change visible and wakes who watches.
func (t *tx) publish() {
	a := t.a
	for _, b := range t.boxes {
		if (b.touched || b.created) && !b.deleted && !b.foreign {
			b.times = a.timesOf(b.rec.folder)
		}
	}
	a.mu.Lock()
	a.rec, a.keywords = t.rec, t.keywords
	for name, on := range t.subs {
		if on {
			a.subs[name] = struct{}{}
		} else {
			delete(a.subs, name)
		}
	}
	for id, b := range t.boxes {
		if b.changed || b.deleted || b.created {
			a.publishBox(id, b)
		}
	}
	for name, id := range t.names {
		if id == 0 {
			delete(a.names, name)
		} else {
			a.names[name] = a.boxes[id]
		}
	}
	if len(t.names) > 0 {
		a.order = nil
	}
	for name := range t.subs {
		if m := a.names[name]; m != nil && m.view != nil {
			m.view = m.view.with(a.describe(m), nil)
		}
	}
	a.lastChange = time.Now()
	a.mu.Unlock()
	a.wake(t.boxes, len(t.names) > 0 || len(t.subs) > 0)
}

// publishBox is publish for one mailbox, with a.mu held.
func (a *Account) publishBox(id MailboxID, b *txBox) {
	if b.deleted {
		delete(a.lagging, id)
		if m := a.boxes[id]; m != nil {
			m.epoch++
			if a.folders[m.rec.folder] == id {
				delete(a.folders, m.rec.folder)
			}
			delete(a.boxes, id)
		}
		return
	}
	m := a.boxes[id]
	if m == nil {
		m = &box{}
		a.boxes[id] = m
	}
	if claimed := m.rec.firstRecent; claimed > b.rec.firstRecent {
		// ClaimRecent came between: recent is what arrived after it, which only this tx's rows can be.
		b.rec.firstRecent, b.rec.Recent = claimed, 0
		for _, c := range b.chunks {
			for _, r := range c.rows {
				if r.UID >= claimed {
					b.rec.Recent++
				}
			}
		}
	}
	if m.rec.folder != b.rec.folder && a.folders[m.rec.folder] == id {
		delete(a.folders, m.rec.folder)
	}
	a.folders[b.rec.folder] = id
	m.rec = b.rec
	m.epoch++
	if len(b.lag) > 0 {
		a.lag(id, b.lag)
	}
	if m.view != nil {
		m.view = m.view.with(a.describe(m), b.chunks)
	}
	if b.touched || b.created {
		m.times, m.sure = b.times, false
	}
}
