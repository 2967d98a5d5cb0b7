package queue

import (
	"context"
	"io"
	"time"
)

// Transport hands messages to other servers. Package relay is the one there is; tests have their own.
type Transport interface {
	// Destination names the queue's unit of concurrency and back-off for an address: the next hop as configured ("partner.test",
	// "[127.0.0.1]:2625", "*" for a smarthost of everything). Recipients of one message with one Destination go in one
	// transaction where the other side allows it. sender is the envelope sender, for routes that depend on it.
	Destination(sender, recipient string) string
	// Attempt tries to hand over one message to recipients of one destination. It returns exactly one Outcome per recipient,
	// in order, and never later than ctx allows. An answer that was not read whole is Deferred, never Delivered.
	Attempt(ctx context.Context, destination string, m *Outgoing) []Outcome
}

// Outgoing is one attempt's message.
type Outgoing struct {
	ID         string // queue ID
	Sender     string // "" is the null sender
	Recipients []Recipient
	Message    io.ReaderAt
	Size       int64

	SMTPUTF8   bool   // the envelope or the header needs RFC 6531
	Body       string // "7BIT", "8BITMIME", "BINARYMIME"
	RequireTLS bool   // RFC 8689
	Return     string // DSN RET
	EnvelopeID string // DSN ENVID, decoded
	Priority   int    // MT-PRIORITY, RFC 6710, -9..9

	DeliverBy       time.Time // RFC 2852: a deadline; zero is none
	DeliverByNotify bool      // its by-mode N; else R: it must not go to a server that does not know deadlines
	DeliverByTrace  bool      // its by-trace T
}

// Recipient is one envelope recipient, with what DSNs need.
type Recipient struct {
	Address  string
	Notify   []string // DSN NOTIFY; empty is the default (FAILURE, DELAY)
	Original string   // DSN ORCPT "type;address", decoded
}

// Verdict of an attempt for one recipient.
type Verdict int

const (
	Deferred  Verdict = iota // try again later
	Delivered                // the other side took responsibility
	Failed                   // for good
)

// Outcome is what an attempt came to for one recipient: it is kept in the recipient's history, logged as one line, and told
// in DSNs.
type Outcome struct {
	Verdict Verdict
	Code    int    // SMTP reply code, 0 if there was none
	Status  string // RFC 3463, "4.4.1" when made up by us
	Text    string // the provider's own words, or ours
	Remote  string // MTA that said so: "mx1.partner.test [192.0.2.7]:25", "" if none was reached
	TLS     string // version, cipher and how it was verified ("dane", "mta-sts", "none"…), "" in clear
	// Onward is true if the other side offered DSN and took NOTIFY over: a SUCCESS notice is then its duty (RFC 3461
	// section 5.2.2); else we report "relayed".
	Onward bool
	// TakesBy is true if the other side took the message's deadline (DELIVERBY) over.
	TakesBy           bool
	Connect, Transfer time.Duration // until EHLO's answer (0 for a reused connection); MAIL to the last answer
	// Wait, if positive, is how long the destination as a whole should be left alone (it was unreachable, or told us to slow
	// down).
	Wait time.Duration
}
