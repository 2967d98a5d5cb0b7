package blob_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mailsrv/internal/disk"
	"mailsrv/storage/blob"
	"mailsrv/storage/blob/blobtest"
)

func TestMaildir(t *testing.T) {
	t.Run("on disk", func(t *testing.T) {
		blobtest.Conformance(t, func(t *testing.T) (disk.FS, string) { return disk.OS(), t.TempDir() }, blob.OpenMaildir)
	})
	t.Run("in memory", func(t *testing.T) {
		blobtest.Conformance(t, func(t *testing.T) (disk.FS, string) { return disk.NewCrashable(), "/" }, blob.OpenMaildir)
	})
	for _, no := range []error{syscall.EXDEV, syscall.EMLINK, syscall.EPERM} {
		t.Run("links refused by "+no.Error(), func(t *testing.T) {
			refuse := func(op, _ string) error {
				if op == "link" {
					return no
				}
				return nil
			}
			blobtest.Conformance(t, func(t *testing.T) (disk.FS, string) {
				return disk.NewFaulty(disk.OS(), refuse), t.TempDir()
			}, blob.OpenMaildir)
		})
	}
}

// What the folders look like to other programs.
func TestMaildirLayout(t *testing.T) {
	fsys := disk.NewCrashable()
	s := mustOpen(t, fsys)
	must(t, s.Create(".Sent.2024", []byte("state")))
	must(t, s.SetMeta("subscriptions", []byte("Sent\n")))
	must(t, fsys.Replace("/src", []byte("x"), 0o600))
	must(t, s.Place("/src", ".Sent.2024", blob.Entry{Stem: "1.1.h", Info: "2,S"}))
	want := []string{
		"/m", "/m/.Sent.2024", "/m/.Sent.2024/cur", "/m/.Sent.2024/cur/1.1.h:2,S", "/m/.Sent.2024/maildirfolder",
		"/m/.Sent.2024/mailsrv-mailbox", "/m/.Sent.2024/new", "/m/.Sent.2024/tmp", "/m/cur", "/m/new", "/m/subscriptions", "/m/tmp",
	}
	if got := tree(t, fsys, "/m"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What is no message is not listed: hidden files, directories, links that could show any file of the machine.
func TestMaildirForeignThings(t *testing.T) {
	dir := t.TempDir()
	s, err := blob.OpenMaildir(disk.OS(), dir+"/m")
	must(t, err)
	must(t, disk.OS().Replace(dir+"/m/new/.hidden", nil, 0o600))
	must(t, disk.OS().Mkdir(dir+"/m/cur/dir", 0o700))
	must(t, syscall.Symlink("/etc/passwd", dir+"/m/cur/link:2,S"))
	must(t, syscall.Symlink("/etc", dir+"/m/.etc"))
	must(t, s.List("", func(e blob.Entry) error { return fmt.Errorf("listed %v", e) }))
	if folders, err := s.Folders(); err != nil || len(folders) != 1 {
		t.Errorf("folders: %q %v", folders, err)
	}
}

// Power fails before each operation in turn: a folder is there whole, with its state, or not at all; what was synced is
// there; and the next opening finds nothing in its way.
func TestMaildirPowerLoss(t *testing.T) {
	cutEverywhere(t, func(s blob.Store, acked map[string]bool) error {
		for _, step := range []struct {
			name string
			run  func() error
		}{
			{"create", func() error { return s.Create(".a", []byte("state a")) }},
			{"placed", func() error {
				return errors.Join(s.Place("/src", ".a", blob.Entry{New: true, Stem: "1.1.h"}), s.Sync(".a"))
			}},
			{"moved", func() error {
				return errors.Join(s.Move(".a", blob.Entry{New: true, Stem: "1.1.h"}, blob.Entry{Stem: "1.1.h", Info: "2,S"}), s.Sync(".a"))
			}},
			{"state", func() error { return s.SetState(".a", []byte("state b")) }},
			{"renamed", func() error { return s.Rename(".a", ".b") }},
			{"removed", func() error { return s.Remove(".b") }},
		} {
			if err := step.run(); err != nil {
				return err
			}
			acked[step.name] = true
		}
		return nil
	}, func(t *testing.T, s blob.Store, acked map[string]bool) {
		folders, err := s.Folders()
		must(t, err)
		folders = slices.DeleteFunc(folders, func(f string) bool { return f == "" })
		if len(folders) == 0 {
			if acked["create"] && !acked["renamed"] {
				t.Error("a folder is lost")
			}
			return
		}
		if len(folders) > 1 || acked["removed"] || folders[0] == ".a" && acked["renamed"] {
			t.Errorf("folders %q after %v", folders, slices.Sorted(maps.Keys(acked)))
		}
		checkFolder(t, s, folders[0], acked)
	})
}

func checkFolder(t *testing.T, s blob.Store, folder string, acked map[string]bool) {
	state, err := s.State(folder)
	must(t, err)
	if got := string(state); got != "state b" && (got != "state a" || acked["state"]) {
		t.Errorf("state is %q", got)
	}
	var got []string
	must(t, s.List(folder, func(e blob.Entry) error {
		got = append(got, fmt.Sprint(e.New, e.Stem, e.Info))
		if size, _, err := s.Stat(folder, e); err != nil || size != 4 {
			t.Errorf("%v has %d bytes: %v", e, size, err)
		}
		return nil
	}))
	if acked["placed"] && len(got) == 0 || acked["moved"] && !slices.Equal(got, []string{"false1.1.h2,S"}) {
		t.Errorf("messages are %q after %v", got, slices.Sorted(maps.Keys(acked)))
	}
}

func cutEverywhere(t *testing.T, run func(blob.Store, map[string]bool) error, check func(*testing.T, blob.Store, map[string]bool)) {
	for cut := 1; ; cut++ {
		fsys := disk.NewCrashable()
		must(t, fsys.Replace("/src", []byte("body"), 0o600))
		s := mustOpen(t, fsys)
		before := fsys.Ops()
		fsys.CutBefore(before + cut)
		acked := map[string]bool{}
		err := run(s, acked)
		for seed := range uint64(10) {
			t.Run(fmt.Sprintf("cut %d seed %d", cut, seed), func(t *testing.T) {
				after := fsys.AfterPowerLoss(seed)
				check(t, mustOpen(t, after), acked)
				if left, err := after.ReadDir("/m/tmp"); err != nil || len(left) > 0 {
					t.Errorf("opening left %v in tmp: %v", left, err)
				}
			})
		}
		if err == nil {
			return
		}
		if !errors.Is(err, disk.ErrPowerCut) {
			t.Fatalf("cut %d: %v", cut, err)
		}
	}
}

// Any single failure is reported, never swallowed, and the same call succeeds once the disk behaves again.
func TestMaildirFailures(t *testing.T) {
	broken := errors.New("broken")
	for n := 1; ; n++ {
		count, at := 0, n
		fsys := disk.NewFaulty(disk.NewCrashable(), func(op, path string) error {
			if count++; count == at {
				return broken
			}
			return nil
		})
		failed := false
		try := func(what string, call func() error) {
			before := count
			err := call()
			if hit := before < at && at <= count; hit != errors.Is(err, broken) && !strings.HasPrefix(what, "maybe ") {
				t.Fatalf("operation %d fails: %s returned %v", at, what, err)
			} else if hit {
				failed = true
				if err = call(); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("operation %d fails: %s again: %v", at, what, err)
				}
			}
		}
		var s blob.Store
		try("open", func() (err error) { s, err = blob.OpenMaildir(fsys, "/m"); return err })
		try("create", func() error { return s.Create(".a", []byte("state")) })
		try("source", func() error { return fsys.Replace("/src", []byte("body"), 0o600) })
		try("place", func() error { return s.Place("/src", ".a", blob.Entry{New: true, Stem: "1.1.h"}) })
		try("sync", func() error { return s.Sync(".a") })
		try("rename", func() error { return s.Rename(".a", ".b") })
		try("remove", func() error { return s.Remove(".b") })
		if !failed {
			if count >= at {
				t.Fatalf("operation %d failed and nobody noticed", at)
			}
			return
		}
	}
}

func mustOpen(t *testing.T, fsys disk.FS) blob.Store {
	t.Helper()
	s, err := blob.OpenMaildir(fsys, "/m")
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tree(t *testing.T, fsys disk.FS, root string) []string {
	t.Helper()
	names := []string{root}
	info, err := fsys.Stat(root)
	must(t, err)
	if info.IsDir() {
		entries, err := fsys.ReadDir(root)
		must(t, err)
		for _, e := range entries {
			names = append(names, tree(t, fsys, root+"/"+e.Name())...)
		}
	}
	return names
}
