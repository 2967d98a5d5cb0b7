package imapd

import (
	"strings"
	"testing"
	"testing/quick"
	"unicode/utf8"
)

func TestUTF7(t *testing.T) {
	for _, c := range []struct{ name, wire string }{
		{"", ""},
		{"INBOX", "INBOX"},
		{"a&b", "a&-b"},
		{"&", "&-"},
		{"&&", "&-&-"},
		{"Entwürfe", "Entw&APw-rfe"},
		{"~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"}, // RFC 3501's own example
		{"Hi Mom -☺-!", "Hi Mom -&Jjo--!"},
		{"😀", "&2D3eAA-"},
		{"é&é", "&AOk-&-&AOk-"},
		{"-é-", "-&AOk--"},
	} {
		if got := encodeUTF7(c.name); got != c.wire {
			t.Errorf("encodeUTF7(%q) = %q, want %q", c.name, got, c.wire)
		}
		if got, err := decodeUTF7(c.wire); err != nil || got != c.name {
			t.Errorf("decodeUTF7(%q) = %q, %v, want %q", c.wire, got, err, c.name)
		}
	}
}

func TestUTF7Refused(t *testing.T) {
	for wire, want := range map[string]error{
		"&":                  errNotUTF7,
		"a&b":                errNotUTF7,
		"&AOk":               errNotUTF7,      // never ends
		"&A/k-":              errNotUTF7,      // base64 of its own
		"&AOk=-":             errNotUTF7,      // padding
		"&Jjo!":              errNotUTF7,      // RFC 3501 section 5.1.3
		"&U,BTFw-&ZeVnLIqe-": errNotCanonical, // superfluous shift, same section
		"&AGE-":              errNotCanonical, // "a"
		"&ACY-":              errNotCanonical, // "&"
		"&2D0-":              errNotCanonical, // half a surrogate pair
		"&A-":                errNotCanonical, // bits left over
		"&AOl-":              errNotCanonical, // loose bits not zero
		"&AOkA-":             errNotCanonical,
		"caf\xc3\xa9":        errRawOctet,
		"a\x00b":             errControl,
		"a\x7fb":             errControl,
		"&AAA-":              nil, // decodes; decodeMailboxName refuses the NUL
	} {
		if _, err := decodeUTF7(wire); err != want {
			t.Errorf("decodeUTF7(%q): %v, want %v", wire, err, want)
		}
	}
}

func TestMailboxName(t *testing.T) {
	for _, c := range []struct {
		wire string
		utf8 bool
		name string
		err  error
	}{
		{"inbox", false, "INBOX", nil},
		{"InBoX/sub", true, "INBOX/sub", nil},
		{"inboxes", false, "inboxes", nil},
		{"Sent/inbox", false, "Sent/inbox", nil},
		{"e\u0301", true, "e\u0301", nil},
		{"e&AwE-", false, "e\u0301", nil},
		{"a&b", true, "a&b", nil},
		{"&AOk-", true, "&AOk-", nil}, // just letters there
		{"\xff", true, "", errNotUTF8},
		{"", true, "", errEmptyName},
		{"", false, "", errEmptyName},
		{"a\u0085", true, "", errControl},
		{"a\u2028b", true, "", errControl},
		{"&AAA-", false, "", errControl},
	} {
		got, err := decodeMailboxName(c.wire, c.utf8)
		if got != c.name || err != c.err {
			t.Errorf("decodeMailboxName(%q, %v) = %q, %v, want %q, %v", c.wire, c.utf8, got, err, c.name, c.err)
		}
	}
}

// A name is composed, unless there is a mailbox whose name is not.
func TestNetUnicode(t *testing.T) {
	for _, c := range []struct{ name, exists, want string }{
		{"e\u0301", "", "\u00e9"},
		{"e\u0301", "e\u0301", "e\u0301"},
		{"\u00e9", "e\u0301", "\u00e9"},
		{"plain", "", "plain"},
	} {
		r := &reader{exists: func(name string) bool { return name == c.exists }}
		if got := r.netUnicode(c.name); got != c.want {
			t.Errorf("%+q is taken for %+q, want %+q", c.name, got, c.want)
		}
	}
	if got := (&reader{}).netUnicode("e\u0301"); got != "\u00e9" {
		t.Errorf("before login: %+q", got)
	}
}

// Every valid text survives the wire; decoding accepts exactly what encoding makes.
func TestUTF7RoundTrip(t *testing.T) {
	check := func(s string) bool {
		s = strings.ToValidUTF8(s, "?")
		wire := encodeUTF7(s)
		if strings.ContainsFunc(wire, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			return false
		}
		back, err := decodeUTF7(wire)
		return err == nil && back == s
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
}

// All short words over an alphabet that holds every role a character can play in modified UTF-7.
func TestUTF7SmallWords(t *testing.T) {
	alphabet := []byte("&-Ak,O=\xc3")
	var word func(prefix []byte, left int)
	word = func(prefix []byte, left int) {
		if s, err := decodeUTF7(string(prefix)); err == nil && encodeUTF7(s) != string(prefix) {
			t.Errorf("%q decodes to %q, which is %q", prefix, s, encodeUTF7(s))
		}
		if left == 0 {
			return
		}
		for _, c := range alphabet {
			word(append(prefix[:len(prefix):len(prefix)], c), left-1)
		}
	}
	word(nil, 6)
}

func FuzzMailboxName(f *testing.F) {
	for _, s := range []string{"INBOX", "&AOk-", "&-", "&U,BTFw-&ZeVnLIqe-", "e\u0301", "\xff", "&2D0-"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, wire string, utf8Names bool) {
		name, err := decodeMailboxName(wire, utf8Names)
		if err != nil {
			if reasonOf(err) == "" {
				t.Error("no reason given")
			}
			return
		}
		if !utf8.ValidString(name) || strings.ContainsFunc(name, forbiddenInNames) {
			t.Errorf("%q became %q", wire, name)
		}
		again, err := decodeMailboxName(encodeMailboxName(name, utf8Names), utf8Names)
		if err != nil || again != name {
			t.Errorf("%q is sent as %q and comes back as %q, %v", name, encodeMailboxName(name, utf8Names), again, err)
		}
	})
}
