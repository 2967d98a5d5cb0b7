package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"mailsrv/internal/queue"
)

// failure is why a next hop, a connection or a message over it came to nothing, in the words that a DSN will tell.
type failure struct {
	stage     string // "dns", "connect", "greeting", "tls", "hello", "auth", "policy", "message"; Meter's word for it
	permanent bool
	code      int
	status    string
	text      string
	remote    string
	tls       string
	wait      time.Duration // Outcome.Wait
	tlsTried  bool          // the handshake or STARTTLS failed: without TLS it might work
	stale     bool          // before any answer to this message: another connection loses nothing
	again     bool          // the same address may be tried again
	ended     bool          // the connection is in order, and can be said goodbye to
}

func (f *failure) Error() string { return f.text }

// leaveAlone is how long a destination is left alone that could not be reached, or that said it has enough for now.
const leaveAlone = time.Minute

func tempFailure(stage, status, format string, args ...any) *failure {
	return &failure{stage: stage, status: status, text: fmt.Sprintf(format, args...)}
}

func permFailure(stage, status, format string, args ...any) *failure {
	return &failure{stage: stage, permanent: true, status: status, text: fmt.Sprintf(format, args...)}
}

// refusal is a failure in the server's words. Replies that make no sense here are temporary.
func refusal(stage string, r *reply) *failure {
	f := &failure{stage: stage, permanent: r.class() == 5, code: r.code, status: r.statusOr(), text: r.text()}
	if r.class() != 4 && r.class() != 5 {
		f.status, f.text = "4.5.0", fmt.Sprintf("unexpected reply %d %s", r.code, r.text())
	}
	if r.code == 421 {
		f.wait = leaveAlone
	}
	return f
}

// broken is a failure of the connection while something was being done.
func broken(stage, doing string, err error) *failure {
	status := "4.4.2"
	if errors.Is(err, errReplyTooLong) || errors.Is(err, errNoReply) {
		status = "4.5.0"
	}
	return &failure{stage: stage, status: status, text: fmt.Sprintf("%s while %s", plainly(err), doing), wait: leaveAlone}
}

// plainly says what went wrong with a connection for people who have not read package net.
func plainly(err error) string {
	var ne net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "the attempt was ended"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "no answer in time"
	case isGone(err):
		return "connection lost"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return printable(op.Err.Error())
	}
	return printable(err.Error())
}

// outcome is what the failure means for a recipient.
func (f *failure) outcome() queue.Outcome {
	o := queue.Outcome{
		Verdict: queue.Deferred, Code: f.code, Status: f.status, Text: f.text, Remote: f.remote, TLS: f.tls, Wait: f.wait,
	}
	if f.permanent {
		o.Verdict = queue.Failed
	}
	return o
}
