package directory

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// HashParams are argon2id's costs (RFC 9106 section 3.1): memory in KiB, passes, lanes.
type HashParams struct {
	Memory uint32
	Time   uint32
	Lanes  uint8
}

// DefaultHashParams are OWASP's least memory for argon2id (19 MiB, 2 passes): about 20 ms of one core. Guessing is held
// up by package auth; these hold up who has stolen system.db, at a price that a small server can pay for ten logins at once.
var DefaultHashParams = HashParams{Memory: 19456, Time: 2, Lanes: 1}

const (
	saltLen = 16 // RFC 9106 section 3.1 recommends 16 bytes
	keyLen  = 32

	// MaxPassword is the longest password in octets: argon2 would take gigabytes, a login line does not.
	MaxPassword = 1024
)

// Errors of passwords and hashes.
var (
	ErrPasswordEmpty   = errors.New("the password is empty")
	ErrPasswordTooLong = fmt.Errorf("the password is longer than %d octets", MaxPassword)
	ErrBadHash         = errors.New("not an argon2id hash")
)

// phc is a parsed "$argon2id$v=19$m=19456,t=2,p=1$salt$hash" (the PHC string format; base64 without padding).
type phc struct {
	HashParams
	salt, key []byte
}

// HashPassword makes the PHC string of a password, with a fresh salt. ErrPasswordEmpty, ErrPasswordTooLong.
func HashPassword(password string, p HashParams) (string, error) {
	if password == "" {
		return "", ErrPasswordEmpty
	}
	if len(password) > MaxPassword {
		return "", ErrPasswordTooLong
	}
	h := phc{HashParams: p, salt: make([]byte, saltLen)}
	rand.Read(h.salt) // never fails: crypto/rand ends the process instead
	h.key = h.derive(password, keyLen)
	return h.String(), nil
}

// ParseHash checks that s is a hash that HashPassword could have made, within costs a login may have. ErrBadHash says why.
func ParseHash(s string) error {
	_, err := parsePHC(s)
	return err
}

func (h phc) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Memory, h.Time, h.Lanes, b64(h.salt), b64(h.key))
}

// derive composes the password first: one keyboard sends é as one character, another as two (RFC 8265 section 4.2.1).
func (h phc) derive(password string, n uint32) []byte {
	return argon2.IDKey(norm.NFC.Bytes([]byte(password)), h.salt, h.Time, h.Memory, h.Lanes, n)
}

func (h phc) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password, uint32(len(h.key))), h.key) == 1
}

func parsePHC(s string) (phc, error) {
	var h phc
	bad := func(why string) (phc, error) { return phc{}, fmt.Errorf("%w: %s", ErrBadHash, why) }
	if len(s) > 512 {
		return bad("it is too long")
	}
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" {
		return bad("it has to look like $argon2id$v=19$m=19456,t=2,p=1$salt$hash")
	}
	if f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return bad("only version 19 of argon2 is known")
	}
	_, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &h.Memory, &h.Time, &h.Lanes)
	if err != nil || f[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.Memory, h.Time, h.Lanes) { // Sscanf skips blanks and tails
		return bad("its parameters have to be m=<KiB>,t=<passes>,p=<lanes>")
	}
	// A hash from a file decides how much memory each login takes: bound it.
	if h.Memory < 8*uint32(h.Lanes) || h.Memory > 1<<20 || h.Time < 1 || h.Time > 64 || h.Lanes < 1 || h.Lanes > 64 {
		return bad("its parameters are out of range (at most 1 GiB, 64 passes, 64 lanes)")
	}
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(f[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return bad("its salt has to be 8 to 64 octets in base64 without padding")
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(f[5]); err != nil || len(h.key) < 16 || len(h.key) > 64 {
		return bad("its hash has to be 16 to 64 octets in base64 without padding")
	}
	return h, nil
}
