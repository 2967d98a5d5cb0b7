package delivery

import (
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"time"

	"mailsrv/storage"
)

const (
	filedEntries = 10_000
	filedFor     = 24 * time.Hour
)

// filed remembers which accounts, and addresses elsewhere, have a message that its sender was told to send again because
// another account could not take it. It is memory only: after a restart the retry gives those accounts a second copy, which is better than none.
// The zero filed is ready.
type filed struct {
	mu    sync.Mutex
	since map[filedKey]time.Time
	order []filedKey // oldest first
}

type filedKey struct{ message, account string }

func (f *filed) add(message, account string, now time.Time) {
	if message == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since == nil {
		f.since = make(map[filedKey]time.Time)
	}
	k := filedKey{message, account}
	if _, known := f.since[k]; !known {
		f.order = append(f.order, k)
	}
	f.since[k] = now
	for len(f.order) > filedEntries {
		delete(f.since, f.order[0])
		f.order = f.order[1:]
	}
}

func (f *filed) has(message, account string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.since[filedKey{message, account}]
	return message != "" && ok && now.Sub(t) < filedFor
}

// empty saves hashing messages as long as nothing is remembered, which is nearly always.
func (f *filed) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.since) == 0
}

// messageKey is the same for two tries at one message, whatever trace headers each got, and for nothing else; "" if the
// message cannot be read.
func messageKey(env *Envelope, in *storage.Incoming) string {
	s := in.Summary()
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d\n", env.Sender, s.MessageID, s.Subject, s.Date.Unix())
	if _, err := io.Copy(h, io.NewSectionReader(in, s.HeaderSize, in.Size()-s.HeaderSize)); err != nil {
		return ""
	}
	return string(h.Sum(nil))
}
