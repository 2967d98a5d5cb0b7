package wire

import (
	"bufio"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var pace = Pace{Idle: time.Minute, Request: 10 * time.Second, Write: 5 * time.Second, Rate: 100}

// drip sends one byte per interval until the connection fails.
func drip(c net.Conn, every time.Duration) {
	for {
		if _, err := c.Write([]byte("x")); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func TestTimedReads(t *testing.T) {
	for _, c := range []struct {
		name   string
		client func(net.Conn)
		want   time.Duration
	}{
		{"says nothing", func(net.Conn) {}, time.Minute},
		{"begins late and stops", func(c net.Conn) { time.Sleep(30 * time.Second); _, _ = c.Write([]byte("x")) },
			30*time.Second + 10*time.Second + 10*time.Millisecond},
		{"a byte every 9 s", func(c net.Conn) { drip(c, 9*time.Second) }, 10*time.Second + 20*time.Millisecond},
		{"a byte a minute", func(c net.Conn) { drip(c, time.Minute) }, 10*time.Second + 10*time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				go c.client(client)
				timed := NewTimed(server, pace)
				defer timed.Close()
				start := time.Now()
				_, err := bufio.NewReader(timed).ReadString('\n')
				if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != c.want {
					t.Errorf("%v after %v, want %v", err, time.Since(start), c.want)
				}
				timed.Close()
				time.Sleep(2 * time.Minute) // the client notices
			})
		})
	}
}

// A client that sends steadily may take as long as its bytes are worth.
func TestTimedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		go func() {
			for range 300 {
				_, _ = client.Write(make([]byte, 20)) // 200 bytes a second
				time.Sleep(100 * time.Millisecond)
			}
			client.Close()
		}()
		timed := NewTimed(server, pace)
		defer timed.Close()
		if got := readAll(t, timed); len(got) != 6000 {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func TestTimedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		timed := NewTimed(server, pace)
		defer timed.Close()
		start := time.Now()
		if _, err := timed.Write(make([]byte, 1000)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a client that never reads: %v", err)
		}
		if d := time.Since(start); d != 15*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		timed := NewTimed(server, pace)
		defer timed.Close()
		b := make([]byte, 4)

		// In the middle of a request it waits until the request is in.
		go func() {
			_, _ = client.Write([]byte("ab"))
			time.Sleep(time.Second)
			_, _ = client.Write([]byte("cd"))
		}()
		if n, err := timed.Read(b); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		timed.Interrupt()
		if n, err := timed.Read(b); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		timed.Await()
		if _, err := timed.Read(b); !errors.Is(err, ErrInterrupted) {
			t.Errorf("the next request: %v", err)
		}

		// A Read that waits is woken.
		timed = NewTimed(server, pace)
		time.AfterFunc(time.Second, timed.Interrupt)
		start := time.Now()
		if _, err := timed.Read(b); !errors.Is(err, ErrInterrupted) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A request whose first bytes came with the one before has begun: it may come in, and has its time.
func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		timed := NewTimed(server, pace)
		defer timed.Close()
		timed.Begin()
		timed.Interrupt()
		time.AfterFunc(time.Second, func() { _, _ = client.Write([]byte("cd")) })
		b := make([]byte, 4)
		if n, err := timed.Read(b); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		start := time.Now()
		if _, err := timed.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		timed.Await()
		if _, err := timed.Read(b); !errors.Is(err, ErrInterrupted) {
			t.Errorf("the next request: %v", err)
		}
	})
}

// Without Hangup's reading of the rest, loopback TCP resets the connection and the client loses the answer.
func TestHangupDeliversLastWords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		timed := NewTimed(c, pace)
		_, _ = timed.Read(make([]byte, 1))
		_, _ = timed.Write([]byte("goodbye"))
		Hangup(timed)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(make([]byte, 100<<10))
	if got := readAll(t, c); got != "goodbye" {
		t.Errorf("got %q", got)
	}
}
