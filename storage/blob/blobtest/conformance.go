// Package blobtest is what any implementation of storage/blob must pass.
package blobtest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/storage/blob"
)

// Conformance runs every test on stores that open makes on a file system of its own: newFS returns one and a directory on
// it that exists. Opening the same root a second time shows what is there.
func Conformance(t *testing.T, newFS func(t *testing.T) (disk.FS, string), open func(fsys disk.FS, root string) (blob.Store, error)) {
	tests := []struct {
		name string
		run  func(t *testing.T, b *bench)
	}{
		{"folders", folders},
		{"folder errors", folderErrors},
		{"state and meta", stateAndMeta},
		{"messages", messages},
		{"message errors", messageErrors},
		{"copies share bytes, not fate", copies},
		{"moves", moves},
		{"open file survives", openSurvives},
		{"times", times},
		{"names that lead out", escapes},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys, dir := newFS(t)
			b := &bench{t: t, fs: fsys, dir: dir, open: open}
			b.reopen()
			test.run(t, b)
		})
	}
}

type bench struct {
	t    *testing.T
	fs   disk.FS
	dir  string
	open func(disk.FS, string) (blob.Store, error)
	blob.Store
}

func (b *bench) reopen() {
	b.t.Helper()
	s, err := b.open(b.fs, b.dir+"/account")
	b.must(err)
	b.Store = s
}

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

// source makes a file with a message in it, outside the store.
func (b *bench) source(body string) string {
	b.t.Helper()
	name := b.dir + "/source"
	b.must(b.fs.RemoveAll(name))
	f, err := b.fs.Create(name, 0o600)
	b.must(err)
	_, err = f.Write([]byte(body))
	b.must(err)
	b.must(f.Sync())
	b.must(f.Close())
	return name
}

func (b *bench) body(folder string, e blob.Entry) string {
	b.t.Helper()
	f, err := b.Open(folder, e)
	b.must(err)
	defer f.Close()
	data, err := io.ReadAll(f)
	b.must(err)
	return string(data)
}

func (b *bench) wantFolders(want ...string) {
	b.t.Helper()
	got, err := b.Folders()
	b.must(err)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		b.t.Errorf("folders are %q, want %q", got, want)
	}
}

func (b *bench) wantEntries(folder string, want ...blob.Entry) {
	b.t.Helper()
	var got []blob.Entry
	b.must(b.List(folder, func(e blob.Entry) error {
		got = append(got, e)
		return nil
	}))
	order := func(x, y blob.Entry) int { return strings.Compare(x.Stem, y.Stem) }
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		b.t.Errorf("folder %q holds %v, want %v", folder, got, want)
	}
}

func stem(id int, body string) string {
	return blob.FormatName(blob.Name{Seconds: 1_000_000_000 + int64(id), ID: uint64(id), Host: "h.test", Size: int64(len(body)), UID: uint32(id)})
}

func folders(t *testing.T, b *bench) {
	b.wantFolders("")
	b.must(b.Create(".Sent", []byte("one")))
	b.must(b.Create(".Sent.2024", []byte("two")))
	b.must(b.Create(".a&AC4-b", nil))
	b.wantFolders("", ".Sent", ".Sent.2024", ".a&AC4-b")
	b.must(b.Rename(".Sent", ".Gone"))
	b.must(b.Remove(".a&AC4-b"))
	b.reopen()
	b.wantFolders("", ".Gone", ".Sent.2024")
	state, err := b.State(".Gone")
	if err != nil || string(state) != "one" {
		t.Errorf("state after a rename: %q %v, want one", state, err)
	}
	b.must(b.Place(b.source("body"), ".Gone", blob.Entry{New: true, Stem: "1.1.h"}))
	b.must(b.Rename(".Gone", ".Sent"))
	if got := b.body(".Sent", blob.Entry{New: true, Stem: "1.1.h"}); got != "body" {
		t.Errorf("after a rename the message is %q", got)
	}
	b.must(b.Remove(".Sent"))
	b.must(b.Create(".Sent", nil))
	b.wantEntries(".Sent")
}

func folderErrors(t *testing.T, b *bench) {
	b.must(b.Create(".a", []byte("a")))
	b.must(b.Create(".b", []byte("b")))
	b.wantErr("create again", b.Create(".a", nil), fs.ErrExist)
	b.wantErr("create INBOX", b.Create("", nil), fs.ErrExist)
	b.wantErr("rename over another", b.Rename(".a", ".b"), fs.ErrExist)
	b.wantErr("rename of nothing", b.Rename(".c", ".d"), fs.ErrNotExist)
	b.wantErr("remove of nothing", b.Remove(".c"), fs.ErrNotExist)
	b.wantErr("rename INBOX", b.Rename("", ".d"), blob.ErrInbox)
	b.wantErr("rename to INBOX", b.Rename(".a", ""), blob.ErrInbox)
	b.wantErr("remove INBOX", b.Remove(""), blob.ErrInbox)
	b.wantErr("list of nothing", b.List(".c", func(blob.Entry) error { return nil }), fs.ErrNotExist)
	_, _, err := b.Times(".c")
	b.wantErr("times of nothing", err, fs.ErrNotExist)
	b.wantFolders("", ".a", ".b")
	if state, _ := b.State(".a"); string(state) != "a" {
		t.Errorf("a refused create changed the state to %q", state)
	}
}

func stateAndMeta(t *testing.T, b *bench) {
	_, err := b.State("")
	b.wantErr("INBOX without state", err, fs.ErrNotExist)
	_, err = b.Meta("subscriptions")
	b.wantErr("no such meta", err, fs.ErrNotExist)
	b.must(b.Create(".x", []byte("first")))
	for _, data := range []string{"second", "", strings.Repeat("long", blob.StateLimit/4)} {
		b.must(b.SetState(".x", []byte(data)))
		b.must(b.SetState("", []byte(data)))
		b.must(b.SetMeta("subscriptions", []byte(data)))
		b.reopen()
		x, errX := b.State(".x")
		inbox, errInbox := b.State("")
		meta, errMeta := b.Meta("subscriptions")
		b.must(errors.Join(errX, errInbox, errMeta))
		if string(x) != data || string(inbox) != data || string(meta) != data {
			t.Errorf("state and meta of %d bytes came back changed", len(data))
		}
	}
	if b.SetState(".x", bytes.Repeat([]byte("x"), blob.StateLimit+1)) == nil {
		t.Error("a state beyond its limit was taken, but could not be read")
	}
	b.wantErr("state of nothing", b.SetState(".c", nil), fs.ErrNotExist)
	b.wantEntries("")
	b.wantEntries(".x")
}

func messages(t *testing.T, b *bench) {
	b.must(b.Create(".x", nil))
	for _, folder := range []string{"", ".x"} {
		for i, e := range []blob.Entry{
			{New: true, Stem: stem(1, "body")},
			{Stem: stem(2, "body"), Info: "2,S"},
			{Stem: stem(3, "body"), Info: "2,"},
			{Stem: stem(4, "body")},
			{New: true, Stem: "1.foreign_name.host", Info: "2,FS"},
			{Stem: "odd:name:", Info: "1,x"},
		} {
			b.must(b.Place(b.source("body"), folder, e))
			if got := b.body(folder, e); got != "body" {
				t.Errorf("%v reads %q", e, got)
			}
			size, mtime, err := b.Stat(folder, e)
			b.must(err)
			if size != 4 {
				t.Errorf("%v has size %d", e, size)
			}
			if n, ours := blob.ParseName(e.Stem); ours && mtime.Unix() != n.Seconds {
				t.Errorf("%v has time %v", e, mtime)
			}
			if i > 0 {
				b.must(b.Delete(folder, e))
			}
			b.must(b.Sync(folder))
			b.must(b.Sync(folder))
		}
		b.wantEntries(folder, blob.Entry{New: true, Stem: stem(1, "body")})
	}
	stop := errors.New("stop")
	if err := b.List("", func(blob.Entry) error { return stop }); err != stop {
		t.Errorf("List returned %v, want fn's error", err)
	}
}

func messageErrors(t *testing.T, b *bench) {
	e, other := blob.Entry{New: true, Stem: "1.1.h"}, blob.Entry{New: true, Stem: "2.2.h"}
	b.must(b.Place(b.source("first"), "", e))
	b.wantErr("place again", b.Place(b.source("second"), "", e), fs.ErrExist)
	b.wantErr("place nothing", b.Place(b.dir+"/absent", "", other), fs.ErrNotExist)
	b.wantErr("place nowhere", b.Place(b.source("x"), ".c", other), fs.ErrNotExist)
	b.wantErr("delete nothing", b.Delete("", other), fs.ErrNotExist)
	b.wantErr("move nothing", b.Move("", other, blob.Entry{Stem: "2.2.h", Info: "2,"}), fs.ErrNotExist)
	b.wantErr("move nothing to itself", b.Move("", other, other), fs.ErrNotExist)
	_, err := b.Open("", other)
	b.wantErr("open nothing", err, fs.ErrNotExist)
	_, _, err = b.Stat("", other)
	b.wantErr("stat nothing", err, fs.ErrNotExist)
	if got := b.body("", e); got != "first" {
		t.Errorf("after refused operations the message is %q", got)
	}
	b.wantEntries("", e)
}

func copies(t *testing.T, b *bench) {
	b.must(b.Create(".x", nil))
	e, c := blob.Entry{New: true, Stem: "1.1.h"}, blob.Entry{Stem: "1.2.h", Info: "2,S"}
	b.must(b.Place(b.source("body"), "", e))
	b.must(b.PlaceFrom("", e, ".x", c))
	b.wantErr("copy again", b.PlaceFrom("", e, ".x", c), fs.ErrExist)
	b.wantErr("copy of nothing", b.PlaceFrom("", c, ".x", e), fs.ErrNotExist)
	b.must(b.Delete("", e))
	if got := b.body(".x", c); got != "body" {
		t.Errorf("copy reads %q after the original went", got)
	}
	b.wantEntries("")
	b.wantEntries(".x", c)
}

func moves(t *testing.T, b *bench) {
	e := blob.Entry{New: true, Stem: "1.1.h"}
	b.must(b.Place(b.source("body"), "", e))
	for _, to := range []blob.Entry{{Stem: "1.1.h", Info: "2,"}, {Stem: "1.1.h", Info: "2,FS"}, {Stem: "1.1.h,U=7", Info: "2,FS"}, {Stem: "1.1.h,U=7", Info: "2,FS"}} {
		b.must(b.Move("", e, to))
		e = to
		b.wantEntries("", e)
		b.must(b.Sync(""))
	}
	b.reopen()
	if got := b.body("", e); got != "body" {
		t.Errorf("after moves the message is %q", got)
	}
}

func openSurvives(t *testing.T, b *bench) {
	b.must(b.Create(".x", nil))
	e := blob.Entry{New: true, Stem: "1.1.h"}
	b.must(b.Place(b.source("body"), ".x", e))
	f, err := b.Open(".x", e)
	b.must(err)
	defer f.Close()
	b.must(b.Remove(".x"))
	got := make([]byte, 3)
	if n, err := f.ReadAt(got, 1); n != 3 || err != nil && err != io.EOF || string(got) != "ody" {
		t.Errorf("ReadAt of a removed message: %q %v", got[:n], err)
	}
}

func times(t *testing.T, b *bench) {
	new1, cur1, err := b.Times("")
	b.must(err)
	// File systems stamp names by a clock that ticks a few hundred times a second.
	time.Sleep(20 * time.Millisecond)
	b.must(b.Place(b.source("body"), "", blob.Entry{New: true, Stem: "1.1.h"}))
	new2, cur2, err := b.Times("")
	b.must(err)
	if new2.Equal(new1) || !cur2.Equal(cur1) {
		t.Errorf("an arrival in new: times of new %v to %v, of cur %v to %v", new1, new2, cur1, cur2)
	}
	time.Sleep(20 * time.Millisecond)
	b.must(b.Move("", blob.Entry{New: true, Stem: "1.1.h"}, blob.Entry{Stem: "1.1.h", Info: "2,"}))
	new3, cur3, err := b.Times("")
	b.must(err)
	if new3.Equal(new2) || cur3.Equal(cur2) {
		t.Errorf("a move to cur: times of new %v to %v, of cur %v to %v", new2, new3, cur2, cur3)
	}
}

func escapes(t *testing.T, b *bench) {
	for _, folder := range []string{"..", ".", "Sent", "./x", ".x/../..", "../other", ".a\x00b", "/", "new"} {
		b.wantErr("create "+folder, b.Create(folder, nil), fs.ErrInvalid)
		b.wantErr("remove "+folder, b.Remove(folder), fs.ErrInvalid)
		b.wantErr("state "+folder, b.SetState(folder, nil), fs.ErrInvalid)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a\x00"} {
		b.wantErr("place "+name, b.Place(b.source("x"), "", blob.Entry{Stem: name}), fs.ErrInvalid)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".Sent", "new", "mailsrv-mailbox"} {
		b.wantErr("meta "+name, b.SetMeta(name, nil), fs.ErrInvalid)
	}
	b.wantFolders("")
}
