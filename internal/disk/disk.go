// Package disk is the one door to files: everything of mailsrv that must survive a crash passes through an FS, so
// that a test can fail any operation ([Faulty]) or cut the power between any two ([Crashable]).
//
// Paths are absolute or relative to the process, as for package os. Errors are *fs.PathError and friends, so that
// errors.Is(err, fs.ErrNotExist) works on every implementation.
package disk

import (
	"io"
	"io/fs"
	"time"
)

// FS is a file system. All methods may be called from several goroutines.
type FS interface {
	// Create makes a new file for writing and reading; fs.ErrExist if the name is taken.
	Create(name string, perm fs.FileMode) (File, error)
	// Open opens a file for reading. To the real file system's a symbolic link is fs.ErrNotExist; ReadFile follows it.
	Open(name string) (File, error)
	// ReadFile returns the whole of a small file; an error if it is longer than limit bytes.
	ReadFile(name string, limit int64) ([]byte, error)
	// Replace puts data under name so that after a crash either the old or the new content is there: temporary
	// file, sync, rename, sync of the directory.
	Replace(name string, data []byte, perm fs.FileMode) error
	Link(oldname, newname string) error
	// Rename replaces a file under newname; a directory there is fs.ErrExist.
	Rename(oldname, newname string) error
	Remove(name string) error
	RemoveAll(name string) error
	Mkdir(name string, perm fs.FileMode) error
	// MkdirAll makes name and its missing parents, and syncs the parent of each directory it made.
	MkdirAll(name string, perm fs.FileMode) error
	Stat(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]fs.DirEntry, error)
	Chtimes(name string, mtime time.Time) error
	// SyncDir makes the names in a directory durable: what was created, linked, renamed and removed there.
	SyncDir(name string) error
	// Free returns the bytes an unprivileged writer may still use on the file system that holds name.
	Free(name string) (int64, error)
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Seeker
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	// Sync makes the file's bytes and length durable; not its name, which [FS.SyncDir] does.
	Sync() error
}
