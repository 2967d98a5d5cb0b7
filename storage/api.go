// Package storage keeps accounts' mail: mailboxes, messages, flags, the change log, quota. It is the only durable
// writer of mail; every protocol is a translator over it.
//
// An account is the unit of consistency: one index (storage/kv) and one live Maildir++ (storage/blob). Every method of
// [Account] that changes something returns after the change is durable. Changes of one account run one at a time and
// share commits; readers never wait for them.
package storage

import (
	"io"
	"iter"
	"log/slog"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/internal/message"
)

// Options open a Store. Zero values: see each field.
type Options struct {
	Dir      string       // accounts live under Dir/accounts, messages on their way in under Dir/tmp
	FS       disk.FS      // nil: the real one
	Hostname string       // stands in message file names; "" is "localhost"
	MaxOpen  int          // accounts kept open though nobody uses them; 0 is 256
	Logger   *slog.Logger // nil discards
	Now      func() time.Time
	// Quota is asked for an account's limits at each arrival; nil is no limits.
	Quota func(address string) Quota
	// Reserve is the free disk space, in bytes, below which nothing is taken in (ErrDiskFull); 0 is 64 MiB.
	Reserve int64
}

// Open opens the store and removes what a crash left in Dir/tmp. One process at a time: a second is refused.
func Open(o Options) (*Store, error) { panic("storage room") }

// Store holds the accounts.
type Store struct{}

// Create makes an account with INBOX, Sent, Drafts, Junk, Trash and Archive (special-use, subscribed).
// The address is local@domain in the directory's canonical form. ErrAccountExists.
func (s *Store) Create(address string) error { panic("storage room") }

// Remove deletes an account and its mail for good. Sessions that hold it get ErrNoAccount from then on.
func (s *Store) Remove(address string) error { panic("storage room") }

// Account opens an account, or returns the open one. The caller must Release it. ErrNoAccount.
func (s *Store) Account(address string) (*Account, error) { panic("storage room") }

// Addresses lists the accounts on disk, sorted.
func (s *Store) Addresses() ([]string, error) { panic("storage room") }

// Room reports whether size more bytes can be taken in (ErrDiskFull): cheap enough to ask at every MAIL and DATA.
func (s *Store) Room(size int64) error { panic("storage room") }

// Incoming begins a message on its way in.
func (s *Store) Incoming() (*Incoming, error) { panic("storage room") }

// Close waits for running changes, writes out lazy work (file name flags) and closes all accounts.
func (s *Store) Close() error { panic("storage room") }

// Incoming is a message on its way in: bytes are written once to one file and scanned as they pass; each account that
// gets the message links that file. Not for use by several goroutines until sealed.
type Incoming struct{}

// Write adds bytes (CRLF line ends, as received; trace headers first).
func (in *Incoming) Write(p []byte) (int, error) { panic("storage room") }

// Seal ends the message and syncs it. After it the Incoming is read-only and may be filed any number of times.
func (in *Incoming) Seal() error { panic("storage room") }

// Size is the number of bytes written so far.
func (in *Incoming) Size() int64 { panic("storage room") }

// Summary is what the scan found; only after Seal.
func (in *Incoming) Summary() *message.Summary { panic("storage room") }

// ReadAt reads the message's bytes; only after Seal.
func (in *Incoming) ReadAt(p []byte, off int64) (int, error) { panic("storage room") }

// Path is the file's name, for the queue to link; only after Seal.
func (in *Incoming) Path() string { panic("storage room") }

// Close removes the file's name under tmp; what was filed stays. Always call it; twice does no harm.
func (in *Incoming) Close() error { panic("storage room") }

// Account is one open account. All methods may be called from several goroutines.
type Account struct{}

// Address is the account's canonical address.
func (a *Account) Address() string { panic("storage room") }

// Release gives the account back; the caller must not use it (or its views' Body readers) afterwards.
func (a *Account) Release() { panic("storage room") }

// Mailboxes lists all mailboxes by name, INBOX first.
func (a *Account) Mailboxes() ([]Mailbox, error) { panic("storage room") }

// Mailbox finds a mailbox by name (INBOX in any case). ErrNoMailbox.
func (a *Account) Mailbox(name string) (Mailbox, error) { panic("storage room") }

// MailboxByID finds a mailbox that may have been renamed since. ErrNoMailbox once deleted.
func (a *Account) MailboxByID(id MailboxID) (Mailbox, error) { panic("storage room") }

// CreateMailbox makes a mailbox and the parents it lacks. use is a special-use attribute or "". ErrMailboxExists,
// ErrBadMailboxName, ErrTooManyMailboxes.
func (a *Account) CreateMailbox(name, use string) (Mailbox, error) { panic("storage room") }

// DeleteMailbox removes a mailbox with its messages; children stay. ErrCannotDelete for INBOX.
func (a *Account) DeleteMailbox(name string) error { panic("storage room") }

// RenameMailbox renames a mailbox with its children. Renaming INBOX moves its messages into a new mailbox and leaves
// INBOX empty (RFC 9051 section 6.3.6); its children stay. Subscriptions do not follow names (RFC 9051 section 6.3.6).
func (a *Account) RenameMailbox(from, to string) error { panic("storage room") }

// Subscribe adds or removes a name from the subscriptions, whether or not the mailbox exists.
func (a *Account) Subscribe(name string, on bool) error { panic("storage room") }

// Subscriptions lists the subscribed names, sorted.
func (a *Account) Subscriptions() ([]string, error) { panic("storage room") }

// Keywords lists the account's keywords by bit: Keywords()[k] is bit 8+k. The list only grows.
func (a *Account) Keywords() []string { panic("storage room") }

// FlagNames spells flags in IMAP's way, system flags first.
func (a *Account) FlagNames(f Flags) []string { panic("storage room") }

// FlagSet looks names up without creating keywords; unknown keywords are left out and ok is false. Case-insensitive.
func (a *Account) FlagSet(names []string) (f Flags, ok bool) { panic("storage room") }

// View returns the mailbox's rows as of now. It costs a pointer once the mailbox is in memory. ErrNoMailbox.
func (a *Account) View(id MailboxID) (*View, error) { panic("storage room") }

// Append files messages, all or none, in the given order. Results' Dest holds the new UIDs. ErrNoMailbox, ErrOverQuota,
// ErrTooManyKeywords, ErrDiskFull.
func (a *Account) Append(mailbox string, msgs ...NewMessage) (Copied, error) { panic("storage room") }

// Store changes flags of the given UIDs (ascending).
func (a *Account) Store(id MailboxID, uids []UID, change FlagChange) (Stored, error) {
	panic("storage room")
}

// Copy places messages in another (or the same) mailbox: hard links, same flags and internal date, new UIDs. UIDs that
// are gone are left out of the result. All or none of the rest. ErrNoMailbox (destination), ErrOverQuota.
func (a *Account) Copy(id MailboxID, uids []UID, dest string) (Copied, error) { panic("storage room") }

// Move is Copy and the source's expunge in one change.
func (a *Account) Move(id MailboxID, uids []UID, dest string) (Copied, error) { panic("storage room") }

// Expunge removes messages for good. uids nil: all that have \Deleted; else, with onlyDeleted, those of uids that have
// \Deleted; else all of uids. Returns what went, ascending.
func (a *Account) Expunge(id MailboxID, uids []UID, onlyDeleted bool) ([]UID, ModSeq, error) {
	panic("storage room")
}

// ClaimRecent returns the first UID that no session has been told of as \Recent; all from it on are this caller's
// recent messages, and nobody else's from now on (RFC 3501 section 2.3.2).
func (a *Account) ClaimRecent(id MailboxID) (UID, error) { panic("storage room") }

// Messages reads what never changes about the placements uids (ascending) in one snapshot; those that are gone are left
// out. withSummary decodes the summaries too. Nothing slow may happen inside the loop (a socket write, say).
func (a *Account) Messages(id MailboxID, uids []UID, withSummary bool) iter.Seq2[Message, error] {
	panic("storage room")
}

// OpenMessage opens a message's bytes. Expunging it meanwhile does no harm to an open Body. ErrNoMessage.
func (a *Account) OpenMessage(id MailboxID, uid UID) (Body, error) { panic("storage room") }

// Body is a message's bytes; Size may differ from the index only if a foreign hand changed the file.
type Body interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Changes reads the change log after since, oldest first. ErrTooOld if it does not reach back that far.
func (a *Account) Changes(since ModSeq) iter.Seq2[Change, error] { panic("storage room") }

// Expunged returns the UIDs that left a mailbox after since, ascending (QRESYNC's VANISHED). ErrTooOld.
func (a *Account) Expunged(id MailboxID, since ModSeq) ([]UID, error) { panic("storage room") }

// ModSeq is the account's latest mod-sequence.
func (a *Account) ModSeq() ModSeq { panic("storage room") }

// Usage is counted in the same transactions as the mail.
func (a *Account) Usage() (Usage, error) { panic("storage room") }

// Refresh takes in what a foreign program did to the mailbox's folder, if the folder's times say that something was
// done. Cheap when nothing was; called by protocols at SELECT, NOOP and periodically in IDLE.
func (a *Account) Refresh(id MailboxID) error { panic("storage room") }

// Watch wakes the caller after changes of the account: of the given mailboxes, or of all if none is given. Signals
// coalesce: C has one slot. Close it.
func (a *Account) Watch(ids ...MailboxID) *Watcher { panic("storage room") }

// Watcher tells of changes. C is closed when the account is removed or the store closes.
type Watcher struct {
	C <-chan struct{}
}

// Close ends the watch.
func (w *Watcher) Close() { panic("storage room") }

// View is a mailbox's rows at one moment, in UID order, immutable and shared. Rows live in chunks of 256 UIDs
// (UID >> 8); views of one mailbox share the chunks that are equal, so a difference costs what differs.
type View struct{}

// Mailbox is the mailbox's state at the same moment as the rows.
func (v *View) Mailbox() Mailbox { panic("storage room") }

// ModSeq is the mailbox's HIGHESTMODSEQ at that moment.
func (v *View) ModSeq() ModSeq { panic("storage room") }

// Len is the number of messages.
func (v *View) Len() int { panic("storage room") }

// At returns row i, 0 <= i < Len: the message with sequence number i+1.
func (v *View) At(i int) Row { panic("storage room") }

// Find returns the index of the first row with a UID of at least uid, and whether it is that very UID.
func (v *View) Find(uid UID) (i int, found bool) { panic("storage room") }

// Rows iterates over rows from..to-1 with their indexes.
func (v *View) Rows(from, to int) iter.Seq2[int, Row] { panic("storage room") }

// Diff compares an older view of the same mailbox with a newer one.
func Diff(older, newer *View) Delta { panic("storage room") }

// Delta is what happened between two views: UIDs gone, rows whose mod-sequence changed, rows that are new; each ascending.
type Delta struct {
	Expunged []UID
	Changed  []Row
	Arrived  []Row
}
