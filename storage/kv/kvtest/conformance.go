// Package kvtest is what any engine behind storage/kv must pass.
package kvtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"mailsrv/storage/kv"
)

// Conformance runs every test on databases that open makes. path names a file in a fresh folder; opening it a second time,
// after Close, must show what was committed.
func Conformance(t *testing.T, open func(path string) (kv.DB, error)) {
	tests := []struct {
		name string
		run  func(t *testing.T, e *engine)
	}{
		{"values", values},
		{"order", order},
		{"own writes", ownWrites},
		{"writing beside a scan", writingBesideScan},
		{"failed update", failedUpdate},
		{"reused buffers", reusedBuffers},
		{"snapshot", snapshot},
		{"readers during update", readersDuringUpdate},
		{"concurrent use", concurrentUse},
		{"close", closing},
		{"model", model},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := &engine{t: t, open: open, path: t.TempDir() + "/test.db"}
			e.reopen()
			t.Cleanup(func() { e.db.Close() })
			test.run(t, e)
		})
	}
}

type engine struct {
	t    *testing.T
	open func(string) (kv.DB, error)
	path string
	db   kv.DB
}

func (e *engine) reopen() {
	e.t.Helper()
	if e.db != nil {
		e.must(e.db.Close())
	}
	db, err := e.open(e.path)
	e.must(err)
	e.db = db
}

func (e *engine) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) update(fn func(kv.Tx) error) { e.t.Helper(); e.must(e.db.Update(fn)) }

func (e *engine) put(pairs ...string) {
	e.t.Helper()
	e.update(func(tx kv.Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put([]byte(pairs[i]), []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
}

// want compares a whole database with key value key value …
func (e *engine) want(pairs ...string) {
	e.t.Helper()
	var got []string
	e.must(e.db.View(func(r kv.Reader) error {
		got = scan(r, nil, nil)
		return nil
	}))
	if !slices.Equal(got, pairs) {
		e.t.Fatalf("database holds %q, want %q", got, pairs)
	}
}

func scan(r kv.Reader, from, to []byte) []string {
	var got []string
	r.Scan(from, to, func(k, v []byte) bool {
		got = append(got, string(k), string(v))
		return true
	})
	return got
}

func values(t *testing.T, e *engine) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	longKey := bytes.Repeat([]byte{0xff, 0}, 1000)
	e.update(func(tx kv.Tx) error {
		for _, pair := range [][2][]byte{{{0}, {0}}, {[]byte("empty"), {}}, {[]byte("nil"), nil}, {[]byte("big"), big}, {longKey, []byte("x")}} {
			if err := tx.Put(pair[0], pair[1]); err != nil {
				return err
			}
		}
		if tx.Get([]byte("empty")) == nil || tx.Get([]byte("nil")) == nil {
			t.Error("inside the transaction an empty value is not there")
		}
		return nil
	})
	if err := e.db.Update(func(tx kv.Tx) error { return tx.Put(nil, []byte("x")) }); err == nil {
		t.Error("an empty key was taken")
	}
	for range 2 {
		e.must(e.db.View(func(r kv.Reader) error {
			if v := r.Get([]byte("absent")); v != nil {
				t.Errorf("absent key has value %q", v)
			}
			if v := r.Get([]byte("emp")); v != nil {
				t.Errorf("prefix of a key has value %q", v)
			}
			for _, key := range []string{"empty", "nil"} {
				if v := r.Get([]byte(key)); v == nil || len(v) != 0 {
					t.Errorf("%s: got %v, want an empty value that is there", key, v)
				}
			}
			if !bytes.Equal(r.Get([]byte("big")), big) || string(r.Get(longKey)) != "x" || !bytes.Equal(r.Get([]byte{0}), []byte{0}) {
				t.Error("a value came back changed")
			}
			return nil
		}))
		e.reopen()
	}
}

func order(t *testing.T, e *engine) {
	e.put("b", "2", "a\xff", "1", "a", "0", "c", "4", "b\x00", "3")
	e.must(e.db.View(func(r kv.Reader) error {
		for _, test := range []struct {
			from, to string
			open     bool
			want     []string
			last     string
		}{
			{"", "", true, []string{"a", "0", "a\xff", "1", "b", "2", "b\x00", "3", "c", "4"}, "c"},
			{"a", "b", false, []string{"a", "0", "a\xff", "1"}, "a\xff"},
			{"a\x00", "b\x00", false, []string{"a\xff", "1", "b", "2"}, "b"},
			{"b", "b", false, nil, ""},
			{"c", "a", false, nil, ""},
			{"c", "", true, []string{"c", "4"}, "c"},
			{"d", "", true, nil, ""},
			{"", "a", false, nil, ""},
			{"b", "zz", false, []string{"b", "2", "b\x00", "3", "c", "4"}, "c"},
			{"bb", "c", false, nil, ""},
		} {
			to := []byte(test.to)
			if test.open {
				to = nil
			}
			if got := scan(r, []byte(test.from), to); !slices.Equal(got, test.want) {
				t.Errorf("Scan %q..%q: got %q, want %q", test.from, test.to, got, test.want)
			}
			if k, v := r.Last([]byte(test.from), to); string(k) != test.last || (k == nil) != (v == nil) {
				t.Errorf("Last %q..%q: got %q %q, want key %q", test.from, test.to, k, v, test.last)
			}
		}
		n := 0
		r.Scan(nil, nil, func(k, v []byte) bool { n++; return n < 2 })
		if n != 2 {
			t.Errorf("a scan that should stop after 2 calls made %d", n)
		}
		return nil
	}))
}

func ownWrites(t *testing.T, e *engine) {
	e.put("a", "old", "b", "old", "d", "old")
	e.update(func(tx kv.Tx) error {
		for _, err := range []error{tx.Put([]byte("a"), []byte("new")), tx.Put([]byte("c"), []byte("new")), tx.Delete([]byte("d")), tx.Delete([]byte("absent"))} {
			if err != nil {
				return err
			}
		}
		if got, want := scan(tx, nil, nil), []string{"a", "new", "b", "old", "c", "new"}; !slices.Equal(got, want) {
			t.Errorf("inside: %q, want %q", got, want)
		}
		if k, _ := tx.Last(nil, nil); string(k) != "c" {
			t.Errorf("inside: last is %q, want c", k)
		}
		return nil
	})
	e.want("a", "new", "b", "old", "c", "new")
	e.reopen()
	e.want("a", "new", "b", "old", "c", "new")
}

// writingBesideScan: fn may write outside the range, even next to it, and the scan sees each pair once.
func writingBesideScan(t *testing.T, e *engine) {
	e.put("m1", "", "m2", "", "m3", "", "m4", "")
	e.update(func(tx kv.Tx) error {
		var got []string
		tx.Scan([]byte("m"), []byte("n"), func(k, v []byte) bool {
			got = append(got, string(k))
			e.must(tx.Put([]byte("a"+string(k)), nil))
			e.must(tx.Put([]byte("z"+string(k)), nil))
			return len(got) < 100
		})
		if want := []string{"m1", "m2", "m3", "m4"}; !slices.Equal(got, want) {
			t.Errorf("scan saw %q, want %q", got, want)
		}
		return nil
	})
}

func failedUpdate(t *testing.T, e *engine) {
	e.put("a", "1", "b", "2")
	cause := errors.New("cause")
	err := e.db.Update(func(tx kv.Tx) error {
		e.must(tx.Put([]byte("a"), []byte("changed")))
		e.must(tx.Put([]byte("c"), bytes.Repeat([]byte("x"), 100_000)))
		e.must(tx.Delete([]byte("b")))
		return cause
	})
	if err != cause {
		t.Errorf("Update returned %v, want the caller's own error", err)
	}
	e.want("a", "1", "b", "2")
	func() {
		defer func() { recover() }()
		e.db.Update(func(tx kv.Tx) error {
			e.must(tx.Put([]byte("a"), []byte("changed")))
			panic("caller's bug")
		})
	}()
	e.want("a", "1", "b", "2")
	if err := e.db.View(func(kv.Reader) error { return cause }); err != cause {
		t.Errorf("View returned %v, want the caller's own error", err)
	}
	e.put("after", "3") // the panic left no lock behind
	e.reopen()
	e.want("a", "1", "after", "3", "b", "2")
}

func reusedBuffers(t *testing.T, e *engine) {
	key, value := make([]byte, 1), make([]byte, 1)
	e.update(func(tx kv.Tx) error {
		for c := byte('a'); c <= 'c'; c++ {
			key[0], value[0] = c, c
			e.must(tx.Put(key, value))
		}
		return nil
	})
	e.want("a", "a", "b", "b", "c", "c")
}

// snapshot: a reader that began before a commit sees nothing of it, however often it looks, and delays it not.
func snapshot(t *testing.T, e *engine) {
	e.put("a", "old", "b", "old")
	e.must(e.db.View(func(r kv.Reader) error {
		for i := range 20 {
			done := make(chan error)
			go func() {
				done <- e.db.Update(func(tx kv.Tx) error {
					return errors.Join(tx.Put([]byte("a"), []byte("new")), tx.Delete([]byte("b")), tx.Put(fmt.Appendf(nil, "c%d", i), make([]byte, 5000)))
				})
			}()
			e.must(<-done)
			if got, want := scan(r, nil, nil), []string{"a", "old", "b", "old"}; !slices.Equal(got, want) {
				t.Fatalf("after %d commits of others the snapshot is %q, want %q", i+1, got, want)
			}
		}
		return nil
	}))
	e.must(e.db.View(func(r kv.Reader) error {
		if n := len(scan(r, nil, nil)) / 2; n != 21 {
			t.Errorf("a new reader sees %d pairs, want 21", n)
		}
		return nil
	}))
}

// readersDuringUpdate: readers come and go while a writer is at work, and see nothing of it.
func readersDuringUpdate(t *testing.T, e *engine) {
	e.put("a", "old")
	e.update(func(tx kv.Tx) error {
		e.must(tx.Put([]byte("a"), []byte("new")))
		done := make(chan bool)
		go func() {
			defer close(done)
			e.db.View(func(r kv.Reader) error {
				if v := r.Get([]byte("a")); string(v) != "old" {
					t.Errorf("a reader saw %q, uncommitted", v)
				}
				return nil
			})
		}()
		<-done
		return nil
	})
	e.want("a", "new")
}

// concurrentUse: writers move units between accounts; whenever anybody looks, the sum is the same.
func concurrentUse(t *testing.T, e *engine) {
	const accounts, sum = 10, 1000
	get := func(r kv.Reader, i int) int64 {
		return int64(binary.BigEndian.Uint64(r.Get([]byte{byte(i)})))
	}
	set := func(tx kv.Tx, i int, n int64) error {
		return tx.Put([]byte{byte(i)}, binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	e.update(func(tx kv.Tx) error {
		for i := range accounts {
			e.must(set(tx, i, sum/accounts))
		}
		return nil
	})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			for range 30 {
				a, b := rng.IntN(accounts), rng.IntN(accounts)
				err := e.db.Update(func(tx kv.Tx) error {
					if err := set(tx, a, get(tx, a)-1); err != nil {
						return err
					}
					return set(tx, b, get(tx, b)+1)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				e.db.View(func(r kv.Reader) error {
					var n int64
					for i := range accounts {
						n += get(r, i)
					}
					if n != sum {
						t.Errorf("a reader counted %d, want %d", n, sum)
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
}

func closing(t *testing.T, e *engine) {
	e.put("a", "1")
	inside, finish := make(chan bool), make(chan bool)
	var reader, closer sync.WaitGroup
	reader.Go(func() {
		e.db.View(func(r kv.Reader) error {
			close(inside)
			<-finish
			if string(r.Get([]byte("a"))) != "1" {
				t.Error("Close pulled the data away from a reader")
			}
			return nil
		})
	})
	<-inside
	closer.Go(func() { e.must(e.db.Close()) })
	close(finish)
	reader.Wait()
	closer.Wait()
	if err := e.db.View(func(kv.Reader) error { return nil }); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("View after Close: %v, want ErrClosed", err)
	}
	if err := e.db.Update(func(kv.Tx) error { return nil }); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("Update after Close: %v, want ErrClosed", err)
	}
	e.must(e.db.Close())
	e.reopen()
	e.want("a", "1")
}

// model compares random transactions, failed ones and reopenings in between, with a map.
func model(t *testing.T, e *engine) {
	rng := rand.New(rand.NewPCG(7, 7))
	truth := map[string]string{}
	for round := range 60 {
		next := map[string]string{}
		for k, v := range truth {
			next[k] = v
		}
		fail := rng.IntN(4) == 0
		err := e.db.Update(func(tx kv.Tx) error {
			for range rng.IntN(60) {
				randomWrite(t, rng, tx, next)
				compare(t, rng, tx, next)
			}
			if fail {
				return errFail
			}
			return nil
		})
		if fail != (err == errFail) || (!fail && err != nil) {
			t.Fatalf("round %d: Update: %v", round, err)
		}
		if !fail {
			truth = next
		}
		if rng.IntN(10) == 0 {
			e.reopen()
		}
		e.must(e.db.View(func(r kv.Reader) error {
			compare(t, rng, r, truth)
			return nil
		}))
	}
}

var errFail = errors.New("on purpose")

func randomWrite(t *testing.T, rng *rand.Rand, tx kv.Tx, next map[string]string) {
	key := fmt.Sprintf("%03d", rng.IntN(500))
	var err error
	switch rng.IntN(4) {
	case 0: // a run of keys goes, so that pages empty within the transaction
		var doomed []string
		tx.Scan([]byte(key), nil, func(k, v []byte) bool {
			doomed = append(doomed, string(k))
			return len(doomed) < rng.IntN(40)
		})
		for _, k := range doomed {
			err = errors.Join(err, tx.Delete([]byte(k)))
			delete(next, k)
		}
	default:
		value := string(bytes.Repeat([]byte(key), rng.IntN(200)))
		err = tx.Put([]byte(key), []byte(value))
		next[key] = value
	}
	if err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, rng *rand.Rand, r kv.Reader, truth map[string]string) {
	t.Helper()
	from, to := fmt.Sprintf("%03d", rng.IntN(500)), fmt.Sprintf("%03d", rng.IntN(600))
	var keys []string
	for k := range truth {
		if k >= from && k < to {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var want []string
	for _, k := range keys {
		want = append(want, k, truth[k])
	}
	if got := scan(r, []byte(from), []byte(to)); !slices.Equal(got, want) {
		t.Fatalf("Scan %s..%s: got %d strings, want %d", from, to, len(got), len(want))
	}
	k, v := r.Last([]byte(from), []byte(to))
	if len(keys) == 0 != (k == nil) || len(keys) > 0 && (string(k) != keys[len(keys)-1] || string(v) != truth[string(k)]) {
		t.Fatalf("Last %s..%s: got %q, want the last of %q", from, to, k, keys)
	}
	if got, ok := truth[from]; ok != (r.Get([]byte(from)) != nil) || string(r.Get([]byte(from))) != got {
		t.Fatalf("Get %s: got %q, want %q", from, r.Get([]byte(from)), got)
	}
}
