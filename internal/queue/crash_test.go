package queue

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
)

// Every recipient that was accepted ends in exactly one way, whatever is done to the queue and whenever the power goes. The
// log tells of an end only after it was recorded, so there must be one such line for each; a second try at somebody is
// forgiven only if no line told of the first.
func TestModel(t *testing.T) {
	lives := 30
	if testing.Short() {
		lives = 10
	}
	for seed := range lives {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				(&life{rng: rand.New(rand.NewPCG(uint64(seed), 7)), dice: rand.New(rand.NewPCG(uint64(seed), 8))}).run(t)
			})
		})
	}
}

type life struct {
	*house
	rng      *rand.Rand
	dice     *rand.Rand // the world's
	accepted []string
	serial   int
	calm     bool // the world takes everything
}

func (l *life) run(t *testing.T) {
	l.house = newHouse(t, nil)
	l.world.says(l.answers)
	l.Start()
	for range 60 {
		l.act()
	}
	l.world.mu.Lock()
	l.calm = true
	l.world.mu.Unlock()
	if _, err := l.Release(Selection{"all"}); err != nil {
		t.Error(err)
	}
	time.Sleep(6 * 24 * time.Hour)
	if items := l.items(); len(items) > 0 {
		t.Errorf("left in the queue: %+v", items)
	}
	l.close()
	l.judge()
}

// answers are called with the world's lock held.
func (l *life) answers(destination string, m *Outgoing, r Recipient) Outcome {
	switch n := l.dice.IntN(10); {
	case l.calm || n < 4:
		return Outcome{Verdict: Delivered, Code: 250, Remote: "mx"}
	case n < 5:
		return Outcome{Verdict: Failed, Code: 554, Status: "5.7.1", Text: "no", Remote: "mx"}
	case n < 6:
		return Outcome{Text: "unreachable", Wait: time.Minute}
	}
	return Outcome{Code: 450, Text: "later", Remote: "mx"}
}

func (l *life) act() {
	switch n := l.rng.IntN(20); {
	case n < 8:
		var to []string
		for range 1 + l.rng.IntN(3) {
			l.serial++
			to = append(to, fmt.Sprintf("r%d@d%d.test", l.serial, l.rng.IntN(3)))
		}
		if l.trySend(&delivery.Envelope{Sender: sender}, sample, to...) == nil {
			l.accepted = append(l.accepted, to...)
		}
	case n < 12:
		time.Sleep(time.Duration(l.rng.IntN(1000)) * time.Second)
	case n < 13:
		time.Sleep(time.Duration(l.rng.IntN(10)) * time.Hour)
	case n < 14:
		l.tell(l.Hold(Selection{fmt.Sprintf("@d%d.test", l.rng.IntN(3))}))
	case n < 15:
		l.tell(l.Release(Selection{"all"}))
	case n < 16:
		l.tell(l.Retry(Selection{"all"}))
	case n < 17:
		l.restart()
	default:
		l.crash()
	}
}

func (l *life) tell(_ int, err error) {
	if err != nil {
		l.t.Error(err)
	}
}

// crash cuts the power after a few more operations of the disk.
func (l *life) crash() {
	fs := l.fs.(*disk.Crashable)
	fs.CutBefore(fs.Ops() + 1 + l.rng.IntN(40))
	l.serial++
	to := fmt.Sprintf("r%d@d0.test", l.serial)
	if l.trySend(&delivery.Envelope{Sender: sender}, sample, to) == nil {
		l.accepted = append(l.accepted, to)
	}
	time.Sleep(time.Duration(l.rng.IntN(100)) * time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = l.Shutdown(ctx) // it cannot end well
	l.fs = fs.AfterPowerLoss(l.rng.Uint64N(100))
	l.open()
	l.Start()
}

var (
	endLine   = regexp.MustCompile(`msg=(?:attempt id=\S+ to=(\S+) from=alice\S+ result=(delivered|failed|expired)|expired id=\S+ to=(\S+)) (.*)`)
	finalLine = regexp.MustCompile(`(?m)^Final-Recipient: rfc822; (\S+)\r\nAction: failed`)
)

func (l *life) judge() {
	ends := map[string][]string{}
	for line := range strings.Lines(l.logged()) {
		if m := endLine.FindStringSubmatch(line); m != nil && !strings.Contains(m[4], "recorded=false") {
			to := m[1] + m[3]
			ends[to] = append(ends[to], m[2])
		}
	}
	bounced := map[string]int{}
	for _, b := range l.people.inbox(sender) {
		for _, m := range finalLine.FindAllStringSubmatch(b, -1) {
			bounced[m[1]]++
		}
	}
	for _, to := range l.accepted {
		took := len(l.world.took(to))
		switch {
		case len(ends[to]) > 1:
			l.t.Errorf("%s ended %d times: %v", to, len(ends[to]), ends[to])
		case took == 0 && bounced[to] == 0:
			l.t.Errorf("%s: accepted, neither delivered nor bounced", to)
		case len(ends[to]) == 1 && ends[to][0] == "delivered" && bounced[to] > 0:
			l.t.Errorf("%s: delivered and bounced", to)
		}
	}
}

// The power goes before each operation of the disk in turn, from the first message to the last bounce.
func TestCrashEverywhere(t *testing.T) {
	t.Parallel()
	step := 1
	if testing.Short() {
		step = 7
	}
	for cut := 1; ; cut += step {
		whole := false
		synctest.Test(t, func(t *testing.T) {
			l := &life{rng: rand.New(rand.NewPCG(uint64(cut), 3))}
			l.house = newHouse(t, nil)
			l.world.answer = func(_ string, _ *Outgoing, r Recipient) Outcome {
				if strings.HasPrefix(r.Address, "no") {
					return Outcome{Verdict: Failed, Code: 550, Status: "5.1.1", Text: "no", Remote: "mx"}
				}
				return Outcome{Verdict: Delivered}
			}
			fs := l.fs.(*disk.Crashable)
			base := fs.Ops()
			fs.CutBefore(base + cut)
			l.Start()
			for _, to := range [][]string{{"a@d0.test", "b@d1.test"}, {"no1@d0.test", "c@d0.test"}, {"no2@d1.test"}} {
				if l.trySend(&delivery.Envelope{Sender: sender}, sample, to...) == nil {
					l.accepted = append(l.accepted, to...)
				}
			}
			time.Sleep(10 * time.Minute)
			whole = fs.Ops() < base+cut-1
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = l.Shutdown(ctx)
			l.fs = fs.AfterPowerLoss(uint64(cut % 5))
			l.open()
			l.Start()
			time.Sleep(6 * 24 * time.Hour)
			if items := l.items(); len(items) > 0 {
				t.Errorf("cut before %d: left %+v", cut, items)
			}
			l.close()
			l.judge()
			if t.Failed() {
				t.Logf("cut before operation %d\n%s", cut, l.logged())
			}
		})
		if whole || t.Failed() {
			return
		}
	}
}

// A disk that fails now and then: what is accepted is accepted, the rest is not, and nothing stays behind.
func TestFaultyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		var mu sync.Mutex
		var under disk.FS
		bad := true
		h := newHouse(t, func(o *Options) {
			under = o.FS
			o.FS = disk.NewFaulty(o.FS, func(op, path string) error {
				mu.Lock()
				defer mu.Unlock()
				if bad && rng.IntN(5) == 0 && strings.Contains(path, "queue/") && op != "mkdir" && op != "stat" && op != "readdir" {
					return fmt.Errorf("fault in %s", op)
				}
				return nil
			})
		})
		_ = under
		h.world.says(refuse(554, "5.7.1", "no"))
		h.Start()
		accepted := 0
		for i := range 100 {
			if h.trySend(&delivery.Envelope{Sender: sender}, sample, fmt.Sprintf("x%d@far.test", i)) == nil {
				accepted++
			}
			time.Sleep(time.Minute)
		}
		mu.Lock()
		bad = false
		mu.Unlock()
		time.Sleep(7 * 24 * time.Hour)
		if n := len(h.people.inbox(sender)); n < accepted || accepted == 0 || accepted == 100 {
			t.Errorf("%d bounces for %d accepted", n, accepted)
		}
		if n := len(h.items()); n > 0 {
			t.Errorf("%d left: %v", n, h.items())
		}
		h.stop2()
	})
}

// stop2 ends the queue, opens it again (which sweeps up what could not be removed), and checks.
func (h *house) stop2() {
	if err := h.Shutdown(context.Background()); err != nil {
		h.t.Error(err)
	}
	if err := h.kv.Close(); err != nil {
		h.t.Error(err)
	}
	h.change = nil
	h.open()
	h.close()
}

// The test binary is a server that can be killed: it enqueues what it reads and says so, on the real disk.
const beQueue = "QUEUE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(beQueue); dir != "" {
		if err := serveQueue(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// logged is a world that writes each delivery down, synced, as another server would.
type logged struct{ file *os.File }

func (logged) Destination(_, recipient string) string { return domainOf(recipient) }

func (w logged) Attempt(_ context.Context, _ string, m *Outgoing) []Outcome {
	all := make([]Outcome, len(m.Recipients))
	for i, r := range m.Recipients {
		fmt.Fprintln(w.file, r.Address)
		all[i].Verdict = Delivered
	}
	return all
}

func openReal(dir string, w Transport) (*Queue, kv.DB, error) {
	db, err := kv.OpenBolt(filepath.Join(dir, "system.db"))
	if err != nil {
		return nil, nil, err
	}
	q, err := Open(Options{DB: db, Dir: filepath.Join(dir, "queue"), Hostname: "mx.here.test", Transport: w})
	return q, db, err
}

func serveQueue(dir string) error {
	out, err := os.OpenFile(filepath.Join(dir, "world"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	q, _, err := openReal(dir, logged{out})
	if err != nil {
		return err
	}
	q.Start()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		path := filepath.Join(dir, "in")
		if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
			return err
		}
		env := &delivery.Envelope{ID: delivery.NewID(), Sender: sender}
		if err := q.enqueue(context.Background(), env, letter{strings.NewReader(sample), path}, []delivery.Onward{{Address: lines.Text()}}); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		fmt.Println(lines.Text())
	}
	return lines.Err()
}

// Killed at any moment, the queue has all it said yes to, and sends nothing twice but what was under way.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var accepted []string
	serial := 0
	const rounds = 6
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), beQueue+"="+dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		yes := bufio.NewScanner(out)
		for range 5 + 7*round {
			serial++
			fmt.Fprintf(in, "r%d@d%d.test\n", serial, serial%3)
			if !yes.Scan() {
				t.Fatalf("it ended by itself: %s", stderr.String())
			}
			accepted = append(accepted, yes.Text())
		}
		serial++
		fmt.Fprintf(in, "r%d@d0.test\n", serial) // one under way
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
	world := &world{}
	q, db, err := openReal(dir, world)
	if err != nil {
		t.Fatal(err)
	}
	q.Start()
	for deadline := time.Now().Add(time.Minute); q.Stats().Messages > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := q.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	check(t, q)
	db.Close()
	before, err := os.ReadFile(filepath.Join(dir, "world"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for line := range strings.Lines(string(before)) {
		got[strings.TrimSpace(line)]++
	}
	for _, s := range world.all() {
		got[s.to]++
	}
	twice := 0
	for _, to := range accepted {
		if got[to] == 0 {
			t.Errorf("%s was accepted and is lost", to)
		}
		if got[to] > 1 {
			twice++
		}
	}
	if most := rounds * 3 * firstLimit; twice > most {
		t.Errorf("%d were sent twice; under way were at most %d", twice, most)
	}
}
