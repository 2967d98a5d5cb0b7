package disk

// NewFaulty wraps a file system so that hook decides, before each operation, whether it fails and with which error. op is the
// lower-case name of a primitive: create open read write sync close link rename remove mkdir stat readdir chtimes syncdir
// free. Replace, MkdirAll and RemoveAll are made of primitives and can fail at each.
func NewFaulty(under FS, hook func(op, path string) error) *Faulty { panic("base room") }

// Faulty is an FS that fails on demand. Ops counts the primitives asked for so far.
type Faulty struct{ FS }

// Ops is the number of operations asked for so far, failed ones included.
func (f *Faulty) Ops() int { panic("base room") }
