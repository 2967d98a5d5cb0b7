package directory

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a", 64)
	tests := []struct{ in, want string }{
		{"Alice@Example.TEST", "alice@example.test"},
		{"POSTMASTER", "postmaster"},
		{"a.b-c_d!#$%&'*+/=?^`{|}~@x", "a.b-c_d!#$%&'*+/=?^`{|}~@x"},
		{long + "@example.test", long + "@example.test"},

		// IDNA: U-labels and A-labels are one domain, in any case and composition, with any of the dots of UTS 46.
		{"a@Bücher.example", "a@xn--bcher-kva.example"},
		{"a@BÜCHER.example", "a@xn--bcher-kva.example"},
		{"a@bu\u0308cher.example", "a@xn--bcher-kva.example"},
		{"a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"},
		{"a@пример\u3002испытание", "a@xn--e1afmkfd.xn--80akhbyknj4f"},
		{"a@faß.example", "a@xn--fa-hia.example"}, // nontransitional: not fass
		{"a@r3---sn.example", "a@r3---sn.example"},
		{"a@my_host.example", "a@my_host.example"},

		// UTF-8 local parts: NFC, any case.
		{"Иван@example.test", "иван@example.test"},
		{"JOSE\u0301@example.test", "jos\u00e9@example.test"},
		{"ΑΣ@example.test", "ασ@example.test"}, // no final sigma: ας and ασ stay two, ΑΣ is always ασ

		// Quoted local parts: quotes only where needed.
		{`"alice"@example.test`, "alice@example.test"},
		{`"al\ice"@example.test`, "alice@example.test"},
		{`"a b"@example.test`, `"a b"@example.test`},
		{`"A@B"@example.test`, `"a@b"@example.test`},
		{`"a\"b\\"@example.test`, `"a\"b\\"@example.test`},
		{`".a"@example.test`, `".a"@example.test`},
	}
	for _, tt := range tests {
		got, err := Canonical(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
		if again, err := Canonical(got); err != nil || again != got {
			t.Errorf("Canonical(%q) = %q, %v; not stable", got, again, err)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	tests := []struct{ in, why string }{
		{"", "empty"},
		{"alice", "no @"},
		{"@example.test", "nothing before"},
		{"alice@", "no domain"},
		{"a@b@c", "more than one @"},
		{"a b@x", "needs quoting"},
		{"<a@x>", "needs quoting"},
		{"a..b@x", "two in a row"},
		{".a@x", "dot at an end"},
		{"a\x00b@x", "needs quoting"},
		{"\"a\x00b\"@x", "control"},
		{"\"a\r\nb\"@x", "control"},
		{"a\u0085@x", "control"},
		{"a\u2028b@x", "control"},
		{"a\xff@x", "UTF-8"},
		{`""@x`, "empty"},
		{`"a@x`, "does not end"},
		{`"a\"@x`, "does not end"},
		{`"a"b@x`, "after the quoted"},
		{"a@[192.0.2.1]", "address literal"},
		{"a@[IPv6:::1]", "address literal"},
		{"a@x..y", "empty label"},
		{"a@x.", "empty label"},
		{"a@-x.y", "hyphen"},
		{"a@x y", "not a letter"},
		{"a@x/../y", "not a letter"},
		{"a@\u2029.y", "internationalised"},
		{"a@xn--a\u0301", "internationalised"},
		{"a@xn--zzzzzzzzz.y", "internationalised"},
		{strings.Repeat("a", 65) + "@x", "64 octets"},
		{strings.Repeat("é", 33) + "@x", "64 octets"},
		{"a@" + strings.Repeat("a", 64), "63 octets"},
		{"a@" + strings.Repeat("a.", 130) + "a", "253 octets"},
		{strings.Repeat("a", 64) + "@" + strings.Repeat("a.", 100) + "a", "254 octets"},
		{strings.Repeat("a", 5000), "too long"},
	}
	for _, tt := range tests {
		got, err := Canonical(tt.in)
		if !errors.Is(err, ErrBadAddress) || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("Canonical(%.40q) = %q, %v; want ErrBadAddress with %q", tt.in, got, err, tt.why)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@x`, "İ@x", "ǅ@x", "a@Bücher.example", "\u1e9e@x", "ΑΣ@x", `"\""@x`, "a@[1.2.3.4]", "ΐ@x", "postmaster"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Canonical(s)
		if err != nil {
			return
		}
		if again, err := Canonical(c); err != nil || again != c {
			t.Fatalf("Canonical(%q) = %q, then %q, %v", s, c, again, err)
		}
		if len(c) > maxAddress || !utf8.ValidString(c) || strings.ContainsAny(c, "\x00\r\n") {
			t.Fatalf("Canonical(%q) = %q", s, c)
		}
	})
}
