package kv

// OpenBolt opens the bbolt file at path, and makes it if it is not there (its directory must be). A file that another
// process has open is refused after a second.
func OpenBolt(path string) (DB, error) { panic("base room") }
