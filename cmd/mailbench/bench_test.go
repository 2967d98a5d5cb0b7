package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"
)

func TestGeneratorIsDeterministicAndValid(t *testing.T) {
	a, b := NewGenerator(Shape{Seed: 7}), NewGenerator(Shape{Seed: 7})
	other := NewGenerator(Shape{Seed: 8})
	sizes := map[bool]int{}
	for n := range 300 {
		m := a.Mail(n)
		if again := b.Mail(n); !bytes.Equal(m.Body, again.Body) || m.Sum != again.Sum {
			t.Fatalf("mail %d differs between two generators of one seed", n)
		}
		if bytes.Equal(m.Body, other.Mail(n).Body) {
			t.Fatalf("mail %d is the same for two seeds", n)
		}
		if _, err := mail.ReadMessage(bytes.NewReader(m.Body)); err != nil {
			t.Fatalf("mail %d: %v", n, err)
		}
		if bytes.Contains(bytes.ReplaceAll(m.Body, []byte("\r\n"), nil), []byte("\n")) || !bytes.HasSuffix(m.Body, []byte("\r\n")) {
			t.Fatalf("mail %d: line ends are not CRLF", n)
		}
		sizes[len(m.Body) > 4<<10]++
	}
	if sizes[true] < 60 || sizes[false] < 60 {
		t.Errorf("sizes do not spread around the median: %v", sizes)
	}
}

func TestFixedSize(t *testing.T) {
	g := NewGenerator(Shape{Seed: 1, Fixed: 4096})
	for n := range 50 {
		if got := len(g.Mail(n).Body); got < 3600 || got > 4600 {
			t.Errorf("mail %d has %d bytes, wanted about 4096", n, got)
		}
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := 1; i <= 100; i++ {
		d = append(d, time.Duration(i))
	}
	for _, c := range []struct {
		p    float64
		want time.Duration
	}{{50, 50}, {99, 99}, {100, 100}, {0, 1}} {
		if got := percentile(d, c.p); got != c.want {
			t.Errorf("percentile %v = %v, wanted %v", c.p, got, c.want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("percentile of nothing = %v", got)
	}
}

// fake answers each line that begins with a key (after an IMAP tag, written as $ in the answer).
func fake(t *testing.T, greeting string, answers map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, greeting)
				for lines := bufio.NewScanner(c); lines.Scan(); {
					line := lines.Text()
					tag, rest, _ := strings.Cut(line, " ")
					for key, answer := range answers {
						if strings.HasPrefix(rest, key) {
							io.WriteString(c, strings.ReplaceAll(answer, "$", tag))
						} else if strings.HasPrefix(line, key) {
							io.WriteString(c, answer)
						}
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A server that lies must be an error, not a fast run.
func TestLiesAreErrors(t *testing.T) {
	honest := map[string]string{
		"LOGIN":  "$ OK in\r\n",
		"SELECT": "* 2 EXISTS\r\n$ OK done\r\n",
	}
	with := func(key, answer string) map[string]string {
		m := map[string]string{key: answer}
		for k, v := range honest {
			if k != key {
				m[k] = v
			}
		}
		return m
	}
	cases := []struct {
		scenario, wantErr string
		answers           map[string]string
	}{
		{"fetch-flags", "", with("FETCH", "* 1 FETCH (FLAGS ())\r\n* 2 FETCH (FLAGS (\\Seen))\r\n$ OK\r\n")},
		{"fetch-flags", "1 responses for 2", with("FETCH", "* 1 FETCH (FLAGS ())\r\n$ OK\r\n")},
		{"fetch-flags", "missing", with("FETCH", "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n$ OK\r\n")},
		{"fetch-flags", "answer \"NO", with("FETCH", "$ NO not today\r\n")},
		{"fetch-body", "none of the", with("FETCH", "* 1 FETCH (BODY[] {5}\r\nhello)\r\n$ OK\r\n")},
		{"search-flag", "found nothing", with("SEARCH", "* SEARCH\r\n$ OK\r\n")},
		{"select", "without EXISTS", with("SELECT", "$ OK\r\n")},
		{"store-all", "0 of 2", map[string]string{"LOGIN": honest["LOGIN"], "SELECT": honest["SELECT"], "STORE": "$ OK\r\n",
			"SEARCH": "* SEARCH\r\n$ OK\r\n"}},
	}
	for _, c := range cases {
		addr := fake(t, "* OK ready\r\n", c.answers)
		var out bytes.Buffer
		err := run([]string{"-imap", addr, "-messages", "2", c.scenario}, &out)
		if c.wantErr == "" {
			if err != nil {
				t.Errorf("%s against an honest server: %v", c.scenario, err)
			} else if !strings.Contains(out.String(), c.scenario) {
				t.Errorf("%s: output %q", c.scenario, out.String())
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.wantErr) {
			t.Errorf("%s: error %v, wanted %q", c.scenario, err, c.wantErr)
		}
	}
}

func TestRefusedDeliveryIsAnError(t *testing.T) {
	addr := fake(t, "220 hello\r\n", map[string]string{
		"LHLO": "250-hi\r\n250 PIPELINING\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n", "DATA": "354 go\r\n",
		".": "452 4.2.2 full\r\n",
	})
	err := run([]string{"-lmtp", addr, "-messages", "1", "lmtp-in"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "452") {
		t.Errorf("error %v, wanted the 452", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"-connections", "0", "select"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("run %v: no error", args)
		}
	}
	if fmt.Sprint(len(scenarios)) == "0" {
		t.Fatal("no scenarios")
	}
}
