package imapd

import (
	"strings"
	"testing"
)

func TestListPattern(t *testing.T) {
	for _, c := range []struct {
		ref, pattern, name string
		want               bool
	}{
		{"", "*", "a/b/c", true},
		{"", "%", "a", true},
		{"", "%", "a/b", false},
		{"", "%/%", "a/b", true},
		{"", "%/%", "a/b/c", false},
		{"", "a*", "a/b", true},
		{"", "a%", "ab", true},
		{"", "a%", "a/b", false},
		{"", "*c", "a/b/c", true},
		{"", "a/*/c", "a/c", false},
		{"", "a/%/c", "a/b/c", true},
		{"", "inbox", "INBOX", true},
		{"", "iNb*", "INBOX", true},
		{"", "inbox/Sub", "INBOX/Sub", true},
		{"", "inbox/sub", "INBOX/Sub", false},
		{"", "sent", "Sent", false},
		{"a/", "%", "a/b", true},
		{"a/", "%", "a", false},
		{"in", "b%", "INBOX", true},
		{"a/", "/b", "a/b", false},
		{"", "*%*%*%*%*%*%*%*%*%*%x", strings.Repeat("a", 1000), false},
		{"", "%%%%%%/%%%%%", "a/b", true},
		{"", "", "a", false},
	} {
		if got := newListPattern(c.ref, c.pattern).match(c.name); got != c.want {
			t.Errorf("LIST %q %q matches %q: %v, want %v", c.ref, c.pattern, c.name, got, c.want)
		}
	}
}

// naive says what the wildcards mean, by trying everything.
func naive(p, name string) bool {
	if p == "" {
		return name == ""
	}
	switch p[0] {
	case '*', '%':
		for i := 0; ; i++ {
			if naive(p[1:], name[i:]) {
				return true
			}
			if i == len(name) || p[0] == '%' && name[i] == delimiter {
				return false
			}
		}
	}
	return name != "" && p[0] == name[0] && naive(p[1:], name[1:])
}

// Every pattern of up to 5 characters on every name of up to 5, against the definition.
func TestListPatternSmallWords(t *testing.T) {
	words := func(alphabet string, n int) []string {
		all := []string{""}
		for from := 0; n > 0; n-- {
			end := len(all)
			for _, w := range all[from:end] {
				for _, c := range alphabet {
					all = append(all, w+string(c))
				}
			}
			from = end
		}
		return all
	}
	names := words("ab/", 5)
	for _, text := range words("*%a/", 5) {
		p := newListPattern("", text)
		for _, name := range names {
			if got, want := p.match(name), naive(text, name); got != want {
				t.Fatalf("%q matches %q: %v, want %v", text, name, got, want)
			}
		}
	}
}

// The same behind a run that puts the interesting places on the borders of words.
func TestListPatternLong(t *testing.T) {
	for _, n := range []int{58, 59, 60, 61, 62, 63, 64, 65, 125, 126, 127, 128} {
		pad := strings.Repeat("x", n)
		for _, text := range []string{"a", "*", "%", "*a", "%a", "a*", "a%b", "a*b", "*/a", "%/a", "a/%", "*a%b", "%a*b", "a%/*b"} {
			p := newListPattern("", pad+text)
			for _, name := range []string{"", "a", "b", "ab", "aab", "a/b", "/a", "a/a", "a/b/b", "ba/b", "abab"} {
				if got, want := p.match(pad+name), naive(text, name); got != want {
					t.Errorf("%d+%q matches %d+%q: %v, want %v", n, text, n, name, got, want)
				}
			}
		}
	}
}

// The work for the worst pattern there is, as a benchmark: names can be a thousand octets, and there can be 20,000 of them.
func BenchmarkListPatternWorst(b *testing.B) {
	p, name := newListPattern("", strings.Repeat("%a", 500)+"b"), strings.Repeat("a", 999)+"c"
	for b.Loop() {
		p.match(name)
	}
}
