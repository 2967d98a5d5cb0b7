package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned by Lock while another process, or this one, holds the lock.
var ErrLocked = errors.New("locked by another process")

// Lock makes an empty file on the real file system, if it is not there, and holds an exclusive lock (flock) on it until it is
// closed or the process ends, however it ends. It does not wait: ErrLocked. The file stays; its being there means nothing.
func Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
}
