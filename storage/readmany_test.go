package storage

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"mailsrv/storage/kv"
)

// walk finds what looking up each key finds, in any order of keys, with gaps and strangers between them.
func TestWalk(t *testing.T) {
	db, err := kv.OpenBolt(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	name := func(n int) string { return fmt.Sprintf("k%04d", n) }
	if err := db.Update(func(tx kv.Tx) error {
		for n := range 1000 {
			if n%50 > 20 || rng.IntN(3) == 0 {
				if err := tx.Put([]byte(name(n)), []byte(name(n))); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for round := range 500 {
		var asked []int
		for n := rng.IntN(20); len(asked) < rng.IntN(200)+1; n += rng.IntN(1 + rng.IntN(40)) {
			asked = append(asked, n) // some twice
		}
		if round%3 == 0 {
			rng.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
		}
		var got, want []int
		if err := db.View(func(r kv.Reader) error {
			for i, n := range asked {
				if r.Get([]byte(name(n))) != nil {
					want = append(want, i)
				}
			}
			return walk(r, len(asked), func(b []byte, i int) []byte { return append(b, name(asked[i])...) },
				func(i int, v []byte) error {
					if string(v) != name(asked[i]) {
						return fmt.Errorf("key %d has the value %s", asked[i], v)
					}
					got = append(got, i)
					return nil
				})
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("asked %v\ngot  %v\nwant %v", asked, got, want)
		}
	}
}
