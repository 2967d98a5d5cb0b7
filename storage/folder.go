package storage

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What lies in the Maildir beside the message files, so that an account whose index.db is lost comes back whole. All are
// text, one thing a line, unknown lines passed over; each is replaced in one step before the commit that relies on it.
//
// A folder's state (package blob names the file):
//
//	mailsrv-mailbox 1
//	name "Sent/2024"            Go-quoted, UTF-8
//	id 7
//	uidvalidity 1700000000
//	uidnext 3000                reserved in blocks: UIDs below may have been given out
//	created 1700000000
//	object M18c4a2b7
//	use "\\Sent"                special use, if any
//
// Maildir/subscriptions: a name a line. Maildir/mailsrv-keywords: "0 $Forwarded", number and name, a keyword a line.
const (
	stateMagic        = "mailsrv-mailbox 1"
	subscriptionsFile = "subscriptions"
	keywordsFile      = "mailsrv-keywords"

	// uidBlock is how many UIDs a state file reserves at a time. A rebuild goes on at the reserved UIDNEXT.
	uidBlock = 1000
)

func (r *mailboxRecord) state() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nname %q\nid %d\nuidvalidity %d\nuidnext %d\ncreated %d\nobject %s\n", stateMagic,
		r.Name, r.ID, r.UIDValidity, r.ceiling, r.Created.Unix(), r.ObjectID)
	if r.SpecialUse != "" {
		fmt.Fprintf(&b, "use %q\n", r.SpecialUse)
	}
	return b.Bytes()
}

// parseState reads a state file; ok is false if it is not whole and sound.
func parseState(data []byte) (r mailboxRecord, ok bool) {
	lines := strings.Split(string(data), "\n")
	if lines[0] != stateMagic {
		return r, false
	}
	ok = true
	number := func(s string, bits int) uint64 {
		n, err := strconv.ParseUint(s, 10, bits)
		ok = ok && err == nil
		return n
	}
	quoted := func(s string) string {
		q, err := strconv.Unquote(s)
		ok = ok && err == nil
		return q
	}
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "name":
			r.Name = quoted(value)
		case "id":
			r.ID = MailboxID(number(value, 32))
		case "uidvalidity":
			r.UIDValidity = UIDValidity(number(value, 32))
		case "uidnext":
			r.ceiling = UID(number(value, 32))
		case "created":
			r.Created = time.Unix(int64(number(value, 63)), 0)
		case "object":
			r.ObjectID = value
		case "use":
			r.SpecialUse = quoted(value)
		}
	}
	return r, ok && r.ID != 0 && r.UIDValidity != 0 && r.ceiling != 0 && r.ObjectID != ""
}

func formatLines(names []string) []byte {
	var b bytes.Buffer
	for _, n := range names {
		b.WriteString(n)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func parseLines(data []byte) []string {
	var names []string
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if s.Text() != "" {
			names = append(names, s.Text())
		}
	}
	return names
}

func formatKeywords(keywords []string) []byte {
	var b bytes.Buffer
	for k, name := range keywords {
		fmt.Fprintf(&b, "%d %s\n", k, name)
	}
	return b.Bytes()
}

// parseKeywords reads the keywords by number. A number that is missing gets a name of its own, so that the later ones keep theirs.
func parseKeywords(data []byte) []string {
	var keywords []string
	for _, line := range parseLines(data) {
		number, name, _ := strings.Cut(line, " ")
		k, err := strconv.Atoi(number)
		if err != nil || k < len(keywords) || k >= MaxKeywords || checkKeyword(name) != nil {
			continue
		}
		for len(keywords) < k {
			keywords = append(keywords, fmt.Sprintf("lost-keyword-%d", len(keywords)))
		}
		keywords = append(keywords, name)
	}
	return keywords
}
