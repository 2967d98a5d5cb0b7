package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// field is a key of a mail with its value as it is printed.
type field struct{ key, value string }

// parseMail returns the fields of a JSON object in the order in which they came: the lab's client prints them so.
func parseMail(raw []byte) ([]field, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, &badReply{"a mail that is no JSON object"}
	}
	var fields []field
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, &badReply{err.Error()}
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, &badReply{err.Error()}
		}
		printed := string(value) // a number, or what else a server makes up
		if value[0] == '"' {
			if err := json.Unmarshal(value, &printed); err != nil {
				return nil, &badReply{err.Error()}
			}
		}
		fields = append(fields, field{key.(string), printed})
	}
	return fields, nil
}

// parseMails is parseMail for a listing; null is an empty one.
func parseMails(raw []byte) (mails [][]field, err error) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, &badReply{"a mailbox that is no JSON array"}
	}
	for _, item := range items {
		m, err := parseMail(item)
		if err != nil {
			return nil, err
		}
		mails = append(mails, m)
	}
	return mails, nil
}

func printMail(w io.Writer, mail []field) {
	var b strings.Builder
	for _, f := range mail {
		fmt.Fprintf(&b, "%s : %s\n", f.key, f.value)
	}
	fmt.Fprintln(w, b.String())
}

// sink keeps the first error of its writer: who cannot read the answers must not have more commands carried out.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (n int, err error) {
	if n, err = s.w.Write(p); err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

// visible is a terminal that strangers' mail is shown on. Their control characters could move the cursor, retitle the window or have
// the terminal answer with input; their direction marks could show a text other than it is. Both are shown by number. Every Write
// is of whole characters.
type visible struct{ w io.Writer }

func (v visible) Write(p []byte) (int, error) {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(string(p), "\r\n", "\n") {
		bidi := r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
		if unicode.IsControl(r) && r != '\n' && r != '\t' || bidi {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	if _, err := io.WriteString(v.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
