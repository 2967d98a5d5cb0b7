package queue

import (
	"sync"

	"mailsrv/storage/kv"
)

// committer runs changes in as few transactions as it can: whoever comes while one is being synced waits for the next,
// and all who wait share it.
type committer struct {
	db   kv.DB
	sync func() error // makes the names of new files durable

	mu      sync.Mutex
	waiting []*change
	busy    bool
}

// change is what one caller wants written.
type change struct {
	apply func(kv.Tx) error // may run more than once
	files bool              // new files belong to it: their names first, then the entries
	err   error
	done  chan bool // false: it is done; true: now you lead
}

// do returns once the change is durable, or has failed as a whole.
func (c *committer) do(files bool, apply func(kv.Tx) error) error {
	ch := &change{apply: apply, files: files, done: make(chan bool, 1)}
	c.mu.Lock()
	c.waiting = append(c.waiting, ch)
	if c.busy {
		c.mu.Unlock()
		if lead := <-ch.done; !lead {
			return ch.err
		}
		c.mu.Lock()
	}
	c.busy = true
	batch := c.waiting
	c.waiting = nil
	c.mu.Unlock()

	c.run(batch)

	c.mu.Lock()
	if len(c.waiting) > 0 {
		c.waiting[0].done <- true
	} else {
		c.busy = false
	}
	c.mu.Unlock()
	for _, other := range batch {
		if other != ch {
			other.done <- false
		}
	}
	return ch.err
}

func (c *committer) run(batch []*change) {
	batch = c.syncFiles(batch)
	if len(batch) == 0 {
		return
	}
	err := c.update(batch)
	if err == nil || len(batch) == 1 {
		for _, ch := range batch {
			ch.err = err
		}
		return
	}
	// One of them spoils it for all: each by itself.
	for _, ch := range batch {
		ch.err = c.update([]*change{ch})
	}
}

// syncFiles returns the changes that may go on.
func (c *committer) syncFiles(batch []*change) []*change {
	var with, without []*change
	for _, ch := range batch {
		if ch.files {
			with = append(with, ch)
		} else {
			without = append(without, ch)
		}
	}
	if len(with) == 0 {
		return batch
	}
	if err := c.sync(); err != nil {
		for _, ch := range with {
			ch.err = err
		}
		return without
	}
	return batch
}

func (c *committer) update(batch []*change) error {
	return c.db.Update(func(tx kv.Tx) error {
		for _, ch := range batch {
			if err := ch.apply(tx); err != nil {
				return err
			}
		}
		return nil
	})
}
