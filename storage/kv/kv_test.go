package kv_test

import (
	"errors"
	"testing"

	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
	"mailsrv/storage/kv/kvtest"
)

func TestBolt(t *testing.T) { kvtest.Conformance(t, kv.OpenBolt) }

func TestSnapshotEngine(t *testing.T) {
	kvtest.Conformance(t, func(path string) (kv.DB, error) { return kvtest.OpenSnapshot(disk.OS(), path) })
}

func TestBoltLocked(t *testing.T) {
	path := t.TempDir() + "/a.db"
	db, err := kv.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := kv.OpenBolt(path); !errors.Is(err, kv.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
}

func TestBoltDamaged(t *testing.T) {
	path := t.TempDir() + "/a.db"
	if err := disk.OS().Replace(path, make([]byte, 20_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err := kv.OpenBolt(path); err == nil {
		db.Close()
		t.Error("a file of zeros was opened as a database")
	}
}

// The snapshot engine on a crashable disk: whatever the cut, the last acknowledged commit is there, or the one under way.
func TestSnapshotEngineCrash(t *testing.T) {
	for cut := 1; ; cut++ {
		fsys := disk.NewCrashable()
		fsys.CutBefore(cut)
		acked := byte(0)
		db, err := kvtest.OpenSnapshot(fsys, "/a.db")
		for n := byte(1); err == nil && n <= 3; n++ {
			err = db.Update(func(tx kv.Tx) error { return tx.Put([]byte("n"), []byte{n}) })
			if err == nil {
				acked = n
			}
		}
		for seed := range uint64(20) {
			after, err := kvtest.OpenSnapshot(fsys.AfterPowerLoss(seed), "/a.db")
			if err != nil {
				t.Fatal(err)
			}
			after.View(func(r kv.Reader) error {
				n := byte(0)
				if v := r.Get([]byte("n")); v != nil {
					n = v[0]
				}
				if n != acked && n != acked+1 {
					t.Errorf("cut before %d, seed %d: found %d, acknowledged %d", cut, seed, n, acked)
				}
				return nil
			})
		}
		if err == nil {
			return
		}
	}
}
