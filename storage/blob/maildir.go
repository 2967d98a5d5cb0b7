package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mailsrv/internal/disk"
)

// On disk:
//
//	<root>/tmp new cur              INBOX
//	<root>/mailsrv-mailbox          INBOX's state
//	<root>/<meta name>              the account's small files
//	<root>/.Sent.2024/tmp new cur   a folder, with
//	<root>/.Sent.2024/maildirfolder an empty file that tells Maildir++ programs that this is no account of its own
//	<root>/.Sent.2024/mailsrv-mailbox
//	<root>/tmp/mailsrv-*            a folder being made, a folder being removed, a message being copied
//
// A folder is made and removed under tmp and renamed into or out of its place, so that it is there whole or not at all.

const (
	stateFile  = "mailsrv-mailbox"
	markerFile = "maildirfolder"
	tempPrefix = "mailsrv-"

	dirPerm  = 0o700
	filePerm = 0o600
)

// OpenMaildir opens the Maildir++ at root, makes it if it is not there, and clears away what a crash left half made or
// half removed.
func OpenMaildir(fsys disk.FS, root string) (Store, error) {
	m := &maildir{fs: fsys, root: root, dirty: map[string]bool{}}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := fsys.MkdirAll(path.Join(root, sub), dirPerm); err != nil {
			return nil, fmt.Errorf("open maildir: %w", err)
		}
	}
	left, err := fsys.ReadDir(path.Join(root, "tmp"))
	if err != nil {
		return nil, fmt.Errorf("open maildir: %w", err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := fsys.RemoveAll(path.Join(root, "tmp", e.Name())); err != nil {
				return nil, fmt.Errorf("open maildir: clear tmp: %w", err)
			}
		}
	}
	return m, nil
}

type maildir struct {
	fs    disk.FS
	root  string
	temps atomic.Uint64 // names under tmp

	mu    sync.Mutex
	dirty map[string]bool // directories with names that are not synced yet
}

func (m *maildir) dir(folder string) string { return path.Join(m.root, folder) }

func (m *maildir) messageDir(folder string, e Entry) string {
	if e.New {
		return path.Join(m.root, folder, "new")
	}
	return path.Join(m.root, folder, "cur")
}

func (m *maildir) path(folder string, e Entry) string {
	return path.Join(m.messageDir(folder, e), e.fileName())
}

func (m *maildir) temp() string {
	return path.Join(m.root, "tmp", tempPrefix+strconv.FormatUint(m.temps.Add(1), 36))
}

// checkFolder refuses what would lead out of the account.
func checkFolder(folder string) error {
	if folder == "" {
		return nil
	}
	if folder[0] != '.' || folder == "." || folder == ".." || strings.ContainsAny(folder, "/\x00") {
		return fmt.Errorf("blob: folder %.100q: %w", folder, fs.ErrInvalid)
	}
	return nil
}

func checkEntry(e Entry) error {
	name := e.fileName()
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("blob: message %.100q: %w", name, fs.ErrInvalid)
	}
	return nil
}

func check(folder string, entries ...Entry) error {
	if err := checkFolder(folder); err != nil {
		return err
	}
	for _, e := range entries {
		if err := checkEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *maildir) Folders() ([]string, error) {
	entries, err := m.fs.ReadDir(m.root)
	if err != nil {
		return nil, err
	}
	folders := []string{""}
	for _, e := range entries {
		if e.IsDir() && checkFolder(e.Name()) == nil {
			folders = append(folders, e.Name())
		}
	}
	return folders, nil
}

func (m *maildir) Create(folder string, state []byte) error {
	if err := checkFolder(folder); err != nil {
		return err
	}
	if _, err := m.fs.Stat(m.dir(folder)); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("create folder %s: %w", folder, err)
	}
	temp := m.temp()
	err := m.build(temp, state)
	if err == nil {
		err = m.fs.Rename(temp, m.dir(folder))
	}
	if err != nil {
		m.fs.RemoveAll(temp) // or when the account is opened next
		return fmt.Errorf("create folder %s: %w", folder, err)
	}
	return m.fs.SyncDir(m.root)
}

func (m *maildir) build(dir string, state []byte) error {
	if err := m.fs.Mkdir(dir, dirPerm); err != nil {
		return err
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := m.fs.Mkdir(path.Join(dir, sub), dirPerm); err != nil {
			return err
		}
	}
	if err := m.write(path.Join(dir, markerFile), nil); err != nil {
		return err
	}
	if err := m.write(path.Join(dir, stateFile), state); err != nil {
		return err
	}
	return m.fs.SyncDir(dir)
}

// write makes a new file, synced if there is anything in it.
func (m *maildir) write(name string, data []byte) error {
	f, err := m.fs.Create(name, filePerm)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if _, err = f.Write(data); err == nil {
			err = f.Sync()
		}
	}
	return errors.Join(err, f.Close())
}

func (m *maildir) Remove(folder string) error {
	if folder == "" {
		return ErrInbox
	}
	if err := checkFolder(folder); err != nil {
		return err
	}
	temp := m.temp()
	if err := m.fs.Rename(m.dir(folder), temp); err != nil {
		return fmt.Errorf("remove folder %s: %w", folder, err)
	}
	m.forget(folder)
	if err := m.fs.SyncDir(m.root); err != nil {
		return err
	}
	return m.fs.RemoveAll(temp)
}

func (m *maildir) Rename(from, to string) error {
	if from == "" || to == "" {
		return ErrInbox
	}
	if err := errors.Join(checkFolder(from), checkFolder(to)); err != nil {
		return err
	}
	if _, err := m.fs.Stat(m.dir(to)); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("rename folder %s to %s: %w", from, to, err)
	}
	// What is not synced yet is found under the new name no more.
	if err := m.Sync(from); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.fs.Rename(m.dir(from), m.dir(to)); err != nil {
		return fmt.Errorf("rename folder %s to %s: %w", from, to, err)
	}
	return m.fs.SyncDir(m.root)
}

func (m *maildir) State(folder string) ([]byte, error) {
	if err := checkFolder(folder); err != nil {
		return nil, err
	}
	return m.fs.ReadFile(path.Join(m.dir(folder), stateFile), StateLimit)
}

func (m *maildir) SetState(folder string, data []byte) error {
	if err := checkFolder(folder); err != nil {
		return err
	}
	if len(data) > StateLimit {
		return fmt.Errorf("blob: state of %s has %d bytes, more than %d", folder, len(data), StateLimit)
	}
	return m.fs.Replace(path.Join(m.dir(folder), stateFile), data, filePerm)
}

func checkMeta(name string) error {
	switch name {
	case "", "tmp", "new", "cur", stateFile:
	default:
		if name[0] != '.' && !strings.ContainsAny(name, "/\x00") {
			return nil
		}
	}
	return fmt.Errorf("blob: file %q: %w", name, fs.ErrInvalid)
}

func (m *maildir) Meta(name string) ([]byte, error) {
	if err := checkMeta(name); err != nil {
		return nil, err
	}
	return m.fs.ReadFile(path.Join(m.root, name), MetaLimit)
}

func (m *maildir) SetMeta(name string, data []byte) error {
	if err := checkMeta(name); err != nil {
		return err
	}
	if len(data) > MetaLimit {
		return fmt.Errorf("blob: %s has %d bytes, more than %d", name, len(data), MetaLimit)
	}
	return m.fs.Replace(path.Join(m.root, name), data, filePerm)
}

func (m *maildir) Place(src string, folder string, e Entry) error {
	if err := check(folder, e); err != nil {
		return err
	}
	target := m.path(folder, e)
	m.touch(m.messageDir(folder, e))
	err := m.fs.Link(src, target)
	if mustCopy(err) {
		err = m.copy(src, target)
	}
	if err != nil {
		return fmt.Errorf("place message: %w", err)
	}
	if n, ours := ParseName(e.Stem); ours {
		// For people and programs that look at the file; we read the date from the name.
		return m.fs.Chtimes(target, time.Unix(n.Seconds, 0))
	}
	return nil
}

func (m *maildir) PlaceFrom(fromFolder string, from Entry, folder string, e Entry) error {
	if err := check(fromFolder, from); err != nil {
		return err
	}
	return m.Place(m.path(fromFolder, from), folder, e)
}

// mustCopy reports whether the file system, not the caller, is why there is no link: another device, 65,000 links on ext4,
// no hard links at all.
func mustCopy(err error) bool {
	for _, no := range []error{syscall.EXDEV, syscall.EMLINK, syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

func (m *maildir) copy(src, target string) error {
	temp := m.temp()
	err := m.copyBytes(src, temp)
	if err == nil {
		if _, err = m.fs.Stat(target); err == nil {
			err = &fs.PathError{Op: "copy", Path: target, Err: fs.ErrExist}
		} else if errors.Is(err, fs.ErrNotExist) {
			err = m.fs.Rename(temp, target)
		}
	}
	if err != nil {
		m.fs.Remove(temp) // or when the account is opened next
	}
	return err
}

func (m *maildir) copyBytes(src, target string) error {
	in, err := m.fs.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := m.fs.Create(target, filePerm)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func (m *maildir) Move(folder string, from, to Entry) error {
	if err := check(folder, from, to); err != nil {
		return err
	}
	if from == to {
		_, err := m.fs.Stat(m.path(folder, from))
		return err
	}
	m.touch(m.messageDir(folder, from))
	m.touch(m.messageDir(folder, to))
	return m.fs.Rename(m.path(folder, from), m.path(folder, to))
}

func (m *maildir) Delete(folder string, e Entry) error {
	if err := check(folder, e); err != nil {
		return err
	}
	m.touch(m.messageDir(folder, e))
	return m.fs.Remove(m.path(folder, e))
}

// touch notes that a directory is about to change. Before, not after: a sync that runs in between costs one too many.
func (m *maildir) touch(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirty[dir] = true
}

func (m *maildir) forget(folder string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.dirty, m.messageDir(folder, Entry{New: true}))
	delete(m.dirty, m.messageDir(folder, Entry{}))
}

// Sync syncs the targets of moves first: cur, where everything goes, before new, where it comes from.
func (m *maildir) Sync(folder string) error {
	if err := checkFolder(folder); err != nil {
		return err
	}
	m.mu.Lock() // until the end: who finds nothing to sync must not return before it is synced
	defer m.mu.Unlock()
	for _, e := range []Entry{{New: false}, {New: true}} {
		dir := m.messageDir(folder, e)
		if !m.dirty[dir] {
			continue
		}
		if err := m.fs.SyncDir(dir); err != nil {
			return err
		}
		delete(m.dirty, dir)
	}
	return nil
}

func (m *maildir) Open(folder string, e Entry) (disk.File, error) {
	if err := check(folder, e); err != nil {
		return nil, err
	}
	return m.fs.Open(m.path(folder, e))
}

func (m *maildir) Stat(folder string, e Entry) (size int64, mtime time.Time, err error) {
	if err := check(folder, e); err != nil {
		return 0, time.Time{}, err
	}
	info, err := m.fs.Stat(m.path(folder, e))
	if err != nil {
		return 0, time.Time{}, err
	}
	return info.Size(), info.ModTime(), nil
}

// List reads new before cur: a message on its way from one to the other may come twice, but is not missed.
func (m *maildir) List(folder string, fn func(Entry) error) error {
	if err := checkFolder(folder); err != nil {
		return err
	}
	for _, inNew := range []bool{true, false} {
		dir := m.messageDir(folder, Entry{New: inNew})
		files, err := m.fs.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			// No symbolic links: one could show the account's owner any file of the machine.
			if strings.HasPrefix(f.Name(), ".") || !f.Type().IsRegular() {
				continue
			}
			if err := fn(entryOf(f.Name(), inNew)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *maildir) Times(folder string) (new, cur time.Time, err error) {
	if err := checkFolder(folder); err != nil {
		return time.Time{}, time.Time{}, err
	}
	var times [2]time.Time
	for i, inNew := range []bool{true, false} {
		info, err := m.fs.Stat(m.messageDir(folder, Entry{New: inNew}))
		if err != nil {
			return time.Time{}, time.Time{}, err
		}
		times[i] = info.ModTime()
	}
	return times[0], times[1], nil
}
