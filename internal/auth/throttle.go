package auth

import (
	"math"
	"net/netip"
	"sync"
	"time"
)

// How failed logins slow a peer down. Each address and each network (/24, /64) has a score: the failures of late, half of
// which are forgotten every halfLife. Nothing happens while the score is small, so that a typing error costs nothing; then
// the delay doubles with each failure (or with each networkStep of a network, which many may share).
const (
	freeFailures        = 2.5  // of one address: the fourth attempt waits (a half, as some of three is forgotten by then)
	freeNetworkFailures = 11.5 // of one network
	networkStep         = 4
	maxScore            = 24 // more is not remembered: who stops guessing is free again within the hour

	// The same wrong password again is a phone whose owner changed it on the laptop, no guess: it must not lock both out of
	// their common address. It counts a little, so that it cannot be used to burn our time either.
	repeatWeight = 0.05

	firstDelay = 500 * time.Millisecond
	maxDelay   = time.Minute
	maxHold    = 10 * time.Second // a longer wait is refused instead: it would only hold a connection
	halfLife   = 10 * time.Minute

	// Who guesses this much from one address does not get the short cut of remembered passwords either: it would
	// answer guesses faster than the throttle.
	shortcutScore = 8

	trackedPeers = 16384 // about 2 MiB; the one that was quiet longest is forgotten first
)

// throttle holds logins back by where they come from.
type throttle struct {
	mu    sync.Mutex
	peers *lru[netip.Prefix, peerScore]
}

// peerScore is what is known of an address or network.
type peerScore struct {
	score float64   // at the time of last
	last  time.Time // when it was computed
	next  time.Time // when the next attempt may be looked at: parallel attempts queue up behind one another
}

func newThrottle() *throttle {
	return &throttle{peers: newLRU[netip.Prefix, peerScore](trackedPeers)}
}

// networks are the keys a peer is known by: its address and its network.
func networks(a netip.Addr) (address, network netip.Prefix) {
	a = a.Unmap().WithZone("")
	bits := 24
	if a.Is6() {
		bits = 64
	}
	network, _ = a.Prefix(bits) // fails only for the zero Addr: one key for all who have no address
	return netip.PrefixFrom(a, a.BitLen()), network
}

// decayed is the score now.
func (s peerScore) decayed(now time.Time) float64 {
	if s.score == 0 {
		return 0
	}
	age := max(now.Sub(s.last), 0)
	return s.score * math.Exp2(-float64(age)/float64(halfLife))
}

// delay is what a score costs each attempt.
func delay(score float64, free, step float64) time.Duration {
	if score < free {
		return 0
	}
	d := float64(firstDelay) * math.Exp2(math.Floor((score-free)/step))
	return time.Duration(min(d, float64(maxDelay)))
}

// reserve books the next free moment for an attempt and returns how long it is until then. ok is false if that is longer
// than maxHold; then nothing is booked.
func (t *throttle) reserve(a netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	address, network := networks(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	addressScore, _ := t.peers.get(address)
	networkScore, _ := t.peers.get(network)
	addressDelay := delay(addressScore.decayed(now), freeFailures, 1)
	networkDelay := delay(networkScore.decayed(now), freeNetworkFailures, networkStep)

	at := now
	if addressDelay > 0 && addressScore.next.After(at) {
		at = addressScore.next
	}
	if networkDelay > 0 && networkScore.next.After(at) {
		at = networkScore.next
	}
	if wait = at.Sub(now); wait > maxHold {
		return wait, false
	}
	if addressDelay > 0 {
		addressScore.next = at.Add(addressDelay)
		t.peers.put(address, addressScore)
	}
	if networkDelay > 0 {
		networkScore.next = at.Add(networkDelay)
		t.peers.put(network, networkScore)
	}
	return wait, true
}

// failed counts a failure, or a part of one; the next attempt waits from now on.
func (t *throttle) failed(a netip.Addr, now time.Time, weight float64) {
	address, network := networks(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(address, now, weight, freeFailures, 1)
	t.count(network, now, weight, freeNetworkFailures, networkStep)
}

func (t *throttle) count(key netip.Prefix, now time.Time, weight, free, step float64) {
	s, _ := t.peers.get(key)
	s.score = min(s.decayed(now)+weight, maxScore)
	s.last = now
	if next := now.Add(delay(s.score, free, step)); next.After(s.next) {
		s.next = next
	}
	t.peers.put(key, s)
}

// guessing reports whether the address has failed so often that it may not use short cuts.
func (t *throttle) guessing(a netip.Addr, now time.Time) bool {
	address, _ := networks(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	s, _ := t.peers.get(address)
	return s.decayed(now) >= shortcutScore
}
