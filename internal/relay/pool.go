package relay

import (
	"slices"
	"sync"
	"time"
)

// pool keeps sessions for the next message to the same destination under the same policy. What lies in it longer than
// IdleReuse is said goodbye to.
type pool struct {
	r *Relay

	mu     sync.Mutex
	closed bool
	total  int
	by     map[string][]*session
}

// take returns the session used last, or nil. It may have died meanwhile: that shows at MAIL.
func (p *pool) take(key string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.by[key]
	if len(list) == 0 {
		return nil
	}
	s := list[len(list)-1]
	p.remove(key, s)
	s.idle.Stop() // if it has fired already, it will not find the session
	return s
}

// remove takes s out and reports whether it was there. p.mu is held.
func (p *pool) remove(key string, s *session) bool {
	i := slices.Index(p.by[key], s)
	if i < 0 {
		return false
	}
	p.total--
	if p.by[key] = slices.Delete(p.by[key], i, i+1); len(p.by[key]) == 0 {
		delete(p.by, key)
	}
	return true
}

// put keeps a session, or ends it if it is used up or there are enough.
func (p *pool) put(key string, s *session) {
	s.release()
	limits, times := p.r.o.Limits, p.r.o.Timeouts
	p.mu.Lock()
	if p.closed || p.total >= limits.Idle || len(p.by[key]) >= limits.IdlePer ||
		s.messages >= s.mostMessages() || time.Since(s.born) > times.MaxSession {
		p.mu.Unlock()
		p.r.goodbye(s)
		return
	}
	p.total++
	p.by[key] = append(p.by[key], s)
	s.idle = time.AfterFunc(times.IdleReuse, func() {
		p.mu.Lock()
		there := p.remove(key, s)
		p.mu.Unlock()
		if there {
			p.r.goodbye(s)
		}
	})
	p.mu.Unlock()
}

// close ends all sessions at once.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.by {
		for _, s := range list {
			s.idle.Stop()
			s.c.Close()
		}
	}
	clear(p.by)
	p.total = 0
}
