package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
	"mailsrv/storage/kv/kvtest"
)

func sampleMessage() *message {
	at := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	return &message{id: "0123456789abcdef", arrived: at, age: time.Hour, seen: at.Add(time.Hour), timer: at.Add(2 * time.Hour), open: 1,
		count: 2, size: 1000, skip: 20, utf8: true, requireTLS: true, byNotify: true, byTrace: true, kind: noticeFailed, priority: -3,
		release: at.Add(3 * time.Hour), by: at.Add(4 * time.Hour), sender: "alice@here.test", envelopeID: "e1", body: "8BITMIME",
		ret: "HDRS", account: "alice@here.test", hello: "client", peer: "192.0.2.1"}
}

func sampleRecipient() *recipient {
	at := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	return &recipient{n: 1, state: held, told: true, now: true, notify: notifySuccess | notifyDelay, due: at, attempts: 3,
		address: "bob@far.test", original: "rfc822;bob@far.test", instead: "team@here.test", destination: "far.test",
		history: []Attempt{{When: at, Outcome: Outcome{Verdict: Deferred, Code: 450, Status: "4.2.0", Text: "later", Remote: "mx.far.test",
			TLS: "TLS 1.3", Connect: 20 * time.Millisecond, Transfer: time.Second}}}}
}

// The bytes of version 1, for ever.
func TestGoldenBytes(t *testing.T) {
	m, r := sampleMessage(), sampleRecipient()
	for _, test := range []struct {
		got  []byte
		want string
	}{
		{m.encode(), goldenMessage},
		{r.encode(), goldenRecipient},
		{keyDue("far.test", 12, r.due, m.id, 1), "queue/d/far.test\x00\f\x00\x06`\xd70\x02\xf8\x000123456789abcdef\x00\x01"},
	} {
		if string(test.got) != test.want {
			t.Errorf("got  %q\nwant %q", test.got, test.want)
		}
	}
	m2, err := decodeMessage(m.id, m.encode())
	if err != nil || !reflect.DeepEqual(m, m2) {
		t.Errorf("%+v, %v", m2, err)
	}
	r2, err := decodeRecipient(m.id, 1, r.encode())
	if err != nil || !reflect.DeepEqual(r, r2) {
		t.Errorf("%+v, %v", r2, err)
	}
	s, ok := parseSlot(keyDue("far.test", 12, r.due, m.id, 1))
	if !ok || s != (slot{"far.test", 12, r.due, m.id, 1}) {
		t.Errorf("%+v", s)
	}
}

func TestDamagedRecords(t *testing.T) {
	for n := range sampleMessage().encode() {
		if _, err := decodeMessage("x", sampleMessage().encode()[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("a message cut at %d: %v", n, err)
		}
	}
	for n := range sampleRecipient().encode() {
		if _, err := decodeRecipient("x", 0, sampleRecipient().encode()[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("a recipient cut at %d: %v", n, err)
		}
	}
	if _, err := decodeRecipient("x", 0, append(sampleRecipient().encode(), 0)); !errors.Is(err, ErrDamaged) {
		t.Error("bytes left over")
	}
}

// What decodes encodes to something that decodes to the same.
func FuzzEntries(f *testing.F) {
	f.Add(sampleMessage().encode())
	f.Add(sampleRecipient().encode())
	f.Add((&suppression{Added: time.Unix(1, 0), Until: forever, Status: "5.1.1", Text: "no", ID: "x"}).encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMessage("0123456789abcdef", b); err == nil {
			again, err := decodeMessage(m.id, m.encode())
			if err != nil || !reflect.DeepEqual(m, again) {
				t.Errorf("%+v\n%+v, %v", m, again, err)
			}
		}
		if r, err := decodeRecipient("0123456789abcdef", 3, b); err == nil {
			again, err := decodeRecipient("0123456789abcdef", 3, r.encode())
			if err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%+v\n%+v, %v", r, again, err)
			}
		}
		if s, err := decodeSuppression("a@b", b); err == nil {
			again, err := decodeSuppression("a@b", s.encode())
			if err != nil || !reflect.DeepEqual(s, again) {
				t.Errorf("%+v\n%+v, %v", s, again, err)
			}
		}
		if s, ok := parseSlot(append([]byte(prefixDue), b...)); ok {
			if key := keyDue(s.destination, s.class, s.due, s.id, s.n); s.due.UnixMicro() > 0 && !bytes.Equal(key[len(prefixDue):], b) {
				t.Errorf("%q became %q", b, key)
			}
		}
	})
}

func TestHistoryBounded(t *testing.T) {
	r := &recipient{}
	for i := range 200 {
		r.remember(Attempt{Outcome: Outcome{Code: i, Text: strings.Repeat("x", 5000)}})
	}
	if len(r.history) != maxHistory || r.attempts != 200 || r.history[0].Code != 0 || r.last().Code != 199 ||
		r.history[keepFirst].Code != 200-(maxHistory-keepFirst) || len(r.last().Text) != maxText {
		t.Errorf("%d kept of %d", len(r.history), r.attempts)
	}
}

func TestNewerFormat(t *testing.T) {
	h := newHouse(t, nil)
	err := h.kv.Update(func(tx kv.Tx) error { return tx.Put([]byte(keyFormat), []byte{9}) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(h.options()); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("%v", err)
	}
}

// A system.db that was lost takes no messages with it.
func TestLostDatabase(t *testing.T) {
	h := newHouse(t, nil)
	id := h.send(sender, far)
	var err error
	if h.kv, err = kvtest.OpenSnapshot(h.fs, "/data/other.db"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(h.options()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.fs.Stat(h.files.path(id)); err != nil {
		t.Error("the messages were removed with the database")
	}
}

// counting counts what a start reads.
type counting struct {
	kv.DB
	gets, visited int
}

func (c *counting) View(fn func(kv.Reader) error) error {
	return c.DB.View(func(r kv.Reader) error { return fn(countingReader{r, c}) })
}

type countingReader struct {
	kv.Reader
	c *counting
}

func (r countingReader) Get(key []byte) []byte {
	r.c.gets++
	return r.Reader.Get(key)
}

func (r countingReader) Scan(from, to []byte, fn func(k, v []byte) bool) {
	r.Reader.Scan(from, to, func(k, v []byte) bool { r.c.visited++; return fn(k, v) })
}

// A hundred thousand messages: a start passes over their keys once, reads none of them, and keeps nothing of them.
func TestHundredThousand(t *testing.T) {
	const messages, destinations = 100_000, 50
	db, err := kv.OpenBolt(t.TempDir() + "/system.db")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	fsys := disk.NewCrashable()
	w := &world{}
	o := Options{DB: db, Dir: "/queue", FS: fsys, Hostname: "mx.here.test", Transport: w}
	q, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create("/one", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(sample)); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour)
	for begin := 0; begin < messages; begin += 2_000 {
		err := db.Update(func(tx kv.Tx) error {
			for i := begin; i < begin+2_000; i++ {
				m := &message{id: fmt.Sprintf("%016d", i), arrived: at, seen: at, open: 1, count: 1, size: 10, sender: sender}
				r := &recipient{address: fmt.Sprintf("x%d@d%d.test", i, i%destinations), due: at, destination: fmt.Sprintf("d%d.test", i%destinations)}
				if err := q.put(tx, m, []*recipient{r}); err != nil {
					return err
				}
				if err := fsys.Link("/one", q.files.path(m.id)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := fsys.SyncDir("/queue/new"); err != nil {
		t.Fatal(err)
	}
	counted := &counting{DB: db}
	o.DB = counted
	before := heapSize()
	q, err = Open(o)
	if err != nil {
		t.Fatal(err)
	}
	grown := heapSize() - before
	if s := q.Stats(); s.Messages != messages || s.Destinations != destinations {
		t.Errorf("%+v", s)
	}
	if most := messages + 10*destinations*classes; counted.visited > most || counted.gets > 10 {
		t.Errorf("the start visits %d keys (at most %d) and reads %d values", counted.visited, most, counted.gets)
	}
	if grown > 1<<20 {
		t.Errorf("%d bytes are kept for %d messages", grown, messages)
	}
	// A turn reads what it needs and no more, however much waits.
	counted.gets, counted.visited = 0, 0
	j, _, err := q.pick("d7.test", at.Add(time.Second))
	if err != nil || j == nil || counted.gets+counted.visited > 20 {
		t.Errorf("a turn: %v, %v, visits %d keys and reads %d", j, err, counted.visited, counted.gets)
	}
	env := &delivery.Envelope{ID: delivery.NewID(), Sender: sender}
	counted.gets, counted.visited = 0, 0
	if err := q.enqueue(context.Background(), env, letter{strings.NewReader(sample), "/one"}, []delivery.Onward{{Address: far}}); err != nil || counted.visited > 5 {
		t.Errorf("enqueuing: %v, visits %d", err, counted.visited)
	}
}

func heapSize() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

const (
	goldenMessage = "\x80\xf0\x8b\x80\xf3\x9a\x98\x03\x90\x1c\x80\xb8\xda\xb4\x80\x9b\x98\x03\x80\x80\xa9\xe9\x8d\x9b\x98\x03\x01\x02\xe8\a\x14" +
		"\x0f\x01\x05\x80\xc8\xf7\x9d\x9b\x9b\x98\x03\x80\x90\xc6\xd2\xa8\x9b\x98\x03\x0falice@here.test\x02e1\b8BITMIME\x04HDRS" +
		"\x0falice@here.test\x06client\t192.0.2.1"
	goldenRecipient = "\x01\x03\n\x80\xf0\x8b\x80\xf3\x9a\x98\x03\x03\fbob@far.test\x13rfc822;bob@far.test\x0eteam@here.test\bfar.test" +
		"\x01\x80\xf0\x8b\x80\xf3\x9a\x98\x03\x00\xc2\x03\x054.2.0\x05later\vmx.far.test\aTLS 1.3\x14\xe8\a"
)
