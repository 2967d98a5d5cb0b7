package storage

import (
	"errors"
	"time"

	"mailsrv/internal/message"
)

// One type per kind of number, so that none can stand in for another.
type (
	// UID names a message in one mailbox for ever (RFC 9051 section 2.3.1.1); never zero, never reused.
	UID uint32
	// UIDValidity changes only if UIDs had to be given anew.
	UIDValidity uint32
	// ModSeq numbers the changes of one account, from 1, never repeated, at most 2^63-1 (RFC 7162).
	ModSeq uint64
	// MailboxID names a mailbox of an account through renames; never reused.
	MailboxID uint32
	// MessageID names immutable bytes in an account: the microsecond it was filed, made unique; ascending. Copies share it.
	MessageID uint64
)

// Flags is a set of flags of one account: the low bits are IMAP's system flags, bit 8+k is the account's keyword k.
type Flags uint64

// The system flags. \Recent is not one: see [Account.ClaimRecent].
const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft

	firstKeyword = 8
	// MaxKeywords is how many different keywords one account can have: as many as one letter or digit can name in
	// a Maildir file name beside DFPRST.
	MaxKeywords = 64 - firstKeyword
)

// Errors that callers branch on. They arrive wrapped: use errors.Is.
var (
	ErrNoAccount     = errors.New("no such account")
	ErrAccountExists = errors.New("account already exists")
	ErrClosed        = errors.New("store is closed")
	ErrInUse         = errors.New("the data folder is in use by another process")

	ErrNoMailbox        = errors.New("no such mailbox")
	ErrMailboxExists    = errors.New("mailbox already exists")
	ErrBadMailboxName   = errors.New("invalid mailbox name")
	ErrCannotDelete     = errors.New("INBOX cannot be deleted")
	ErrTooManyMailboxes = errors.New("too many mailboxes")

	ErrNoMessage       = errors.New("no such message")
	ErrOverQuota       = errors.New("quota exceeded")
	ErrTooManyKeywords = errors.New("too many different keywords in this account")
	ErrDiskFull        = errors.New("not enough disk space")
	ErrTooOld          = errors.New("the change log does not reach back that far")
)

// Mailbox is a mailbox's state at one moment.
type Mailbox struct {
	ID            MailboxID
	Name          string // UTF-8, "/" between levels; INBOX in capitals, and so is INBOX as first level
	UIDValidity   UIDValidity
	UIDNext       UID
	HighestModSeq ModSeq // of the mailbox; at least 1 (RFC 7162 section 3.1.2.1)
	Created       time.Time
	SpecialUse    string // "\\Sent", "\\Drafts", "\\Junk", "\\Trash", "\\Archive", "\\Flagged" …, or ""
	Subscribed    bool
	ObjectID      string // RFC 8474 MAILBOXID: unique in the account for ever

	Messages, Unseen, Deleted, Recent uint32
	Size                              int64 // sum of RFC822.SIZE
	Keywords                          Flags // keywords set on any message ever since they were last swept: for FLAGS
}

// Row is what changes about a placement. Rows are 24 bytes in memory and shared by all sessions that look.
type Row struct {
	ModSeq ModSeq
	Flags  Flags
	UID    UID
}

// Message is what never changes about a placement.
type Message struct {
	UID          UID
	ID           MessageID
	InternalDate time.Time // seconds
	SaveDate     time.Time // when it came into this mailbox (RFC 8514)
	Size         int64
	Summary      *message.Summary // nil if not asked for
}

// NewMessage is a message to be filed.
type NewMessage struct {
	Incoming     *Incoming
	Flags        []string  // IMAP spelling: `\Seen`, `$Forwarded`; \Recent is ignored
	InternalDate time.Time // zero: now
}

// FlagOp says what a FlagChange does to the flags that are there.
type FlagOp int

const (
	SetFlags FlagOp = iota
	AddFlags
	RemoveFlags
)

// FlagChange is one STORE.
type FlagChange struct {
	Op    FlagOp
	Flags []string
	// Conditional makes the change apply only to messages whose mod-sequence is at most UnchangedSince (RFC 7162
	// section 3.1.3); UnchangedSince 0 then fails on every message.
	Conditional    bool
	UnchangedSince ModSeq
}

// Stored is the outcome of a STORE. Changed rows got ModSeq; rows that already had the flags keep theirs and are not
// listed as changed. Modified are those that failed UNCHANGEDSINCE, Missing those that are no longer there.
type Stored struct {
	ModSeq   ModSeq
	Changed  []Row
	Modified []UID
	Missing  []UID
}

// Copied is the outcome of a COPY, MOVE or Append: Source[i] became Dest[i] (RFC 4315 COPYUID, APPENDUID).
type Copied struct {
	UIDValidity  UIDValidity
	Source, Dest []UID
	ModSeq       ModSeq
}

// Usage is what an account holds; a message placed in two mailboxes counts twice, as people see it.
type Usage struct {
	Messages int64
	Bytes    int64
}

// Quota limits an account; zero is no limit.
type Quota struct {
	Messages int64
	Bytes    int64
}

// ChangeKind says what a Change reports.
type ChangeKind uint8

const (
	Arrived ChangeKind = iota + 1
	FlagsChanged
	Expunged
	MailboxCreated
	MailboxDeleted
	MailboxRenamed
	SubscriptionChanged
)

// Change is one entry of an account's change log. A MOVE is two entries under one mod-sequence.
type Change struct {
	ModSeq  ModSeq
	When    time.Time
	Kind    ChangeKind
	Mailbox MailboxID
	UIDs    []UIDRange // Arrived, FlagsChanged, Expunged; ascending
	Name    string     // mailbox changes: the new name, or the deleted one; SubscriptionChanged: the name
	OldName string     // MailboxRenamed
}

// UIDRange is First..Last, both included.
type UIDRange struct{ First, Last UID }
