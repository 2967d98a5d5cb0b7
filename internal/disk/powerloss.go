package disk

import (
	"math/rand/v2"
	"slices"
)

// AfterPowerLoss returns what a disk might hold if the power went now: everything synced, and of what was not, by seed,
// nothing (seed 0), all (seed 1) or a part. Any number of futures can be asked for; the original goes on unharmed.
func (c *Crashable) AfterPowerLoss(seed uint64) *Crashable {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &loss{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), copies: map[*inode]*inode{}, names: map[*inode]map[string]durable{}}
	for _, op := range c.pending {
		if l.survives() {
			l.apply(op.seq, op.add)
			l.apply(op.seq, op.del)
		}
	}
	return &Crashable{root: l.copy(c.root), free: c.free}
}

// loss works out one future.
type loss struct {
	seed   uint64
	rng    *rand.Rand
	copies map[*inode]*inode
	names  map[*inode]map[string]durable // what pending operations that survive make of names
}

func (l *loss) survives() bool {
	switch l.seed {
	case 0:
		return false
	case 1:
		return true
	}
	return l.rng.IntN(2) == 1
}

func (l *loss) apply(seq int, h half) {
	if h.dir == nil || h.dir.durable[h.name].seq > seq {
		return
	}
	if l.names[h.dir] == nil {
		l.names[h.dir] = map[string]durable{}
	}
	l.names[h.dir][h.name] = durable{h.node, seq}
}

func (l *loss) copy(n *inode) *inode {
	if done, ok := l.copies[n]; ok {
		return done
	}
	if !n.isDir {
		data := l.bytes(n)
		f := &inode{mode: n.mode, mtime: n.mtime, now: data, synced: slices.Clone(data)}
		l.copies[n] = f
		return f
	}
	d := newDir(n.mode)
	l.copies[n] = d
	d.mtime = n.mtime
	for _, name := range l.namesOf(n) {
		after, changed := l.names[n][name]
		if !changed {
			after = n.durable[name]
		}
		if after.node != nil {
			child := l.copy(after.node)
			d.names[name] = child
			d.durable[name] = durable{node: child}
		}
	}
	return d
}

// namesOf sorts, so that one seed is one future.
func (l *loss) namesOf(n *inode) []string {
	var names []string
	for name := range n.durable {
		names = append(names, name)
	}
	for name := range l.names[n] {
		if _, ok := n.durable[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// bytes is what the file holds after the crash.
func (l *loss) bytes(n *inode) []byte {
	const block = 512
	switch {
	case l.seed == 0 || slices.Equal(n.now, n.synced):
		return slices.Clone(n.synced)
	case l.seed == 1:
		return slices.Clone(n.now)
	}
	size := len(n.synced)
	if len(n.now) != size && l.survives() {
		size = len(n.now)
	}
	out := make([]byte, size)
	for at := 0; at < size; at += block {
		end := min(at+block, size)
		if at < len(n.synced) && (slices.Equal(within(n.now, at, end), within(n.synced, at, end)) || l.survives()) {
			copy(out[at:end], within(n.synced, at, end))
		} else if l.survives() {
			copy(out[at:end], within(n.now, at, end))
		} // else zeros: allocated, never written
	}
	return out
}

func within(b []byte, from, to int) []byte { return b[min(from, len(b)):min(to, len(b))] }
