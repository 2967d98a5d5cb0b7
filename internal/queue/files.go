package queue

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"mailsrv/internal/disk"
)

// files is the queue's Maildir. A message is a file of its queue ID's name in new/; tmp/ holds what is being written. A mail
// program that was let loose on it may have moved one to cur/, where it is found as well.
type files struct {
	fs    disk.FS
	dir   string
	known bool // system.db has had a queue before
}

func (f files) make() error {
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := f.fs.MkdirAll(filepath.Join(f.dir, sub), 0o700); err != nil {
			return err
		}
	}
	left, err := f.fs.ReadDir(filepath.Join(f.dir, "tmp"))
	for _, e := range left {
		err = errors.Join(err, f.fs.Remove(filepath.Join(f.dir, "tmp", e.Name())))
	}
	return err
}

func (f files) path(id string) string { return filepath.Join(f.dir, "new", id) }

// sync makes the names in new/ durable.
func (f files) sync() error { return f.fs.SyncDir(filepath.Join(f.dir, "new")) }

// link takes a sealed file over under a queue ID: by a hard link, or as a copy if it is on another file system or has too
// many links.
func (f files) link(id, path string) error {
	err := f.fs.Link(path, f.path(id))
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EMLINK) {
		return err
	}
	from, err := f.fs.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	return f.write(id, func(w io.Writer) error {
		_, err := io.Copy(w, from)
		return err
	})
}

// write makes a new message file. Its bytes are durable when it returns, its name after sync.
func (f files) write(id string, fill func(io.Writer) error) error {
	tmp := filepath.Join(f.dir, "tmp", id)
	file, err := f.fs.Create(tmp, 0o600)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(file, 32<<10)
	err = fill(buf)
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = f.fs.Rename(tmp, f.path(id))
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(f.fs.Remove(tmp)))
	}
	return nil
}

// open opens a message; fs.ErrNotExist if there is no file.
func (f files) open(id string) (disk.File, error) {
	file, err := f.fs.Open(f.path(id))
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	name, lookErr := f.moved(id)
	if lookErr != nil {
		return nil, lookErr
	}
	if name == "" {
		return nil, err
	}
	return f.fs.Open(name)
}

// remove forgets a message's file. What is not removed is a leftover for the next start.
func (f files) remove(id string) error {
	err := f.fs.Remove(f.path(id))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name, err := f.moved(id)
	if err != nil || name == "" {
		return err
	}
	return f.fs.Remove(name)
}

// moved finds a message in cur/; "" if it is not there.
func (f files) moved(id string) (string, error) {
	cur := filepath.Join(f.dir, "cur")
	entries, err := f.fs.ReadDir(cur)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if idOf(e.Name()) == id {
			return filepath.Join(cur, e.Name()), nil
		}
	}
	return "", nil
}

// idOf is a file name without the Maildir flags.
func idOf(name string) string {
	id, _, _ := strings.Cut(name, ":")
	return id
}

// each calls fn for every file that may be a message, with its ID and path.
func (f files) each(fn func(id, path string) error) error {
	for _, sub := range []string{"cur", "new"} {
		entries, err := f.fs.ReadDir(filepath.Join(f.dir, sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := fn(idOf(e.Name()), filepath.Join(f.dir, sub, e.Name())); err != nil {
				return fmt.Errorf("%s: %w", e.Name(), err)
			}
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
