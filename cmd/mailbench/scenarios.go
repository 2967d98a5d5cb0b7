package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bench is one run's settings: where the servers are, who the users are, how much load.
type Bench struct {
	SMTP, LMTP, IMAP string
	IMAPTLS          bool
	Users            string // a format with %d: "u%d@example.test"
	UserCount        int
	Password         string
	Connections      int
	Messages         int
	Target           string
	Mail             *Generator
	Submission       string        // takes mail for other domains
	Login            bool          // which needs AUTH there
	sink             *sink         // where that mail goes
	PIDs             []int         // of the server, for what only /proc can tell
	Deadline         time.Duration // for mail to reach its mailbox; 0 is two minutes
}

// scenarios: the language of `mailbench run`, on one screen. Reading scenarios look at INBOX of user 0, which `append`
// or a delivery scenario with one user has filled.
var scenarios = map[string]func(*Bench) (Result, error){
	"smtp-in":        func(b *Bench) (Result, error) { return b.deliver("smtp-in", b.SMTP, false) },
	"lmtp-in":        func(b *Bench) (Result, error) { return b.deliver("lmtp-in", b.LMTP, true) },
	"append":         func(b *Bench) (Result, error) { return b.appendMail("append", false) },
	"append-nonsync": func(b *Bench) (Result, error) { return b.appendMail("append-nonsync", true) },
	"select":         (*Bench).selectAgain,
	"fetch-flags":    func(b *Bench) (Result, error) { return b.fetch("fetch-flags", "(FLAGS)", "FLAGS (") },
	"fetch-envelope": func(b *Bench) (Result, error) {
		return b.fetch("fetch-envelope", "(UID FLAGS ENVELOPE)", "ENVELOPE (\"")
	},
	"fetch-headers": func(b *Bench) (Result, error) { return b.fetch("fetch-headers", thunderbirdList, "Message-ID: <") },
	"fetch-bodystructure": func(b *Bench) (Result, error) {
		return b.fetch("fetch-bodystructure", "(RFC822.SIZE BODYSTRUCTURE)", "BODYSTRUCTURE (")
	},
	"fetch-body":      (*Bench).fetchBody,
	"search-flag":     func(b *Bench) (Result, error) { return b.search("search-flag", "UNDELETED") },
	"search-header":   func(b *Bench) (Result, error) { return b.search("search-header", "SUBJECT \"order has\"") },
	"search-body":     func(b *Bench) (Result, error) { return b.search("search-body", "BODY \"smörgåsbord\"") },
	"store-all":       (*Bench).storeAll,
	"copy":            func(b *Bench) (Result, error) { return b.transfer("copy") },
	"move":            func(b *Bench) (Result, error) { return b.transfer("move") },
	"expunge":         func(b *Bench) (Result, error) { return b.transfer("expunge") },
	"login-storm":     (*Bench).loginStorm,
	"relay":           (*Bench).relay,
	"idle-hold":       (*Bench).idleHold,
	"smtp-to-mailbox": (*Bench).smtpToMailbox,
	"idle-latency":    (*Bench).idleLatency,
}

const thunderbirdList = "(UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority " +
	"X-Priority References Newsgroups In-Reply-To Content-Type Reply-To Received)])"

func (b *Bench) user(n int) string { return fmt.Sprintf(b.Users, n%max(b.UserCount, 1)) }

// parallel runs n operations over the connections; each worker opens its own session with open and runs op on it.
func parallel[S any](b *Bench, n int, open func(worker int) (S, error), op func(s S, i int) error, closeS func(S)) ([]time.Duration, time.Duration, error) {
	took := make([]time.Duration, n)
	sessions := make([]S, b.Connections)
	for w := range sessions {
		s, err := open(w)
		if err != nil {
			return nil, 0, fmt.Errorf("connection %d: %w", w, err)
		}
		defer closeS(s)
		sessions[w] = s
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, len(sessions))
	begin := time.Now()
	for _, s := range sessions {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				t := time.Now()
				if err := op(s, i); err != nil {
					errs <- fmt.Errorf("operation %d: %w", i, err)
					return
				}
				took[i] = time.Since(t)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	select {
	case err := <-errs:
		return nil, 0, err
	default:
		return took, elapsed, nil
	}
}

// deliver sends Messages mails over Connections kept open, to the users in turn, and counts those acknowledged.
func (b *Bench) deliver(name, addr string, lmtp bool) (Result, error) {
	mails := make([]Mail, b.Messages)
	var total int64
	for i := range mails {
		mails[i] = b.Mail.Mail(i)
		total += int64(len(mails[i].Body))
	}
	took, elapsed, err := parallel(b, b.Messages,
		func(int) (*smtpConn, error) { return dialSMTP(addr, lmtp) },
		func(s *smtpConn, i int) error {
			return s.send("sender@bench.test", []string{b.user(i)}, mails[i].Body)
		},
		(*smtpConn).close)
	if err != nil {
		return Result{}, err
	}
	return summarize(name, b.Target, took, elapsed, total), nil
}

func (b *Bench) login(worker int) (*imapConn, error) {
	c, err := dialIMAP(b.IMAP, b.IMAPTLS)
	if err != nil {
		return nil, err
	}
	if err := c.login(b.user(worker), b.Password); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// inbox logs in as user 0, selects INBOX and insists on mail being there.
func (b *Bench) inbox() (*imapConn, int, error) {
	c, err := b.login(0)
	if err != nil {
		return nil, 0, err
	}
	n, err := c.selectMailbox("INBOX")
	if err == nil && n == 0 {
		err = fmt.Errorf("INBOX of %s is empty: run append or lmtp-in first", b.user(0))
	}
	if err != nil {
		c.close()
		return nil, 0, err
	}
	return c, n, nil
}

func (b *Bench) appendMail(name string, nonSync bool) (Result, error) {
	var total atomic.Int64
	took, elapsed, err := parallel(b, b.Messages, b.login, func(c *imapConn, i int) error {
		m := b.Mail.Mail(i)
		total.Add(int64(len(m.Body)))
		return c.append("INBOX", m.Body, nonSync)
	}, (*imapConn).close)
	if err != nil {
		return Result{}, err
	}
	return summarize(name, b.Target, took, elapsed, total.Load()), nil
}

func (b *Bench) selectAgain() (Result, error) {
	c, want, err := b.inbox()
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	var took []time.Duration
	begin := time.Now()
	for range 20 {
		t := time.Now()
		n, err := c.selectMailbox("INBOX")
		if err != nil {
			return Result{}, err
		}
		if n != want {
			return Result{}, fmt.Errorf("EXISTS %d, wanted %d", n, want)
		}
		took = append(took, time.Since(t))
	}
	return summarize("select", b.Target, took, time.Since(begin), 0), nil
}

// fetch asks for items of all messages once and counts the responses; each must hold must.
func (b *Bench) fetch(name, items, must string) (Result, error) {
	c, n, err := b.inbox()
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	var got int
	var size int64
	begin := time.Now()
	err = c.do(func(r []byte) error {
		if !bytes.Contains(r[:min(len(r), 40)], []byte(" FETCH (")) {
			return nil
		}
		if !bytes.Contains(r, []byte(must)) {
			return fmt.Errorf("%s: %q is missing in %.200q", name, must, r)
		}
		got++
		size += int64(len(r))
		return nil
	}, "FETCH 1:* %s", items)
	if err == nil && got != n {
		err = fmt.Errorf("%s: %d responses for %d messages", name, got, n)
	}
	if err != nil {
		return Result{}, err
	}
	elapsed := time.Since(begin)
	r := summarize(name, b.Target, []time.Duration{elapsed}, elapsed, size)
	r.Ops, r.PerSecond = n, float64(n)/elapsed.Seconds()
	return r, nil
}

// fetchBody reads up to 1,000 whole messages one by one; every one must be a message that the generator made.
func (b *Bench) fetchBody() (Result, error) {
	known := make(map[uint32]bool, b.Messages)
	for i := range b.Messages {
		known[b.Mail.Mail(i).Sum] = true
	}
	c, n, err := b.inbox()
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	var took []time.Duration
	var size int64
	begin := time.Now()
	for k := range min(n, 1000) {
		t := time.Now()
		seen := false
		err := c.do(func(r []byte) error {
			head, rest, ok := bytes.Cut(r, []byte("}\r\n"))
			if !ok || !bytes.Contains(head, []byte("BODY[]")) {
				return nil
			}
			body := rest[:bytes.LastIndexByte(rest, ')')]
			// A delivery puts trace headers in front; the generated message is the tail.
			if at := bytes.Index(body, []byte(firstField)); at >= 0 {
				body = body[at:]
			}
			if seen = known[crc32.Checksum(body, castagnoli)]; !seen {
				return fmt.Errorf("fetch-body: message %d is none of the %d sent", k+1, len(known))
			}
			size += int64(len(r))
			return nil
		}, "FETCH %d (BODY.PEEK[])", k*n/min(n, 1000)+1)
		if err == nil && !seen {
			err = fmt.Errorf("fetch-body: no body for message %d", k+1)
		}
		if err != nil {
			return Result{}, err
		}
		took = append(took, time.Since(t))
	}
	return summarize("fetch-body", b.Target, took, time.Since(begin), size), nil
}

func (b *Bench) search(name, criteria string) (Result, error) {
	c, n, err := b.inbox()
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	hits := 0
	begin := time.Now()
	charset := ""
	if strings.IndexFunc(criteria, func(r rune) bool { return r > 127 }) >= 0 {
		charset = "CHARSET UTF-8 "
		// A quoted string may not hold octets above 127 in IMAP4rev1: the needle goes as a literal.
		key, needle, _ := strings.Cut(criteria, " ")
		needle = strings.Trim(needle, "\"")
		criteria = fmt.Sprintf("%s {%d+}\r\n%s", key, len(needle), needle)
	}
	err = c.do(func(r []byte) error {
		if rest, ok := bytes.CutPrefix(r, []byte("* SEARCH")); ok {
			hits = len(bytes.Fields(rest))
		}
		return nil
	}, "SEARCH %s%s", charset, criteria)
	if err == nil && hits == 0 {
		err = fmt.Errorf("%s found nothing", name)
	}
	if err != nil {
		return Result{}, err
	}
	elapsed := time.Since(begin)
	r := summarize(name, b.Target, []time.Duration{elapsed}, elapsed, int64(hits))
	r.Ops, r.PerSecond = n, float64(n)/elapsed.Seconds()
	return r, nil
}

// storeAll sets and removes a flag on all messages, and looks whether it happened.
func (b *Bench) storeAll() (Result, error) {
	c, n, err := b.inbox()
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	count := func(criteria string) (hits int, err error) {
		err = c.do(func(r []byte) error {
			if rest, ok := bytes.CutPrefix(r, []byte("* SEARCH")); ok {
				hits = len(bytes.Fields(rest))
			}
			return nil
		}, "SEARCH %s", criteria)
		return
	}
	begin := time.Now()
	if err := c.do(nil, `STORE 1:* +FLAGS.SILENT (\Flagged)`); err != nil {
		return Result{}, err
	}
	elapsed := time.Since(begin)
	if hits, err := count("FLAGGED"); err != nil || hits != n {
		return Result{}, fmt.Errorf("store-all: %d of %d flagged: %v", hits, n, err)
	}
	begin = time.Now()
	if err := c.do(nil, `STORE 1:* -FLAGS.SILENT (\Flagged)`); err != nil {
		return Result{}, err
	}
	elapsed += time.Since(begin)
	if hits, err := count("UNFLAGGED"); err != nil || hits != n {
		return Result{}, fmt.Errorf("store-all: %d of %d unflagged: %v", hits, n, err)
	}
	r := summarize("store-all", b.Target, []time.Duration{elapsed / 2}, elapsed, 0)
	r.Ops, r.PerSecond = 2*n, 2*float64(n)/elapsed.Seconds()
	return r, nil
}

// loginStorm: connect, log in, select, log out, over and over.
func (b *Bench) loginStorm() (Result, error) {
	took, elapsed, err := parallel(b, b.Messages, func(w int) (int, error) { return w, nil }, func(w, _ int) error {
		c, err := b.login(w)
		if err != nil {
			return err
		}
		defer c.close()
		if _, err := c.selectMailbox("INBOX"); err != nil {
			return err
		}
		return c.do(nil, "LOGOUT")
	}, func(int) {})
	if err != nil {
		return Result{}, err
	}
	return summarize("login-storm", b.Target, took, elapsed, 0), nil
}

// transfer times COPY, MOVE or EXPUNGE of as many messages as user 0's INBOX holds, in mailboxes of its own.
func (b *Bench) transfer(what string) (Result, error) {
	c, n, err := b.inbox()
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	const one, two = "Bench-1", "Bench-2"
	for _, name := range []string{one, two} {
		_ = c.do(nil, "DELETE %q", name) // of a run that was cut off
		if err := c.do(nil, "CREATE %q", name); err != nil {
			return Result{}, err
		}
	}
	elapsed, err := timed(c, "COPY 1:* %q", one)
	if err == nil {
		err = c.holds(one, n)
	}
	if err == nil && what != "copy" {
		elapsed, err = c.empty(what, one, two, n)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", what, err)
	}
	if err := c.do(nil, "CLOSE"); err != nil {
		return Result{}, err
	}
	for _, name := range []string{one, two} {
		if err := c.do(nil, "DELETE %q", name); err != nil {
			return Result{}, err
		}
	}
	r := summarize(what, b.Target, []time.Duration{elapsed}, elapsed, 0)
	r.Ops, r.PerSecond = n, float64(n)/elapsed.Seconds()
	return r, nil
}

func timed(c *imapConn, format string, a ...any) (time.Duration, error) {
	begin := time.Now()
	err := c.do(nil, format, a...)
	return time.Since(begin), err
}

// empty takes n messages out of one, by a MOVE to two or by an EXPUNGE.
func (c *imapConn) empty(how, one, two string, n int) (elapsed time.Duration, err error) {
	if _, err := c.selectMailbox(one); err != nil {
		return 0, err
	}
	left := n
	if how == "move" {
		elapsed, err = timed(c, "MOVE 1:* %q", two)
	} else {
		left = 0
		if err := c.do(nil, `STORE 1:* +FLAGS.SILENT (\Deleted)`); err != nil {
			return 0, err
		}
		elapsed, err = timed(c, "EXPUNGE")
	}
	if err == nil {
		err = c.do(nil, "CLOSE")
	}
	if err == nil {
		err = errors.Join(c.holds(one, 0), c.holds(two, left))
	}
	if err == nil {
		_, err = c.selectMailbox("INBOX")
	}
	return elapsed, err
}

// holds checks a mailbox's number of messages.
func (c *imapConn) holds(name string, want int) error {
	got := -1
	err := c.do(func(r []byte) error {
		if _, rest, ok := bytes.Cut(r, []byte("(MESSAGES ")); ok {
			fmt.Sscan(string(rest), &got)
		}
		return nil
	}, "STATUS %q (MESSAGES)", name)
	if err == nil && got != want {
		err = fmt.Errorf("%q holds %d messages, wanted %d", name, got, want)
	}
	return err
}

// idler logs in as the worker's user and idles on INBOX.
func (b *Bench) idler(worker int) (*imapConn, error) {
	c, err := b.login(worker)
	if err != nil {
		return nil, err
	}
	_, err = c.selectMailbox("INBOX")
	if err == nil {
		_, err = c.c.Write([]byte("i IDLE\r\n"))
	}
	if err == nil {
		var r []byte
		if r, err = c.response(); err == nil && r[0] != '+' {
			err = fmt.Errorf("IDLE: %q", r)
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// idleHold opens Connections IDLEs for the users in turn and says how much memory the server's processes take for each.
func (b *Bench) idleHold() (Result, error) {
	before := costOf(b.PIDs).PSS
	begin := time.Now()
	for w := range b.Connections {
		c, err := b.idler(w)
		if err != nil {
			return Result{}, err
		}
		defer c.close()
	}
	elapsed := time.Since(begin)
	r := summarize("idle-hold", b.Target, nil, elapsed, 0)
	r.Ops, r.PerSecond = b.Connections, float64(b.Connections)/elapsed.Seconds()
	if len(b.PIDs) > 0 {
		r.PerConnection = max(costOf(b.PIDs).PSS-before, 0) / int64(b.Connections)
	}
	return r, nil
}

// arrived counts the messages in all users' INBOXes.
func (b *Bench) arrived() (total int, err error) {
	for u := range b.UserCount {
		c, err := b.login(u)
		if err != nil {
			return 0, err
		}
		n, err := c.selectMailbox("INBOX")
		c.close()
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// smtpToMailbox is smtp-in that ends when IMAP shows all of the mail in the mailboxes.
func (b *Bench) smtpToMailbox() (Result, error) {
	before, err := b.arrived()
	if err != nil {
		return Result{}, err
	}
	deadline := b.Deadline
	if deadline == 0 {
		deadline = 2 * time.Minute
	}
	begin := time.Now()
	r, err := b.deliver("smtp-to-mailbox", b.SMTP, false)
	if err != nil {
		return r, err
	}
	for now := before; now < before+b.Messages; time.Sleep(20 * time.Millisecond) {
		if now, err = b.arrived(); err != nil {
			return r, err
		}
		if now > before+b.Messages || time.Since(begin) > deadline {
			return r, fmt.Errorf("smtp-to-mailbox: %d messages sent, %d came", b.Messages, now-before)
		}
	}
	r.Elapsed = time.Since(begin)
	r.PerSecond = float64(b.Messages) / r.Elapsed.Seconds()
	return r, nil
}

// idleLatency holds Connections IDLEs on user 0's INBOX and delivers mails one by one; an operation is the time from the
// delivery's acknowledgement to one idler's EXISTS (an EXISTS that comes before the acknowledgement counts as zero).
func (b *Bench) idleLatency() (Result, error) {
	type arrival struct {
		at  time.Time
		err error
	}
	announced := make(chan arrival, b.Connections)
	for range b.Connections {
		c, err := b.idler(0)
		if err != nil {
			return Result{}, err
		}
		defer c.close()
		go func() { // ends when the connection is closed
			for {
				r, err := c.response()
				if err != nil {
					announced <- arrival{err: err}
					return
				}
				if bytes.HasSuffix(bytes.TrimSpace(r), []byte("EXISTS")) {
					announced <- arrival{at: time.Now()}
				}
			}
		}()
	}
	s, err := dialSMTP(b.LMTP, true)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	var took []time.Duration
	begin := time.Now()
	rounds := min(max(b.Messages/max(b.Connections, 1), 5), 50)
	for i := range rounds {
		if err := s.send("sender@bench.test", []string{b.user(0)}, b.Mail.Mail(i).Body); err != nil {
			return Result{}, err
		}
		acked := time.Now()
		for range b.Connections {
			select {
			case a := <-announced:
				if a.err != nil {
					return Result{}, a.err
				}
				took = append(took, max(a.at.Sub(acked), 0))
			case <-time.After(answerTimeout):
				return Result{}, fmt.Errorf("idle-latency: an idler heard nothing within %v", answerTimeout)
			}
		}
	}
	return summarize("idle-latency", b.Target, took, time.Since(begin), 0), nil
}
