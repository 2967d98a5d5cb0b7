package smtpd

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"mailsrv/internal/delivery"
	"mailsrv/storage"
)

// intake is one message on its way from the wire to delivery. DATA and BDAT write the same octets to it. It never holds up
// the wire: once something is wrong it keeps the answer, lets go of the file and only counts, so that the message is
// read to its end.
type intake struct {
	s      *session
	env    *delivery.Envelope
	file   spool // nil once refused or closed
	answer *reply

	seen   int64 // octets from the wire
	lines  lines
	binary bool   // BODY=BINARYMIME: no rules for lines after the header
	head   header // what came before the body
	inBody bool
}

func newIntake(s *session, tx *transaction) *intake {
	in := &intake{s: s, env: &tx.env, binary: tx.env.Body == "BINARYMIME"}
	in.lines = lines{repair: s.srv.service.submits(), max: s.srv.limits.Line}
	file, err := s.srv.post.Incoming()
	if err != nil {
		in.refuse(replyTo(delivery.Refusal(err)))
		return in
	}
	in.file = file
	return in
}

// take writes the message's next octets.
func (in *intake) take(p []byte) {
	in.seen += int64(len(p))
	if in.seen > in.s.srv.limits.MessageSize {
		in.refuse(messageTooLarge)
	}
	for len(p) > 0 && in.answer == nil {
		part := p
		if !in.inBody {
			// By lines, since where the body begins decides what is done to it.
			if i := bytes.IndexByte(p, '\n'); i >= 0 {
				part = p[:i+1]
			}
		}
		p = p[len(part):]
		if !in.inBody || !in.binary {
			part = in.lines.pass(part)
			if in.lines.flaw != nil {
				in.refuse(*in.lines.flaw)
				return
			}
		}
		in.put(part)
	}
}

// put takes octets whose lines are in order.
func (in *intake) put(p []byte) {
	if in.inBody {
		in.write(p)
		return
	}
	whole := in.head.add(p)
	// By fields, so that it does not depend on how the octets came; a line that is not yet one is lines.max at most.
	if in.head.end > in.s.srv.limits.Header || len(in.head.fields) > maxFields {
		in.refuse(headerTooLarge)
	} else if whole {
		in.begin()
	}
}

// begin writes the trace fields and the header, and what has already come of the body.
func (in *intake) begin() {
	in.inBody = true
	srv := in.s.srv
	if err := srv.post.CheckHops(in.head.text[:in.head.end]); err != nil {
		in.refuse(replyTo(err))
		return
	}
	if srv.service.submits() {
		if r := in.repair(); r != nil {
			in.refuse(*r)
			return
		}
	} else {
		in.head.remove("Return-Path")
	}
	in.write([]byte(srv.post.Trace(in.env)))
	for _, f := range in.head.fields {
		in.write(f.raw)
	}
	in.write([]byte("\r\n"))
	in.write(in.head.text[in.head.body:])
	in.head = header{}
}

func (in *intake) write(p []byte) {
	if in.answer != nil {
		return
	}
	if _, err := in.file.Write(p); err != nil {
		in.refuse(replyTo(delivery.Refusal(err)))
	}
}

// refuse keeps the first answer and gives the file and the header's memory back: what follows is only counted.
func (in *intake) refuse(r reply) {
	if in.answer == nil {
		in.answer = &r
	}
	in.head = header{}
	in.abandon()
}

// abandon leaves nothing of the message behind. Twice does no harm.
func (in *intake) abandon() {
	if in.file == nil {
		return
	}
	if err := in.file.Close(); err != nil {
		in.s.log.Warn("close incoming message", "id", in.env.ID, "err", err)
	}
	in.file = nil
}

// finish seals and delivers the message and returns an answer for each recipient.
func (in *intake) finish(ctx context.Context) []reply {
	defer in.abandon()
	in.settle()
	if in.answer == nil {
		if err := in.file.Seal(); err != nil {
			in.refuse(replyTo(delivery.Refusal(err)))
		}
	}
	size, answers := in.seen, make([]reply, len(in.env.Recipients))
	if in.answer != nil {
		for i := range answers {
			answers[i] = *in.answer
		}
	} else {
		size = in.file.Size()
		// What has been taken in is delivered, whoever wants to shut down.
		for i, err := range in.s.srv.post.Deliver(context.WithoutCancel(ctx), in.env, in.file) {
			answers[i] = accepted(in.env.ID)
			if err != nil {
				answers[i] = replyTo(err)
			}
		}
	}
	in.log(size, answers)
	return answers
}

// settle takes what was held back until the end.
func (in *intake) settle() {
	if in.answer != nil {
		return
	}
	if !in.inBody || !in.binary {
		last := in.lines.finish()
		if in.lines.flaw != nil {
			in.refuse(*in.lines.flaw)
			return
		}
		in.put(last)
	}
	if !in.inBody && in.answer == nil {
		in.head.close()
		in.begin()
	}
}

// log writes the one line there is about a message.
func (in *intake) log(size int64, answers []reply) {
	failed := slices.IndexFunc(answers, reply.bad)
	args := []any{"id", in.env.ID, "from", in.env.Sender, "recipients", len(answers), "size", size,
		"account", in.env.Origin.Account, "tls", in.env.Origin.TLS}
	if failed < 0 {
		in.s.log.Info("accepted", args...)
		if m := in.s.srv.meter; m != nil {
			m.MessageAccepted(string(in.s.srv.service), size)
		}
		return
	}
	r := answers[failed]
	in.s.log.Info("refused", append(args, "verb", "DATA", "code", r.code, "status", r.status, "answer", r.text,
		"cause", r.cause)...)
	in.s.count(r)
}

// oneAnswer is what SMTP can say: one thing for all recipients. If one of them has failed the sender has to hear it, and
// rather that it may try again than that it may not; who has the message is not given it twice (delivery.Deliver).
func oneAnswer(answers []reply) reply {
	worst := answers[0]
	for _, r := range answers[1:] {
		if r.bad() && (!worst.bad() || worst.code >= 500 && r.code < 500) {
			worst = r
		}
	}
	return worst
}

var _ spool = (*storage.Incoming)(nil)

// unfold joins a field's lines into its value.
func unfold(raw []byte) string {
	_, value, _ := strings.Cut(string(raw), ":")
	return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
}
