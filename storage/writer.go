package storage

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"mailsrv/storage/kv"
)

// maxGroup bounds how many changes share a commit, and so what is lost and run again when one of them fails halfway.
const maxGroup = 128

// writer lets one change run at a time and lets those that wait meanwhile share the next commit. There is no goroutine:
// the first of those that wait leads, runs the group's changes in the order in which they came within one transaction,
// and wakes the others when all of it is durable.
type writer struct {
	mu    sync.Mutex
	queue []*op
	busy  bool
	over  error // set when no further change may begin
	idle  *sync.Cond
}

// op is one change. run is pure but for tx: it may run more than once, because another op of its group failed.
type op struct {
	run   func(*tx) error
	err   error
	after []func() // runs in the op's own goroutine once the commit is durable
	alone bool     // shares its transaction with nobody
	wake  chan bool
}

// change runs an op and returns when it is durable, or did not happen.
func (a *Account) change(run func(*tx) error) error {
	return a.perform(&op{run: run, wake: make(chan bool, 1)})
}

// alone is change for what must see the index with nobody's uncommitted changes.
func (a *Account) alone(run func(*tx) error) error {
	return a.perform(&op{run: run, alone: true, wake: make(chan bool, 1)})
}

func (a *Account) perform(o *op) error {
	w := &a.writer
	w.mu.Lock()
	if w.over != nil {
		defer w.mu.Unlock()
		return w.over
	}
	w.queue = append(w.queue, o)
	if !w.busy {
		w.busy = true
		a.lead() // unlocks
	} else {
		w.mu.Unlock()
		if leads := <-o.wake; leads {
			w.mu.Lock()
			a.lead()
		}
	}
	if o.err != nil {
		return diskError(o.err)
	}
	for _, f := range o.after {
		f()
	}
	return nil
}

// lead commits the group at the head of the queue, the caller's own op first, and passes the lead on. It is called with
// the writer locked.
func (a *Account) lead() {
	w := &a.writer
	n := 1
	for n < len(w.queue) && n < maxGroup && !w.queue[0].alone && !w.queue[n].alone {
		n++
	}
	group := w.queue[:n:n]
	w.queue = w.queue[n:]
	w.mu.Unlock()
	a.commit(group)
	w.mu.Lock()
	if len(w.queue) > 0 {
		w.queue[0].wake <- true
	} else {
		w.queue, w.busy = nil, false
		w.idle.Broadcast()
	}
	w.mu.Unlock()
	for _, o := range group[1:] {
		o.wake <- false
	}
}

// stop lets no further change begin, and waits for those that have.
func (w *writer) stop(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = why
	for w.busy {
		w.idle.Wait()
	}
}

var (
	errAborted = errors.New("a change failed halfway")
	errNothing = errors.New("nothing was written")
)

// commit runs a group until it is durable, without the ops that failed halfway: each of those costs the group a new start.
func (a *Account) commit(group []*op) {
	for len(group) > 0 {
		culprit := a.attempt(group)
		if culprit < 0 {
			return
		}
		rest := make([]*op, 0, len(group)-1)
		group = append(append(rest, group[:culprit]...), group[culprit+1:]...)
	}
}

// attempt runs a group in one transaction. It returns the index of the op that made it void, or -1 if it is settled: every
// op's err says how it went.
func (a *Account) attempt(group []*op) (culprit int) {
	if err := a.reopen(); err != nil {
		return settle(group, err)
	}
	t := newTx(a)
	defer t.unlockFiles()
	culprit = -1
	ran := false // whether it is the engine's commit that failed
	a.dbMu.RLock()
	err := a.db.Update(func(k kv.Tx) error {
		t.kv = k
		for i, o := range group {
			o.after = nil
			before := t.wrote
			t.wrote = false
			o.err = t.runOp(o)
			if o.err != nil && t.wrote {
				culprit = i
				return errAborted
			}
			t.wrote = t.wrote || before
		}
		if !t.wrote {
			return errNothing
		}
		if err := t.finish(); err != nil {
			return err
		}
		ran = true
		return nil
	})
	a.dbMu.RUnlock()
	switch {
	case err == nil:
		t.publish()
		return -1
	case err == errNothing:
		return -1
	case err == errAborted:
		t.rollBack()
		return culprit
	case ran:
		// The engine could not say whether the commit is on the disk. Ask the disk before anything else happens.
		a.logger().Error("commit failed, reopening the index", "account", a.address, "err", err)
		a.doubt(t)
	default:
		t.rollBack()
	}
	return settle(group, err)
}

func settle(group []*op, err error) int {
	for _, o := range group {
		o.err, o.after = err, nil
	}
	return -1
}

// runOp runs an op and files what it did in the log. A panic is our bug: it fails that op alone.
func (t *tx) runOp(o *op) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.wrote = true
			err = fmt.Errorf("storage: internal error: %v", p)
			t.a.logger().Error("a change panicked", "account", t.a.address, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	t.op, t.seq, t.events = o, 0, nil
	if err := o.run(t); err != nil {
		return err
	}
	return t.logEvents()
}

// doubt settles a transaction whose commit failed: the index is opened afresh, and what the transaction put into folders
// goes if the index does not know of it.
func (a *Account) doubt(t *tx) {
	a.dbMu.Lock()
	err := a.db.Close()
	a.db = nil
	a.dbMu.Unlock()
	if err != nil {
		a.logger().Warn("closing the index", "account", a.address, "err", err)
	}
	if a.rebuilding { // it begins again from nothing
		t.rollBack()
		return
	}
	a.doubtful = t
	if err := a.reopen(); err != nil {
		a.logger().Error("reopening the index", "account", a.address, "err", err)
	}
}

// reopen opens the index again if a failed commit closed it.
func (a *Account) reopen() error {
	if a.db != nil {
		return nil
	}
	if a.doubtful == nil {
		return ErrClosed
	}
	if _, err := a.store.fs.Stat(a.indexPath()); err != nil {
		return err
	}
	db, err := a.store.openIndex(a.indexPath())
	if err != nil {
		return err
	}
	var rec accountRecord
	err = db.View(func(r kv.Reader) error {
		rec, err = decodeAccount(r.Get(keyAccount()))
		return err
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	t := a.doubtful
	a.doubtful = nil
	a.dbMu.Lock()
	a.db = db
	a.dbMu.Unlock()
	if rec.commits < t.rec.commits {
		t.rollBack()
		return nil
	}
	// It is there after all.
	t.publish()
	return nil
}
