package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailsrv/internal/queue"
)

// freePort is a port that nobody listens on, for a server that is started later.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// submit sends a message as one who has logged in, and returns its queue ID.
func (r *running) submit(from, to, subject string, parameters ...string) string {
	r.h.t.Helper()
	c := r.dial("submissions")
	defer c.Close()
	c.expect("220 ")
	c.say("EHLO client.example", "250 ")
	c.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+from+"\x00secret")), "235 ")
	c.say(strings.Join(append([]string{"MAIL FROM:<" + from + ">"}, parameters...), " "), "250 ")
	c.say("RCPT TO:<"+to+">", "250 ")
	c.say("DATA", "354 ")
	answer := c.say("Subject: "+subject+"\r\nFrom: "+from+"\r\n\r\nHello\r\n.", "250 ")
	return regexp.MustCompile(`[0-9a-z]{16}`).FindString(answer)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// Two servers: one is down when the other has mail for it; the mail waits, can be looked at whether or not the server runs,
// outlives kill -9, and arrives; what is refused comes back.
func TestOutgoing(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	here := newHouse(t, demoConfig(t, fmt.Sprintf("[dns]\nserver = %q\n[[route]]\ndomain = \"partner.test\"\nhost = %q\n", freePort(t), port)))
	r := here.start()
	id := r.submit("alice@example.test", "bob@partner.test", "across")
	eventually(t, "a first attempt", func() bool { return strings.Contains(here.must("", "queue", "list"), "attempts 1") })
	if code := r.end(syscall.SIGKILL); code == 0 {
		t.Fatal("it was not killed")
	}
	list := here.must("", "queue", "list")
	if !strings.HasPrefix(list, id+"  queued ") || !strings.Contains(list, "bob@partner.test") || strings.Count(list, "\n") != 1 {
		t.Fatalf("queue list, stopped:\n%s", list)
	}
	var items []queue.Item
	if err := json.Unmarshal([]byte(here.must("", "queue", "list", "-json")), &items); err != nil || len(items) != 1 || items[0].ID != id {
		t.Fatalf("%+v, %v", items, err)
	}
	if out := here.must("", "queue", "hold", "@partner.test"); out != "1 recipient held\n" {
		t.Error(out)
	}

	there := newHouse(t, strings.NewReplacer("example.test", "partner.test", `smtp = ["127.0.0.1:0"]`, fmt.Sprintf("smtp = [%q]", port)).
		Replace(demoConfig(t, "")))
	r2 := there.start()
	r = here.start()
	show := here.must("", "queue", "show", id)
	if !strings.Contains(show, "to bob@partner.test: held") || !strings.Contains(show, "deferred") || !strings.Contains(show, "from <alice@example.test>") {
		t.Errorf("queue show:\n%s", show)
	}
	here.must("", "queue", "release", id)
	eventually(t, "the mail there", func() bool { return slices.Contains(r2.subjects("bob@partner.test", "secret"), "across") })
	eventually(t, "an empty queue", func() bool { return here.must("", "queue", "list") == "" })
	if !regexp.MustCompile(`msg=attempt id=` + id + ` to=bob@partner.test .*result=delivered .*tls=\S`).MatchString(r.logged()) {
		t.Errorf("the log has no attempt:\n%s", r.logged())
	}

	r.submit("alice@example.test", "nobody@partner.test", "lost")
	eventually(t, "the bounce", func() bool {
		return slices.Contains(r.subjects("alice@example.test", "secret"), "Undelivered mail returned to sender")
	})
	if out := here.must("", "queue", "suppressed", "list"); !strings.HasPrefix(out, "nobody@partner.test") {
		t.Errorf("suppressed: %q", out)
	}
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, r.logged())
	}
	r2.end(syscall.SIGTERM)
}

// A message to somebody here that is not to come before its time waits in the queue, with what its client wished, and is from
// its sender when it comes.
func TestFutureRelease(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	r := h.start()
	id := r.submit("alice@example.test", "bob@example.test", "later", "HOLDFOR=3600", "MT-PRIORITY=4", "BY=7200;N")
	if list := h.must("", "queue", "list"); !strings.HasPrefix(list, id+"  waiting ") {
		t.Errorf("queue list:\n%s", list)
	}
	var d queue.Detail
	if err := json.Unmarshal([]byte(h.must("", "queue", "show", id, "-json")), &d); err != nil || d.Priority != 4 ||
		time.Until(d.Release).Round(time.Hour) != time.Hour || time.Until(d.DeliverBy).Round(time.Hour) != 2*time.Hour {
		t.Errorf("%+v, %v", d, err)
	}
	if got := r.subjects("bob@example.test", "secret"); slices.Contains(got, "later") {
		t.Error("came before its time")
	}
	h.must("", "queue", "release", id)
	eventually(t, "the mail", func() bool { return slices.Contains(r.subjects("bob@example.test", "secret"), "later") })
	eventually(t, "an empty queue", func() bool { return h.must("", "queue", "list") == "" })
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, r.logged())
	}
}
