package blob

// Name is what our message file names say: "<seconds>.<id in hex>.<host>,S=<size>,U=<uid>".
type Name struct {
	Seconds int64  // internal date, Unix
	ID      uint64 // the message id
	Host    string
	Size    int64  // bytes
	UID     uint32 // not zero
}

// FormatName makes an Entry's Stem. Characters in Host that a Maildir name cannot have become "_".
func FormatName(n Name) string { panic("base room") }

// ParseName reads a Stem; ok is false if it is not exactly what FormatName makes.
func ParseName(stem string) (n Name, ok bool) { panic("base room") }

// InfoFor makes an Entry's Info ("2,FSa") of flags: bits 0-4 are \Seen, \Answered, \Flagged, \Deleted, \Draft, bit 8+k is
// keyword k, as storage.Flags has it; other bits are left out. Letters stand in ASCII order.
func InfoFor(flags uint64) string { panic("base room") }

// FlagsOf reads an Info. other holds the characters that mean nothing to us (P for passed, what other programs append
// after a further comma), which a careful renamer keeps: InfoFor(flags) + other.
func FlagsOf(info string) (flags uint64, other string) { panic("base room") }

// FolderName makes the folder of a mailbox name: "INBOX" is "", "Sent/2024" is ".Sent.2024". If the name is too long (or
// not one that a mailbox can have) the folder's name is a prefix and a hash, lossy is true and only the folder's state
// can tell the mailbox's name.
func FolderName(mailbox string) (folder string, lossy bool) { panic("base room") }

// MailboxName is the inverse of FolderName, and takes folder names that other programs made as well as they can be
// taken. ok is false for hashed names and for those that no mailbox can have.
func MailboxName(folder string) (mailbox string, ok bool) { panic("base room") }
