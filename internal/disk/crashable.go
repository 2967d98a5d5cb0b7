package disk

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrPowerCut is what every operation returns from the cut on.
var ErrPowerCut = errors.New("the power is gone")

// NewCrashable returns an empty file system in memory that knows what was synced. Its root is "/"; relative names are
// below it.
func NewCrashable() *Crashable {
	return &Crashable{root: newDir(0o755), free: 1 << 40}
}

// Crashable is an FS on which the power can fail. It promises no more than POSIX and journaling file systems do:
//
//   - a file's bytes and length are safe after its Sync, a name after SyncDir of its directory (a directory's own name:
//     of the parent);
//   - of unsynced names any subset may survive, in any order; a rename is atomic: both halves or neither. SyncDir of its
//     source makes all of it safe, SyncDir of its target leaves open whether the old name is still there as well (but
//     a directory has one name);
//   - unsynced bytes may be there, be missing, or be zeros, in blocks of 512.
type Crashable struct {
	mu      sync.Mutex
	root    *inode
	pending []*nameOp // in the order in which they happened; those that are wholly durable are dropped
	seq     int       // of the last nameOp
	ops     int       // that changed something
	cut     int       // the operation before which the power goes
	off     bool      // it is gone
	free    int64
}

// inode is a file or a directory. now and synced are what programs see, and what is sure to survive.
type inode struct {
	isDir bool
	mode  fs.FileMode
	mtime time.Time

	now, synced []byte // file

	names   map[string]*inode  // directory
	durable map[string]durable // directory
}

// durable says what a name stands for after a crash (nil: nothing), and which operation made it so.
type durable struct {
	node *inode
	seq  int
}

// nameOp is a change of names: an addition, a removal, or (rename) both.
type nameOp struct {
	seq int
	add half
	del half
}

type half struct {
	dir  *inode // nil: nothing to do, or no longer
	name string
	node *inode // what the name stands for; nil in a removal
}

func newDir(mode fs.FileMode) *inode {
	return &inode{isDir: true, mode: mode | fs.ModeDir, mtime: time.Now(),
		names: map[string]*inode{}, durable: map[string]durable{}}
}

func (h *half) settle(seq int) {
	if h.dir == nil {
		return
	}
	if h.dir.durable[h.name].seq < seq {
		h.dir.durable[h.name] = durable{h.node, seq}
	}
	h.dir = nil
}

// Ops counts the operations that change something (create write sync link rename remove mkdir chtimes syncdir) so far.
func (c *Crashable) Ops() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops
}

// CutBefore makes operation n (as [Crashable.Ops] counts, from 1) and everything after it, reading too, fail with
// ErrPowerCut; 0 is never.
func (c *Crashable) CutBefore(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.off = n, n > 0 && c.ops >= n
}

// SetFree sets what Free reports; nothing else minds.
func (c *Crashable) SetFree(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = n
}

// step begins an operation. It returns with the lock held unless it fails.
func (c *Crashable) step(op, name string, changes bool) error {
	c.mu.Lock()
	if changes && c.ops+1 == c.cut {
		c.off = true
	}
	if c.off {
		c.mu.Unlock()
		return &fs.PathError{Op: op, Path: name, Err: ErrPowerCut}
	}
	if changes {
		c.ops++
	}
	return nil
}

func split(name string) []string {
	name = path.Clean("/" + filepath.ToSlash(name))
	if name == "/" {
		return nil
	}
	return strings.Split(name[1:], "/")
}

func (c *Crashable) find(name string) (*inode, error) {
	n := c.root
	for _, part := range split(name) {
		if !n.isDir {
			return nil, syscall.ENOTDIR
		}
		child, ok := n.names[part]
		if !ok {
			return nil, fs.ErrNotExist
		}
		n = child
	}
	return n, nil
}

// parent finds the directory that holds name, and name's last part.
func (c *Crashable) parent(name string) (*inode, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	last := len(parts) - 1
	dir, err := c.find(path.Join(parts[:last]...))
	if err != nil {
		return nil, "", err
	}
	if !dir.isDir {
		return nil, "", syscall.ENOTDIR
	}
	return dir, parts[last], nil
}

// change makes a nameOp happen for programs and puts it on the list for the crash.
func (c *Crashable) change(add, del half) {
	now := time.Now()
	if del.dir != nil {
		delete(del.dir.names, del.name)
		del.dir.mtime = now
	}
	if add.dir != nil {
		add.dir.names[add.name] = add.node
		add.dir.mtime = now
	}
	c.seq++
	c.pending = append(c.pending, &nameOp{c.seq, add, del})
}

func (c *Crashable) Create(name string, perm fs.FileMode) (File, error) {
	if err := c.step("create", name, true); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	dir, base, err := c.parent(name)
	if err == nil && dir.names[base] != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	n := &inode{mode: perm.Perm(), mtime: time.Now()}
	c.change(half{dir, base, n}, half{})
	return &memFile{fs: c, node: n, name: name, writable: true}, nil
}

func (c *Crashable) Open(name string) (File, error) {
	if err := c.step("open", name, false); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &memFile{fs: c, node: n, name: name}, nil
}

func (c *Crashable) ReadFile(name string, limit int64) ([]byte, error) {
	return readFile(c, name, limit)
}

func (c *Crashable) Replace(name string, data []byte, perm fs.FileMode) error {
	return replaceFile(c, name, data, perm)
}

func (c *Crashable) Link(oldname, newname string) error {
	if err := c.step("link", oldname, true); err != nil {
		return err
	}
	defer c.mu.Unlock()
	n, err := c.find(oldname)
	if err == nil && n.isDir {
		err = fs.ErrPermission
	}
	var dir *inode
	var base string
	if err == nil {
		dir, base, err = c.parent(newname)
	}
	if err == nil && dir.names[base] != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return &fs.PathError{Op: "link", Path: newname, Err: err}
	}
	c.change(half{dir, base, n}, half{})
	return nil
}

func (c *Crashable) Rename(oldname, newname string) error {
	if err := c.step("rename", oldname, true); err != nil {
		return err
	}
	defer c.mu.Unlock()
	if err := c.rename(oldname, newname); err != nil {
		return &fs.PathError{Op: "rename", Path: oldname, Err: err}
	}
	return nil
}

func (c *Crashable) rename(oldname, newname string) error {
	from, fromBase, err := c.parent(oldname)
	if err != nil {
		return err
	}
	n := from.names[fromBase]
	if n == nil {
		return fs.ErrNotExist
	}
	to, toBase, err := c.parent(newname)
	if err != nil {
		return err
	}
	switch target := to.names[toBase]; {
	case target == n:
		return nil // rename(2): two links of one file, nothing happens
	case target != nil && (target.isDir || n.isDir):
		return fs.ErrExist
	}
	c.change(half{to, toBase, n}, half{from, fromBase, nil})
	return nil
}

func (c *Crashable) Remove(name string) error {
	if err := c.step("remove", name, true); err != nil {
		return err
	}
	defer c.mu.Unlock()
	dir, base, err := c.parent(name)
	if err == nil {
		switch n := dir.names[base]; {
		case n == nil:
			err = fs.ErrNotExist
		case n.isDir && len(n.names) > 0:
			err = syscall.ENOTEMPTY
		default:
			c.change(half{}, half{dir, base, nil})
		}
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// RemoveAll removes leaf by leaf, so that the power can fail in between.
func (c *Crashable) RemoveAll(name string) error {
	entries, err := c.ReadDir(name)
	if err == nil {
		for _, e := range entries {
			if err := c.RemoveAll(path.Join(name, e.Name())); err != nil {
				return err
			}
		}
	} else if !errors.Is(err, syscall.ENOTDIR) {
		return ignoreMissing(err)
	}
	return ignoreMissing(c.Remove(name))
}

func (c *Crashable) Mkdir(name string, perm fs.FileMode) error {
	if err := c.step("mkdir", name, true); err != nil {
		return err
	}
	defer c.mu.Unlock()
	dir, base, err := c.parent(name)
	if err == nil && dir.names[base] != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	c.change(half{dir, base, newDir(perm.Perm())}, half{})
	return nil
}

func (c *Crashable) MkdirAll(name string, perm fs.FileMode) error { return mkdirAll(c, name, perm) }

func (c *Crashable) Stat(name string) (fs.FileInfo, error) {
	if err := c.step("stat", name, false); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return infoOf(path.Base(name), n), nil
}

func (c *Crashable) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := c.step("readdir", name, false); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err == nil && !n.isDir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	var entries []fs.DirEntry
	for base, child := range n.names {
		entries = append(entries, fs.FileInfoToDirEntry(infoOf(base, child)))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	return entries, nil
}

func (c *Crashable) Chtimes(name string, mtime time.Time) error {
	if err := c.step("chtimes", name, true); err != nil {
		return err
	}
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return &fs.PathError{Op: "chtimes", Path: name, Err: err}
	}
	n.mtime = mtime
	return nil
}

func (c *Crashable) SyncDir(name string) error {
	if err := c.step("syncdir", name, true); err != nil {
		return err
	}
	defer c.mu.Unlock()
	dir, err := c.find(name)
	if err == nil && !dir.isDir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return &fs.PathError{Op: "syncdir", Path: name, Err: err}
	}
	c.pending = slices.DeleteFunc(c.pending, func(op *nameOp) bool {
		isSource, isTarget := dir == op.del.dir, dir == op.add.dir
		if isSource || isTarget { // the old name cannot be gone for good without the new one
			ofDir := isTarget && op.add.node.isDir
			op.add.settle(op.seq)
			if isSource || ofDir {
				op.del.settle(op.seq)
			}
		}
		return op.add.dir == nil && op.del.dir == nil
	})
	return nil
}

func (c *Crashable) Free(name string) (int64, error) {
	if err := c.step("free", name, false); err != nil {
		return 0, err
	}
	defer c.mu.Unlock()
	return c.free, nil
}
