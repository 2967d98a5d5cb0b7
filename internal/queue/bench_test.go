package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailsrv/internal/delivery"
)

// BenchmarkThrough is a message durably in and out again, by as many senders at a time as its name says.
func BenchmarkThrough(b *testing.B) {
	for _, senders := range []int{1, 20, 100} {
		b.Run(fmt.Sprint(senders), func(b *testing.B) {
			dir := b.TempDir()
			q, db, err := openReal(dir, logged{devNull(b)})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			q.Start()
			var serial atomic.Int64
			b.SetParallelism(max(senders/2, 1))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := serial.Add(1)
					path := filepath.Join(dir, fmt.Sprint("in", n))
					if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
						b.Fatal(err)
					}
					env := &delivery.Envelope{ID: delivery.NewID(), Sender: sender}
					to := []delivery.Onward{{Address: fmt.Sprintf("x@d%d.test", n%20)}}
					if err := q.enqueue(b.Context(), env, letter{strings.NewReader(sample), path}, to); err != nil {
						b.Fatal(err)
					}
					os.Remove(path)
				}
			})
			for q.Stats().Messages > 0 {
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			if err := q.Shutdown(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}

func devNull(b *testing.B) *os.File {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}
