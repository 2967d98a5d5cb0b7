package imapd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// noConversation lets literals come without anybody on the other side.
type noConversation struct{ asked int }

func (n *noConversation) askForLiteral() error { n.asked++; return nil }
func (n *noConversation) hurry()               {}
func (n *noConversation) clientSpeaksUTF8()    {}
func (n *noConversation) moreTime()            {}

func rawReader(text string) *reader {
	r := newReader(strings.NewReader(text), &noConversation{})
	r.afterLogin = true
	return r
}

// arg begins a command and reads one argument.
func arg[T any](t *testing.T, text string, read func(*reader) T) (T, reply) {
	t.Helper()
	r := rawReader("a " + text + "\r\n")
	if tag, err := r.begin(); tag != "a" || err != nil {
		t.Fatalf("begin(%q): %q, %v", text, tag, err)
	}
	r.SP()
	got := read(r)
	if r.End() {
		return got, reply{}
	}
	return got, r.Refusal()
}

func TestTags(t *testing.T) {
	for _, c := range []struct{ line, tag string }{
		{"a1 NOOP", "a1"},
		{"A]x NOOP", "A]x"},
		{"a", "a"},
		{"", ""},
		{" NOOP", ""},
		{"a+ NOOP", ""},
		{"* NOOP", ""},
		{"a{1} NOOP", ""},
		{`"a" NOOP`, ""},
		{"a\tNOOP", ""},
		{"\xff NOOP", ""},
		{strings.Repeat("a", maxTag) + " NOOP", strings.Repeat("a", maxTag)},
		{strings.Repeat("a", maxTag+1) + " NOOP", ""},
	} {
		r := rawReader(c.line + "\r\n")
		tag, err := r.begin()
		if tag != c.tag || err != nil || (tag == "") != r.Failed() {
			t.Errorf("%q: %q, %v, %v", c.line, tag, err, r.err)
		}
	}
}

func TestAString(t *testing.T) {
	long := strings.Repeat("x", maxAtomAfter+1)
	for _, c := range []struct{ text, want, err string }{
		{"INBOX", "INBOX", ""},
		{"a]b", "a]b", ""},
		{`""`, "", ""},
		{`"a b"`, "a b", ""},
		{`"a\"b\\c"`, `a"b\c`, ""},
		{`"\\\""`, `\"`, ""},
		{`"ü"`, "ü", ""},
		{"{0}\r\n", "", ""},
		{"{3}\r\na\r\n", "a\r\n", ""},
		{"{3+}\r\na b", "a b", ""},
		{"~{3+}\r\na\x00b", "a\x00b", ""},
		{"{3+}\r\na\x00b", "", "NUL"},
		{`"a`, "", "closing quote"},
		{`"a\"`, "", "closing quote"},
		{`"a\`, "", "escape"},
		{`"a\x"`, "", "escape"},
		{"\"a\rb\"", "", "CR, LF"},
		{"\"a\x00b\"", "", "NUL"},
		{"a b", "a", "Unexpected"},
		{"", "", "Expected a string"},
		{"(", "", "Expected a string"},
		{"{1", "", "Expected a literal"},
		{"{1}x", "", "Expected a literal"},
		{"{}", "", "Expected a literal"},
		{"{-1}", "", "Expected a literal"},
		{"{9223372036854775808}", "", "out of range"},
		{"{99999999999999999999999999}", "", "out of range"},
		{"{9223372036854775807}", "", "too big"},
		{"{2000000}", "", "too big"},
		{"caf\xc3\xa9", "caf", "Unexpected"},
		{long, "", "too long"},
		{`"` + long + `"`, long, ""},
	} {
		got, err := arg(t, c.text, (*reader).AString)
		if c.err == "" && (err.status != "" || got != c.want) || c.err != "" && !strings.Contains(err.text, c.err) {
			t.Errorf("AString(%.40q) = %.40q, %v", c.text, got, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint32
		ok   bool
	}{
		{"0", 0, true}, {"007", 7, true}, {"4294967295", 1<<32 - 1, true}, {"4294967296", 0, false}, {"-1", 0, false},
		{"", 0, false}, {"1x", 1, false}, {strings.Repeat("9", 33), 0, false},
	} {
		if got, err := arg(t, c.text, (*reader).Number); (err.status == "") != c.ok || got != c.want {
			t.Errorf("Number(%q) = %d, %v", c.text, got, err)
		}
	}
	for _, c := range []struct {
		text string
		want uint64
		ok   bool
	}{{"0", 0, true}, {"9223372036854775807", 1<<63 - 1, true}, {"9223372036854775808", 0, false}} {
		if got, err := arg(t, c.text, (*reader).ModSeq); (err.status == "") != c.ok || got != c.want {
			t.Errorf("ModSeq(%q) = %d, %v", c.text, got, err)
		}
	}
}

func TestDates(t *testing.T) {
	want := time.Date(2026, 11, 3, 10, 11, 12, 0, time.FixedZone("", 3600))
	for _, text := range []string{`" 3-Nov-2026 10:11:12 +0100"`, `"03-Nov-2026 10:11:12 +0100"`, `"3-nov-2026 10:11:12 +0100"`} {
		if got, err := arg(t, text, (*reader).DateTime); err.status != "" || !got.Equal(want) {
			t.Errorf("DateTime(%s) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`"31-Feb-2026 10:11:12 +0100"`, `"3-Nov-2026 10:11:12"`, `"3-Nov-26 10:11:12 +0100"`, `3-Nov-2026`, `""`} {
		if got, err := arg(t, text, (*reader).DateTime); err.status == "" {
			t.Errorf("DateTime(%s) = %v", text, got)
		}
	}
	for _, text := range []string{`3-Nov-2026`, `"03-NOV-2026"`} {
		if got, err := arg(t, text, (*reader).Date); err.status != "" || !got.Equal(time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("Date(%s) = %v, %v", text, got, err)
		}
	}
}

func TestLists(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"()", 0}, {"(a)", 1}, {"(a b c)", 3},
		{"(", -1}, {"(a", -1}, {"(a%b)", -1}, {"(a )", -1}, {")", -1}, {"a", -1},
	} {
		n := 0
		_, err := arg(t, c.text, func(r *reader) int { r.List(func() { r.Atom(); n++ }); return n })
		if (err.status == "") != (c.want >= 0) || c.want >= 0 && n != c.want {
			t.Errorf("List(%q) = %d, %v", c.text, n, err)
		}
	}
	for _, depth := range []int{maxDepth, maxDepth + 1, 100000} {
		var nest func(r *reader) int
		nest = func(r *reader) int {
			if r.Peek() == '(' {
				r.List(func() { nest(r) })
			}
			return 0
		}
		_, err := arg(t, strings.Repeat("(", depth)+strings.Repeat(")", depth), nest)
		if (err.status == "") != (depth <= maxDepth) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

func TestSets(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"1", "1"}, {"1,2,3", "1:3"}, {"3,1", "1,3"}, {"5:2", "2:5"}, {"*", "*"}, {"*:4", "4:*"}, {"4:*", "4:*"},
		{"1,*", "1,*"}, {"*,5:*", "5:*"}, {"*:*", "*"}, {"7:9,5:*,1", "1,5:*"}, {"1:4,5:*", "1:*"}, {"9:*,3:*", "3:*"},
		{"4294967295,1:4294967294", "1:4294967295"}, {"4294967295:*", "4294967295:*"}, {"2:4,3:9,20", "2:9,20"}, {"$", "$"},
		{"0", ""}, {"1,", ""}, {"1:", ""}, {"1:0", ""}, {"", ""}, {"1,,2", ""}, {"4294967296", ""}, {"$,1", ""}, {"a", ""},
	} {
		got, err := arg(t, c.text, func(r *reader) imap.NumSet { return r.NumSet(true) })
		if (err.status == "") != (c.want != "") || c.want != "" && got.String() != c.want {
			t.Errorf("NumSet(%q) = %v, %v", c.text, got, err)
		}
	}
	// Descending singles are the worst case of a set that is kept sorted while it is read.
	var b strings.Builder
	for i := 150000; i > 0; i-- {
		fmt.Fprintf(&b, "%d,", i*2)
	}
	got, err := arg(t, strings.TrimSuffix(b.String(), ","), (*reader).SeqSet)
	if err.status != "" || len(got) != 150000 {
		t.Errorf("a long set: %d ranges, %v", len(got), err)
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		set     string
		highest uint32
		want    string
	}{
		{"1:*", 5, "1:5"}, {"*", 5, "5"}, {"9:*", 5, "5"}, {"2,9:*", 5, "2,5"}, {"*", 0, ""}, {"1:*", 0, ""}, {"3", 0, "3"},
		{"5:*", 5, "5"}, {"1:4294967295", 5, "1:4294967295"}, {"1,3:*", 4294967295, "1,3:4294967295"},
	} {
		set, _ := arg(t, c.set, (*reader).SeqSet)
		out := imap.SeqSet{}
		for _, s := range resolve(spansOf(set), c.highest) {
			out = append(out, imap.SeqRange{Start: s.first, Stop: s.last})
		}
		if out.String() != c.want {
			t.Errorf("resolve(%s, %d) = %s", c.set, c.highest, out)
		}
		for n := uint32(1); n < 12; n++ {
			if contains(resolve(spansOf(set), c.highest), n) != (&out).Contains(n) {
				t.Errorf("contains(%s, %d)", out, n)
			}
		}
	}
}

// TestFraming: whatever is wrong with a command, the next one begins where it begins. Each case is followed by "z NOOP".
func TestFraming(t *testing.T) {
	long := strings.Repeat("A", maxCommandAfter)
	for _, c := range []struct {
		name, text string
		tag        string
	}{
		{"bad atom", "a FETCH (((\x01", "a"},
		{"literal not taken", "a FOO {7+}\r\nb EVIL\n", "a"},
		{"literal8 not taken", "a FOO ~{7+}\r\nb EVIL\n x {3+}\r\nabc y", "a"},
		{"refused synchronizing literal never comes", "a FOO {7}", "a"},
		{"literal behind a mistake", "a FOO ((\"x {10+}\r\nb LOGOUT\r\n more", "a"},
		{"empty tag with a literal", " {8+}\r\nb LOGOUT more", ""},
		{"too long", "a " + long, "a"},
		{"too long, then a literal", "a " + long + " {10+}\r\nb LOGOUT\r\n more {2+}\r\nxy", "a"},
		{"too long by its literals", "a {" + fmt.Sprint(len(long)) + "+}\r\n" + long + " {10+}\r\nb LOGOUT\r\n", "a"},
		{"literal's data ends like a literal", "a FOO {4+}\r\n{9+} x", "a"},
		{"taken literal left unread", "a LITERAL {10+}\r\nb LOGOUT\r\n", "a"},
	} {
		r := rawReader(c.text + "\r\nz NOOP\r\n")
		tag, err := r.begin()
		if tag != c.tag || err != nil {
			t.Errorf("%s: begin: %q, %v", c.name, tag, err)
		}
		if r.TryFold(" LITERAL ") {
			if _, _, ok := r.Literal(); ok {
				_, _ = r.Accept().Read(make([]byte, 3))
			}
		} else if r.SP(); r.Keyword() == "FOO" {
			r.SP()
			r.fail("refused")
		} else {
			r.SP()
			r.AString()
			r.SP()
			r.AString()
		}
		if err := r.finish(); err != nil {
			t.Errorf("%s: finish: %v", c.name, err)
		}
		if tag, err := r.begin(); tag != "z" || err != nil {
			t.Errorf("%s: next command is %q %q, %v", c.name, tag, r.line, err)
		}
	}
}

// TestUnframed: what can never be read to its end ends the session.
func TestUnframed(t *testing.T) {
	for _, text := range []string{
		"a FOO {9223372036854775808+}\r\nb EVIL\r\n",
		"a FOO {9223372036854775807+}\r\nb EVIL\r\n",
		"a FOO {99999999999999999999999999999999999999+}\r\nb EVIL\r\n",
		"a FOO {1073741825+}\r\nb EVIL\r\n",
	} {
		r := rawReader(text)
		if _, err := r.begin(); err != nil {
			t.Fatal(err)
		}
		if err := r.finish(); !errors.Is(err, errUnframed) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// endless gives the same octet for ever and counts.
type endless struct {
	c byte
	n int64
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.c
	}
	e.n += int64(len(p))
	return len(p), nil
}

// TestStrangersMemory: one stranger who sends AAAA… took an engine without bounds to 288 MiB in three seconds.
func TestStrangersMemory(t *testing.T) {
	for _, start := range []string{"", "a LOGIN ", "a LOGIN \"", "a LOGIN {4096+}\r\n", "a AUTHENTICATE PLAIN "} {
		source := &endless{c: 'A'}
		r := newReader(io.MultiReader(strings.NewReader(start), source), &noConversation{})
		_, err := r.begin()
		if err == nil {
			r.SP()
			r.Keyword()
			r.SP()
			r.AString()
			r.SP()
			r.AString()
			err = r.finish()
		}
		if !errors.Is(err, errUnframed) {
			t.Errorf("%q: %v", start, err)
		}
		if source.n > 2<<20 || cap(r.line) > 2*maxCommandBefore {
			t.Errorf("%q: read %d octets, held %d", start, source.n, cap(r.line))
		}
	}
	// After login more is kept, but not without end.
	r := newReader(io.LimitReader(&endless{c: 'A'}, 32<<20), &noConversation{})
	r.afterLogin = true
	if _, err := r.begin(); err != io.EOF || cap(r.line) > 2*maxCommandAfter || r.drop < 30<<20 {
		t.Errorf("after login: %v, held %d", err, cap(r.line))
	}
}

// FuzzReader: no input makes the reader panic, or read a literal's data as a command. The oracle splits the input into
// commands by RFC 9051's framing alone.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"a NOOP\r\nb NOOP\r\n", "a LOGIN {5+}\r\nalice {6+}\r\nsecret\r\nb SELECT INBOX\r\n", "a X {3}\r\nabc\r\n",
		"a X ~{3+}\r\n\x00\x00\x00\r\n", "\"{5+}\r\nb NOO\r\n", "a X (1:*,$ \"\\\"\" NIL {0+}\r\n)\r\n\r\n\n", "a X {9223372036854775808+}\r\n",
		"a STORE 1:*,5 (UNCHANGEDSINCE 7) +FLAGS (\\Seen)\nb\r\n", "a APPEND INBOX (\\Seen) \" 3-Nov-2026 10:11:12 +0100\" {3+}\r\nabc\r\n",
	} {
		for k := range uint8(8) {
			f.Add([]byte(seed), k)
		}
	}
	f.Fuzz(func(t *testing.T, input []byte, kind uint8) {
		want, framed := split(input)
		r := newReader(bytes.NewReader(input), &noConversation{})
		r.afterLogin = true
		for i := 0; ; i++ {
			_, err := r.begin()
			if err != nil {
				break
			}
			line := string(r.line)
			if i >= len(want) {
				t.Fatalf("a command too many: %q", line)
			}
			if line != want[i] {
				t.Fatalf("command %d begins %q, should be %q", i, line, want[i])
			}
			readSomething(r, kind+uint8(i))
			if err := r.finish(); err != nil {
				if framed && errors.Is(err, errUnframed) && len(input) < maxDropBefore {
					t.Fatalf("command %d: %v", i, err)
				}
				break
			}
		}
	})
}

// split gives the first line of each complete-looking command. Synchronizing literals count as not sent, since readSomething
// never takes one. framed is false if there is a literal that nobody could skip.
func split(input []byte) (firstLines []string, framed bool) {
	first := true
	for len(input) > 0 {
		line, rest, found := bytes.Cut(input, []byte("\n"))
		if !found {
			return firstLines, true
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if first {
			firstLines = append(firstLines, string(line))
		}
		l := announcedLiteral(line)
		if l.broken || l.announced && !l.sync && l.size > maxDropAfter {
			return firstLines, false
		}
		first = true
		if l.announced && !l.sync {
			if l.size > int64(len(rest)) {
				return firstLines, true
			}
			rest = rest[l.size:]
			first = false
		}
		input = rest
	}
	return firstLines, true
}

func readSomething(r *reader, kind uint8) {
	r.SP()
	r.Keyword()
	for range 4 {
		if r.SP(); r.lit.announced && r.lit.sync && r.pos == r.lit.start {
			return
		}
		switch kind % 8 {
		case 0:
			r.Str()
		case 1:
			r.List(func() { r.Flag() })
		case 2:
			r.NumSet(true)
		case 3:
			r.DateTime()
		case 4:
			r.NString()
		case 5:
			r.Mailbox()
		case 6:
			if _, _, ok := r.Literal(); ok {
				_, _ = io.CopyN(io.Discard, r.Accept(), 2)
				return
			}
		case 7:
			r.AString()
		}
	}
}
