package storage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// The bytes of every value, as format.go draws them. A change here is a change of the format: see the version rule.
func TestFormatBytes(t *testing.T) {
	account := accountRecord{modSeq: 300, lastMessage: 5, usage: Usage{2, 1000}, lastMailbox: 7, lastValidity: 8, logFloor: 1,
		logEntries: 2, commits: 3, host: "mx"}
	box := mailboxRecord{Mailbox: Mailbox{ID: 7, Name: "A/ü", UIDValidity: 8, UIDNext: 9, HighestModSeq: 10, Messages: 1, Unseen: 1,
		Deleted: 0, Recent: 1, Size: 300, Keywords: keywordFlag(0), Created: time.Unix(100, 0), SpecialUse: `\Sent`, ObjectID: "M1"},
		folder: ".A", ceiling: 1001, firstRecent: 9, lagging: true, newTime: -1, curTime: 1}
	p := placement{id: 5, internal: 100, saved: 101, size: 300, shown: Seen}
	odd := placement{id: 5, internal: -1, saved: -1, size: 0, inNew: true, stem: "s", info: "2,S", odd: true, shown: Seen}
	rows := []Row{{UID: 0x101, Flags: Seen, ModSeq: 12}, {UID: 0x1ff, Flags: keywordFlag(55), ModSeq: 10}}
	change := []Change{
		{ModSeq: 9, When: time.UnixMilli(1000), Kind: Expunged, Mailbox: 7, UIDs: []UIDRange{{1, 3}, {5, 5}, {1<<32 - 1, 1<<32 - 1}}},
		{ModSeq: 9, When: time.UnixMilli(1000), Kind: MailboxRenamed, Mailbox: 7, Name: "n", OldName: "o"},
		{ModSeq: 9, When: time.UnixMilli(1000), Kind: SubscriptionChanged, Name: "n"},
	}
	for _, c := range []struct {
		name  string
		value any
		bytes []byte
		want  string
		back  func(b []byte) (any, error)
	}{
		{"account", account, account.encode(), "ac02 05 02 e807 07 08 01 02 03 026d78",
			func(b []byte) (any, error) { return decodeAccount(b) }},
		{"mailbox", box, box.encode(), "01 04412fc3bc 022e41 08 09 e907 0a 01 01 00 01 09 ac02 8002 c801 055c53656e74 024d31 01 02",
			func(b []byte) (any, error) { return decodeMailbox(keyMailbox(7), b) }},
		{"placement", p, p.append(nil), "00 05 c801 02 ac02 01", func(b []byte) (any, error) { return decodePlacement(b) }},
		{"odd placement", odd, odd.append(nil), "07 05 01 00 00 01 0173 03322c53",
			func(b []byte) (any, error) { return decodePlacement(b) }},
		{"rows", &chunk{1, rows}, appendRows(nil, rows), "01 0a 01 01 02 ff 80808080808080808001 00",
			func(b []byte) (any, error) { return decodeRows(1, b) }},
		{"change", change, appendChange(nil, time.UnixMilli(1000), change),
			"e807 03 03 07 03 01 02 02 00 faffffff0f 00 06 07 016e 016f 07 00 016e",
			func(b []byte) (any, error) { return decodeChange(keyChange(9), b) }},
	} {
		if got, want := fmt.Sprintf("%x", c.bytes), strings.ReplaceAll(c.want, " ", ""); got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
		back, err := c.back(c.bytes)
		if err != nil || !reflect.DeepEqual(back, c.value) {
			t.Errorf("%s: %+v comes back as %+v, %v", c.name, c.value, back, err)
		}
		for n := range c.bytes {
			if _, err := c.back(c.bytes[:n]); !errors.Is(err, errDamaged) {
				t.Errorf("%s cut to %d bytes: %v", c.name, n, err)
			}
		}
		if _, err := c.back(append(slices.Clone(c.bytes), 0)); !errors.Is(err, errDamaged) {
			t.Errorf("%s with a byte more: %v", c.name, err)
		}
	}
}

// Whatever lies in the index, decoding it ends, and allocates no more than in proportion.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x00\x05\xc8\x01\x02\xac\x02\x01"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePlacement(b); err == nil {
			if q, err := decodePlacement(p.append(nil)); err != nil || q != p {
				t.Errorf("%+v comes back as %+v, %v", p, q, err)
			}
		}
		_, _ = decodeAccount(b)
		_, _ = decodeMailbox(keyMailbox(1), b)
		_, _ = decodeRows(1, b)
		if events, err := decodeChange(keyChange(1), b); err == nil && len(events) > len(b) {
			t.Errorf("%d events from %d bytes", len(events), len(b))
		}
		if r, ok := parseState(b); ok {
			if again, ok := parseState(r.state()); !ok || again.Name != r.Name || again.ID != r.ID || again.ceiling != r.ceiling {
				t.Errorf("state %+v comes back as %+v", r, again)
			}
		}
		parseKeywords(b)
	})
}

func TestState(t *testing.T) {
	r := mailboxRecord{Mailbox: Mailbox{ID: 7, Name: "A/\"ü\"\n", UIDValidity: 8, Created: time.Unix(100, 0), SpecialUse: `\Sent`,
		ObjectID: "M1"}, ceiling: 1001}
	if got, ok := parseState(append(r.state(), "later-key something\n"...)); !ok || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, bad := range []string{"", "mailsrv-mailbox 2\n", "mailsrv-mailbox 1\n", strings.Replace(string(r.state()), "id 7", "id x", 1),
		strings.Replace(string(r.state()), "uidnext 1001", "uidnext 99999999999", 1), string(r.state()[:40])} {
		if _, ok := parseState([]byte(bad)); ok {
			t.Errorf("took %q", bad)
		}
	}
	got := parseKeywords([]byte("0 $A\nnonsense\n2 c\n1 late\n99 far\n3 d\n"))
	if want := []string{"$A", "lost-keyword-1", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// golden is a data folder of each format version, and what a client sees of it. What an old version has written must be
// read for ever. It is made by `go test -run TestGolden -golden`, once, when a version is new.
const golden = "testdata/v1"

var writeGolden = flag.Bool("golden", false, "write the golden store of the present format version anew")

func TestGolden(t *testing.T) {
	if *writeGolden {
		makeGolden(t)
	}
	dir := t.TempDir()
	unpack(t, golden+".tar.gz", dir)
	want, err := os.ReadFile(golden + ".dump")
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"as it was", "again", "rebuilt"} {
		s := testStore(t, Options{Dir: dir, Hostname: "other"})
		a := openAlice(t, s)
		checkAccount(t, a)
		if got := dump(t, a); got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
		}
		if n := len(changes(t, a, 0)); what == "as it was" && n != 24 {
			t.Errorf("the log has %d changes", n)
		}
		a.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if what == "again" {
			if err := os.Remove(a.indexPath()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func changes(t *testing.T, a *Account, since ModSeq) (list []Change) {
	t.Helper()
	for c, err := range a.Changes(since) {
		if err != nil {
			if errors.Is(err, ErrTooOld) {
				return nil
			}
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// makeGolden writes a small store with one of everything.
func makeGolden(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2024, 6, 3, 10, 0, 0, 0, time.UTC)
	s := testStore(t, Options{Dir: dir, Hostname: "mx.example.test", Now: func() time.Time { now = now.Add(time.Second); return now }})
	a := newAccount(t, s, alice)
	for i, flags := range [][]string{nil, {`\Seen`, "$Forwarded"}, {`\Deleted`}} {
		add(t, a, inbox, mailText(fmt.Sprint("m", i+1)), flags...)
	}
	steps := []func() error{
		func() error { _, err := a.CreateMailbox("Entwürfe/2024.06", ""); return err },
		func() error { _, err := a.Copy(1, []UID{1, 2}, "Entwürfe/2024.06"); return err },
		func() error { _, err := a.Move(1, []UID{1}, "Archive"); return err },
		func() error { _, _, err := a.Expunge(1, nil, true); return err },
		func() error {
			_, err := a.Store(1, []UID{2}, FlagChange{Op: AddFlags, Flags: []string{`\Flagged`, "ProjectX"}})
			return err
		},
		func() error { return a.RenameMailbox("Junk", "Spam") },
		func() error { return a.Subscribe("Entwürfe/2024.06", true) },
	}
	for _, do := range steps {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	text := dump(t, a)
	a.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	pack(t, dir, golden+".tar.gz")
	if err := os.WriteFile(golden+".dump", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, dir, to string) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), z.Close(), os.WriteFile(to, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, from, dir string) {
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else if data, rerr := io.ReadAll(r); rerr != nil {
			err = rerr
		} else {
			err = errors.Join(os.WriteFile(path, data, 0o600), os.Chtimes(path, h.ModTime, h.ModTime))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A store of a newer version, or one that is damaged, is refused with an error that says so; nothing is changed.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(tx kv.Tx) error
		want   error
	}{
		{"newer", func(tx kv.Tx) error { return tx.Put(keyVersion(), []byte{formatVersion + 1}) }, ErrNewerFormat},
		{"no version", func(tx kv.Tx) error { return tx.Delete(keyVersion()) }, errDamaged},
		{"account", func(tx kv.Tx) error { return tx.Put(keyAccount(), []byte{1}) }, errDamaged},
		{"mailbox", func(tx kv.Tx) error { return tx.Put(keyMailbox(1), []byte{1}) }, errDamaged},
	} {
		s := testStore(t, Options{})
		if err := s.Create(alice); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(s.root, "example.test", "alice", indexFile)
		db, err := kv.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(c.damage), db.Close()); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		if _, err := s.Account(alice); !errors.Is(err, c.want) || !strings.Contains(err.Error(), alice) {
			t.Errorf("%s: %v", c.name, err)
		}
		after, _ := os.ReadFile(path)
		if !bytes.Equal(before, after) {
			t.Errorf("%s: the index was changed", c.name)
		}
		if err := os.Remove(path); err != nil { // the remedy
			t.Fatal(err)
		}
	}
}

func TestPlacementEntry(t *testing.T) {
	p := placement{id: 5, internal: 100, size: 300}
	stem := ourStem(&p, "mx", 9)
	for _, e := range []blob.Entry{
		{New: true, Stem: stem}, {Stem: stem, Info: "2,"}, {Stem: stem, Info: "2,FS"}, {Stem: stem, Info: "2,Pa"}, {Stem: stem},
		{New: true, Stem: stem, Info: "2,S"}, {Stem: strings.Replace(stem, "mx", "old", 1), Info: "2,S"},
	} {
		q := p
		q.showsAt(e, "mx", 9)
		r, err := decodePlacement(q.append(nil))
		if err != nil || r.entry("mx", 9) != e {
			t.Errorf("%+v becomes %+v, %v", e, r.entry("mx", 9), err)
		}
	}
}
