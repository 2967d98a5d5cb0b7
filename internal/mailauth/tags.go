package mailauth

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// tags is a tag-list of RFC 6376 section 3.2.
type tags map[string]string

// parseTags reads a tag-list. Values keep their inner white space.
func parseTags(list string) (tags, error) {
	t := make(tags)
	for part := range strings.SplitSeq(list, ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.Trim(name, whiteSpace)
		switch {
		case !ok && name == "":
			continue // the last semicolon is optional
		case !ok || name == "":
			return nil, fmt.Errorf("%.40q is no tag=value", part)
		}
		if _, twice := t[name]; twice {
			return nil, fmt.Errorf("tag %.20q is there twice", name)
		}
		t[name] = strings.Trim(value, whiteSpace)
	}
	return t, nil
}

const whiteSpace = " \t\r\n"

// compact is a tag's value without white space.
func (t tags) compact(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(whiteSpace, r) {
			return -1
		}
		return r
	}, t[name])
}

// list is a tag's colon-separated value.
func (t tags) list(name string) []string {
	if t.compact(name) == "" {
		return nil
	}
	return strings.Split(t.compact(name), ":")
}

func (t tags) base64(name string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(t.compact(name))
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s= is no base64", name)
	}
	return b, nil
}

// withoutSignature is a signature field as it was when it was signed: the value of its b= taken out, all else as it is (RFC
// 6376 section 3.7).
func withoutSignature(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	name, value, _ := bytes.Cut(raw, []byte{':'})
	out = append(append(out, name...), ':')
	for i, part := range bytes.Split(value, []byte{';'}) {
		if i > 0 {
			out = append(out, ';')
		}
		tag, _, found := bytes.Cut(part, []byte{'='})
		if found && string(bytes.Trim(tag, whiteSpace)) == "b" {
			part = part[:len(tag)+1]
		}
		out = append(out, part...)
	}
	return out
}
