package storage

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var killRounds = flag.Int("kill.rounds", 4, "how often the child of TestKill is killed")

const (
	killDirEnv  = "MAILSRV_TEST_KILL_DIR"
	killWriters = 12
)

var killAccounts = []string{"alice@example.test", "bob@example.test"}

// TestMain becomes the child of TestKill when asked to.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDirEnv); dir != "" {
		killChild(dir)
		os.Exit(1) // it ends by being killed
	}
	os.Exit(m.Run())
}

// killChild changes mailboxes from many goroutines and tells on stdout, a line each and before going on: "< n what" before it
// begins to do something to message n, "> n what" after it was acknowledged.
func killChild(dir string) {
	s, err := Open(Options{Dir: dir, Reserve: 1})
	if err != nil {
		fmt.Println("! open:", err)
		return
	}
	var wg sync.WaitGroup
	for w := range killWriters {
		wg.Go(func() {
			a, err := s.Account(killAccounts[w%len(killAccounts)])
			for i := 0; err == nil; i++ {
				err = killMessage(a, fmt.Sprintf("%d.%d.%d", os.Getpid(), w, i))
			}
			fmt.Println("! writer:", err)
		})
	}
	wg.Wait()
}

// killMessage is one message's life: it arrives, is flagged, copied, moved, expunged, each only sometimes.
func killMessage(a *Account, n string) error {
	say := func(what string) { fmt.Println(what) }
	in, err := a.store.Incoming()
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.WriteString(in, mailText("K"+n)); err != nil {
		return err
	}
	if err := in.Seal(); err != nil {
		return err
	}
	say("< " + n + " append")
	var flags []string
	if rand.IntN(2) == 0 {
		flags = []string{"$Forwarded"}
	}
	got, err := a.Append(inbox, NewMessage{Incoming: in, Flags: flags})
	if err != nil {
		return err
	}
	say("> " + n + " append")
	in.Close()
	at, uid := inbox, got.Dest[0]
	for range rand.IntN(5) {
		m, err := a.Mailbox(at)
		if err != nil {
			return err
		}
		other := []string{inbox, "Archive", "Trash"}[rand.IntN(3)]
		switch rand.IntN(4) {
		case 0:
			say("< " + n + " flag")
			if _, err = a.Store(m.ID, []UID{uid}, FlagChange{Op: AddFlags, Flags: []string{`\Flagged`, "$Junk"}}); err == nil {
				say("> " + n + " flag")
			}
		case 1:
			say("< " + n + " copy")
			if got, err = a.Copy(m.ID, []UID{uid}, other); err == nil && len(got.Dest) == 1 {
				say("> " + n + " copy")
			}
		case 2:
			if got, err = a.Move(m.ID, []UID{uid}, other); err == nil && len(got.Dest) == 1 {
				at, uid = other, got.Dest[0]
				say("> " + n + " move")
			}
		default:
			say("< " + n + " expunge")
			var went []UID
			if went, _, err = a.Expunge(m.ID, []UID{uid}, false); err == nil && len(went) == 1 {
				say("> " + n + " expunge")
			}
			return err
		}
		if err != nil {
			return err
		}
		if at == "" || err == nil && len(got.Dest) == 0 {
			return fmt.Errorf("message %s got lost at %s", n, at)
		}
	}
	return nil
}

// fate is what the parent knows of a message: how many placements there must be, and whether one must be flagged.
type fate struct {
	least, most int
	flagged     bool
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range killAccounts {
		if err := s.Create(address); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fates := map[string]*fate{}
	acked := 0
	for range *killRounds {
		acked += killOnce(t, dir, fates)
		judge(t, dir, fates, "after the kill")
		if t.Failed() {
			t.FailNow()
		}
		for _, address := range killAccounts {
			path, _ := accountPath(address)
			if err := os.Remove(filepath.Join(dir, "accounts", path, indexFile)); err != nil {
				t.Fatal(err)
			}
		}
		judge(t, dir, fates, "after a rebuild")
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d messages, %d acknowledgements", len(fates), acked)
	if acked < 20*(*killRounds) {
		t.Errorf("only %d acknowledgements: nothing was tested", acked)
	}
}

// killOnce runs the child for a while and learns what it was told.
func killOnce(t *testing.T, dir string, fates map[string]*fate) (acked int) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killDirEnv+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var deadline *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if deadline == nil { // it is up
			deadline = time.AfterFunc(time.Duration(50+rand.IntN(400))*time.Millisecond, func() { child.Process.Kill() })
		}
		f := strings.Fields(lines.Text())
		if len(f) != 3 {
			t.Errorf("child: %s", lines.Text())
			continue
		}
		if f[0] == ">" {
			acked++
		}
		learn(fates, f[0] == ">", f[1], f[2])
	}
	child.Wait()
	return acked
}

func learn(fates map[string]*fate, done bool, n, what string) {
	m := fates[n]
	if m == nil {
		m = &fate{}
		fates[n] = m
	}
	switch what {
	case "append", "copy":
		if done {
			m.least++
		} else {
			m.most++
		}
	case "expunge":
		if done {
			m.most--
		} else {
			m.least--
			m.flagged = false
		}
	case "flag":
		m.flagged = m.flagged || done
	}
}

// judge opens the store and looks for every message.
func judge(t *testing.T, dir string, fates map[string]*fate, when string) {
	s, err := Open(Options{Dir: dir, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	found, flagged := map[string]int{}, map[string]bool{}
	for _, address := range killAccounts {
		a, err := s.Account(address)
		if err != nil {
			t.Fatal(err)
		}
		checkAccount(t, a)
		list, _ := a.Mailboxes()
		for _, m := range list {
			v, err := a.View(m.ID)
			if err != nil {
				t.Fatal(err)
			}
			for msg, err := range a.Messages(m.ID, viewUIDs(v), true) {
				if err != nil {
					t.Fatal(err)
				}
				n := strings.TrimPrefix(msg.Summary.Subject, "K")
				found[n]++
				i, _ := v.Find(msg.UID)
				if v.At(i).Flags&Flagged != 0 {
					flagged[n] = true
				}
				if got := readMail(t, a, m.Name, msg.UID); got != mailText("K"+n) {
					t.Errorf("%s: message %s has other bytes", when, n)
				}
			}
		}
		a.Release()
	}
	for n, f := range fates {
		if have := found[n]; have < f.least || have > f.most {
			t.Errorf("%s: message %s is there %d times, must be %d to %d", when, n, have, f.least, f.most)
		}
		if f.flagged && !flagged[n] {
			t.Errorf("%s: message %s has lost its flag", when, n)
		}
		// What was in doubt is settled now.
		f.least, f.most = found[n], found[n]
		delete(found, n)
	}
	for n := range found {
		t.Errorf("%s: message %s comes from nowhere", when, n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
