package legacyd

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTranscripts plays the conversations in testdata/*.talk. A line is
//
//	# comment
//	X> 1 {"to": …}     client X sends a frame; what follows the type is its body, nothing if there is none
//	X>raw 0001 ffff    client X sends these bytes (hex)
//	X< 0 "OK"          the next frame X gets, compared byte by byte
//	X! closed          the server has closed X's connection
//	X from 192.0.2.7   connects X from there; others come from 127.0.0.1
//	X bye              X cuts its connection, and the server has noticed
//	inbox alice@example.test: 1 \Seen, 2     what IMAP would see there
//	queued: a@elsewhere.test                 for whom mail left so far
//	mail alice@example.test: From: a@b\n\ntext     files a message; \n are line ends
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.talk")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".talk"), func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := &player{house: newHouse(t, nil), clients: map[string]*client{}}
			lines := bufio.NewScanner(f)
			lines.Buffer(nil, 1<<20)
			for n := 1; lines.Scan(); n++ {
				before := t.Failed()
				p.play(t, lines.Text())
				if t.Failed() && !before {
					t.Fatalf("%s:%d: %s", name, n, lines.Text())
				}
			}
		})
	}
}

type player struct {
	*house
	clients map[string]*client
}

func (p *player) client(name string) *client {
	if p.clients[name] == nil {
		p.clients[name] = p.dial("127.0.0.1")
	}
	return p.clients[name]
}

func (p *player) play(t *testing.T, line string) {
	line = strings.TrimSpace(line)
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case word == "" || word[0] == '#':
	case word == "inbox":
		address, want, _ := strings.Cut(rest, ":")
		if got := p.flags(address); got != strings.TrimSpace(want) {
			t.Errorf("%s holds %q", address, got)
		}
	case word == "queued:":
		if got := p.queue.list(); got != strings.TrimSpace(rest) {
			t.Errorf("queued for %q", got)
		}
	case word == "mail":
		address, text, _ := strings.Cut(rest, ": ")
		p.arrive(address, strings.ReplaceAll(text, `\n`, "\n"))
	case strings.HasSuffix(word, ">raw"):
		b, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		p.client(strings.TrimSuffix(word, ">raw")).raw(b)
	case strings.HasSuffix(word, ">"), strings.HasSuffix(word, "<"):
		number, body, _ := strings.Cut(rest, " ")
		kind, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		c := p.client(word[:len(word)-1])
		if word[len(word)-1] == '>' {
			c.send(int32(kind), body)
		} else {
			c.expect(int32(kind), body)
		}
	case strings.HasSuffix(word, "!") && rest == "closed":
		p.client(word[:len(word)-1]).expectClosed()
	case strings.HasPrefix(rest, "from "):
		p.clients[word] = p.dial(strings.TrimPrefix(rest, "from "))
	case rest == "bye":
		closed := p.meter.count("closed")
		p.client(word).conn.Close()
		for p.meter.count("closed") == closed { // the goroutine ends by itself; nothing else is to be waited for
			time.Sleep(time.Millisecond)
		}
	default:
		t.Fatal(fmt.Errorf("not understood: %s", line))
	}
}
