package disk

import (
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"
)

// NewFaulty wraps a file system so that hook decides, before each operation, whether it fails and with which error. op is
// the lower-case name of a primitive: create open read write sync close link rename remove mkdir stat readdir chtimes
// syncdir free; path is the name it works on (the old one for link and rename). Replace and MkdirAll are made of
// primitives and can fail at each; RemoveAll asks once, as "remove". hook may be called from several goroutines.
//
// A write that fails writes the first half of its bytes, as a full disk does.
func NewFaulty(under FS, hook func(op, path string) error) *Faulty {
	return &Faulty{under: under, hook: hook}
}

// Faulty is an FS that fails on demand.
type Faulty struct {
	under FS
	hook  func(op, path string) error
	ops   atomic.Int64
}

// Ops is the number of primitives asked for so far, failed ones included.
func (f *Faulty) Ops() int { return int(f.ops.Load()) }

func (f *Faulty) ask(op, path string) error {
	f.ops.Add(1)
	if err := f.hook(op, path); err != nil {
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

func (f *Faulty) Create(name string, perm fs.FileMode) (File, error) {
	if err := f.ask("create", name); err != nil {
		return nil, err
	}
	return f.file(f.under.Create(name, perm))
}

func (f *Faulty) Open(name string) (File, error) {
	if err := f.ask("open", name); err != nil {
		return nil, err
	}
	return f.file(f.under.Open(name))
}

func (f *Faulty) file(under File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: under, fs: f}, nil
}

func (f *Faulty) ReadFile(name string, limit int64) ([]byte, error) { return readFile(f, name, limit) }

func (f *Faulty) Replace(name string, data []byte, perm fs.FileMode) error {
	return replaceFile(f, name, data, perm)
}

func (f *Faulty) Link(oldname, newname string) error {
	if err := f.ask("link", oldname); err != nil {
		return err
	}
	return f.under.Link(oldname, newname)
}

func (f *Faulty) Rename(oldname, newname string) error {
	if err := f.ask("rename", oldname); err != nil {
		return err
	}
	return f.under.Rename(oldname, newname)
}

func (f *Faulty) Remove(name string) error {
	if err := f.ask("remove", name); err != nil {
		return err
	}
	return f.under.Remove(name)
}

func (f *Faulty) RemoveAll(name string) error {
	if err := f.ask("remove", name); err != nil {
		return err
	}
	return f.under.RemoveAll(name)
}

func (f *Faulty) Mkdir(name string, perm fs.FileMode) error {
	if err := f.ask("mkdir", name); err != nil {
		return err
	}
	return f.under.Mkdir(name, perm)
}

func (f *Faulty) MkdirAll(name string, perm fs.FileMode) error { return mkdirAll(f, name, perm) }

func (f *Faulty) Stat(name string) (fs.FileInfo, error) {
	if err := f.ask("stat", name); err != nil {
		return nil, err
	}
	return f.under.Stat(name)
}

func (f *Faulty) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.ask("readdir", name); err != nil {
		return nil, err
	}
	return f.under.ReadDir(name)
}

func (f *Faulty) Chtimes(name string, mtime time.Time) error {
	if err := f.ask("chtimes", name); err != nil {
		return err
	}
	return f.under.Chtimes(name, mtime)
}

func (f *Faulty) SyncDir(name string) error {
	if err := f.ask("syncdir", filepath.Clean(name)); err != nil {
		return err
	}
	return f.under.SyncDir(name)
}

func (f *Faulty) Free(name string) (int64, error) {
	if err := f.ask("free", name); err != nil {
		return 0, err
	}
	return f.under.Free(name)
}

type faultyFile struct {
	File
	fs *Faulty
}

func (f *faultyFile) Read(p []byte) (int, error) {
	if err := f.fs.ask("read", f.Name()); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.ask("read", f.Name()); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.fs.ask("write", f.Name()); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.fs.ask("sync", f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}

// Close closes the file in any case, as close(2) does.
func (f *faultyFile) Close() error {
	asked := f.fs.ask("close", f.Name())
	if err := f.File.Close(); err != nil {
		return err
	}
	return asked
}
