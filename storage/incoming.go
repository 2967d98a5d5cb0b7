package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"

	"mailsrv/internal/disk"
	"mailsrv/internal/message"
)

// Incoming is a message on its way in: bytes are written once to one file and scanned as they pass; each account that
// gets the message links that file. Not for use by several goroutines until sealed.
type Incoming struct {
	store   *Store
	file    disk.File
	path    string
	buf     *bufio.Writer
	scan    *message.Scanner // nil once sealed, or given up: see heavyScan
	heavy   bool             // the scan was given up, or the summary is too large to be kept beside its encoding
	size    int64
	err     error // the first that was met; nothing can be sealed after it
	summary *message.Summary
	encoded []byte
	closed  bool
}

// heavyScan is how much a scanner may hold of a message that is still on its way. Mail of people stays far below; mail that was
// made of thousands of parts would hold megabytes for each of a thousand slow connections. It is scanned again from its
// file when it is whole, only so many at a time.
const (
	heavyScan   = 128 << 10
	heavyAtOnce = 2
)

var errSealed = errors.New("message is sealed")

// Incoming begins a message on its way in.
func (s *Store) Incoming() (*Incoming, error) {
	path := filepath.Join(s.tmp, strconv.FormatUint(s.serial.Add(1), 36))
	f, err := s.fs.Create(path, 0o600)
	if err != nil {
		return nil, diskError(fmt.Errorf("incoming message: %w", err))
	}
	buf := s.buffers.Get().(*bufio.Writer)
	buf.Reset(f)
	return &Incoming{store: s, file: f, path: path, buf: buf, scan: message.NewScanner()}, nil
}

// Write adds bytes (CRLF line ends, as received; trace headers first).
func (in *Incoming) Write(p []byte) (int, error) {
	if in.buf == nil {
		return 0, errSealed
	}
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.buf.Write(p)
	in.size += int64(n)
	in.err = diskError(err)
	if in.scan != nil {
		in.scan.Write(p[:n])
		if in.scan.Held() > heavyScan {
			in.scan, in.heavy = nil, true
		}
	}
	return n, in.err
}

// Seal ends the message and syncs it. After it the Incoming is read-only and may be filed any number of times.
func (in *Incoming) Seal() error {
	if in.buf == nil {
		return in.err
	}
	if in.err == nil {
		in.err = diskError(in.buf.Flush())
	}
	in.dropBuffer()
	if in.err == nil {
		in.err = diskError(in.file.Sync())
	}
	if in.err != nil {
		return in.err
	}
	if in.heavy {
		in.err = in.rescan()
		return in.err
	}
	in.summary = in.scan.Finish()
	in.encoded = in.summary.AppendBinary(nil)
	in.scan = nil
	return nil
}

// rescan scans the sealed file. Of the summary it keeps the encoding alone, which is a fraction of it.
func (in *Incoming) rescan() error {
	in.store.heavy <- struct{}{}
	defer func() { <-in.store.heavy }()
	scan := message.NewScanner()
	buf := make([]byte, 32<<10)
	if _, err := io.CopyBuffer(scan, io.NewSectionReader(in.file, 0, in.size), buf); err != nil {
		return fmt.Errorf("scan incoming message: %w", err)
	}
	in.encoded = scan.Finish().AppendBinary(nil)
	return nil
}

// sealed reports whether Seal has succeeded.
func (in *Incoming) sealed() bool { return in.buf == nil && in.err == nil && in.encoded != nil }

func (in *Incoming) dropBuffer() {
	if in.buf != nil {
		in.buf.Reset(nil)
		in.store.buffers.Put(in.buf)
		in.buf = nil
	}
}

// Size is the number of bytes written so far.
func (in *Incoming) Size() int64 { return in.size }

// Summary is what the scan found; only after Seal.
func (in *Incoming) Summary() *message.Summary {
	if in.summary == nil && in.sealed() {
		s, err := message.ParseSummary(in.encoded)
		if err != nil {
			panic(fmt.Sprintf("storage: a summary of our own making does not parse: %v", err))
		}
		return s
	}
	return in.summary
}

// ReadAt reads the message's bytes; only after Seal.
func (in *Incoming) ReadAt(p []byte, off int64) (int, error) { return in.file.ReadAt(p, off) }

// Path is the file's name, for the queue to link; only after Seal.
func (in *Incoming) Path() string { return in.path }

// Close removes the file's name under tmp; what was filed stays. Always call it; twice does no harm.
func (in *Incoming) Close() error {
	if in.closed {
		return nil
	}
	in.closed = true
	in.dropBuffer()
	if in.err == nil && in.encoded == nil {
		in.err = errors.New("message was given up")
	}
	err := in.store.fs.Remove(in.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(in.file.Close(), err)
}
