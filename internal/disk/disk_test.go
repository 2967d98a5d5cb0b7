package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"mailsrv/internal/disk"
)

// Every implementation behaves alike where programs look.
func TestConformance(t *testing.T) {
	allow := func(string, string) error { return nil }
	for name, make := range map[string]func(t *testing.T) (disk.FS, string){
		"os":        func(t *testing.T) (disk.FS, string) { return disk.OS(), t.TempDir() },
		"crashable": func(t *testing.T) (disk.FS, string) { return disk.NewCrashable(), "/" },
		"faulty":    func(t *testing.T) (disk.FS, string) { return disk.NewFaulty(disk.OS(), allow), t.TempDir() },
	} {
		for test, run := range map[string]func(*testing.T, *bench){
			"files": files, "names": names, "directories": directories, "replace": replace, "open files": openFiles, "times": times,
			"free": free, "together": together,
		} {
			t.Run(name+"/"+test, func(t *testing.T) {
				fsys, dir := make(t)
				run(t, &bench{t, fsys, dir})
			})
		}
	}
}

type bench struct {
	t *testing.T
	disk.FS
	dir string
}

func (b *bench) at(name string) string { return path.Join(b.dir, name) }

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) wantErr(what string, got, want error) {
	b.t.Helper()
	if !errors.Is(got, want) {
		b.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (b *bench) write(name, data string) {
	b.t.Helper()
	f, err := b.Create(b.at(name), 0o600)
	b.must(err)
	n, err := f.Write([]byte(data))
	if n != len(data) {
		b.t.Errorf("wrote %d of %d bytes", n, len(data))
	}
	b.must(err)
	b.must(f.Sync())
	b.must(f.Close())
}

func (b *bench) read(name string) string {
	b.t.Helper()
	data, err := b.ReadFile(b.at(name), 1<<20)
	b.must(err)
	return string(data)
}

func (b *bench) wantNames(dir string, want ...string) {
	b.t.Helper()
	entries, err := b.ReadDir(b.at(dir))
	b.must(err)
	var got []string
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		got = append(got, name)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func files(t *testing.T, b *bench) {
	b.write("a", "hello")
	if got := b.read("a"); got != "hello" {
		t.Errorf("read %q", got)
	}
	_, err := b.Create(b.at("a"), 0o600)
	b.wantErr("create again", err, fs.ErrExist)
	_, err = b.Open(b.at("absent"))
	b.wantErr("open nothing", err, fs.ErrNotExist)
	_, err = b.ReadFile(b.at("a"), 5)
	b.must(err)
	_, err = b.ReadFile(b.at("a"), 4)
	b.wantErr("read beyond the limit", err, disk.ErrTooLong)
	_, err = b.Create(b.at("no/such/dir"), 0o600)
	b.wantErr("create nowhere", err, fs.ErrNotExist)
	info, err := b.Stat(b.at("a"))
	b.must(err)
	if info.Size() != 5 || info.IsDir() || info.Name() != "a" || !info.Mode().IsRegular() {
		t.Errorf("stat: %v %v %v", info.Name(), info.Size(), info.Mode())
	}
}

func names(t *testing.T, b *bench) {
	b.write("a", "A")
	b.write("b", "B")
	b.must(b.Link(b.at("a"), b.at("a2")))
	b.wantErr("link over", b.Link(b.at("a"), b.at("b")), fs.ErrExist)
	b.wantErr("link nothing", b.Link(b.at("absent"), b.at("c")), fs.ErrNotExist)
	b.must(b.Rename(b.at("a"), b.at("b")))
	b.wantErr("rename nothing", b.Rename(b.at("absent"), b.at("c")), fs.ErrNotExist)
	b.wantNames(".", "a2", "b")
	if b.read("b") != "A" || b.read("a2") != "A" {
		t.Error("after link and rename the bytes are wrong")
	}
	b.must(b.Rename(b.at("a2"), b.at("b"))) // rename(2): two names of one file stay
	b.wantNames(".", "a2", "b")
	b.must(b.Remove(b.at("a2")))
	b.wantErr("remove again", b.Remove(b.at("a2")), fs.ErrNotExist)
	b.wantNames(".", "b")
	b.must(b.SyncDir(b.dir))
	b.wantErr("sync nothing", b.SyncDir(b.at("absent")), fs.ErrNotExist)
}

func directories(t *testing.T, b *bench) {
	b.must(b.Mkdir(b.at("d"), 0o700))
	b.wantErr("mkdir again", b.Mkdir(b.at("d"), 0o700), fs.ErrExist)
	b.wantErr("mkdir nowhere", b.Mkdir(b.at("x/y"), 0o700), fs.ErrNotExist)
	b.must(b.MkdirAll(b.at("x/y/z"), 0o700))
	b.must(b.MkdirAll(b.at("x/y/z"), 0o700))
	b.write("x/f", "")
	if b.MkdirAll(b.at("x/f/g"), 0o700) == nil {
		t.Error("made a directory in a file")
	}
	if b.Remove(b.at("x")) == nil {
		t.Error("removed a directory that is not empty")
	}
	b.must(b.Rename(b.at("x"), b.at("w")))
	b.wantNames(".", "d/", "w/")
	b.wantNames("w", "f", "y/")
	b.wantErr("rename over a directory", b.Rename(b.at("w"), b.at("d")), fs.ErrExist)
	b.must(b.Remove(b.at("d")))
	b.must(b.RemoveAll(b.at("w")))
	b.must(b.RemoveAll(b.at("w")))
	b.wantNames(".")
	_, err := b.ReadDir(b.at("d"))
	b.wantErr("read no directory", err, fs.ErrNotExist)
}

func replace(t *testing.T, b *bench) {
	for _, data := range []string{"one", "", "three"} {
		b.must(b.Replace(b.at("f"), []byte(data), 0o600))
		if got := b.read("f"); got != data {
			t.Errorf("read %q, want %q", got, data)
		}
	}
	b.wantNames(".", "f")
	b.wantErr("replace nowhere", b.Replace(b.at("x/f"), nil, 0o600), fs.ErrNotExist)
}

func openFiles(t *testing.T, b *bench) {
	w, err := b.Create(b.at("f"), 0o600)
	b.must(err)
	_, err = w.Write([]byte("0123456789"))
	b.must(err)
	r, err := b.Open(b.at("f"))
	b.must(err)
	b.must(b.Remove(b.at("f")))
	part := make([]byte, 4)
	if n, err := r.ReadAt(part, 3); n != 4 || err != nil || string(part) != "3456" {
		t.Errorf("ReadAt: %q %v", part[:n], err)
	}
	if n, err := r.ReadAt(part, 8); n != 2 || err != io.EOF {
		t.Errorf("ReadAt over the end: %d %v", n, err)
	}
	if at, err := r.Seek(-2, io.SeekEnd); at != 8 || err != nil {
		t.Errorf("Seek: %d %v", at, err)
	}
	if rest, err := io.ReadAll(r); string(rest) != "89" || err != nil {
		t.Errorf("rest is %q %v", rest, err)
	}
	if _, err := r.Write([]byte("x")); err == nil {
		t.Error("wrote to a file opened for reading")
	}
	if _, err := w.Seek(2, io.SeekStart); err != nil {
		t.Error(err)
	}
	_, err = w.Write([]byte("xy"))
	b.must(err)
	info, err := w.Stat()
	b.must(err)
	r.Seek(0, io.SeekStart)
	if all, _ := io.ReadAll(r); string(all) != "01xy456789" || info.Size() != 10 {
		t.Errorf("after an overwrite: %q, size %d", all, info.Size())
	}
	if w.Name() != b.at("f") {
		t.Errorf("name is %q", w.Name())
	}
	b.must(r.Close())
	b.must(w.Close())
	_, err = r.Read(part)
	b.wantErr("read after close", err, fs.ErrClosed)
}

func times(t *testing.T, b *bench) {
	b.write("f", "x")
	when := time.Unix(1_000_000_000, 0)
	b.must(b.Chtimes(b.at("f"), when))
	info, err := b.Stat(b.at("f"))
	b.must(err)
	if !info.ModTime().Equal(when) {
		t.Errorf("time is %v", info.ModTime())
	}
	b.wantErr("times of nothing", b.Chtimes(b.at("absent"), when), fs.ErrNotExist)
}

func free(t *testing.T, b *bench) {
	for _, name := range []string{".", "not/there/yet"} {
		if n, err := b.Free(b.at(name)); err != nil || n <= 0 {
			t.Errorf("free: %d %v", n, err)
		}
	}
}

func together(t *testing.T, b *bench) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				name := b.at(fmt.Sprintf("%d-%d", w, i))
				err := errors.Join(b.Replace(b.at("shared"), []byte{byte(w)}, 0o600), b.Replace(name, nil, 0o600), b.Remove(name),
					b.MkdirAll(b.at("p/q/r"), 0o700))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.wantNames(".", "p/", "shared")
}

func TestFaulty(t *testing.T) {
	broken := errors.New("broken")
	run := func(fsys disk.FS) (err error) {
		if err := fsys.MkdirAll("/a/b", 0o700); err != nil {
			return err
		}
		if err := fsys.Replace("/a/b/f", []byte("1234"), 0o600); err != nil {
			return err
		}
		f, err := fsys.Open("/a/b/f")
		if err != nil {
			return err
		}
		if _, err := io.ReadAll(f); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	}
	var ops []string
	all := disk.NewFaulty(disk.NewCrashable(), func(op, path string) error {
		ops = append(ops, op)
		return nil
	})
	if err := run(all); err != nil {
		t.Fatal(err)
	}
	want := []string{"stat", "stat", "stat", "mkdir", "syncdir", "mkdir", "syncdir", "create", "write", "sync", "close", "rename", "syncdir",
		"open", "read", "read", "close"}
	if !slices.Equal(ops, want) || all.Ops() != len(want) {
		t.Errorf("operations are %q (%d), want %q", ops, all.Ops(), want)
	}
	for i, op := range want {
		n := 0
		one := disk.NewFaulty(disk.NewCrashable(), func(string, string) error {
			if n++; n == i+1 {
				return broken
			}
			return nil
		})
		if err := run(one); !errors.Is(err, broken) {
			t.Errorf("operation %d (%s) fails: got %v", i+1, op, err)
		}
	}
}

// A write that fails may have written a part, and a failed Replace leaves the old content and nothing beside it.
func TestFaultyWrite(t *testing.T) {
	broken, fail := errors.New("broken"), ""
	b := &bench{t, disk.NewFaulty(disk.NewCrashable(), func(op, _ string) error {
		if op == fail {
			return broken
		}
		return nil
	}), "/"}
	b.must(b.Replace("/f", []byte("old"), 0o600))
	for _, fail = range []string{"create", "write", "sync", "close", "rename"} {
		b.wantErr(fail, b.Replace("/f", []byte("new"), 0o600), broken)
	}
	fail = ""
	b.wantNames(".", "f")
	if got := b.read("f"); got != "old" {
		t.Errorf("after failed replaces the file is %q", got)
	}
	f, err := b.Create("/g", 0o600)
	b.must(err)
	fail = "write"
	if n, err := f.Write([]byte("12345678")); n != 4 || !errors.Is(err, broken) {
		t.Errorf("failing write: %d %v", n, err)
	}
}

// What may be there after a power loss, over all seeds: everything on the list turns up, nothing else does.
func TestPowerLoss(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(b *bench)
		want []string
	}{
		{"synced file, unsynced name", func(b *bench) { b.write("f", "x") }, []string{"", "f=x"}},
		{"synced name", func(b *bench) { b.write("f", "x"); b.must(b.SyncDir("/")) }, []string{"f=x"}},
		{"unsynced bytes", func(b *bench) {
			f, _ := b.Create("/f", 0o600)
			f.Write([]byte("x"))
			b.must(b.SyncDir("/"))
		}, []string{"f=", "f=\x00", "f=x"}},
		{"replace", func(b *bench) {
			b.must(b.Replace("/f", []byte("x"), 0o600))
			b.must(b.Replace("/f", []byte("y"), 0o600))
		}, []string{"f=y"}},
		{"rename over, unsynced", func(b *bench) {
			b.must(b.Replace("/f", []byte("x"), 0o600))
			b.write("g", "y")
			b.must(b.SyncDir("/"))
			b.must(b.Rename("/g", "/f"))
		}, []string{"f=x g=y", "f=y"}},
		{"remove, unsynced", func(b *bench) { b.must(b.Replace("/f", nil, 0o600)); b.must(b.Remove("/f")) }, []string{"", "f="}},
		{"remove, synced", func(b *bench) { b.must(b.Replace("/f", nil, 0o600)); b.must(b.Remove("/f")); b.must(b.SyncDir("/")) }, []string{""}},
		{"names in any order", func(b *bench) { b.write("f", ""); b.write("g", "") }, []string{"", "f=", "f= g=", "g="}},
		{"new directory, only inside synced", func(b *bench) {
			b.must(b.Mkdir("/d", 0o700))
			b.write("d/f", "x")
			b.must(b.SyncDir("/d"))
		}, []string{"", "d(f=x)"}},
		{"made with parents", func(b *bench) { b.must(b.MkdirAll("/d/e", 0o700)) }, []string{"d(e())"}},
		{"rename across, unsynced", func(b *bench) { acrossFile(b) }, []string{"d(f=x) e()", "d() e(f=x)"}},
		{"rename across, source synced", func(b *bench) { acrossFile(b); b.must(b.SyncDir("/d")) }, []string{"d() e(f=x)"}},
		{"rename across, target synced", func(b *bench) { acrossFile(b); b.must(b.SyncDir("/e")) }, []string{"d() e(f=x)", "d(f=x) e(f=x)"}},
		{"directory renamed across, target synced", func(b *bench) {
			b.must(b.MkdirAll("/d/f", 0o700))
			b.must(b.MkdirAll("/e", 0o700))
			b.must(b.Rename("/d/f", "/e/f"))
			b.must(b.SyncDir("/e"))
		}, []string{"d() e(f())"}},
		{"later name wins over an earlier pending one", func(b *bench) {
			b.must(b.MkdirAll("/d", 0o700))
			b.write("f", "old")
			b.must(b.Rename("/f", "/d/f"))
			b.write("f", "new")
			b.must(b.SyncDir("/"))
		}, []string{"d(f=old) f=new"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := disk.NewCrashable()
			test.do(&bench{t, fsys, "/"})
			seen := map[string]bool{}
			for seed := range uint64(60) {
				seen[show(t, fsys.AfterPowerLoss(seed), "/")] = true
			}
			for _, want := range test.want {
				if !seen[want] {
					t.Errorf("never found %q", want)
				}
				delete(seen, want)
			}
			for got := range seen {
				t.Errorf("found %q", got)
			}
		})
	}
}

func acrossFile(b *bench) {
	b.must(b.MkdirAll("/d", 0o700))
	b.must(b.MkdirAll("/e", 0o700))
	b.must(b.Replace("/d/f", []byte("x"), 0o600))
	b.must(b.Rename("/d/f", "/e/f"))
}

func show(t *testing.T, fsys disk.FS, dir string) string {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for i, e := range entries {
		if i > 0 {
			out = append(out, ' ')
		}
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			out = fmt.Appendf(out, "%s(%s)", e.Name(), show(t, fsys, name))
			continue
		}
		data, err := fsys.ReadFile(name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		out = fmt.Appendf(out, "%s=%s", e.Name(), data)
	}
	return string(out)
}

// Synced bytes stay, block by block, whatever was written over the rest since.
func TestPowerLossBytes(t *testing.T) {
	fsys := disk.NewCrashable()
	f, err := fsys.Create("/f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := bytes.Repeat([]byte("o"), 1024), bytes.Repeat([]byte("n"), 1024)
	f.Write(old)
	if err := errors.Join(f.Sync(), fsys.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	f.Seek(512, io.SeekStart)
	f.Write(fresh)
	for seed := range uint64(50) {
		got, err := fsys.AfterPowerLoss(seed).ReadFile("/f", 4096)
		if err != nil || len(got) < 1024 || !bytes.Equal(got[:512], old[:512]) {
			t.Fatalf("seed %d: %d bytes, %v", seed, len(got), err)
		}
		for at := 512; at < len(got); at += 512 {
			block := got[at:min(at+512, len(got))]
			wasSynced := at < 1024 && bytes.Equal(block, old[:512])
			if !wasSynced && !bytes.Equal(block, fresh[:512]) && !bytes.Equal(block, make([]byte, 512)) {
				t.Errorf("seed %d: block at %d is neither old nor new nor zero: %q", seed, at, block[:8])
			}
		}
	}
}

func TestCutBefore(t *testing.T) {
	run := func(fsys *disk.Crashable) error {
		return errors.Join(fsys.MkdirAll("/a", 0o700), fsys.Replace("/a/f", []byte("x"), 0o600))
	}
	whole := disk.NewCrashable()
	if err := run(whole); err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut <= whole.Ops(); cut++ {
		fsys := disk.NewCrashable()
		fsys.CutBefore(cut)
		if err := run(fsys); !errors.Is(err, disk.ErrPowerCut) {
			t.Errorf("cut before %d of %d: %v", cut, whole.Ops(), err)
		}
		if fsys.Ops() != cut-1 {
			t.Errorf("cut before %d: %d operations happened", cut, fsys.Ops())
		}
		if _, err := fsys.Stat("/"); !errors.Is(err, disk.ErrPowerCut) {
			t.Errorf("reading without power: %v", err)
		}
		show(t, fsys.AfterPowerLoss(1), "/")
	}
}

// A link is followed where people name files, and not where a message is expected.
func TestOpenFollowsNoLinks(t *testing.T) {
	dir := t.TempDir()
	file, link := path.Join(dir, "file"), path.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("secret"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if f, err := disk.OS().Open(link); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a link: %v, %v", f, err)
	}
	if b, err := disk.OS().ReadFile(link, 100); string(b) != "secret" || err != nil {
		t.Errorf("ReadFile: %q, %v", b, err)
	}
	f, err := disk.OS().Open(file)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestLock(t *testing.T) {
	name := path.Join(t.TempDir(), "lock")
	first, err := disk.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Lock(name); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	again, err := disk.Lock(name)
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	again.Close()
	if _, err := disk.Lock(path.Join(name, "below")); err == nil || errors.Is(err, disk.ErrLocked) {
		t.Errorf("lock below a file: %v", err)
	}
}
