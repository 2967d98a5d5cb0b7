package blob

import (
	"fmt"
	"strconv"
	"strings"
)

// Name is what our message file names say: "<seconds>.<id in hex>.<host>,S=<size>,U=<uid>".
type Name struct {
	Seconds int64  // internal date, Unix; may be negative
	ID      uint64 // the message id
	Host    string
	Size    int64  // bytes
	UID     uint32 // not zero
}

// maxHost bounds the host in a name, so that with the numbers and all flags it stays far below the 255 bytes that file
// systems allow.
const maxHost = 80

// FormatName makes an Entry's Stem. Characters in Host that a Maildir name cannot have become "_"; a long Host is cut.
func FormatName(n Name) string {
	return fmt.Sprintf("%d.%x.%s,S=%d,U=%d", n.Seconds, n.ID, safeHost(n.Host), n.Size, n.UID)
}

// ParseName reads a Stem; ok is false if it is not exactly what FormatName makes.
func ParseName(stem string) (n Name, ok bool) {
	seconds, rest, _ := strings.Cut(stem, ".")
	id, rest, _ := strings.Cut(rest, ".")
	host, rest, _ := strings.Cut(rest, ",S=")
	size, uid, found := strings.Cut(rest, ",U=")
	if !found {
		return Name{}, false
	}
	n.Host = host
	var errs [4]error
	n.Seconds, errs[0] = strconv.ParseInt(seconds, 10, 64)
	n.ID, errs[1] = strconv.ParseUint(id, 16, 64)
	n.Size, errs[2] = strconv.ParseInt(size, 10, 64)
	wide, err := strconv.ParseUint(uid, 10, 32)
	n.UID, errs[3] = uint32(wide), err
	for _, err := range errs {
		if err != nil {
			return Name{}, false
		}
	}
	// The numbers have other spellings (+1, 01, A for a), which are somebody else's.
	if n.UID == 0 || n.Size < 0 || FormatName(n) != stem {
		return Name{}, false
	}
	return n, true
}

func safeHost(host string) string {
	safe := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
			return c
		}
		return '_'
	}, host)
	if safe == "" {
		return "localhost"
	}
	return safe[:min(len(safe), maxHost)]
}

// entryOf takes a file name apart.
func entryOf(name string, inNew bool) Entry {
	at := strings.LastIndexByte(name, ':')
	if at < 0 || at == len(name)-1 {
		return Entry{New: inNew, Stem: name}
	}
	return Entry{New: inNew, Stem: name[:at], Info: name[at+1:]}
}

// fileName puts it together again.
func (e Entry) fileName() string {
	if e.Info == "" {
		return e.Stem
	}
	return e.Stem + ":" + e.Info
}

const (
	infoVersion = "2,"

	// keywordLetters[k] stands for keyword k in a file name: what DFPRST leaves over.
	keywordLetters = "abcdefghijklmnopqrstuvwxyz" + "ABCEGHIJKLMNOQUVWXYZ" + "0123456789"
	// systemLetters[b] stands for flag bit b.
	systemLetters = "SRFTD"
	keywordBit    = 8
)

// flagBits has the flag that each letter stands for.
var flagBits = func() (bits ['z' + 1]uint64) {
	for b, c := range []byte(systemLetters) {
		bits[c] = 1 << b
	}
	for k, c := range []byte(keywordLetters) {
		bits[c] = 1 << (keywordBit + k)
	}
	return bits
}()

// InfoFor makes an Entry's Info ("2,FSa") of flags: bits 0-4 are \Seen, \Answered, \Flagged, \Deleted, \Draft, bit 8+k is
// keyword k, as storage.Flags has it; other bits are left out. Letters stand in ASCII order.
func InfoFor(flags uint64) string {
	info := []byte(infoVersion)
	for c, bit := range flagBits {
		if bit&flags != 0 {
			info = append(info, byte(c))
		}
	}
	return string(info)
}

// FlagsOf reads an Info. other holds the characters that mean nothing to us (P for passed, what other programs append
// after a further comma), which a careful renamer keeps: InfoFor(flags) + other.
func FlagsOf(info string) (flags uint64, other string) {
	letters, ok := strings.CutPrefix(info, infoVersion)
	if !ok {
		return 0, "" // experimental semantics ("1,…"), or none
	}
	letters, tail, fields := strings.Cut(letters, ",")
	var unknown []byte
	for _, c := range []byte(letters) {
		if int(c) < len(flagBits) && flagBits[c] != 0 {
			flags |= flagBits[c]
		} else {
			unknown = append(unknown, c)
		}
	}
	if fields {
		unknown = append(unknown, ","+tail...)
	}
	return flags, string(unknown)
}
