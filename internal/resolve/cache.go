package resolve

import (
	"container/list"
	"time"
)

// cache keeps the answers used last. The Client's lock guards it.
type cache struct {
	size  int
	order *list.List // of *kept, the last used in front
	by    map[question]*list.Element
}

type kept struct {
	q question
	a *answer
}

func newCache(size int) *cache {
	return &cache{size: size, order: list.New(), by: map[question]*list.Element{}}
}

func (c *cache) get(q question, now time.Time) *answer {
	e := c.by[q]
	if e == nil {
		return nil
	}
	a := e.Value.(*kept).a
	if !now.Before(a.until) {
		c.order.Remove(e)
		delete(c.by, q)
		return nil
	}
	c.order.MoveToFront(e)
	return a
}

func (c *cache) put(q question, a *answer) {
	if c.size < 0 {
		return
	}
	if e := c.by[q]; e != nil {
		e.Value.(*kept).a = a
		c.order.MoveToFront(e)
		return
	}
	c.by[q] = c.order.PushFront(&kept{q, a})
	for c.order.Len() > c.size {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.by, last.Value.(*kept).q)
	}
}
