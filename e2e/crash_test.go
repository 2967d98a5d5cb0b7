package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Stop and start: the same mail under the same numbers. So it is when the index is gone and rebuilt from the Maildir.
func TestRestart(t *testing.T) {
	s := start(t, options{})
	c := s.imap("alice")
	for i := range 5 {
		c.append("INBOX", []string{"", `\Seen`, `\Flagged $Forwarded`}[i%3], message("a@remote.test", address("alice"), fmt.Sprint("mail ", i), "text\r\n"))
	}
	c.do("CREATE a.b/&AOQ-")
	c.append("a.b/&AOQ-", `\Answered`, message("a@remote.test", address("alice"), "deep", "text\r\n"))
	c.do("SUBSCRIBE Later")
	c.do("SELECT INBOX")
	c.do(`UID STORE 2,5 +FLAGS (\Deleted)`)
	c.do("EXPUNGE")
	before := s.picture("alice")
	s.stop()
	s.run()
	if after := s.picture("alice"); after != before {
		t.Errorf("after a restart\n%s\nbefore\n%s", after, before)
	}
	s.stop()
	index := filepath.Join(s.data(), "accounts", domain, "alice", "index.db")
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	s.run()
	// UIDNEXT may jump: the Maildir tells only what it must be at least.
	if after := s.picture("alice"); uidNext.ReplaceAllString(after, "") != uidNext.ReplaceAllString(before, "") {
		t.Errorf("after the index was rebuilt\n%s\nbefore\n%s", after, before)
	}
	c = s.imap("alice")
	c.append("INBOX", "", "Subject: x\r\n\r\n")
	c.do("SELECT INBOX")
	if got := c.uids("ALL"); len(got) != 4 || !slices.Equal(got[:3], []string{"1", "3", "4"}) || got[3] == "5" {
		t.Errorf("UIDs after a rebuild and an arrival: %q; UID 5 was expunged and must not come back", got)
	}
}

var uidNext = regexp.MustCompile(`UIDNEXT \d+`)

// picture is what an account shows: mailboxes with their numbers, messages with flags, dates and text.
func (s *server) picture(local string) string {
	s.t.Helper()
	c := s.imap(local)
	defer c.conn.Close()
	var b strings.Builder
	lists := append(c.do(`LIST "" "*"`), c.do(`LSUB "" "*"`)...)
	slices.Sort(lists)
	for _, line := range lists {
		fmt.Fprintln(&b, line)
		if name := line[strings.LastIndex(line, `"/" `)+4:]; strings.HasPrefix(line, "* LIST") {
			fmt.Fprintln(&b, strings.Join(c.do("STATUS %s (UIDVALIDITY UIDNEXT MESSAGES UNSEEN)", name), "\n"))
			c.do("EXAMINE %s", name)
			for _, fetched := range c.do("UID FETCH 1:* (UID INTERNALDATE FLAGS RFC822.SIZE BODY.PEEK[])") {
				fmt.Fprintln(&b, strings.ReplaceAll(fetched, ` \Recent`, ""))
			}
		}
	}
	return recent.ReplaceAllString(b.String(), "FLAGS (")
}

var recent = regexp.MustCompile(`FLAGS \(\\Recent ?`)

// kill -9 under load from all sides, again and again on the same data: what was acknowledged is there, once; what was expunged
// stays gone; the server starts.
func TestKillUnderLoad(t *testing.T) {
	s := start(t, options{accounts: []string{"a0", "a1", "a2", "a3"}, release: true})
	truth := &ledger{acked: map[string]string{}, flagged: map[string]bool{}, gone: map[string]bool{}, sent: map[string]bool{}}
	for round := range 5 {
		enough := truth.count() + 40 + 150*round
		stop := &atomic.Bool{}
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() { s.deliverUntilDead(truth, round, w, stop) })
		}
		for w := range 4 {
			wg.Go(func() { s.appendUntilDead(truth, round, w, stop) })
		}
		s.await("acknowledged mails", func() bool { return truth.count() >= enough })
		s.kill()
		stop.Store(true)
		wg.Wait()
		s.run()
		truth.check(t, s)
	}
	s.stop()
	s.run()
	truth.check(t, s)
	t.Logf("%d mails acknowledged, %d sent", truth.count(), len(truth.sent))
}

// ledger is what the server has promised. Marks are unique words in the mails' subjects.
type ledger struct {
	sync.Mutex
	sent    map[string]bool
	acked   map[string]string // mark → account
	flagged map[string]bool   // of the acked
	gone    map[string]bool   // expunge was acknowledged
}

func (l *ledger) count() int {
	l.Lock()
	defer l.Unlock()
	return len(l.acked)
}

func (l *ledger) note(change func()) {
	l.Lock()
	defer l.Unlock()
	change()
}

var mark = regexp.MustCompile(`Subject: (m-\d+-\w+-\d+-\d+)\r\n`)

func (l *ledger) check(t *testing.T, s *server) {
	t.Helper()
	for i := range 4 {
		local := fmt.Sprint("a", i)
		found, flagged := map[string]int{}, map[string]bool{}
		c := s.imap(local)
		c.do("EXAMINE INBOX")
		for _, line := range c.do("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
			if m := mark.FindStringSubmatch(line); m != nil {
				found[m[1]]++
				flagged[m[1]] = strings.Contains(line, `\Flagged`)
			}
		}
		c.conn.Close()
		for m, account := range maps.All(l.acked) {
			switch {
			case account != local:
			case l.gone[m] && found[m] > 0:
				t.Errorf("%s was expunged from %s and is back", m, local)
			case !l.gone[m] && found[m] == 0:
				t.Errorf("%s was acknowledged and is lost from %s", m, local)
			case l.flagged[m] && !l.gone[m] && !flagged[m]:
				t.Errorf("%s has lost its acknowledged flag", m)
			}
		}
		for m, n := range found {
			if n > 1 || !l.sent[m] {
				t.Errorf("%s is in %s %d times", m, local, n)
			}
		}
	}
}

// deliverUntilDead sends mails over one SMTP connection after another, waiting for each answer.
func (s *server) deliverUntilDead(l *ledger, round, worker int, stop *atomic.Bool) {
	for n := 0; !stop.Load(); {
		conn, err := net.Dial("tcp", s.addr("smtp"))
		if err != nil {
			return
		}
		conn.SetDeadline(time.Now().Add(patience))
		in := bufio.NewReader(conn)
		say := func(line string) bool {
			if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
				return false
			}
			return positive(in)
		}
		if !positive(in) || !say("EHLO client.test") {
			conn.Close()
			return
		}
		for range 20 {
			to := fmt.Sprint("a", (worker+n)%4)
			m := fmt.Sprintf("m-%d-smtp-%d-%d", round, worker, n)
			n++
			l.note(func() { l.sent[m] = true })
			if !say("MAIL FROM:<x@remote.test>") || !say("RCPT TO:<"+address(to)+">") || !say("DATA") ||
				!say("Subject: "+m+"\r\n\r\n"+strings.Repeat("text\r\n", 100*(n%7))+".") {
				conn.Close()
				return
			}
			l.note(func() { l.acked[m] = to })
		}
		conn.Close()
	}
}

// positive reads one answer of SMTP.
func positive(in *bufio.Reader) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil || len(line) < 4 || line[0] != '2' && line[0] != '3' {
			return false
		}
		if line[3] == ' ' {
			return true
		}
	}
}

// appendUntilDead files mails by IMAP, flags every second and expunges every fourth.
func (s *server) appendUntilDead(l *ledger, round, worker int, stop *atomic.Bool) {
	conn, err := net.Dial("tcp", s.addr("imap"))
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * patience))
	in := bufio.NewReader(conn)
	tags := 0
	say := func(format string, args ...any) (ok bool, code string) {
		tags++
		if _, err := fmt.Fprintf(conn, "t%d %s\r\n", tags, fmt.Sprintf(format, args...)); err != nil {
			return false, ""
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return false, ""
			}
			if rest, found := strings.CutPrefix(line, fmt.Sprintf("t%d ", tags)); found {
				return strings.HasPrefix(rest, "OK"), rest
			}
		}
	}
	local := fmt.Sprint("a", worker)
	if ok, _ := say(`LOGIN %s "%s"`, address(local), password); !ok {
		return
	}
	if ok, _ := say("SELECT INBOX"); !ok {
		return
	}
	for n := 0; !stop.Load(); n++ {
		m := fmt.Sprintf("m-%d-imap-%d-%d", round, worker, n)
		l.note(func() { l.sent[m] = true })
		text := "Subject: " + m + "\r\n\r\ntext\r\n"
		ok, code := say("APPEND INBOX {%d+}\r\n%s", len(text), text)
		uid := appendUID.FindStringSubmatch(code)
		if !ok || uid == nil {
			return
		}
		l.note(func() { l.acked[m] = local })
		if n%2 == 0 {
			if ok, _ := say(`UID STORE %s +FLAGS.SILENT (\Flagged)`, uid[1]); !ok {
				return
			}
			l.note(func() { l.flagged[m] = true })
		}
		if n%4 == 3 {
			if ok, _ := say(`UID STORE %s +FLAGS.SILENT (\Deleted)`, uid[1]); !ok {
				return
			}
			l.note(func() { delete(l.acked, m) }) // in doubt until the answer
			if ok, _ := say("UID EXPUNGE %s", uid[1]); !ok {
				return
			}
			l.note(func() { l.acked[m], l.gone[m] = local, true })
		}
	}
}

var appendUID = regexp.MustCompile(`\[APPENDUID \d+ (\d+)\]`)
