package smtpd

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/storage"
)

// TestTranscripts plays testdata/*.txt. A file is sections, each a conversation of its own:
//
//	== title           begins one; everything after # is comment
//	on SERVICE WORDS   which server; words: notls, authplain, full (disk)
//	> line             sends it with CRLF; Go escapes
//	>> octets          sends them without
//	< 250 2.1.0        reads a reply that matches: a prefix, * stands for anything
//	tls                client's side of STARTTLS
//	room on|off        makes the disk full, or not
//	end                the server closes
//	letters N          so many were delivered
//	has TEXT           the last one has it
//	lacks TEXT
//	from, to ADDRESS   its envelope
//	wishes WORDS       its priority, its release and deadline from now, and what to do then
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, section := range strings.Split("\n"+string(text), "\n== ")[1:] {
			title, script, _ := strings.Cut(section, "\n")
			t.Run(filepath.Base(f)+"/"+strconv.Itoa(i+1)+" "+title, func(t *testing.T) {
				t.Parallel()
				play(t, script)
			})
		}
	}
}

func play(t *testing.T, script string) {
	var c *client
	post := &fakePost{}
	for n, line := range strings.Split(script, "\n") {
		line, _, _ = strings.Cut(line, "  #")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word == "on" {
			c = connect(t, rest, post)
			continue
		}
		if c == nil {
			t.Fatalf("line %d: no server", n+2)
		}
		if !act(t, c, post, word, rest) {
			t.Fatalf("line %d: %s", n+2, line)
		}
	}
}

func connect(t *testing.T, words string, post *fakePost) *client {
	f := strings.Fields(words)
	o := Options{Service: Service(f[0]), TLS: testTLS(), Limits: Limits{MessageSize: 2000, Recipients: 3, Header: 1000, Line: 500}}
	a := fakeAuth{}
	for _, w := range f[1:] {
		switch w {
		case "notls":
			o.TLS = nil
		case "authplain":
			a.plain = true
		case "fewerrors":
			o.Limits.Errors = 3
		default:
			t.Fatalf("unknown word %q", w)
		}
	}
	_, addr := start(t, o, post, a)
	c := dial(t, addr)
	if o.Service == Submissions {
		c.startTLS()
	}
	return c
}

func act(t *testing.T, c *client, post *fakePost, word, rest string) bool {
	unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(rest, `"`, `\"`) + `"`)
	if err != nil {
		t.Errorf("%q: %v", rest, err)
		return false
	}
	switch word {
	case ">":
		c.send(unquoted + "\r\n")
	case ">>":
		c.send(unquoted)
	case "<":
		got, err := c.reply()
		if err != nil || !matches(rest, got) {
			t.Errorf("got %q, %v", got, err)
			return false
		}
	case "tls":
		c.startTLS()
	case "room":
		post.setRoom(map[string]error{"on": nil, "off": storage.ErrDiskFull}[rest])
	case "end":
		c.ended()
	case "letters":
		if got := strconv.Itoa(len(post.letters())); got != rest {
			t.Errorf("%s letters", got)
			return false
		}
	case "has", "lacks":
		if strings.Contains(post.last(t).text, unquoted) != (word == "has") {
			t.Errorf("letter is %q", post.last(t).text)
			return false
		}
	case "wishes":
		return wished(post.last(t).env) == rest
	case "from":
		return post.last(t).env.Sender == rest
	case "to":
		all := post.last(t).env.Recipients
		return len(all) > 0 && all[len(all)-1].Address == rest
	default:
		t.Errorf("unknown word %q", word)
		return false
	}
	return true
}

func wished(env delivery.Envelope) string {
	fromNow := func(t time.Time) string { return time.Until(t).Round(time.Minute).String() }
	words := []string{strconv.Itoa(env.Priority), fromNow(env.ReleaseAt), fromNow(env.DeliverBy)}
	if env.DeliverByNotify {
		words = append(words, "notify")
	}
	if env.DeliverByTrace {
		words = append(words, "trace")
	}
	return strings.Join(words, " ")
}

// matches is path.Match with a * at the end, for texts with slashes and brackets.
func matches(pattern, s string) bool {
	escape := strings.NewReplacer("/", "÷", "[", "\\[", "?", "\\?")
	good, err := path.Match(escape.Replace(pattern)+"*", strings.ReplaceAll(s, "/", "÷"))
	return err == nil && good
}
