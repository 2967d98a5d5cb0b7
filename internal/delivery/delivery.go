// Package delivery takes an envelope and a message to mailboxes (and, later, the queue): aliases, groups, duplicates,
// loops, quotas, filters. Every protocol that takes mail in calls it; none files mail by itself.
package delivery

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"time"

	"mailsrv/internal/directory"
	"mailsrv/storage"
)

// Envelope is one SMTP transaction's (or the course protocol's send's) envelope.
type Envelope struct {
	ID         string // queue ID: for the log, Received and the answer
	Sender     string // reverse-path as given, "" for the null sender
	Recipients []Recipient
	Origin     Origin

	SMTPUTF8   bool
	Body       string // "7BIT", "8BITMIME", "BINARYMIME"
	RequireTLS bool
	Return     string // DSN RET: "FULL", "HDRS" or "" (RFC 3461 section 4.3)
	EnvelopeID string // DSN ENVID, decoded

	Priority        int       // MT-PRIORITY, RFC 6710, -9..9
	ReleaseAt       time.Time // FUTURERELEASE, RFC 4865: nobody gets it before, it waits in the queue; zero is now
	DeliverBy       time.Time // DELIVERBY, RFC 2852: a deadline; zero is none
	DeliverByNotify bool      // by-mode N: tell the sender then and go on; else return it
	DeliverByTrace  bool      // by-trace T: tell the sender when it is handed on
}

// Recipient is one accepted RCPT.
type Recipient struct {
	Address  string   // forward-path as given
	Notify   []string // DSN NOTIFY: "NEVER" or of "SUCCESS", "FAILURE", "DELAY" (RFC 3461 section 4.1)
	Original string   // DSN ORCPT as "type;address", decoded
}

// Origin is where an envelope came from.
type Origin struct {
	Service  string     // "smtp", "submission", "lmtp", "legacy"
	Addr     netip.Addr // peer
	Hello    string     // EHLO name
	TLS      string     // version and cipher for Received, "" without
	Account  string     // authenticated account's address, "" for a stranger
	Protocol string     // RFC 3848: "ESMTPSA", "LMTP", "UTF8SMTPS" …
	Trusted  bool       // in trusted_networks
}

// Error is a refusal in the words of RFC 3463: both a Go error and what the protocol answers.
type Error struct {
	Code   int    // SMTP reply code, 4xx or 5xx
	Status string // "5.1.1"
	Text   string // for people; never tells what is inside
	Cause  error  // for the log only
}

func (e *Error) Error() string   { return e.Status + " " + e.Text }
func (e *Error) Unwrap() error   { return e.Cause }
func (e *Error) Temporary() bool { return e.Code < 500 }

// Options of a Deliverer.
type Options struct {
	Directory *directory.Directory
	Store     *storage.Store
	Hostname  string
	MaxHops   int          // Received headers before a message is a loop (554 5.4.6); 0 is 50
	Queue     Queue        // nil: mail for other domains is refused
	Logger    *slog.Logger // nil discards
	Meter     Meter        // nil: none
	Now       func() time.Time
}

// Meter counts; observe.Metrics is one.
type Meter interface {
	// Delivered is called once for each recipient of an envelope: result is "filed", "queued" (all or some of it goes
	// elsewhere), "deferred" or "refused".
	Delivered(result string)
}

type noMeter struct{}

func (noMeter) Delivered(string) {}

// Queue takes mail for other domains, and what is not to be delivered yet; it is what package queue is to this one.
type Queue interface {
	// Enqueue takes the sealed message over for addresses elsewhere, all or none; nil only after it is durable. env and
	// in must not be kept: the queue links in.Path and copies what it needs.
	Enqueue(ctx context.Context, env *Envelope, in *storage.Incoming, to []Onward) error
	// Delivered tells the sender that the message is in the mailboxes of recipients here, of whom each asked for it
	// (NOTIFY=SUCCESS, RFC 3461 section 4.1). nil only after the notice is durable. It keeps nothing of its arguments.
	Delivered(ctx context.Context, env *Envelope, in *storage.Incoming, to []Recipient) error
}

// Onward is an address elsewhere and the recipient that led to it (itself, or an alias here). Before Envelope.ReleaseAt it may
// be an address here, which comes back to Deliver then.
type Onward struct {
	Address string
	For     Recipient
}

// Deliverer is safe for use by several goroutines.
type Deliverer struct {
	people  people
	mail    mail
	host    string
	maxHops int
	queue   Queue
	log     *slog.Logger
	meter   Meter
	now     func() time.Time
	filed   filed
}

// people is what delivery asks of the directory.
type people interface {
	Local(address string) bool
	Resolve(address string) (directory.Resolution, error)
	MaySendAs(account, address string) bool
	MaySendTo(account, recipient string) bool
	Quota(account string) (bytes, messages int64)
}

// mail is what delivery asks of the store.
type mail interface {
	Room(size int64) error
	Usage(account string) (storage.Usage, error)
	File(account, mailbox string, in *storage.Incoming) error
}

// New makes a Deliverer.
func New(o Options) *Deliverer {
	return newDeliverer(o, o.Directory, store{o.Store})
}

func newDeliverer(o Options, p people, m mail) *Deliverer {
	d := &Deliverer{
		people: p, mail: m, queue: o.Queue, host: o.Hostname,
		maxHops: cmp.Or(o.MaxHops, defaultMaxHops),
		log:     cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		meter:   o.Meter,
		now:     o.Now,
	}
	if d.meter == nil {
		d.meter = noMeter{}
	}
	if d.now == nil {
		d.now = time.Now
	}
	return d
}

const (
	defaultMaxHops = 50 // RFC 5321 section 6.3: at least 100 is "normally"; 50 is Postfix's hopcount_limit
	// parallel bounds the accounts one message is filed for at a time.
	parallel = 8
)
