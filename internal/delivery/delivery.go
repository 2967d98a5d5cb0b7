// Package delivery takes an envelope and a message to mailboxes (and, later, the queue): aliases, groups, duplicates,
// loops, quotas, filters. Every protocol that takes mail in calls it; none files mail by itself.
package delivery

import (
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
	MaxHops   int // Received headers before a message is a loop (554 5.4.6); 0 is 50
	Logger    *slog.Logger
	Now       func() time.Time
}

// New makes a Deliverer.
func New(o Options) *Deliverer { panic("delivery room") }

// Deliverer is safe for use by several goroutines.
type Deliverer struct{}

// CheckRecipient says at RCPT whether mail for the address would be taken: nil or *Error (550 5.1.1 unknown, 550 5.7.1
// relaying, 452 4.2.2 over quota, 550 5.2.1 disabled …). size is MAIL's SIZE or 0.
func (d *Deliverer) CheckRecipient(ctx context.Context, env *Envelope, r Recipient, size int64) error {
	panic("delivery room")
}

// CheckSender says at MAIL whether an authenticated account may use the reverse-path (550 5.7.1), and whether there is
// room on the disk for size bytes (452 4.3.1).
func (d *Deliverer) CheckSender(ctx context.Context, env *Envelope, size int64) error {
	panic("delivery room")
}

// Received is the trace header for the envelope, with CRLF: "Received: from … by … with … id …; date"; "for" only
// when there is one recipient.
func (d *Deliverer) Received(env *Envelope) string { panic("delivery room") }

// Deliver files the sealed message for every recipient and returns one result per recipient, in order: nil after the
// message is durably filed for it, else *Error. An account reached through several recipients gets one copy.
func (d *Deliverer) Deliver(ctx context.Context, env *Envelope, in *storage.Incoming) []error {
	panic("delivery room")
}

// NewID makes a queue ID.
func NewID() string { panic("delivery room") }
