package imapd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"mailsrv/storage"
)

type silent struct{}

func (silent) askForLiteral() error { return nil }
func (silent) hurry()               {}
func (silent) clientSpeaksUTF8()    {}
func (silent) moreTime()            {}

// readerOn returns a reader behind the tag of a command.
func readerOn(t testing.TB, line string) *reader {
	t.Helper()
	r := newReader(strings.NewReader("t"+line+"\r\n"), silent{})
	r.afterLogin = true
	if tag, err := r.begin(); tag != "t" || err != nil {
		t.Skip("no command line") // fuzzing: the tag ran into the arguments
	}
	return r
}

// newTestParser: 10 messages, UIDs 101, 103, … 119; $Forwarded is a known keyword, and "$" holds UID 105.
func newTestParser(t testing.TB, line string) *searchParser {
	return &searchParser{
		reader: readerOn(t, line), exists: 10, lastUID: 119,
		saved: func() []span { return []span{{105, 105}} },
		flag: func(name string) (storage.Flags, bool) {
			return 1 << 8, strings.EqualFold(name, "$Forwarded")
		},
	}
}

func TestSearchSyntax(t *testing.T) {
	deepOr := strings.Repeat("OR SEEN ", 1000) + "ALL"
	for _, c := range []struct {
		args string
		want string // %v of what is asked, or of the refusal
	}{
		{"ALL", "{}"},
		{"SEEN UNDELETED", "[{1 true} {8 false}]"},
		{"(SEEN) (UNDELETED (DRAFT))", "[{1 true} [{8 false} {16 true}]]"},
		{"2:4,9", "{[{2 4} {9 9}] false}"},
		{"*", "{[{10 10}] false}"},
		{"12:*", "{[{10 10}] false}"}, // RFC 9051: "*" is always in n:*
		{"UID 1:102,*", "{[{1 102} {119 119}] true}"},
		{"UID 500:*", "{[{119 119}] true}"},
		{"$", "{[{105 105}] true}"},
		{"UID $", "{[{105 105}] true}"},
		{"keyword $forwarded", "{256 true}"},
		{"KEYWORD nobody", "{{}}"},
		{"UNKEYWORD nobody", "{}"},
		{"NEW", "[{} {1 false}]"},
		{"OLD", "{{}}"},
		{"LARGER 0", "{0 true}"},
		{"SMALLER 4294967296", "{4294967296 false}"},
		{"ON 1-Jan-1970", "{false 0 0}"},
		{"SINCE 02-Jan-1970", "{false 1 1073741825}"},
		{`SENTBEFORE "1-Jan-1970"`, "{true -1073741824 -1}"},
		{"NOT NOT SEEN", "{{{1 true}}}"},
		{"OR SEEN OR DRAFT DELETED", "[{1 true} [{16 true} {8 true}]]"},
		{`OR TEXT x SEEN`, "[{1 true} {x true}]"}, // the cheap one first
		{`MODSEQ 620162338`, "{620162338}"},
		{`MODSEQ "/flags/\\draft" all 620162338`, "{620162338}"},
		{`SUBJECT ""`, "{Subject }"},
		{`HEADER X-Some "Ab"`, "{X-Some ab}"},
		{`CHARSET UTF-8 SUBJECT "Ä"`, "{Subject a\u0308}"},
		{"CHARSET ISO-8859-1 SUBJECT \"\xc4\"", "{Subject a\u0308}"},
		{`CHARSET us-ascii ALL`, "{}"},
		{deepOr, ""},

		{"", `BAD: Expected " " before the line's end`},
		{" ", `BAD: Expected an atom before the line's end`},
		{"FROB", `BAD: Unknown search key "FROB"`},
		{"SEEN FROB 3", `BAD: Unknown search key "FROB"`},
		{"NOT", `BAD: Expected " " before the line's end`},
		{"OR SEEN", `BAD: Expected " " before the line's end`},
		{"()", `BAD: Expected an atom before ")"`},
		{"(SEEN", `BAD: Expected " " before the line's end`},
		{"SEEN)", `BAD: Expected " " before ")"`},
		{"0", `BAD: Zero is not allowed here`},
		{"UID x", `BAD: Expected a number before "x"`},
		{"SINCE 31-Feb-2024", `BAD: Invalid date`},
		{"HEADER a:b x", `BAD: Invalid header field name "a:b"`},
		{"CHARSET x-klingon ALL", `NO: Unknown charset`},
		{"CHARSET UTF-8 SUBJECT \"\xff\"", `BAD: Search string is not valid in its charset`},
		{"RETURN (FOO) ALL", `BAD: Unknown SEARCH return option FOO`},
		{"RETURN (MIN)", `BAD: Expected " " before the line's end`},
		{`MODSEQ "x" all 3`, `BAD: Unknown metadata entry "x"`},
		{strings.Repeat("NOT ", 3000) + "SEEN", `NO: Search keys are nested too deeply`},
		{strings.Repeat("(", 3000), `NO: Search keys are nested too deeply`},
		{strings.TrimSpace(strings.Repeat("SEEN ", 21000)), `NO: Too many search keys`},
		{strings.TrimSpace(strings.Repeat("BODY x ", 101)), `NO: Too many BODY and TEXT keys`},
	} {
		line := " " + c.args
		if c.args == "" {
			line = ""
		}
		p := newTestParser(t, line)
		prog := p.Search()
		got := ""
		if !p.End() {
			got = p.Refusal().status + ": " + p.Refusal().text
		} else if c.want != "" {
			got = showKey(prog.key)
		}
		if got != c.want {
			t.Errorf("SEARCH %.60s: %s, want %s", c.args, got, c.want)
		}
	}
}

func showKey(k searchKey) string {
	switch k := k.(type) {
	case andKey:
		return showKeys(k)
	case orKey:
		return showKeys(k)
	case notKey:
		return "{" + showKey(k.key) + "}"
	case headerKey:
		return fmt.Sprintf("{%s %s}", k.field, k.text.folded)
	case contentKey:
		return fmt.Sprintf("{%s %v}", k.text.folded, k.header)
	}
	return fmt.Sprint(k)
}

func showKeys(keys []searchKey) string {
	var parts []string
	for _, k := range keys {
		parts = append(parts, showKey(k))
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func TestSearchReturn(t *testing.T) {
	for args, want := range map[string]imap.SearchOptions{
		"RETURN () ALL":                   {ReturnAll: true},
		"RETURN (min max) ALL":            {ReturnMin: true, ReturnMax: true},
		"RETURN (SAVE) CHARSET UTF-8 ALL": {ReturnSave: true},
		"return (ALL COUNT SAVE) UNSEEN":  {ReturnAll: true, ReturnCount: true, ReturnSave: true},
		"ALL":                             {},
	} {
		p := newTestParser(t, " "+args)
		prog := p.Search()
		if !p.End() || prog.SearchOptions != want || prog.extended != (want != imap.SearchOptions{}) {
			t.Errorf("SEARCH %s: %+v, %v", args, prog.SearchOptions, p.err)
		}
	}
}

// Whatever a client sends, reading it ends, and a key comes out of all that was taken.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{
		"ALL", "OR (SEEN 1:*) NOT UID 4,*", `RETURN (SAVE) CHARSET UTF-8 HEADER "x" {1+}`, `MODSEQ "/flags/x" priv 3 SINCE 1-Jan-2020`,
		"CHARSET iso-2022-jp BODY \"\x1b$B\"", "UNKEYWORD $x KEYWORD \\Recent",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, args string) {
		p := newTestParser(t, " "+args)
		prog := p.Search()
		if p.End() && prog.key == nil {
			t.Error("no key")
		}
		if !p.Failed() {
			prog.key.test(&candidate{seq: 3, row: storage.Row{UID: 105}})
		}
	})
}
