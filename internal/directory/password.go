package directory

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"golang.org/x/text/unicode/norm"

	"mailsrv/storage/kv"
)

// makeSecrets draws what only this process knows.
func (d *Directory) makeSecrets() {
	rand.Read(d.macKey[:])
	d.dummy = phc{HashParams: d.params, salt: make([]byte, saltLen), key: make([]byte, keyLen)}
	rand.Read(d.dummy.salt)
	rand.Read(d.dummy.key) // nobody's password: no need to derive it, which would cost a login's time at each start
}

// mac is what is held of a declared (demo) password: comparing it says nothing about how much of a guess was right.
func (d *Directory) mac(password string) []byte {
	h := hmac.New(sha256.New, d.macKey[:])
	h.Write(norm.NFC.Bytes([]byte(password)))
	return h.Sum(nil)
}

// parse readies the entry's hash for checking.
func (e *entry) parse() error {
	h, err := parsePHC(e.hash)
	if err != nil {
		return err
	}
	e.parsed = &h
	return nil
}

// CheckPassword verifies in constant time whether or not the account exists (an unknown one is checked against a dummy hash
// of the same cost). A hash with other argon2id parameters than the current ones is replaced after a successful check. It is
// slow on purpose and takes HashParams.Memory while it runs; package auth remembers, and bounds how many run at once.
func (d *Directory) CheckPassword(address, password string) (Account, bool) {
	if password == "" || len(password) > MaxPassword {
		return Account{}, false // says nothing about the account
	}
	e := d.lookup(address)
	if !d.verify(e, password) || e.Disabled {
		return Account{}, false
	}
	// The check took its time: a password changed meanwhile must not let the old one in.
	if now := d.lookup(address); now == nil || now.epoch != e.epoch {
		return Account{}, false
	}
	if e.parsed != nil && !e.Declared && e.parsed.HashParams != d.params {
		// The login is good whether or not this can be written; the next one tries again.
		_ = d.rehash(e, password)
	}
	return d.public(e), true
}

// verify costs one argon2 whatever there is to check; e may be nil.
func (d *Directory) verify(e *entry, password string) bool {
	if e != nil && e.parsed != nil {
		return e.parsed.matches(password)
	}
	d.dummy.matches(password)
	return e != nil && e.mac != nil && hmac.Equal(e.mac, d.mac(password))
}

// rehash replaces the hash that was just verified, and no other. The password is the same, so the epoch stays.
func (d *Directory) rehash(e *entry, password string) error {
	hash, err := HashPassword(password, d.params)
	if err != nil {
		return err
	}
	d.change.Lock()
	defer d.change.Unlock()
	if now := d.stored(e.Address); now == nil || now.hash != e.hash {
		return nil
	}
	next := *e
	next.hash = hash
	if err := next.parse(); err != nil {
		return err
	}
	return d.commit(func(tx kv.Tx) error { return tx.Put([]byte(prefixAccount+e.Address), next.encode()) }, func() {
		d.accounts[e.Address] = &next
	})
}
