package auth

import "container/list"

// lru is a map of bounded size: a new key pushes out the one that was used longest ago. Not safe for concurrent use.
type lru[K comparable, V any] struct {
	limit int
	order *list.List // of lruItem[K, V]; front is the latest
	items map[K]*list.Element
}

type lruItem[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{limit: limit, order: list.New(), items: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(key K) (v V, ok bool) {
	e := l.items[key]
	if e == nil {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(lruItem[K, V]).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	if e := l.items[key]; e != nil {
		e.Value = lruItem[K, V]{key, value}
		l.order.MoveToFront(e)
		return
	}
	if l.order.Len() >= l.limit {
		l.remove(l.order.Back().Value.(lruItem[K, V]).key)
	}
	l.items[key] = l.order.PushFront(lruItem[K, V]{key, value})
}

func (l *lru[K, V]) remove(key K) {
	if e := l.items[key]; e != nil {
		l.order.Remove(e)
		delete(l.items, key)
	}
}
