package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OS is the real file system. A sync that fails has failed for good: the kernel may have dropped the pages, so asking
// again proves nothing, and callers must treat the bytes as lost.
func OS() FS { return osFS{} }

type osFS struct{}

type osFile struct{ *os.File }

// Sync writes out bytes and length, but not times nobody needs after a crash.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return f.File.Sync() // a file system that does not know fdatasync
		default:
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

func (osFS) Create(name string, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err // not a File that holds a nil *os.File
	}
	return osFile{f}, nil
}

// Open does not follow a symbolic link in name's place: whoever can put one into a Maildir would be shown any file of the
// machine by a server that may read it. For us there is nothing of that name. (Links among the folders above it are the
// administrator's.)
func (osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o osFS) ReadFile(name string, limit int64) ([]byte, error) {
	return readFile(following{o}, name, limit)
}

// following is osFS for files that people name, which may be links: certificates are (certbot's live/).
type following struct{ osFS }

func (following) Open(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o osFS) Replace(name string, data []byte, perm fs.FileMode) error {
	return replaceFile(o, name, data, perm)
}

func (osFS) Link(oldname, newname string) error             { return os.Link(oldname, newname) }
func (osFS) Rename(oldname, newname string) error           { return os.Rename(oldname, newname) }
func (osFS) Remove(name string) error                       { return os.Remove(name) }
func (osFS) RemoveAll(name string) error                    { return os.RemoveAll(name) }
func (osFS) Mkdir(name string, perm fs.FileMode) error      { return os.Mkdir(name, perm) }
func (o osFS) MkdirAll(name string, perm fs.FileMode) error { return mkdirAll(o, name, perm) }
func (osFS) Stat(name string) (fs.FileInfo, error)          { return os.Stat(name) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error)     { return os.ReadDir(name) }
func (osFS) Chtimes(name string, mtime time.Time) error     { return os.Chtimes(name, time.Time{}, mtime) }

// SyncDir uses fsync: a directory's data are its names, and not every file system takes fdatasync on one.
func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// Free takes name or, if it does not exist yet, the nearest parent that does.
func (osFS) Free(name string) (int64, error) {
	for {
		var s unix.Statfs_t
		err := unix.Statfs(name, &s)
		switch parent := filepath.Dir(name); {
		case err == nil:
			return int64(s.Bavail) * s.Bsize, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, fs.ErrNotExist) && parent != name:
			name = parent
		default:
			return 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
		}
	}
}
