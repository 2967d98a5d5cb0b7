package storage

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// ErrBadKeyword is returned for a keyword that could not be written on a line: empty, too long, or with a space or a control.
var ErrBadKeyword = errors.New("invalid keyword")

// maxKeyword is how many bytes a keyword may have.
const maxKeyword = 200

// The system flags in the order in which they are listed.
var systemFlags = []struct {
	flag Flags
	name string
}{
	{Answered, `\Answered`}, {Flagged, `\Flagged`}, {Deleted, `\Deleted`}, {Seen, `\Seen`}, {Draft, `\Draft`},
}

const allSystem = Seen | Answered | Flagged | Deleted | Draft

func keywordFlag(k int) Flags { return 1 << (firstKeyword + k) }

// keywordsOf is the part of f that is keywords.
func keywordsOf(f Flags) Flags { return f &^ (1<<firstKeyword - 1) }

// Keywords lists the account's keywords by bit: Keywords()[k] is bit 8+k. The list only grows.
func (a *Account) Keywords() []string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Clip(a.keywords) // only ever appended to
}

// FlagNames spells flags in IMAP's way, system flags first.
func (a *Account) FlagNames(f Flags) []string {
	names := make([]string, 0, bits.OnesCount64(uint64(f)))
	for _, s := range systemFlags {
		if f&s.flag != 0 {
			names = append(names, s.name)
		}
	}
	if keywordsOf(f) == 0 {
		return names
	}
	for k, name := range a.Keywords() {
		if f&keywordFlag(k) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// FlagSet looks names up without creating keywords; unknown keywords are left out and ok is false. Case-insensitive.
func (a *Account) FlagSet(names []string) (f Flags, ok bool) {
	f, unknown := lookUpFlags(names, a.Keywords())
	return f, len(unknown) == 0
}

// lookUpFlags finds the flags of names; unknown are the keywords that are not in the list yet, each once. Names with a
// backslash that are no system flag (\Recent above all) are passed over: nobody can set them.
func lookUpFlags(names, keywords []string) (f Flags, unknown []string) {
	for _, name := range names {
		if strings.HasPrefix(name, `\`) {
			for _, s := range systemFlags {
				if strings.EqualFold(s.name, name) {
					f |= s.flag
				}
			}
			continue
		}
		is := func(k string) bool { return strings.EqualFold(k, name) }
		if k := slices.IndexFunc(keywords, is); k >= 0 {
			f |= keywordFlag(k)
		} else if !slices.ContainsFunc(unknown, is) {
			unknown = append(unknown, name)
		}
	}
	return f, unknown
}

func checkKeyword(name string) error {
	if name == "" || len(name) > maxKeyword || strings.ContainsFunc(name, func(r rune) bool { return r == ' ' || forbidden(r) }) {
		return fmt.Errorf("%w: %.80q", ErrBadKeyword, name)
	}
	return nil
}

// flags finds the flags of names and gives new keywords a number; before anything else is written.
func (t *tx) flags(names []string) (Flags, error) {
	f, unknown := lookUpFlags(names, t.keywords)
	if len(unknown) == 0 {
		return f, nil
	}
	for _, name := range unknown {
		if err := checkKeyword(name); err != nil {
			return 0, err
		}
	}
	if len(t.keywords)+len(unknown) > MaxKeywords {
		return 0, fmt.Errorf("%w: %d", ErrTooManyKeywords, MaxKeywords)
	}
	t.wrote = true
	for _, name := range unknown {
		k := len(t.keywords)
		t.keywords = append(slices.Clip(t.keywords), name)
		f |= keywordFlag(k)
		if err := t.kv.Put(keyKeyword(k), []byte(name)); err != nil {
			return 0, err
		}
	}
	// The file first: a letter in a file name must never mean something that a rebuild cannot know.
	return f, t.a.blobs.SetMeta(keywordsFile, formatKeywords(t.keywords))
}
