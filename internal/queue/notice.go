package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"mailsrv/internal/delivery"
	"mailsrv/storage"
	"mailsrv/storage/kv"
)

// notice is a report to a sender, on its way into the queue: its file is written, its entry is not.
type notice struct {
	name string
	m    *message
	rs   []*recipient
}

// noticeNames are the kinds for people and metrics.
var noticeNames = map[kind]string{
	noticeFailed: "failed", noticeDelayed: "delayed", noticeSuccess: "relayed", noticePostmaster: "postmaster"}

// writeNotices writes the files of the notices that judgements call for: one of each kind, for all recipients together. On an
// error none is left.
func (q *Queue) writeNotices(m *message, judged []judgement) (all []*notice, err error) {
	for _, k := range []kind{noticeFailed, noticeDelayed, noticeSuccess, noticePostmaster} {
		var about []judgement
		for _, v := range judged {
			if v.notice == k {
				about = append(about, v)
			}
		}
		if len(about) == 0 {
			continue
		}
		if k == noticePostmaster && (q.local == nil || !q.local.Here(postmaster)) {
			q.log.Warn("a bounce cannot be delivered, and there is no postmaster here to tell", "id", m.id)
			continue
		}
		n, err := q.writeNotice(k, m, about)
		if err != nil {
			q.dropNotices(all)
			return nil, fmt.Errorf("write notice about %s: %w", m.id, err)
		}
		all = append(all, n)
	}
	return all, nil
}

const postmaster = "postmaster"

func (q *Queue) writeNotice(k kind, m *message, about []judgement) (*notice, error) {
	to := m.sender
	if k == noticePostmaster {
		to = postmaster
	}
	report := &report{
		kind: k, host: q.host, to: to, now: q.now(), about: m, result: noticeNames[k],
	}
	for _, v := range about {
		report.recipients = append(report.recipients, reported{
			address: v.r.address, original: v.r.original, instead: v.r.instead, out: v.out, when: v.when, expired: v.expired, until: v.until,
		})
	}
	file, err := q.files.open(m.id)
	switch {
	case errors.Is(err, fs.ErrNotExist): // then that is what the report is about
	case err != nil:
		return nil, err
	default:
		defer file.Close()
		if err := report.returns(io.NewSectionReader(file, m.skip, m.size-m.skip), q.policy.ReturnSize); err != nil {
			return nil, err
		}
	}
	return q.newNotice(report)
}

// newNotice writes a report's file and makes its records.
func (q *Queue) newNotice(r *report) (*notice, error) {
	now := r.now
	n := &notice{name: r.result}
	n.m = &message{arrived: now, seen: now, open: 1, count: 1, kind: r.kind, utf8: !isASCII(r.to), ret: "HDRS", hello: q.host,
		requireTLS: r.about.requireTLS, // RFC 8689 section 5
		priority:   r.about.priority}   // RFC 6710 section 4.2: a report is as urgent as what it is about
	n.m.body = "7BIT"
	if r.eightBit() {
		n.m.body = "8BITMIME"
	}
	n.rs = []*recipient{{address: r.to, notify: notifyNever, due: now, destination: q.destination("", r.to)}}
	err := q.place(n.m, func(id string) error {
		return q.files.write(id, func(w io.Writer) error {
			c := &counter{w: w}
			err := r.write(c, id)
			n.m.size = c.n
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	q.signNotice(n)
	return n, nil
}

// signNotice signs a notice that leaves. One that cannot be signed goes as it is: nobody could be told.
func (q *Queue) signNotice(n *notice) {
	if n.rs[0].destination == here || q.signer == nil {
		return
	}
	file, err := q.files.fs.Open(q.files.path(n.m.id))
	if err == nil {
		defer file.Close()
		err = q.sign(context.Background(), n.m, file, "")
	}
	if err != nil {
		q.log.Error("a notice is sent without a signature", "id", n.m.id, "err", err)
	}
}

func (q *Queue) dropNotices(notices []*notice) {
	for _, n := range notices {
		if err := q.takeBack(n.m.id); err != nil {
			q.log.Error("a notice that was not entered cannot be removed: the next start will", "id", n.m.id, "err", err)
		}
	}
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Delivered sends the notices for recipients of this server that asked for one (RFC 3461 section 4.1, NOTIFY=SUCCESS), once
// the message is in their mailboxes. nil only after the notice is durable.
func (q *Queue) Delivered(_ context.Context, env *delivery.Envelope, in *storage.Incoming, to []delivery.Recipient) error {
	return q.delivered(env, in, to)
}

func (q *Queue) delivered(env *delivery.Envelope, in source, to []delivery.Recipient) error {
	to = slices.DeleteFunc(slices.Clone(to), func(r delivery.Recipient) bool { return notifyOf(r.Notify)&notifySuccess == 0 })
	if env.Sender == "" || len(to) == 0 {
		return nil
	}
	now := q.now()
	onward := make([]delivery.Onward, len(to))
	for i, r := range to {
		onward[i] = delivery.Onward{Address: r.Address, For: r}
	}
	m, rs, err := q.entry(env, in, onward, now)
	if err != nil {
		return err
	}
	r := &report{kind: noticeSuccess, host: q.host, to: env.Sender, now: now, about: m, result: "delivered"}
	for _, one := range rs {
		r.recipients = append(r.recipients, reported{address: one.address, original: one.original, when: now,
			out: Outcome{Verdict: Delivered, Status: "2.1.5", Text: "in the mailbox"}})
	}
	if err := r.returns(io.NewSectionReader(in, m.skip, m.size-m.skip), q.policy.ReturnSize); err != nil {
		return err
	}
	n, err := q.newNotice(r)
	if err != nil {
		return err
	}
	if err := q.commits.do(true, func(tx kv.Tx) error { return q.putNotices(tx, []*notice{n}) }); err != nil {
		q.dropNotices([]*notice{n})
		return err
	}
	q.concluded(m, false, []*notice{n})
	return nil
}
