package imapd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"mailsrv/storage"
)

// testBoxes: a/b exists though a does not; c is a mailbox that nobody subscribed with a subscribed child.
func testBoxes() ([]storage.Mailbox, []string) {
	boxes := []storage.Mailbox{
		{Name: "INBOX"}, {Name: "INBOX/x"}, {Name: "Sent", SpecialUse: `\Sent`}, {Name: "a/b"}, {Name: "a/b/c", SpecialUse: `\Junk`},
		{Name: "c"}, {Name: "c/d"}, {Name: "Entwürfe"},
	}
	return boxes, []string{"INBOX", "a/b/c", "c/d", "gone", "lost/child"}
}

func TestListTree(t *testing.T) {
	sub := imap.ListOptions{SelectSubscribed: true}
	subRec := imap.ListOptions{SelectSubscribed: true, SelectRecursiveMatch: true}
	use := imap.ListOptions{SelectSpecialUse: true}
	useRec := imap.ListOptions{SelectSpecialUse: true, SelectRecursiveMatch: true}
	for _, c := range []struct {
		name     string
		opts     imap.ListOptions
		extended bool
		utf8     bool
		patterns string // separated by spaces
		want     string
	}{
		{"everything", imap.ListOptions{}, false, false, "*", `
			INBOX \HasChildren
			Entwürfe \HasNoChildren
			INBOX/x \HasNoChildren
			Sent \HasNoChildren \Sent
			a \Noselect \HasChildren
			a/b \HasChildren
			a/b/c \HasNoChildren \Junk
			c \HasChildren
			c/d \HasNoChildren`},
		{"levels that are no mailboxes", imap.ListOptions{}, false, false, "%", `
			INBOX \HasChildren
			Entwürfe \HasNoChildren
			Sent \HasNoChildren \Sent
			a \Noselect \HasChildren
			c \HasChildren`},
		{"a level by its name", imap.ListOptions{}, false, false, "a", `
			a \Noselect \HasChildren`},
		{"the same, extended", imap.ListOptions{}, true, false, "a%", `
			a \NonExistent \HasChildren`},
		{"the form on the wire is matched", imap.ListOptions{}, false, false, "Entw&*", `
			Entwürfe \HasNoChildren`},
		{"and in UTF-8", imap.ListOptions{}, false, true, "Entwü*", `
			Entwürfe \HasNoChildren`},
		{"two patterns, each name once", imap.ListOptions{}, true, false, "c c* inbox", `
			INBOX \HasChildren
			c \HasChildren
			c/d \HasNoChildren`},
		{"subscribed", sub, true, false, "*", `
			INBOX \HasChildren \Subscribed
			a/b/c \HasNoChildren \Subscribed \Junk
			c/d \HasNoChildren \Subscribed
			gone \NonExistent \HasNoChildren \Subscribed
			lost/child \NonExistent \HasNoChildren \Subscribed`},
		{"subscribed, one level", sub, true, false, "%", `
			INBOX \HasChildren \Subscribed
			gone \NonExistent \HasNoChildren \Subscribed`},
		{"recursive", subRec, true, false, "%", `
			INBOX \HasChildren \Subscribed
			a \NonExistent \HasChildren (SUBSCRIBED)
			c \HasChildren (SUBSCRIBED)
			gone \NonExistent \HasNoChildren \Subscribed
			lost \NonExistent \HasNoChildren (SUBSCRIBED)`},
		{"recursive below", subRec, true, false, "a/%", `
			a/b \HasChildren (SUBSCRIBED)`},
		{"return subscribed", imap.ListOptions{ReturnSubscribed: true}, true, false, "c*", `
			c \HasChildren
			c/d \HasNoChildren \Subscribed`},
		{"special use", use, true, false, "*", `
			Sent \HasNoChildren \Sent
			a/b/c \HasNoChildren \Junk`},
		{"special use, recursive", useRec, true, false, "%", `
			Sent \HasNoChildren \Sent
			a \NonExistent \HasChildren (SPECIAL-USE)`},
		{"both", imap.ListOptions{SelectSpecialUse: true, SelectSubscribed: true, SelectRecursiveMatch: true}, true, false, "%", `
			a \NonExistent \HasChildren (SUBSCRIBED SPECIAL-USE)`},
	} {
		q := &listQuery{ListOptions: c.opts, extended: c.extended, utf8: c.utf8}
		for _, p := range strings.Fields(c.patterns) {
			q.patterns = append(q.patterns, newListPattern("", p))
		}
		got := showRows(newListTree(testBoxes()).list(q))
		if want := strings.ReplaceAll(strings.TrimPrefix(c.want, "\n"), "\t", ""); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

// RFC 3501 section 6.3.9: LSUB is about names that were subscribed; "%" stops at levels, with \Noselect.
func TestLsub(t *testing.T) {
	for pattern, want := range map[string]string{
		"*":     "INBOX\na/b/c\nc/d\ngone\nlost/child",
		"%":     "INBOX\na \\Noselect\nc \\Noselect\ngone\nlost \\Noselect",
		"a/%":   "a/b \\Noselect",
		"a/b/%": "a/b/c",
		"c":     "",
		"inbox": "INBOX",
	} {
		if got := showRows(newListTree(testBoxes()).lsub(newListPattern("", pattern), false)); got != want {
			t.Errorf("LSUB %q: got\n%s\nwant\n%s", pattern, got, want)
		}
	}
}

func showRows(rows []listRow) string {
	var lines []string
	for _, r := range rows {
		line := r.name
		for _, a := range r.attrs {
			line += " " + string(a)
		}
		if r.childInfo != nil {
			line += " (" + strings.Join(r.childInfo, " ") + ")"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// Random trees against the RFC's sentences, written as loops over all names.
func TestListTreeModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "b", "ab"}
	randomName := func() string {
		name := letters[rng.IntN(3)]
		for rng.IntN(3) > 0 {
			name += "/" + letters[rng.IntN(3)]
		}
		return name
	}
	for range 3000 {
		exists, subscribed := map[string]bool{}, map[string]bool{}
		for range rng.IntN(6) {
			exists[randomName()] = true
		}
		for range rng.IntN(4) {
			subscribed[randomName()] = true
		}
		var boxes []storage.Mailbox
		for name := range exists {
			boxes = append(boxes, storage.Mailbox{Name: name})
		}
		var subs []string
		for name := range subscribed {
			subs = append(subs, name)
		}
		pattern := []string{"*", "%", "a/%", "%/%", "a*", "%b", "a"}[rng.IntN(7)]
		q := &listQuery{extended: true, patterns: []listPattern{newListPattern("", pattern)}}
		q.SelectSubscribed = rng.IntN(2) == 0
		q.SelectRecursiveMatch = q.SelectSubscribed && rng.IntN(2) == 0

		got := showRows(newListTree(boxes, subs).list(q))
		if want := modelList(q, pattern, exists, subscribed); got != want {
			t.Fatalf("boxes %v subscribed %v LIST %+v %q: got\n%s\nwant\n%s", exists, subscribed, q.ListOptions, pattern, got, want)
		}
	}
}

func modelList(q *listQuery, pattern string, exists, subscribed map[string]bool) string {
	below := func(set map[string]bool, name string) bool {
		for n := range set {
			if strings.HasPrefix(n, name+"/") {
				return true
			}
		}
		return false
	}
	names := map[string]bool{}
	for _, set := range []map[string]bool{exists, subscribed} {
		for n := range set {
			for i := range n {
				if n[i] == '/' {
					names[n[:i]] = true
				}
			}
			names[n] = true
		}
	}
	var lines []string
	for n := range names {
		told := exists[n] || below(exists, n)
		if q.SelectSubscribed {
			told = subscribed[n] || q.SelectRecursiveMatch && below(subscribed, n)
		}
		if !told || !naive(pattern, n) {
			continue
		}
		line := n
		if !exists[n] {
			line += ` \NonExistent`
		}
		if below(exists, n) {
			line += ` \HasChildren`
		} else {
			line += ` \HasNoChildren`
		}
		if q.SelectSubscribed && subscribed[n] {
			line += ` \Subscribed`
		}
		if q.SelectRecursiveMatch && below(subscribed, n) {
			line += " (SUBSCRIBED)"
		}
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0]) })
	return strings.Join(lines, "\n")
}

func BenchmarkList10000(b *testing.B) {
	var boxes []storage.Mailbox
	for i := range 10000 {
		boxes = append(boxes, storage.Mailbox{Name: fmt.Sprintf("folder%02d/sub%04d", i%100, i)})
	}
	q := &listQuery{patterns: []listPattern{newListPattern("", "*")}}
	for b.Loop() {
		newListTree(boxes, nil).list(q)
	}
}
