package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// remembered logins at most; about 200 bytes each.
const memorySize = 16384

// secretKey is the keyed hash of a peer's network, user name and password.
type secretKey [sha256.Size]byte

// memory remembers verified passwords for a while, so that a client's ten connections cost one argon2. It holds keyed
// hashes only, under a key that this process drew and never writes anywhere. A login is remembered for the peer's address (an
// IPv6 network): elsewhere nobody gains a faster way to guess.
type memory struct {
	lifetime time.Duration
	key      [32]byte

	mu     sync.Mutex
	logins *lru[secretKey, login]
	failed *lru[secretKey, struct{}] // what was wrong before
}

// login is one verified password.
type login struct {
	address string // canonical
	epoch   uint64 // of the directory when the check began: any change of credentials since ends it
	until   time.Time
}

func newMemory(lifetime time.Duration) *memory {
	m := &memory{lifetime: lifetime, logins: newLRU[secretKey, login](memorySize),
		failed: newLRU[secretKey, struct{}](memorySize)}
	rand.Read(m.key[:])
	return m
}

// secret names a login without giving away what is in it.
func (m *memory) secret(p Peer, user, password string) secretKey {
	address, network := networks(p.Addr)
	if address.Addr().Is6() {
		address = network
	}
	h := hmac.New(sha256.New, m.key[:])
	for _, part := range []string{address.String(), user, password} {
		var n [8]byte // lengths first, so that no two logins can be cut differently from the same bytes
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	return secretKey(h.Sum(nil))
}

func (m *memory) recall(key secretKey, now time.Time) (login, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.logins.get(key)
	if ok && now.After(l.until) {
		m.logins.remove(key)
		return login{}, false
	}
	return l, ok
}

func (m *memory) remember(key secretKey, address string, epoch uint64, now time.Time) {
	if m.lifetime < 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logins.put(key, login{address: address, epoch: epoch, until: now.Add(m.lifetime)})
}

func (m *memory) forget(key secretKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logins.remove(key)
}

// failedBefore notes a failed login and reports whether the very same one is known to have failed already.
func (m *memory) failedBefore(key secretKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.failed.get(key)
	m.failed.put(key, struct{}{})
	return known
}
