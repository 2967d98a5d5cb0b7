package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/mailauth"
	"mailsrv/storage/kv"
)

// notary signs, and remembers what.
type notary struct {
	mu    sync.Mutex
	asked []mailauth.Mail
	texts []string
	err   error
}

func (n *notary) Fields(_ context.Context, m mailauth.Mail) ([]byte, error) {
	text, err := io.ReadAll(io.NewSectionReader(m.Message, 0, m.Size))
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.Message = nil
	n.asked, n.texts = append(n.asked, m), append(n.texts, string(text))
	return fmt.Appendf(nil, "Signed: %d\r\n", len(n.asked)), n.err
}

// say changes what the world answers while the queue runs.
func (w *world) say(answer func(string, *Outgoing, Recipient) Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// What leaves is signed once, whatever happens to it before it has left, and nothing of it is left then.
func TestSigned(t *testing.T) {
	n := &notary{}
	bubble(t, func(o *Options) { o.Signer = n }, func(h *house) {
		h.world.say(refuse(451, "4.3.0", "not now"))
		env := &delivery.Envelope{Sender: sender}
		env.Origin.Account, env.Origin.Addr = sender, netip.MustParseAddr("192.0.2.7")
		h.sendAs(env, far, "carl@far.test", "dora@else.test")
		time.Sleep(time.Minute)
		h.restart()
		h.world.say(nil)
		time.Sleep(3 * time.Hour)
		_, message, _ := strings.Cut(sample, "\r\n")
		for _, to := range []string{far, "dora@else.test"} {
			got := h.world.took(to)
			if len(got) != 1 || got[0].body != "Signed: 1\r\n"+message {
				t.Errorf("%s: %+v", to, got)
			}
		}
		want := mailauth.Mail{Size: int64(len(message)), Sender: sender, Ours: true, Peer: env.Origin.Addr}
		if len(n.asked) != 1 || n.asked[0] != want || n.texts[0] != message {
			t.Errorf("%+v %q", n.asked, n.texts)
		}
		_ = h.kv.View(func(r kv.Reader) error {
			r.Scan([]byte(prefixFront), after([]byte(prefixFront)), func(key, _ []byte) bool {
				t.Errorf("left: %q", key)
				return true
			})
			return nil
		})
	})
}

// Mail of others is sent on for an address here; notices are ours, and need no signature if they stay here.
func TestWhatIsSigned(t *testing.T) {
	n := &notary{}
	bubble(t, func(o *Options) { o.Signer = n }, func(h *house) {
		in, err := h.write(sample)
		if err != nil {
			t.Fatal(err)
		}
		env := &delivery.Envelope{ID: delivery.NewID(), Sender: "eve@else.test"}
		to := []delivery.Onward{{Address: far, For: delivery.Recipient{Address: "team@here.test"}}}
		if err := h.Queue.enqueue(context.Background(), env, in, to); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(n.asked) != 1 || n.asked[0].Ours || n.asked[0].For != "team@here.test" {
			t.Errorf("%+v", n.asked)
		}
		h.world.say(refuse(550, "5.1.1", "nobody"))
		h.send(sender, far) // 2; its bounce stays here
		synctest.Wait()
		if boxes := h.people.inbox(sender); len(boxes) != 1 || strings.HasPrefix(boxes[0], "Signed") || len(n.asked) != 2 {
			t.Errorf("%q, %d", boxes, len(n.asked))
		}
		h.world.say(func(_ string, m *Outgoing, r Recipient) Outcome {
			if m.Sender == "" {
				return Outcome{Verdict: Delivered, Code: 250}
			}
			return Outcome{Verdict: Failed, Code: 550, Status: "5.2.1", Text: "no"}
		})
		h.send("eve@else.test", "bert@third.test") // 3; its bounce leaves: 4
		time.Sleep(time.Minute)
		got := h.world.took("eve@else.test")
		if len(got) != 1 || !strings.HasPrefix(got[0].body, "Signed: 4\r\n") || !n.asked[3].Ours || n.asked[3].Sender != "" {
			t.Errorf("%+v %+v", got, n.asked)
		}
	})
}

func TestSigningFails(t *testing.T) {
	n := &notary{err: errors.New("no key")}
	bubble(t, func(o *Options) { o.Signer = n }, func(h *house) {
		if err := h.trySend(&delivery.Envelope{Sender: sender}, sample, far); err == nil || delivery.Refusal(err).Code != 451 {
			t.Errorf("taken, or refused for good: %v", err)
		}
		if left := h.items(); len(left) > 0 {
			t.Errorf("%v", left)
		}
		n.err = fmt.Errorf("%w: the DNS is slow", mailauth.ErrARC)
		h.send(sender, far)
		synctest.Wait()
		if got := h.world.took(far); len(got) != 1 || strings.HasPrefix(got[0].body, "Signed") {
			t.Errorf("%+v", got)
		}
	})
}

func TestFronted(t *testing.T) {
	body := io.NewSectionReader(strings.NewReader("..the body.."), 2, 8)
	for _, front := range []string{"", "x", "A: b\r\n"} {
		f := fronted{[]byte(front), body}
		if err := iotest.TestReader(io.NewSectionReader(f, 0, f.size()), []byte(front+"the body")); err != nil {
			t.Error(err)
		}
		if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("reads before the beginning")
		}
	}
}
