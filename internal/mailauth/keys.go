package mailauth

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"mailsrv/internal/disk"
)

// Keys are on disk, a folder a domain:
//
//	<dir>/<domain>/<selector>.key   PKCS #8 in PEM, mode 0600
//	<dir>/<domain>/<selector>.txt   the record to publish, as a line of a zone file
//	<dir>/<domain>/signing          the selectors that sign, one a line; without this file all do
//
// A key that does not sign, and whose record stays published, lets mail that is still under way be verified: that is how
// keys change (RFC 6376 section 3.1). Whoever changes a folder changes its modification time, by which a running server
// notices.

// Algorithms of keys.
const (
	RSA     = "rsa"     // 2048 bits: what everybody can verify
	Ed25519 = "ed25519" // RFC 8463: short, quick, and not yet for everybody
)

const (
	rsaBits     = 2048 // RFC 8301 section 3.2; 4096 would not fit into what many DNS interfaces take
	keyLimit    = 16 << 10
	maxSelector = 63
)

// Errors of Keys.
var (
	ErrNoKey     = errors.New("no such key")
	ErrKeyExists = errors.New("there is a key of that selector already")
	ErrLastKey   = errors.New("that would leave no key to sign with")
)

// Keys are the DKIM keys of all domains. Safe for use by several goroutines.
type Keys struct {
	fs  disk.FS
	dir string

	mu     sync.Mutex
	loaded map[string]loadedKeys // by domain
}

type loadedKeys struct {
	changed time.Time // of the folder
	settled bool      // changed is so long ago that a later change has a later time
	keys    []Key
}

// Key is one key pair.
type Key struct {
	Domain, Selector string
	Algorithm        string // RSA or Ed25519
	Created          time.Time
	Signs            bool // else it is only still published

	signer crypto.Signer
	record string
}

// Name is where the record belongs: "selector._domainkey.domain".
func (k *Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// Record is the TXT record's text, unquoted.
func (k *Key) Record() string { return k.record }

// Public is an *rsa.PublicKey or an ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.signer.Public() }

// Matches reports whether a published record has this key.
func (k *Key) Matches(record string) bool {
	public, err := ParseRecord(record)
	if err != nil {
		return false
	}
	same, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && same.Equal(public)
}

// OpenKeys returns the keys below a folder, which need not exist. Nothing is read yet.
func OpenKeys(fs disk.FS, dir string) *Keys {
	return &Keys{fs: fs, dir: dir, loaded: make(map[string]loadedKeys)}
}

// New makes a key and puts it on disk. It signs at once if it is the domain's first of its algorithm; else it waits for
// [Keys.Use], so that its record can be published first.
func (k *Keys) New(domain, selector, algorithm string) (Key, error) {
	if err := errors.Join(checkName("domain", domain, 253), checkName("selector", selector, maxSelector)); err != nil {
		return Key{}, err
	}
	others, err := k.List(domain)
	if err != nil {
		return Key{}, err
	}
	first := true
	for _, o := range others {
		if o.Selector == selector {
			return Key{}, fmt.Errorf("%s: %w", o.Name(), ErrKeyExists)
		}
		first = first && (o.Algorithm != algorithm || !o.Signs)
	}
	key := Key{Domain: domain, Selector: selector, Algorithm: algorithm, Signs: first}
	if err := k.generate(&key); err != nil {
		return Key{}, err
	}
	signing := selectorsThatSign(others)
	if first {
		signing = append(signing, selector)
	}
	return key, k.write(&key, signing)
}

func (k *Keys) generate(key *Key) (err error) {
	switch key.Algorithm {
	case RSA:
		key.signer, err = rsa.GenerateKey(rand.Reader, rsaBits)
	case Ed25519:
		_, key.signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return fmt.Errorf("no such algorithm as %.20q: there are %q and %q", key.Algorithm, RSA, Ed25519)
	}
	if err == nil {
		key.record, err = record(key.Public())
	}
	return err
}

// write puts the list of who signs first: a key that is not yet there is passed over, one that is not listed does not sign
// before it should.
func (k *Keys) write(key *Key, signing []string) error {
	folder := filepath.Join(k.dir, key.Domain)
	if err := k.fs.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("DKIM keys: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key.signer)
	if err != nil {
		return err
	}
	if err := k.writeSigning(key.Domain, signing); err != nil {
		return err
	}
	base := filepath.Join(folder, key.Selector)
	line := key.Name() + ". IN TXT " + ZoneText(key.record) + "\n"
	if err := k.fs.Replace(base+".txt", []byte(line), 0o600); err != nil {
		return fmt.Errorf("DKIM key: %w", err)
	}
	if err := k.fs.Replace(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("DKIM key: %w", err)
	}
	return nil
}

func (k *Keys) writeSigning(domain string, selectors []string) error {
	text := ""
	for _, s := range selectors {
		text += s + "\n"
	}
	if err := k.fs.Replace(filepath.Join(k.dir, domain, "signing"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("DKIM keys: %w", err)
	}
	return nil
}

// Use lets a key sign in place of the domain's others of its algorithm, which stay, so that they stay published.
func (k *Keys) Use(domain, selector string) error {
	all, err := k.List(domain)
	if err != nil {
		return err
	}
	chosen := slices.IndexFunc(all, func(key Key) bool { return key.Selector == selector })
	if chosen < 0 {
		return fmt.Errorf("%s._domainkey.%s: %w", selector, domain, ErrNoKey)
	}
	signing := []string{selector}
	for _, key := range all {
		if key.Signs && key.Algorithm != all[chosen].Algorithm {
			signing = append(signing, key.Selector)
		}
	}
	return k.writeSigning(domain, signing)
}

// Remove takes a key away that does not sign.
func (k *Keys) Remove(domain, selector string) error {
	all, err := k.List(domain)
	if err != nil {
		return err
	}
	chosen := slices.IndexFunc(all, func(key Key) bool { return key.Selector == selector })
	if chosen < 0 {
		return fmt.Errorf("%s._domainkey.%s: %w", selector, domain, ErrNoKey)
	}
	if all[chosen].Signs {
		return fmt.Errorf("%s: %w", all[chosen].Name(), ErrLastKey)
	}
	folder := filepath.Join(k.dir, domain)
	base := filepath.Join(folder, selector)
	if err := k.fs.Remove(base + ".key"); err != nil {
		return err
	}
	if err := k.fs.Remove(base + ".txt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return k.fs.SyncDir(folder)
}

func selectorsThatSign(keys []Key) (selectors []string) {
	for _, key := range keys {
		if key.Signs {
			selectors = append(selectors, key.Selector)
		}
	}
	return selectors
}

// Domains lists the domains that have a folder, in alphabetical order.
func (k *Keys) Domains() ([]string, error) {
	entries, err := k.fs.ReadDir(k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// List returns a domain's keys, oldest first; none if it has no folder.
func (k *Keys) List(domain string) ([]Key, error) {
	if err := checkName("domain", domain, 253); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	folder := filepath.Join(k.dir, domain)
	info, err := k.fs.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		delete(k.loaded, domain)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("DKIM keys: %w", err)
	}
	if have, ok := k.loaded[domain]; ok && have.settled && have.changed.Equal(info.ModTime()) {
		return slices.Clone(have.keys), nil
	}
	keys, err := k.load(domain)
	if err != nil {
		return nil, err
	}
	k.loaded[domain] = loadedKeys{info.ModTime(), time.Since(info.ModTime()) > time.Second, keys}
	return slices.Clone(keys), nil
}

func (k *Keys) load(domain string) ([]Key, error) {
	folder := filepath.Join(k.dir, domain)
	entries, err := k.fs.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("DKIM keys: %w", err)
	}
	signing, err := k.fs.ReadFile(filepath.Join(folder, "signing"), keyLimit)
	all := errors.Is(err, fs.ErrNotExist)
	if err != nil && !all {
		return nil, fmt.Errorf("DKIM keys: %w", err)
	}
	listed := strings.Fields(string(signing))
	var keys []Key
	for _, e := range entries {
		selector, isKey := strings.CutSuffix(e.Name(), ".key")
		if !isKey || checkName("selector", selector, maxSelector) != nil {
			continue
		}
		key, err := k.read(domain, selector)
		if err != nil {
			return nil, err
		}
		key.Signs = all || slices.Contains(listed, selector)
		keys = append(keys, key)
	}
	slices.SortStableFunc(keys, func(a, b Key) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Selector, b.Selector))
	})
	return keys, nil
}

func (k *Keys) read(domain, selector string) (Key, error) {
	path := filepath.Join(k.dir, domain, selector+".key")
	data, err := k.fs.ReadFile(path, keyLimit)
	if err != nil {
		return Key{}, fmt.Errorf("DKIM key: %w", err)
	}
	info, err := k.fs.Stat(path)
	if err != nil {
		return Key{}, fmt.Errorf("DKIM key: %w", err)
	}
	key := Key{Domain: domain, Selector: selector, Created: info.ModTime()}
	if key.signer, err = parsePrivate(data); err != nil {
		return Key{}, fmt.Errorf("DKIM key %s: %w", path, err)
	}
	key.Algorithm = RSA
	if _, ok := key.signer.(ed25519.PrivateKey); ok {
		key.Algorithm = Ed25519
	}
	key.record, err = record(key.Public())
	return key, err
}

// parsePrivate also takes PKCS #1, which other programs' RSA keys are in.
func parsePrivate(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T does not sign mail", key)
}

// Signing returns the keys that sign for a domain: its own, else those of the nearest domain above it that has some, which
// is still aligned with it (RFC 7489 section 3.1.1). None if there are none.
func (k *Keys) Signing(domain string) ([]Key, error) {
	for d := domain; strings.Contains(d, "."); _, d, _ = strings.Cut(d, ".") {
		if checkName("domain", d, 253) != nil {
			return nil, nil
		}
		all, err := k.List(d)
		if err != nil {
			return nil, err
		}
		if signing := slices.DeleteFunc(all, func(key Key) bool { return !key.Signs }); len(signing) > 0 {
			return signing, nil
		}
	}
	return nil, nil
}

// checkName keeps names of folders, files and DNS labels apart from everything else.
func checkName(what, name string, most int) error {
	good := name != "" && len(name) <= most
	for label := range strings.SplitSeq(name, ".") {
		good = good && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, c := range label {
			good = good && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
	}
	if !good {
		return fmt.Errorf("%.80q is no %s: write lower-case letters, digits, hyphens and dots", name, what)
	}
	return nil
}
