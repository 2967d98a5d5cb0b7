package imapd

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// SeqNum is a message's number in the client's picture of the mailbox: 1 is the first. It is worth nothing after the next
// EXPUNGE response.
type SeqNum uint32

// span is a range of numbers, both ends included; 0 as last is "*" until the set is resolved.
type span struct{ first, last uint32 }

// SeqSet reads sequence-set as message numbers. "$" is not for it: see NumSet.
func (r *reader) SeqSet() imap.SeqSet {
	var set imap.SeqSet
	for _, s := range r.spans() {
		set = append(set, imap.SeqRange{Start: s.first, Stop: s.last})
	}
	return set
}

// UIDSet reads sequence-set as UIDs, or "$" as [imap.SearchRes].
func (r *reader) UIDSet() imap.UIDSet {
	if r.Try('$') {
		return imap.SearchRes()
	}
	var set imap.UIDSet
	for _, s := range r.spans() {
		set = append(set, imap.UIDRange{Start: imap.UID(s.first), Stop: imap.UID(s.last)})
	}
	return set
}

// NumSet reads the message set of a command: an [imap.UIDSet] if uid, else an [imap.SeqSet]. "$" is a UIDSet in both
// cases (RFC 9051 section 6.4.4.1). Sets are sorted, without overlaps, "n:*" last, whatever order the client wrote.
func (r *reader) NumSet(uid bool) imap.NumSet {
	if uid || r.Peek() == '$' {
		return r.UIDSet()
	}
	return r.SeqSet()
}

// spans reads sequence-set. The sets of go-imap insert each range in its place, quadratic in a set that comes in
// descending order; ours are sorted once.
func (r *reader) spans() []span {
	var set []span
	for {
		s := span{first: r.setNumber()}
		if s.last = s.first; r.Try(':') {
			s.last = r.setNumber()
		}
		if r.Failed() {
			return nil
		}
		if s.first == 0 || s.last != 0 && s.last < s.first {
			s.first, s.last = s.last, s.first
		}
		set = append(set, s)
		if !r.Try(',') {
			return normal(set)
		}
	}
}

// setNumber reads seq-number; "*" is 0.
func (r *reader) setNumber() uint32 {
	if r.Try('*') {
		return 0
	}
	return r.NzNumber()
}

// normal sorts and joins ranges; those with "*" become one, at the end. "*" alone is span{0, 0}.
func normal(set []span) []span {
	slices.SortFunc(set, func(a, b span) int {
		switch {
		case a.first != b.first:
			return int(int64(a.first) - int64(b.first))
		default:
			return int(int64(a.last) - int64(b.last))
		}
	})
	star, open := span{}, false // open: there is a range with "*"; star.first == 0 as long as it is "*" alone
	out := set[:0]
	for _, s := range set {
		switch n := len(out); {
		case s.last == 0:
			if !open || star.first == 0 || s.first != 0 && s.first < star.first {
				star.first = s.first
			}
			open = true
		case n > 0 && (s.first <= out[n-1].last || s.first-1 == out[n-1].last):
			out[n-1].last = max(out[n-1].last, s.last)
		default:
			out = append(out, s)
		}
	}
	if !open {
		return out
	}
	// What exists of a range that reaches to n or beyond is in n:* as well.
	for n := len(out); star.first > 0 && n > 0 && out[n-1].last >= star.first-1; n = len(out) {
		star.first = min(star.first, out[n-1].first)
		out = out[:n-1]
	}
	return append(out, star)
}

// resolve replaces "*" by the highest number in use; 0 means that there is none, and then nothing is left of the ranges
// with "*".
func resolve(set []span, highest uint32) []span {
	out := make([]span, 0, len(set))
	for _, s := range set {
		switch {
		case s.last != 0:
			out = append(out, s)
		case highest != 0 && (s.first == 0 || s.first > highest):
			out = append(out, span{highest, highest}) // RFC 9051: "*" is always in n:*
		case highest != 0:
			out = append(out, span{s.first, highest})
		}
	}
	return normal(out)
}

// spansOf returns a set's ranges; "$" has none by itself.
func spansOf(set imap.NumSet) []span {
	var out []span
	switch set := set.(type) {
	case imap.SeqSet:
		for _, s := range set {
			out = append(out, span{s.Start, s.Stop})
		}
	case imap.UIDSet:
		for _, s := range set {
			out = append(out, span{uint32(s.Start), uint32(s.Stop)})
		}
	}
	return out
}

// contains reports whether n is in a resolved set.
func contains(set []span, n uint32) bool {
	i, _ := slices.BinarySearchFunc(set, n, func(s span, n uint32) int {
		switch {
		case s.last < n:
			return -1
		case s.last > n:
			return 1
		}
		return 0
	})
	return i < len(set) && set[i].first <= n
}
