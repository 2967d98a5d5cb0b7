package queue

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// firstLimit is how many attempts at a time a destination begins with.
	firstLimit = 5
	// A destination that cannot be reached is left alone for restFirst, then twice as long, up to restMax.
	restFirst = time.Minute
	restMax   = time.Hour
	// One that answers 4xx even to one attempt at a time gets the next after paceFirst, then twice as long, up to paceMax:
	// a backlog is not run through a server that has no room for it.
	paceFirst = time.Second / 2
	paceMax   = 10 * time.Second
	// longestWait bounds every wait by the clock, so that a jump of it is noticed.
	longestWait = time.Minute
	// jumped is a difference between wall clock and monotonic clock that is no adjustment.
	jumped = 2 * time.Minute
)

// destination is one next hop that mail waits for, or that is left alone for a while. In memory there is one for each, and
// nothing for a message.
type destination struct {
	name    string
	running int       // attempts under way
	limit   float64   // of them; grows by success, shrinks by failure
	fails   int       // in a row
	until   time.Time // left alone until then
	next    time.Time // when its earliest mail is due, as far as is known
	mail    bool      // mail waits for it
	wakes   uint64    // how often mail was entered: a look that began before does not know all
	index   int       // in the heap; -1: not there
	ready   bool      // in the line
	why     string    // what it said last when it failed as a whole
}

// wake is when there may be something to do.
func (d *destination) wake() time.Time {
	if d.until.After(d.next) {
		return d.until
	}
	return d.next
}

func (d *destination) full() bool { return float64(d.running) >= d.limit }

// scheduler knows whose turn it is: ready destinations stand in a line, and each turn is one attempt, so that none waits for
// another's backlog. Those with nothing to do yet lie in a heap by time.
type scheduler struct {
	mu      sync.Mutex
	policy  Policy
	all     map[string]*destination
	line    []*destination
	later   byWake
	running int
	claimed map[claim]bool
	kick    chan struct{} // capacity 1
}

// claim is a recipient that an attempt or a timer is at.
type claim struct {
	id string
	n  int
}

func (s *scheduler) init(p Policy) {
	s.policy = p
	s.all = make(map[string]*destination)
	s.claimed = make(map[claim]bool)
	s.kick = make(chan struct{}, 1)
}

func (s *scheduler) counts() (destinations, running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all), s.running
}

// wake tells that mail for a destination is due at a time.
func (s *scheduler) wake(name string, due time.Time) {
	s.mu.Lock()
	d := s.get(name)
	d.wakes++
	if !d.mail || due.Before(d.next) {
		d.next = due
	}
	d.mail = true
	s.arrange(d)
	s.mu.Unlock()
	s.prod()
}

// attend ends a destination's rest: an administrator wants its mail tried now.
func (s *scheduler) attend(name string) {
	s.mu.Lock()
	if d := s.all[name]; d != nil {
		d.until = time.Time{}
		s.arrange(d)
	}
	s.mu.Unlock()
	s.prod()
}

func (s *scheduler) prod() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *scheduler) get(name string) *destination {
	d := s.all[name]
	if d == nil {
		d = &destination{name: name, limit: min(firstLimit, float64(s.policy.PerDestination)), index: -1}
		s.all[name] = d
	}
	return d
}

// arrange puts a destination where it belongs; in the line it keeps its place.
func (s *scheduler) arrange(d *destination) {
	if d.ready {
		return
	}
	resting := !d.until.IsZero()
	if d.index >= 0 {
		heap.Remove(&s.later, d.index)
	}
	switch {
	case (d.mail || resting) && !d.full():
		heap.Push(&s.later, d)
	case !d.mail && !resting && d.running == 0:
		delete(s.all, d.name)
	}
}

// turn returns whose turn it is, or nil and how long to wait. The destination is out of the line and counts one running.
func (s *scheduler) turn(now time.Time) (d *destination, wakes uint64, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.later) > 0 && !s.later[0].wake().After(now) {
		d := heap.Pop(&s.later).(*destination)
		d.until = time.Time{}
		if !d.mail {
			s.arrange(d) // its rest is over and nothing waits for it
			continue
		}
		d.ready = true
		s.line = append(s.line, d)
	}
	for s.running < s.policy.Workers && len(s.line) > 0 {
		d := s.line[0]
		s.line[0] = nil
		s.line = s.line[1:]
		d.ready = false
		if d.full() || d.until.After(now) { // since it came into the line
			s.arrange(d)
			continue
		}
		d.running++
		s.running++
		return d, d.wakes, 0
	}
	wait = longestWait
	if len(s.later) > 0 && s.running < s.policy.Workers {
		wait = min(wait, s.later[0].wake().Sub(now))
	}
	return nil, 0, wait
}

// looked tells what a turn found: an attempt begins, and maybe more is due; or nothing is due before next (zero: nothing is
// there at all).
func (s *scheduler) looked(d *destination, wakes uint64, found bool, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !found {
		d.running--
		s.running--
		if d.wakes == wakes { // else something has come since
			d.mail, d.next = !next.IsZero(), next
		}
	} else if d.wakes == wakes {
		d.next = time.Time{} // look again
	}
	s.arrange(d)
}

// ended takes an attempt's result in. rest is how long the destination asked to be left alone; failed that it failed as a
// whole, well that something was delivered.
func (s *scheduler) ended(d *destination, now time.Time, well, failed bool, rest time.Duration, why string) {
	s.mu.Lock()
	d.running--
	s.running--
	switch {
	case well:
		d.fails = 0
		d.limit = min(d.limit+1, float64(s.policy.PerDestination))
	case failed:
		d.why = why
		if d.until.After(now) { // others that ran beside this one have found out already
			break
		}
		d.fails++
		if rest == 0 && d.limit == 1 {
			d.until = now.Add(jitter(min(paceFirst<<min(d.fails-1, 10), paceMax)))
		}
		d.limit = max(d.limit/2, 1)
		if rest > 0 {
			d.limit = 1
			shift := min(d.fails-1, 10)
			d.until = now.Add(jitter(max(rest, min(restFirst<<shift, restMax))))
		}
	}
	s.arrange(d)
	s.mu.Unlock()
	s.prod()
}

// reason is what a destination said when it failed last, "" if nothing is known.
func (s *scheduler) reason(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.all[name]; d != nil {
		return d.why
	}
	return ""
}

// claim takes recipients for one who is going to change them, and returns those nobody else is at.
func (s *scheduler) claim(id string, ns []int) (got []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range ns {
		if c := (claim{id, n}); !s.claimed[c] {
			s.claimed[c] = true
			got = append(got, n)
		}
	}
	return got
}

func (s *scheduler) isClaimed(id string, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claimed[claim{id, n}]
}

func (s *scheduler) release(id string, ns []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range ns {
		delete(s.claimed, claim{id, n})
	}
}

// jitter spreads a time by a fifth, so that what failed together does not come back together.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(max(2*d/5, 1))
}

// byWake is a heap.
type byWake []*destination

func (h byWake) Len() int           { return len(h) }
func (h byWake) Less(i, j int) bool { return h[i].wake().Before(h[j].wake()) }
func (h byWake) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *byWake) Push(x any) {
	d := x.(*destination)
	d.index = len(*h)
	*h = append(*h, d)
}
func (h *byWake) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	d.index = -1
	return d
}

// dispatch gives turns until the queue stops.
func (q *Queue) dispatch(ctx context.Context) {
	timer := time.NewTimer(longestWait)
	defer timer.Stop()
	watch := newClockWatch(q.now())
	for {
		select {
		case <-q.stopping:
			return
		default:
		}
		now := q.now()
		if back := watch.wentBack(now); back > 0 {
			q.log.Warn("the clock went back: due times are brought near", "by", back.Round(time.Second))
			if err := q.repairClock(); err != nil {
				q.log.Error("due times cannot be brought near", "err", err)
			}
			q.wakeAll(now)
			q.kickTimers()
		}
		d, wakes, wait := q.scheduler.turn(now)
		if d != nil {
			q.begin(ctx, d, wakes, now)
			continue
		}
		timer.Reset(max(wait, time.Millisecond))
		select {
		case <-q.stopping:
			return
		case <-q.scheduler.kick:
		case <-timer.C:
		}
	}
}

// begin looks for a destination's next mail and starts the attempt in a goroutine of its own.
func (q *Queue) begin(ctx context.Context, d *destination, wakes uint64, now time.Time) {
	j, next, err := q.pick(d.name, now)
	if err != nil {
		q.log.Error("the queue cannot be read", "destination", d.name, "err", err)
		next = now.Add(longestWait)
	}
	q.scheduler.looked(d, wakes, j != nil, next)
	if j == nil {
		return
	}
	q.running.Go(func() { // until the transport returns, which ctx makes it do
		q.attempt(ctx, d, j)
	})
}

// wakeAll makes every destination look again.
func (q *Queue) wakeAll(now time.Time) {
	q.scheduler.mu.Lock()
	var names []string
	for name := range q.scheduler.all {
		names = append(names, name)
	}
	q.scheduler.mu.Unlock()
	for _, name := range names {
		q.scheduler.attend(name)
		q.scheduler.wake(name, now)
	}
}

// clockWatch notices when the wall clock goes back.
type clockWatch struct{ last time.Time }

func newClockWatch(now time.Time) *clockWatch { return &clockWatch{now.Round(0)} }

// wentBack returns by how much the wall clock is behind its last reading, if that is no adjustment; else 0.
func (w *clockWatch) wentBack(now time.Time) time.Duration {
	now = now.Round(0) // without the monotonic reading
	back := w.last.Sub(now)
	w.last = now
	if back < jumped {
		return 0
	}
	return back
}
