package disk

// NewCrashable returns an empty file system in memory (root "/"; relative names are below it) that knows what was synced.
func NewCrashable() *Crashable { panic("base room") }

// Crashable is an FS on which the power can fail.
type Crashable struct{ FS }

// Ops counts the operations that change something (create write sync link rename remove mkdir chtimes syncdir) so far.
func (c *Crashable) Ops() int { panic("base room") }

// CutBefore makes operation n (counted by Ops from 1) and everything after it, reads too, fail with ErrPowerCut. 0: never.
func (c *Crashable) CutBefore(n int) { panic("base room") }

// AfterPowerLoss returns what a disk might hold if the power went now: everything synced, and of what was not (bytes,
// names) by seed nothing, all or a part. Any number of futures can be asked for; the original goes on unharmed.
func (c *Crashable) AfterPowerLoss(seed uint64) *Crashable { panic("base room") }
