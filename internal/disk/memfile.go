package disk

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"time"
)

// memFile is an open file of a Crashable.
type memFile struct {
	fs       *Crashable
	node     *inode
	name     string
	at       int64
	writable bool
	closed   bool
}

func (f *memFile) step(op string, changes bool) error {
	if err := f.fs.step(op, f.name, changes); err != nil {
		return err
	}
	if f.closed {
		f.fs.mu.Unlock()
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	return nil
}

func (f *memFile) Read(p []byte) (int, error) {
	if err := f.step("read", false); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if f.at >= int64(len(f.node.now)) && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, f.node.now[min(f.at, int64(len(f.node.now))):])
	f.at += int64(n)
	return n, nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: fs.ErrInvalid}
	}
	if err := f.step("read", false); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	n := copy(p, f.node.now[min(off, int64(len(f.node.now))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	if err := f.step("write", true); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if !f.writable {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: fs.ErrPermission}
	}
	end := f.at + int64(len(p))
	if end > int64(len(f.node.now)) {
		f.node.now = append(f.node.now, make([]byte, end-int64(len(f.node.now)))...)
	}
	copy(f.node.now[f.at:], p)
	f.at = end
	f.node.mtime = time.Now()
	return len(p), nil
}

func (f *memFile) Seek(offset int64, whence int) (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += int64(len(f.node.now))
	}
	if offset < 0 {
		return f.at, &fs.PathError{Op: "seek", Path: f.name, Err: fs.ErrInvalid}
	}
	f.at = offset
	return offset, nil
}

func (f *memFile) Sync() error {
	if err := f.step("sync", true); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.node.synced = slices.Clone(f.node.now)
	return nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	if err := f.step("stat", false); err != nil {
		return nil, err
	}
	defer f.fs.mu.Unlock()
	return infoOf(path.Base(f.name), f.node), nil
}

// Close works without power too: it is the process that closes.
func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	f.closed = true
	return nil
}

func (f *memFile) Name() string { return f.name }

// memInfo is what was so when it was asked for.
type memInfo struct {
	name  string
	size  int64
	mode  fs.FileMode
	mtime time.Time
}

func infoOf(name string, n *inode) fs.FileInfo {
	return memInfo{name, int64(len(n.now)), n.mode, n.mtime}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return i.mtime }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }
