package main

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Machine is what the machine can do at all, measured in the same run as the servers.
type Machine struct {
	SyncsPerSecond float64 `json:"syncsPerSecond"` // 4 KiB appended and synced, one after the other
	WriteMBps      float64 `json:"writeMBps"`      // to a file, synced once at the end
	CopyMBps       float64 `json:"copyMBps"`       // memory to memory, one core
	LoopbackMBps   float64 `json:"loopbackMBps"`   // one TCP connection
	RoundTripsPerS float64 `json:"roundTripsPerS"` // one byte there and back on a TCP connection
	CreatesPerS    float64 `json:"createsPerS"`    // files made, synced, and their directory synced
}

func measureMachine(dir string) (m Machine, err error) {
	m.SyncsPerSecond, err = rate(500, func(f *os.File) error {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return err
		}
		return f.Sync()
	}, dir)
	if err != nil {
		return m, err
	}
	const total = 256 << 20
	begin := time.Now()
	if _, err := rate(1, func(f *os.File) error {
		buf := make([]byte, 1<<20)
		for range total / len(buf) {
			if _, err := f.Write(buf); err != nil {
				return err
			}
		}
		return f.Sync()
	}, dir); err != nil {
		return m, err
	}
	m.WriteMBps = total / 1e6 / time.Since(begin).Seconds()
	a, b := make([]byte, 64<<20), make([]byte, 64<<20)
	copy(b, a)
	begin = time.Now()
	for range 8 {
		copy(b, a)
	}
	m.CopyMBps = 8 * float64(len(a)) / 1e6 / time.Since(begin).Seconds()
	if m.LoopbackMBps, m.RoundTripsPerS, err = loopback(); err != nil {
		return m, err
	}
	m.CreatesPerS, err = creates(dir)
	return m, err
}

// rate runs op n times on a fresh file and returns how often it went a second.
func rate(n int, op func(*os.File) error, dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "limit")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	begin := time.Now()
	for range n {
		if err := op(f); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

func creates(dir string) (float64, error) {
	dir, err := os.MkdirTemp(dir, "creates")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	const n = 200
	begin := time.Now()
	for i := range n {
		f, err := os.Create(filepath.Join(dir, string(rune('a'+i%26))+time.Now().Format("150405.000000000")))
		if err != nil {
			return 0, err
		}
		_, err = f.Write(make([]byte, 4096))
		if err := errors.Join(err, f.Sync(), f.Close(), d.Sync()); err != nil {
			return 0, err
		}
	}
	return n / time.Since(begin).Seconds(), nil
}

func loopback() (mbps, trips float64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	const total, n = 512 << 20, 5000
	go func() { // ends with its connection
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var one [1]byte
		for range n {
			if _, err := io.ReadFull(c, one[:]); err != nil {
				return
			}
			if _, err := c.Write(one[:]); err != nil {
				return
			}
		}
		buf := make([]byte, 256<<10)
		for left := total; left > 0; {
			k, err := c.Write(buf[:min(left, len(buf))])
			if err != nil {
				return
			}
			left -= k
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	var one [1]byte
	begin := time.Now()
	for range n {
		if _, err := c.Write(one[:]); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(c, one[:]); err != nil {
			return 0, 0, err
		}
	}
	trips = n / time.Since(begin).Seconds()
	begin = time.Now()
	buf := make([]byte, 256<<10)
	for left := total; left > 0; {
		k, err := c.Read(buf)
		if err != nil {
			return 0, 0, err
		}
		left -= k
	}
	return total / 1e6 / time.Since(begin).Seconds(), trips, nil
}
