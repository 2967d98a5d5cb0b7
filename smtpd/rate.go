package smtpd

import (
	"net/netip"
	"sync"
	"time"
)

// rateEntries bounds the addresses counted in one window; when there are more, the others pass: the limit on connections
// in all still holds.
const rateEntries = 100_000

// rate counts by address (an IPv6 /64) in windows of a minute. A nil rate allows everything.
type rate struct {
	most int
	now  func() time.Time

	mu    sync.Mutex
	until time.Time
	seen  map[netip.Addr]int
}

func newRate(most int, now func() time.Time) *rate {
	if most <= 0 {
		return nil
	}
	return &rate{most: most, now: now}
}

// take counts one and reports whether it is within the limit. Peers without an address are not counted.
func (r *rate) take(a netip.Addr) bool {
	if r == nil || !a.IsValid() {
		return true
	}
	a = a.Unmap().WithZone("")
	if p, err := a.Prefix(64); err == nil && a.Is6() {
		a = p.Addr()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now.After(r.until) {
		r.until = now.Add(time.Minute)
		r.seen = make(map[netip.Addr]int)
	}
	if _, known := r.seen[a]; !known && len(r.seen) >= rateEntries {
		return true
	}
	r.seen[a]++
	return r.seen[a] <= r.most
}
