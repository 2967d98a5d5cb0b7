// Package blob is the seam for message bytes: an account's folders and the message files in them. Today that is a live
// Maildir++ ([OpenMaildir]); a store that keeps bytes elsewhere passes the same conformance test (package blobtest).
//
// A Store knows names, not mail: which messages there are and what their flags mean is the index's business. Nothing is
// cached but which directories still need a sync, so a foreign program may work on the folders at the same time.
package blob

import (
	"errors"
	"time"

	"mailsrv/internal/disk"
)

// ErrInbox is returned where the root folder cannot take part: it is neither removed nor renamed.
var ErrInbox = errors.New("blob: the INBOX folder cannot be removed or renamed")

// StateLimit is how many bytes a folder's state file may have, MetaLimit an account-wide file's.
const (
	StateLimit = 64 << 10
	MetaLimit  = 64 << 20
)

// Store is one account's folders. A folder is named by the string that [FolderName] makes: "" is the INBOX. Methods may be
// called from several goroutines; two that change the same folder at once must be kept apart by the caller (storage has
// one writer per account).
//
// What is not there is fs.ErrNotExist, what must not be there yet fs.ErrExist, both wrapped.
type Store interface {
	// Folders lists the folders in no particular order, "" (which always exists) included.
	Folders() ([]string, error)
	// Create makes a folder and its state in one step: after a crash both are there or nothing is. Durable on return.
	Create(folder string, state []byte) error
	// Remove deletes a folder with all its messages in one step. Durable on return. ErrInbox.
	Remove(folder string) error
	// Rename renames one folder (its children are folders of their own). Durable on return. ErrInbox.
	Rename(from, to string) error

	// State reads what SetState or Create put there; fs.ErrNotExist if the folder has none (a foreign hand made it).
	State(folder string) ([]byte, error)
	// SetState replaces a folder's state: after a crash the old or the new. Durable on return.
	SetState(folder string, data []byte) error
	// Meta reads a small file of the whole account ("subscriptions", say); fs.ErrNotExist.
	Meta(name string) ([]byte, error)
	// SetMeta replaces one, as SetState does. name has no "/" and does not begin with ".".
	SetMeta(name string, data []byte) error

	// Place puts the finished, synced file src into a folder: a hard link or, where the file system refuses (another
	// device, too many links), a synced copy. The file's time becomes the entry's (Name.Seconds) if the name is ours.
	// fs.ErrExist if the name is taken. Durable after Sync(folder).
	Place(src string, folder string, e Entry) error
	// PlaceFrom is Place with a message of this account as the source.
	PlaceFrom(fromFolder string, from Entry, folder string, e Entry) error
	// Move renames a message within a folder: new to cur, other flags, another name. Durable after Sync(folder); after a
	// crash before it, the file is under one of the two names. A file under the name to is replaced.
	Move(folder string, from, to Entry) error
	// Delete removes a message. fs.ErrNotExist. Durable after Sync(folder).
	Delete(folder string, e Entry) error
	// Sync makes durable what Place, PlaceFrom, Move and Delete did in a folder. It costs nothing if they did nothing.
	Sync(folder string) error

	// Open opens a message's bytes. Deleting or moving it meanwhile does no harm to the open file.
	Open(folder string, e Entry) (disk.File, error)
	// Stat returns a message file's length in bytes and its time.
	Stat(folder string, e Entry) (size int64, mtime time.Time, err error)
	// List calls fn for each message file until fn returns an error, which List returns. Names beginning with "." and
	// what is not a regular file are left out. A message that is moved from new to cur meanwhile may come twice; one that
	// a foreign hand renames within cur may be missed, so look again before taking it for gone.
	List(folder string, fn func(Entry) error) error
	// Times returns when the two directories of a folder last changed: unequal to an earlier answer if a name came, went
	// or changed since, up to the file system's clock tick (which may be some milliseconds).
	Times(folder string) (new, cur time.Time, err error)
}

// Entry is one message file. Our names and foreign ones are alike here; [ParseName] of the Stem tells them apart.
type Entry struct {
	New  bool   // in new/, else in cur/
	Stem string // what identifies the message: the file name up to the last ":"
	Info string // what follows it: "2,FS"; "" if the name has no such part
}
