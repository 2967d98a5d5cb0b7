package smtpd

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// What each service makes of a message: accepted or not, and the octets.
type reading func(message string) (stored string, accepted bool)

func strictReading(message string) (string, bool) {
	bare := strings.ReplaceAll(message, "\r\n", "")
	return asStored(message), !strings.ContainsAny(bare, "\r\n")
}

func repairedReading(message string) (string, bool) {
	message = strings.ReplaceAll(message, "\r\n", "\n")
	message = strings.ReplaceAll(message, "\r", "\n")
	return asStored(strings.ReplaceAll(message, "\n", "\r\n")), true
}

// asStored puts the empty header in front. Over this alphabet there are no fields.
func asStored(message string) string {
	return "\r\n" + strings.TrimPrefix(message, "\r\n")
}

// TestNoTwoReadings sends every body over {CR LF . x} up to length 7 through every door, as one stream of pipelined
// transactions, and holds what was stored and what was taken for commands against the RFC.
func TestNoTwoReadings(t *testing.T) {
	length := 7
	if testing.Short() {
		length = 5
	}
	doors := []struct {
		service Service
		open    string
		read    reading
	}{
		{SMTP, "EHLO c\r\n", strictReading},
		{LMTP, "LHLO c\r\n", strictReading},
		{Submission, "EHLO c\r\nAUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=\r\n", repairedReading},
	}
	for _, d := range doors {
		t.Run(string(d.service)+"/DATA", func(t *testing.T) {
			t.Parallel()
			streamThrough(t, d.service, d.open, length, func(body string) exchange {
				stream := body + "\r\n.\r\n"
				message, rest, _ := oracleMessage(stream)
				stored, good := d.read(message)
				x := exchange{send: "DATA\r\n" + stream, replies: []string{"354"}, stored: stored, accepted: good}
				x.replies = append(x.replies, answerFor(good))
				// What is left is commands, none of them known.
				for range strings.Count(rest, "\n") {
					x.replies = append(x.replies, "500")
				}
				return x
			})
		})
		t.Run(string(d.service)+"/BDAT", func(t *testing.T) {
			t.Parallel()
			streamThrough(t, d.service, d.open, length, func(body string) exchange {
				stored, good := d.read(body)
				half := len(body) / 2
				send := fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", half, body[:half], len(body)-half, body[half:])
				x := exchange{send: send, replies: []string{"250", answerFor(good)}, stored: stored, accepted: good}
				if strict := d.service != Submission; strict && bareIn(body[:half]) {
					x.replies = []string{"550", "503"} // found out with the first chunk
				}
				return x
			})
		})
	}
}

// bareIn reports whether a chunk alone shows a CR or LF by itself; a CR at its end may yet get its LF.
func bareIn(chunk string) bool {
	_, good := strictReading(strings.TrimSuffix(chunk, "\r"))
	return !good
}

func answerFor(good bool) string {
	if good {
		return "250"
	}
	return "550"
}

type exchange struct {
	send     string
	replies  []string
	stored   string
	accepted bool
}

func streamThrough(t *testing.T, service Service, open string, length int, make func(string) exchange) {
	post := &fakePost{}
	_, addr := start(t, Options{Service: service, Limits: Limits{Errors: -1, MessageRate: -1}}, post, fakeAuth{plain: true})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))

	var bodies []string
	for b := range words("\r\n.x", length) {
		bodies = append(bodies, b)
	}
	go func() {
		w := bufio.NewWriterSize(c, 64<<10)
		_, _ = w.WriteString(open)
		for _, b := range bodies {
			fmt.Fprintf(w, "MAIL FROM:<alice@example.test>\r\nRCPT TO:<bob@example.test>\r\n%sRSET\r\n", make(b).send)
		}
		_, _ = w.WriteString("QUIT\r\n")
		_ = w.Flush() // a failure shows as a missing reply
	}()
	cl := &client{t: t, c: c, r: bufio.NewReaderSize(c, 64<<10)}
	cl.expect("220")
	for range strings.Count(open, "\n") {
		cl.expect("2")
	}
	accepted := 0
	for _, b := range bodies {
		x := make(b)
		for _, want := range append(append([]string{"250 2.1.0", "250 2.1.5"}, x.replies...), "250 2.0.0 ok") {
			got, err := cl.reply()
			if err != nil || !strings.HasPrefix(got, want) {
				t.Fatalf("%q: got %q, %v; want %q", b, got, err, want)
			}
		}
		if !x.accepted {
			continue
		}
		l, ok := post.letter(accepted)
		if accepted++; !ok {
			t.Fatalf("%q: accepted but not delivered", b)
		}
		// After the trace and what submission adds, all of which ends in the empty line.
		if _, after, _ := strings.Cut(l.text, "\r\n\r\n"); "\r\n"+after != x.stored {
			t.Fatalf("%q: stored %q, want %q", b, l.text, x.stored)
		}
	}
	cl.expect("221")
	if n := len(post.letters()); n != accepted {
		t.Fatalf("%d letters, want %d", n, accepted)
	}
}

// The rules for lines must not depend on how the octets are cut.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "a\r\nb", "\r", "\r\r\n", "\n\r", "a\x00\r\x00\nb", "\r\n.\r\n"} {
		f.Add([]byte(s), 1, true)
		f.Add([]byte(s), 2, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, cut int, repair bool) {
		whole := run(body, len(body)+1, repair)
		pieces := run(body, 1+cut&7, repair)
		if whole != pieces {
			t.Fatalf("%q: whole %q, in pieces %q", body, whole, pieces)
		}
		text := string(body)
		bad := strings.Contains(text, "\x00")
		_, good := strictReading(text)
		if !repair {
			if got := strings.HasPrefix(whole, "flaw"); got != (bad || !good) {
				t.Fatalf("%q: %q", body, whole)
			}
			return
		}
		if _, good := strictReading(whole); !good || strings.Contains(whole, "\x00") {
			t.Fatalf("%q: repaired to %q", body, whole)
		}
	})
}

func run(body []byte, size int, repair bool) string {
	l := lines{repair: repair, max: 1 << 20}
	var out bytes.Buffer
	for len(body) > 0 {
		n := min(size, len(body))
		out.Write(l.pass(body[:n]))
		body = body[n:]
	}
	out.Write(l.finish())
	if l.flaw != nil {
		return "flaw " + l.flaw.status // which of several does depend on nothing, but is not the point
	}
	return out.String()
}
