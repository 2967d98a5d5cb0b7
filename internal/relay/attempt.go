package relay

import (
	"context"
	"strings"
	"time"

	"mailsrv/internal/message"
	"mailsrv/internal/queue"
)

// attempt is one Attempt: its message, and what is known of its recipients so far.
type attempt struct {
	r   *Relay
	ctx context.Context
	m   *queue.Outgoing

	out     []queue.Outcome
	decided []bool
	last    *failure // of a host; what the pending recipients get in the end

	tlsOptional bool // "TLS-Required: No": RFC 8689 section 5
	policyAsked bool
	policy      *stsPolicy
	hop         *hop
	bodies      map[bodyForm]*converted
}

// Attempt is queue.Transport's. Hosts are tried in order until every recipient has an answer; a host that fails before that
// (no connection, no TLS where it must be, 421) makes place for the next one.
func (r *Relay) Attempt(ctx context.Context, destination string, m *queue.Outgoing) []queue.Outcome {
	a := &attempt{
		r: r, ctx: ctx, m: m, bodies: map[bodyForm]*converted{},
		out: make([]queue.Outcome, len(m.Recipients)), decided: make([]bool, len(m.Recipients)),
	}
	a.tlsOptional = !m.RequireTLS && tlsRequiredNo(m)
	a.run(destination)
	if a.last == nil {
		a.last = tempFailure("connect", "4.4.1", "no server was reached")
	}
	for i, done := range a.decided {
		if !done {
			a.out[i] = a.last.outcome()
		}
	}
	return a.out
}

// note keeps the failure that says most: a temporary one before a permanent one, because it may pass; else the last.
func (a *attempt) note(f *failure) {
	if f.stage != "message" {
		a.r.meter.RelayFailed(f.stage)
	}
	if a.last == nil || a.last.permanent || !f.permanent {
		a.last = f
	}
}

func (a *attempt) pending() (list []int) {
	for i, done := range a.decided {
		if !done {
			list = append(list, i)
		}
	}
	return list
}

// poolKey tells sessions apart that differ in what was asked of their security.
func (a *attempt) poolKey(destination string) string {
	switch {
	case requiresTLS(a.m):
		return destination + " requiretls"
	case a.tlsOptional:
		return destination + " tls-optional"
	}
	return destination
}

func (a *attempt) run(destination string) {
	key := a.poolKey(destination)
	for s := a.r.pool.take(key); s != nil; s = a.r.pool.take(key) {
		s.connect = 0
		s.use(a.ctx)
		a.r.meter.RelayReused()
		if f := a.over(s, key); f != nil && !f.stale {
			a.note(f)
		}
		if len(a.pending()) == 0 || a.spent() {
			return
		}
	}
	h, f := a.r.findHop(a.ctx, destination)
	if f != nil {
		a.note(f)
		return
	}
	a.hop = h
	sessions := 0
	for i := range h.hosts {
		a.host(h, &h.hosts[i], key, &sessions)
		if len(a.pending()) == 0 || a.spent() || sessions >= a.r.o.Limits.Sessions {
			break
		}
	}
	if err := a.ctx.Err(); err != nil && a.last == nil {
		a.note(tempFailure("connect", "4.4.1", "%s", plainly(err)))
	}
}

// spent reports whether the attempt's time is over. A connection's deadline, which is the same, may be noticed first.
func (a *attempt) spent() bool {
	end, ok := a.ctx.Deadline()
	return a.ctx.Err() != nil || ok && !time.Now().Before(end)
}

// host tries the addresses of one host until it took or refused the message.
func (a *attempt) host(h *hop, one *host, key string, sessions *int) {
	addrs := a.r.interleave(one.addrs, h.source())
	bySOCKS := h.route != nil && h.route.SOCKS != "" && len(one.addrs) == 0
	if len(addrs) == 0 && !bySOCKS {
		a.note(h.unusable(one))
		return
	}
	sec, f := a.r.secure(a.ctx, h, one, a)
	if f != nil {
		f.remote = one.name
		a.note(f)
		return
	}
	for (len(addrs) > 0 || bySOCKS) && *sessions < a.r.o.Limits.Sessions && !a.spent() {
		*sessions++
		s, rest, f := a.r.open(a.ctx, target{hop: h, host: one, addrs: addrs, sec: sec})
		if f == nil {
			f = a.over(s, key)
		}
		if f == nil {
			return
		}
		a.note(f)
		if bySOCKS = bySOCKS && f.again; !f.again {
			addrs = rest
		}
	}
}

// over hands the message over a session to who is pending, in as many transactions as it takes, and gives the session back.
// nil means that all have their outcome.
func (a *attempt) over(s *session, key string) *failure {
	moved := false
	for {
		pending := a.pending()
		if len(pending) == 0 {
			a.r.pool.put(key, s)
			return nil
		}
		if s.messages >= s.mostMessages() {
			a.r.goodbye(s)
			f := tempFailure("message", "4.4.5", "the server takes %d messages over a connection", s.mostMessages())
			f.remote, f.tls, f.again, f.stale = s.remote, s.tls, moved, !moved
			return f
		}
		c, f := a.content(s)
		if f != nil {
			t := &transaction{s: s, start: time.Now()}
			for _, i := range pending {
				a.decide(i, f, t)
			}
			continue
		}
		if pending = a.pending(); len(pending) == 0 {
			continue
		}
		if f := a.transact(s, c, pending[:min(len(pending), s.mostRecipients())]); f != nil {
			f.remote, f.tls = s.remote, s.tls
			if f.ended || f.code != 0 {
				a.r.goodbye(s)
			} else {
				s.drop()
			}
			return f
		}
		moved = true
	}
}

// stsPolicy is the hop's, asked for once.
func (a *attempt) stsPolicy(ctx context.Context, h *hop) *stsPolicy {
	if !a.policyAsked {
		a.policyAsked = true
		var problem *tlsProblem
		if a.policy, problem = a.r.sts.policy(ctx, h.domain); problem != nil {
			sec := &security{policy: policyUsed{kind: "sts", domain: h.domain}}
			a.r.tlsrpt.session(target{hop: h}, nil, sec, problem)
		}
	}
	return a.policy
}

// maxHeader is how much of a header is looked at.
const maxHeader = 64 << 10

// tlsRequiredNo reports whether the header says TLS-Required: No.
func tlsRequiredNo(m *queue.Outgoing) (no bool) {
	b := make([]byte, min(maxHeader, m.Size))
	n, _ := m.Message.ReadAt(b, 0) // an error is met again when the message is sent
	message.Fields(b[:n], func(name string, raw []byte) bool {
		no = strings.EqualFold(name, "TLS-Required") && strings.EqualFold(message.FieldValue(raw), "No")
		return !no
	})
	return no
}
