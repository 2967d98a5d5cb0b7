package blob

import (
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNames(t *testing.T) {
	for _, n := range []Name{
		{0, 0, "h", 0, 1},
		{1_700_000_000, 1_700_000_000_123_456, "mx.example.test", 1234, 77},
		{-5, math.MaxUint64, "mx-1_a", math.MaxInt64, math.MaxUint32},
		{math.MinInt64, 1, strings.Repeat("h", maxHost), 1, 1},
		{1, 1, ",S=1,U=2", 1, 1}, // the host cannot counterfeit the rest
		{1, 1, "a/b:c\x00d é", 1, 1},
		{1, 1, "", 1, 1},
	} {
		stem := FormatName(n)
		got, ok := ParseName(stem)
		n.Host = safeHost(n.Host)
		if !ok || got != n {
			t.Errorf("%q parses as %+v %v, want %+v", stem, got, ok, n)
		}
		if strings.ContainsAny(stem, ":/\x00 ") || stem[0] == '.' || len(stem) > 190 {
			t.Errorf("%q is no good file name", stem)
		}
	}
	if got := FormatName(Name{1700000000, 0x60a1b2c3d4e5f, "mx.test", 52, 9}); got != "1700000000.60a1b2c3d4e5f.mx.test,S=52,U=9" {
		t.Errorf("the form on disk has changed: %s", got)
	}
}

func TestForeignNames(t *testing.T) {
	for _, stem := range []string{
		"", "x", "1700000000.M123P45.host", "1700000000.M123P45.host,S=123,W=130", "1700000000.12345_1.host,U=12",
		"1.1.h,S=1,U=0", "1.1.h,S=-1,U=1", "01.1.h,S=1,U=1", "+1.1.h,S=1,U=1", "1.A.h,S=1,U=1", "1.01.h,S=1,U=1",
		"1.1.h,S=1,U=1,W=2", "1.1.h,U=1,S=1", "1.1..h", "1.1.h,S=1,U=4294967296", "1.1.h,S=9223372036854775808,U=1",
		"1.1.h h,S=1,U=1", "1.1.,S=1,U=1", "1.1.h,S=1,U=1 ",
	} {
		if n, ok := ParseName(stem); ok {
			t.Errorf("%q is taken for ours: %+v", stem, n)
		}
	}
}

func TestEntryNames(t *testing.T) {
	for name, want := range map[string]Entry{
		"1.1.h":         {Stem: "1.1.h"},
		"1.1.h:2,":      {Stem: "1.1.h", Info: "2,"},
		"1.1.h:2,FS":    {Stem: "1.1.h", Info: "2,FS"},
		"1.1.h:":        {Stem: "1.1.h:"},
		"a:b:2,S":       {Stem: "a:b", Info: "2,S"},
		"a:1,x":         {Stem: "a", Info: "1,x"},
		":2,S":          {Info: "2,S"},
		"a:2,S,X=1":     {Stem: "a", Info: "2,S,X=1"},
		"\xff\xfe:2,S ": {Stem: "\xff\xfe", Info: "2,S "},
	} {
		got := entryOf(name, false)
		if got != want {
			t.Errorf("%q is %+v, want %+v", name, got, want)
		}
		if back := got.fileName(); back != name {
			t.Errorf("%q became %q", name, back)
		}
	}
}

func TestFlagLetters(t *testing.T) {
	for info, want := range map[string]struct {
		flags uint64
		other string
	}{
		"2,":           {0, ""},
		"2,S":          {1, ""},
		"2,DFRST":      {1 | 2 | 4 | 8 | 16, ""},
		"2,SP":         {1, "P"},
		"2,TSRa":       {1 | 2 | 8 | 1<<8, ""},
		"2,z":          {1 << 33, ""},
		"2,A":          {1 << 34, ""},
		"2,Z":          {1 << 53, ""},
		"2,0":          {1 << 54, ""},
		"2,9":          {1 << 63, ""},
		"2,S,X=3":      {1, ",X=3"},
		"2,S\xff!":     {1, "\xff!"},
		"":             {0, ""},
		"1,S":          {0, ""},
		"2":            {0, ""},
		"2,SSS":        {1, ""},
		"2,abcdefghij": {0x3ff << 8, ""},
	} {
		if flags, other := FlagsOf(info); flags != want.flags || other != want.other {
			t.Errorf("%q is %x %q, want %x %q", info, flags, other, want.flags, want.other)
		}
	}
	if len(keywordLetters) != 56 {
		t.Errorf("%d keyword letters, want 56", len(keywordLetters))
	}
	for bit := range 64 {
		flags := uint64(1) << bit
		got, other := FlagsOf(InfoFor(flags))
		if named := bit < len(systemLetters) || bit >= keywordBit; named != (got == flags) || other != "" {
			t.Errorf("bit %d is written %q and read %x %q", bit, InfoFor(flags), got, other)
		}
	}
	if got, want := InfoFor(math.MaxUint64), "2,0123456789ABCDEFGHIJKLMNOQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"; got != want {
		t.Errorf("all flags: %q, want %q", got, want)
	}
}

func TestFolderNames(t *testing.T) {
	for mailbox, want := range map[string]string{
		"INBOX":            "",
		"Inbox":            "",
		"inbox/x":          ".INBOX.x",
		"Sent":             ".Sent",
		"Sent Items/2024":  ".Sent Items.2024",
		"Entwürfe":         ".Entw&APw-rfe",
		"台北/日本語":           ".&U,BTFw-.&ZeVnLIqe-", // RFC 3501's example
		"a.b":              ".a&AC4-b",
		"..":               ".&AC4ALg-",
		"~peter/mail":      ".&AH4-peter.mail",
		"R&D":              ".R&-D",
		"&AC4-":            ".&-AC4-",
		"💩":                ".&2D3cqQ-",
		"inboxes":          ".inboxes",
		"x/inbox":          ".x.inbox",
		"*%\"\\":           ".*%\"\\",
		"new":              ".new",
		"a\tb":             ".a&AAk-b",
		"\ufffd":           ".&,,0-",
		"é/é":              ".&AOk-.&AOk-",
		"éa&b":             ".&AOk-a&-b",
		"0123456789abcdef": ".0123456789abcdef",
	} {
		folder, lossy := FolderName(mailbox)
		if folder != want || lossy {
			t.Errorf("%q is %q %v, want %q", mailbox, folder, lossy, want)
		}
		if back, ok := MailboxName(folder); strings.ContainsRune(mailbox, '\t') == ok || ok && back != canonical(mailbox) {
			t.Errorf("%q came back as %q %v", mailbox, back, ok)
		}
	}
}

// Long names and impossible ones get a hash, and two of them never the same one.
func TestHashedFolders(t *testing.T) {
	seen := map[string]string{}
	for _, mailbox := range []string{
		strings.Repeat("x", 300), strings.Repeat("x", 301), strings.Repeat("x", 299) + "/y", strings.Repeat("日", 100),
		"", "a//b", "/a", "a/", "\xff", "\xfe", strings.Repeat("a/", 49) + strings.Repeat("b", 200),
	} {
		folder, lossy := FolderName(mailbox)
		if !lossy || len(folder) > maxFolder || folder[0] != '.' || strings.ContainsAny(folder, "/\x00") || !utf8.ValidString(folder) {
			t.Errorf("%.20q is %q %v", mailbox, folder, lossy)
		}
		if other, taken := seen[folder]; taken {
			t.Errorf("%.20q and %.20q share %q", mailbox, other, folder)
		}
		seen[folder] = mailbox
		if back, ok := MailboxName(folder); ok {
			t.Errorf("%q was taken for mailbox %q", folder, back)
		}
	}
	if folder, lossy := FolderName(strings.Repeat("x", maxFolder-1)); lossy {
		t.Errorf("a name that just fits became %q", folder)
	}
}

func TestForeignFolders(t *testing.T) {
	for folder, want := range map[string]string{
		".Entwürfe": "Entwürfe", // Dovecot with UTF-8 names
		".a&b":      "a&b",
		".a&b-":     "a&b-",
		".R&AGQ-":   "Rd", // needless escape
		".&2D0-":    "&2D0-",
		".foo~":     "foo~",
		".a~b":      "a~b",
		".INBOX.x":  "INBOX/x",
		".inbox.x":  "INBOX/x",
	} {
		if got, ok := MailboxName(folder); !ok || got != want {
			t.Errorf("%q is %q %v, want %q", folder, got, ok, want)
		}
	}
	for _, folder := range []string{".INBOX", ".inbox", ".", "..", ".a..b", ".a.", "Sent", ".a\x01b", ".\xff", ".&AC8-", ".&AAA-"} {
		if got, ok := MailboxName(folder); ok {
			t.Errorf("%q was taken for mailbox %q", folder, got)
		}
	}
}

func FuzzFolderName(f *testing.F) {
	for _, seed := range []string{"INBOX", "inbox/a", "a.b/c", "&", "~", "é&é", "\x00", "a//b", "x\xff", "💩/💩", strings.Repeat("日", 70)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, mailbox string) {
		folder, lossy := FolderName(mailbox)
		if again, _ := FolderName(mailbox); again != folder {
			t.Fatalf("%q is %q, then %q", mailbox, folder, again)
		}
		if folder != "" && (folder[0] != '.' || folder == "." || folder == ".." || len(folder) > maxFolder) {
			t.Fatalf("%q is %q", mailbox, folder)
		}
		for i := range len(folder) {
			if folder[i] < ' ' || folder[i] > '~' || folder[i] == '/' {
				t.Fatalf("%q is %q", mailbox, folder)
			}
		}
		back, ok := MailboxName(folder)
		control := strings.ContainsFunc(mailbox, func(c rune) bool { return c < ' ' || c == 0x7f })
		if ok != (!lossy && !control) || ok && back != canonical(mailbox) {
			t.Fatalf("%q is %q, which is %q %v", mailbox, folder, back, ok)
		}
	})
}

// Whatever a foreign program calls its folder: either no mailbox, or one whose own folder name leads back to it.
func FuzzMailboxName(f *testing.F) {
	for _, seed := range []string{"", ".a&b", ".&2D0-", ".&AC8-", ".é", ".a..b", ".~0123456789abcdef", ".INBOX", ".&AGE-&AGE-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, folder string) {
		mailbox, ok := MailboxName(folder)
		if !ok {
			return
		}
		if back, lossy := FolderName(mailbox); !lossy {
			if again, ok := MailboxName(back); !ok || again != mailbox {
				t.Fatalf("%q is %q, whose folder %q is %q %v", folder, mailbox, back, again, ok)
			}
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("1700000000.60a1b2c3d4e5f.mx.test,S=52,U=9")
	f.Add("1.1.h,S=1,U=1,U=2")
	f.Fuzz(func(t *testing.T, stem string) {
		if n, ok := ParseName(stem); ok && FormatName(n) != stem {
			t.Fatalf("%q is %+v, which is %q", stem, n, FormatName(n))
		}
	})
}
