package storage

import "sync"

// Watch wakes the caller after changes of the account: of the given mailboxes, or of all if none is given. Signals
// coalesce: C has one slot. Close it.
func (a *Account) Watch(ids ...MailboxID) *Watcher {
	c := make(chan struct{}, 1)
	w := &Watcher{C: c, c: c, account: a}
	if len(ids) > 0 {
		w.ids = map[MailboxID]struct{}{}
		for _, id := range ids {
			w.ids[id] = struct{}{}
		}
	}
	a.watchMu.Lock()
	defer a.watchMu.Unlock()
	if a.watchers == nil {
		close(c)
	} else {
		a.watchers[w] = struct{}{}
	}
	return w
}

// Watcher tells of changes. C is closed when the account is removed or the store closes.
type Watcher struct {
	C <-chan struct{}

	c       chan struct{}
	account *Account
	ids     map[MailboxID]struct{} // nil: all
	once    sync.Once
}

// Close ends the watch. C stays open and silent.
func (w *Watcher) Close() {
	w.once.Do(func() {
		w.account.watchMu.Lock()
		defer w.account.watchMu.Unlock()
		delete(w.account.watchers, w)
	})
}

// wake tells those who watch one of the changed mailboxes, or all. list says that mailboxes or subscriptions came or went.
func (a *Account) wake(boxes map[MailboxID]*txBox, list bool) {
	a.watchMu.Lock()
	defer a.watchMu.Unlock()
	for w := range a.watchers {
		if w.concerns(boxes, list) {
			select {
			case w.c <- struct{}{}:
			default: // still has one to read
			}
		}
	}
}

func (w *Watcher) concerns(boxes map[MailboxID]*txBox, list bool) bool {
	if w.ids == nil && list {
		return true
	}
	for id, b := range boxes {
		if _, ok := w.ids[id]; (ok || w.ids == nil) && (b.changed || b.deleted) {
			return true
		}
	}
	return false
}
