package imapd

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"mailsrv/storage"
)

// mirror is what a client believes of its selected mailbox, from responses alone.
type mirror struct {
	*client
	rng  *rand.Rand
	rows []mirrorRow
	idle bool
	mod  bool // CONDSTORE is enabled
	asks bool // the command is a FETCH, which is answered with what it asks for
}

type mirrorRow struct {
	uid   uint32          // 0: not told yet
	flags map[string]bool // nil: not told yet
}

var (
	numResponse = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT)$`)
	fetchResp   = regexp.MustCompile(`(?s)^\* (\d+) FETCH \((.*)\)$`)
	uidItem     = regexp.MustCompile(`UID (\d+)`)
	flagsItem   = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
)

// hear takes in one untagged response. holding says that the running command must not be told of expunges.
func (m *mirror) hear(line string, holding bool) {
	m.t.Helper()
	if g := numResponse.FindStringSubmatch(line); g != nil {
		n, _ := strconv.Atoi(g[1])
		switch g[2] {
		case "EXPUNGE":
			if holding || n < 1 || n > len(m.rows) {
				m.t.Fatalf("%s: %s with %d messages (holding %v)", m.name, line, len(m.rows), holding)
			}
			m.rows = slices.Delete(m.rows, n-1, n)
		case "EXISTS":
			if n < len(m.rows) {
				m.t.Fatalf("%s: EXISTS shrank from %d to %d", m.name, len(m.rows), n)
			}
			m.rows = append(m.rows, make([]mirrorRow, n-len(m.rows))...)
		}
		return
	}
	g := fetchResp.FindStringSubmatch(line)
	if g == nil {
		return
	}
	n, _ := strconv.Atoi(g[1])
	if n < 1 || n > len(m.rows) {
		m.t.Fatalf("%s: %s with %d messages", m.name, line, len(m.rows))
	}
	row := &m.rows[n-1]
	if u := uidItem.FindStringSubmatch(g[2]); u != nil {
		uid, _ := strconv.Atoi(u[1])
		if row.uid != 0 && row.uid != uint32(uid) {
			m.t.Fatalf("%s: message %d was UID %d: %s", m.name, n, row.uid, line)
		}
		row.uid = uint32(uid)
	}
	if f := flagsItem.FindStringSubmatch(g[2]); f != nil {
		row.flags = map[string]bool{}
		for _, name := range strings.Fields(f[1]) {
			if name != `\Recent` {
				row.flags[name] = true
			}
		}
	}
	if m.mod && !strings.Contains(g[2], "MODSEQ") && !m.asks {
		m.t.Fatalf("%s: no MODSEQ under CONDSTORE: %s", m.name, line)
	}
}

// run is one command with its effect on the mirror.
func (m *mirror) run(command string) string {
	m.t.Helper()
	verb, _, _ := strings.Cut(command, " ")
	holding := slices.Contains([]string{"FETCH", "STORE", "SEARCH", "COPY"}, verb)
	m.asks = strings.Contains(command, "FETCH ")
	untagged, tagged := m.do(command)
	for _, l := range untagged {
		m.hear(l, holding)
	}
	if strings.HasPrefix(tagged, "BAD") || tagged == "EOF" {
		m.t.Fatalf("%s: %s: %s (%d messages)", m.name, command, tagged, len(m.rows))
	}
	return tagged
}

// set picks messages: a sequence-set over the mirror, and the rows' indexes in it.
func (m *mirror) set() (text string, rows []int) {
	a, b := m.rng.IntN(len(m.rows)), m.rng.IntN(len(m.rows))
	if a > b {
		a, b = b, a
	}
	if m.rng.IntN(4) > 0 {
		b = min(b, a+2)
	}
	for i := a; i <= b; i++ {
		rows = append(rows, i)
	}
	return fmt.Sprintf("%d:%d", a+1, b+1), rows
}

// act does one random thing.
func (m *mirror) act() {
	m.t.Helper()
	if m.idle {
		m.stopIdle()
		return
	}
	if len(m.rows) == 0 || m.rng.IntN(6) == 0 {
		m.run("APPEND INBOX (" + m.randomFlag() + ") {5+}\r\na\r\n\r\n")
		return
	}
	set, rows := m.set()
	switch m.rng.IntN(13) {
	case 0, 1:
		m.storeFlags(set, rows)
	case 2:
		m.run("STORE " + set + ` +FLAGS (\Deleted)`)
	case 3:
		m.run("EXPUNGE")
	case 4:
		m.run("FETCH " + set + " (UID FLAGS)")
	case 5:
		m.run("UID FETCH 1:* (FLAGS)")
	case 6:
		m.run("SEARCH " + set + " UNSEEN")
	case 7:
		m.run("COPY " + set + " INBOX")
	case 8:
		m.run("MOVE " + set + " Trash")
	case 9:
		m.run("FETCH " + set + " (BODY[])")
	case 10:
		m.startIdle()
	case 11:
		m.run("UID SEARCH ALL")
	case 12:
		if !m.mod {
			m.run("ENABLE CONDSTORE")
			m.mod = true
		}
		m.run("NOOP")
	}
}

func (m *mirror) randomFlag() string {
	return []string{`\Seen`, `\Flagged`, `\Draft`, `$Label1`, `$Forwarded`}[m.rng.IntN(5)]
}

// storeFlags may be silent: then the client believes that its change was made.
func (m *mirror) storeFlags(set string, rows []int) {
	m.t.Helper()
	flag, op := m.randomFlag(), []string{"+", "-", ""}[m.rng.IntN(3)]
	item := op + "FLAGS"
	if m.rng.IntN(2) == 0 {
		item += ".SILENT"
		for _, i := range rows {
			row := &m.rows[i]
			if row.flags == nil {
				continue
			}
			row.flags = maps.Clone(row.flags)
			switch op {
			case "+":
				row.flags[flag] = true
			case "-":
				delete(row.flags, flag)
			default:
				row.flags = map[string]bool{flag: true}
			}
		}
	}
	m.run("STORE " + set + " " + item + " (" + flag + ")")
}

func (m *mirror) startIdle() {
	m.t.Helper()
	m.asks = false
	m.send("IDLE", "\r\n")
	for {
		l := m.line()
		if strings.HasPrefix(l, "+") {
			break
		}
		m.hear(l, false)
	}
	m.idle = true
}

func (m *mirror) stopIdle() {
	m.t.Helper()
	m.raw("DONE\r\n")
	untagged, tagged := m.rest()
	for _, l := range untagged {
		m.hear(l, false)
	}
	if !strings.HasPrefix(tagged, "OK") {
		m.t.Fatalf("%s: IDLE: %s", m.name, tagged)
	}
	m.idle = false
}

// compare brings the mirror up to date and holds it against the store.
func (m *mirror) compare(a *storage.Account) {
	m.t.Helper()
	if m.idle {
		m.stopIdle()
	}
	m.run("NOOP")
	if len(m.rows) > 0 {
		for i := range m.rows { // what no response has told yet
			if m.rows[i].flags == nil || m.rows[i].uid == 0 {
				m.run(fmt.Sprintf("FETCH %d:%d (UID FLAGS)", i+1, len(m.rows)))
				break
			}
		}
	}
	mb, err := a.Mailbox("INBOX")
	if err != nil {
		m.t.Fatal(err)
	}
	view, err := a.View(mb.ID)
	if err != nil {
		m.t.Fatal(err)
	}
	if view.Len() != len(m.rows) {
		m.t.Fatalf("%s believes in %d messages, there are %d", m.name, len(m.rows), view.Len())
	}
	for i, row := range view.Rows(0, view.Len()) {
		want := a.FlagNames(row.Flags)
		got := slices.Collect(maps.Keys(m.rows[i].flags))
		slices.Sort(want)
		slices.Sort(got)
		if m.rows[i].uid != uint32(row.UID) || !slices.Equal(got, want) {
			m.t.Fatalf("%s: message %d is UID %d %v, there is UID %d %v", m.name, i+1, m.rows[i].uid, got, row.UID, want)
		}
	}
}

func (w *world) mirrors(t testing.TB, n int, seed uint64) []*mirror {
	var all []*mirror
	for i := range n {
		m := &mirror{client: w.dial(string(rune('A'+i)), false), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		m.t = t
		m.greet("alice")
		m.run("SELECT INBOX")
		all = append(all, m)
	}
	return all
}

// TestPictures: whatever several sessions do to a mailbox, each client that believes the responses has the truth after a NOOP,
// and never hears of a number that it does not have, nor of an expunge while it must not.
func TestPictures(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			a, err := w.store.Account("alice@example.test")
			if err != nil {
				t.Fatal(err)
			}
			defer a.Release()
			rng := rand.New(rand.NewPCG(seed, 99))
			sessions := w.mirrors(t, 3, seed)
			for range 200 {
				m := sessions[rng.IntN(len(sessions))]
				m.act()
				if rng.IntN(10) == 0 {
					m.compare(a)
				}
			}
			for _, m := range sessions {
				m.compare(a)
			}
		})
	}
}

// TestPicturesAtOnce is the same with all sessions acting at the same time.
func TestPicturesAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	a, err := w.store.Account("alice@example.test")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	sessions := w.mirrors(t, 4, 4711)
	var wg sync.WaitGroup
	for _, m := range sessions {
		wg.Go(func() {
			for range 100 {
				m.act()
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, m := range sessions {
		m.compare(a)
	}
}
