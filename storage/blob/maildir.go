package blob

import "mailsrv/internal/disk"

// OpenMaildir opens the Maildir++ at root, makes it if it is not there, and clears away what a crash left half made or
// half removed.
func OpenMaildir(fs disk.FS, root string) (Store, error) { panic("base room") }
