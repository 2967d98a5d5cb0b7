package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// lab is a server of the lab: one client, one recv for a request, answers as they are written down.
type lab struct {
	host, port string
	requests   chan string // "type body" of each request, then closed
}

// newLab answers each request with the next of replies, and hangs up when there are none left.
func newLab(t *testing.T, replies ...string) *lab {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &lab{requests: make(chan string, 100)}
	s.host, s.port, _ = net.SplitHostPort(l.Addr().String())
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		defer close(s.requests)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		for {
			b := make([]byte, 64<<10)
			n, err := c.Read(b) // one recv, as the lab's server does
			if err != nil {
				return
			}
			if n < headerSize || int(binary.BigEndian.Uint32(b[4:8])) != n-headerSize {
				s.requests <- fmt.Sprintf("half a request: %q", b[:n])
				return
			}
			s.requests <- fmt.Sprintf("%d %s", binary.BigEndian.Uint32(b[:4]), b[headerSize:n])
			if len(replies) == 0 {
				return
			}
			if replies[0] == silence {
				_, _ = io.Copy(io.Discard, c)
				return
			}
			for _, part := range strings.Split(replies[0], "|") {
				if _, err := io.WriteString(c, part); err != nil {
					return
				}
				time.Sleep(time.Millisecond) // for the parts to be packets of their own; nothing depends on it
			}
			replies = replies[1:]
		}
	}()
	return s
}

const silence = "silence"

// frame is an answer as Python's struct.pack("!ii", …) and json.dumps write it.
func frame(kind int32, body string) string {
	header := binary.BigEndian.AppendUint32(nil, uint32(kind))
	return string(binary.BigEndian.AppendUint32(header, uint32(len(body)))) + body
}

func (s *lab) heard() (all []string) {
	for r := range s.requests {
		all = append(all, r)
	}
	return all
}

func TestServersOfTheLab(t *testing.T) {
	ok := frame(0, `"OK"`)
	s := newLab(t, ok,
		frame(2, `[{"text": "world", "id": 7, "extra": [1, null], "header": "\u041f\u0440\u0438\u0432\u0435\u0442 \ud83d\udd4a"}, {"id": "8", "header": "Привет", "on": true}]`),
		frame(3, `{"id": 7, "text": "one\ntwo"}`), ok, ok, frame(-2, `"Mail with such index does not exist"`), frame(-2, `{"why": 1}`))
	piped(t, "entry юра@пример.test\nmailbox\nopen 7\nsend a@b.c\n\"h\"\tПривет 🕊\n\\u0041 <b>\ndel 7\ndel 9\nmailbox\nquit\n", s.host, s.port).want(t,
		"Success.\nMailbox\ntext : world\nid : 7\nextra : [1, null]\nheader : Привет 🕊\n\nid : 8\nheader : Привет\non : true\n\n"+
			"id : 7\ntext : one\ntwo\n\nSuccess.\nSuccess.\nПодключение разорвано\n",
		"Ошибка: Mail with such index does not exist\nОшибка: {\"why\": 1}\n", exitRefused)
	want := []string{`0 {"name":"\u044e\u0440\u0430@\u043f\u0440\u0438\u043c\u0435\u0440.test"}`, "2 null", `3 {"index":"7"}`,
		`1 {"to":"a@b.c","header":"\"h\"\t\u041f\u0440\u0438\u0432\u0435\u0442 \ud83d\udd4a","text":"\\u0041 <b>"}`,
		`4 {"index":"7"}`, `4 {"index":"9"}`, "2 null", "5 null"}
	if got := s.heard(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the server got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRepliesInPieces(t *testing.T) {
	long := strings.Repeat("мир ", 100_000)
	body, err := json.Marshal(map[string]string{"text": long})
	if err != nil {
		t.Fatal(err)
	}
	reply := frame(3, string(body))
	s := newLab(t, "\x00|\x00\x00|\x00\x00\x00\x00|\x04\"|OK\"", reply[:5]+"|"+reply[5:9]+"|"+reply[9:100_000]+"|"+reply[100_000:])
	piped(t, "entry a@b.c\nopen 1\n", s.host, s.port).want(t, "Success.\ntext : "+long+"\n\n", "", exitOK)
}

func TestServersThatFail(t *testing.T) {
	ok := frame(0, `"OK"`)
	for _, c := range []struct {
		name    string
		replies []string
		errs    string
	}{
		{"hangs up", nil, "The server closed the connection\n"},
		{"hangs up later", []string{ok}, "The server closed the connection\n"},
		{"is silent", []string{silence}, "The server does not answer\n"},
		{"is silent within an answer", []string{ok[:10], silence}, "The server does not answer\n"},
		{"negative length", []string{"\x00\x00\x00\x00\xff\xff\xff\xff"}, "The server's answer makes no sense: type 0, length -1\n"},
		{"absurd length", []string{"\x00\x00\x00\x00\x7f\xff\xff\xff"}, "The server's answer makes no sense: type 0, length 2147483647\n"},
		{"another protocol", []string{"220 mx.example.test ESMTP\r\n"}, "The server's answer makes no sense: type 842149920, length 1836592741\n"},
		{"no JSON", []string{frame(0, "OK")}, "The server's answer makes no sense: type 0, 2 bytes that are not JSON\n"},
		{"no body", []string{frame(0, "")}, "The server's answer makes no sense: type 0, 0 bytes that are not JSON\n"},
		{"a listing for an OK", []string{frame(2, "[]")}, "The server's answer makes no sense: type 2 instead of an OK\n"},
		{"an OK for a listing", []string{ok, ok}, "The server's answer makes no sense: a mailbox that is no JSON array\n"},
		{"a listing of no mails", []string{ok, frame(2, "[1]")}, "The server's answer makes no sense: a mail that is no JSON object\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newLab(t, c.replies...)
			timeout := "30s"
			if slices.Contains(c.replies, silence) {
				timeout = "500ms"
			}
			got := piped(t, "entry a@b.c\nmailbox\nquit\n", "-lang", "en", "-timeout", timeout, s.host, s.port)
			if got.errs != c.errs || got.code != exitLost || strings.Contains(got.out, "Mailbox") || strings.Contains(got.out, "Disconnected") {
				t.Errorf("got exit %d, %q and %q", got.code, got.out, got.errs)
			}
		})
	}
}

func TestServerThatCutsAnAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, frame(0, `"OK"`)[:10])
		c.Close()
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	piped(t, "entry a@b.c\n", "-lang", "en", host, port).want(t, "", "The server closed the connection in the middle of an answer\n", exitLost)
	<-ended
}

func TestServerThatHangsUpWithAWord(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, frame(-2, `"Too many connections, try again later"`))
		c.Close()
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	got := piped(t, "entry a@b.c\n", "-lang", "en", host, port)
	if got.errs != "Error: Too many connections, try again later\n" || got.code != exitRefused {
		t.Errorf("%+v", got)
	}
	<-ended
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	for lang, want := range map[string]string{"en": "The server is away: ", "ru": "Сервер недоступен: "} {
		got := piped(t, "", "-lang", lang, host, port)
		if !strings.HasPrefix(got.errs, want) || !strings.Contains(got.errs, "connection refused") || got.code != exitLost || got.out != "" {
			t.Errorf("%+v", got)
		}
	}
	s := newLab(t, frame(0, `"OK"`))
	got := piped(t, "", "-lang", "en", "-tls", "-insecure", "-timeout", "1s", s.host, s.port)
	if got.code != exitLost || got.out != "" || got.errs == "" {
		t.Errorf("TLS to a server without: %+v", got)
	}
}

// A stranger's mail must not command the terminal it is shown on.
func TestVisible(t *testing.T) {
	var b strings.Builder
	n, err := fmt.Fprint(visible{&b}, "a\x1b]0;x\x07\tП\r\nb\rc\u202ed\u0085\n")
	if want := `a\u001b]0;x\u0007` + "\tП\nb" + `\u000dc\u202ed\u0085` + "\n"; b.String() != want || err != nil || n != len("a\x1b]0;x\x07\tП\r\nb\rc\u202ed\u0085\n") {
		t.Errorf("%q, %d, %v", b.String(), n, err)
	}
}

func TestLanguagesAreWhole(t *testing.T) {
	for _, pair := range [][2]string{{"ru", "en"}, {"en", "ru"}} {
		a, b := fmt.Sprintf("%#v", *languages[pair[0]]), *languages[pair[1]]
		if strings.Contains(a, `:""`) || strings.Count(a, "%") != strings.Count(fmt.Sprintf("%#v", b), "%") {
			t.Errorf("%s lacks a text or a verb: %s", pair[0], a)
		}
	}
}
