package imapd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestTranscripts runs the conversations in testdata/*.txt, each over plain TCP and over TLS, with a store of its own. A
// conversation has several clients; each name (A, B, …) is a connection, made and logged in as alice when it first speaks.
// A line is one of
//
//	# text                  a comment
//	A> COMMAND              A sends a command; the tag is made for it. \r \n \t \\ \xNN are escapes, here and below. With
//	                        a final \ no CRLF is sent.
//	A>> text                A sends a line as it is: a continuation, DONE, a bad tag.
//	A< * 1 EXISTS           among A's next responses is this one; those before it are passed over
//	A< NO [TRYCREATE]       so too for the tagged response, without its tag; "OK" may be left out: it is expected
//	A<= * 1 EXISTS          A's very next response is this one
//	A! EXPUNGE              none of the responses since A's last command holds this text; the command is over
//	A. 3                    since A's last command there were 3 untagged responses; the command is over
//	A< EOF                  the server closed the connection
//	@as A bob               A will be bob; "-" is: not logged in, greeting still unread
//	@mail bob INBOX \Seen,kw Subject…      a small message is filed, with flags ("-" for none)
//	@file bob INBOX - nested               testdata/mail/nested.eml is filed, internal date 2-Nov-2026 23:30 UTC
//	@repeat N A> …          the line N times over
//	@fill A N x             A sends N times the text x, without CRLF
//	@starttls A             A does the TLS handshake (plain runs only: the file's name begins with "plain")
//	@close A                A hangs up
//
// An expected line is a prefix if it ends in "…", and "…" inside it is any text. $name is a variable: the first time it
// stands for one word (to a space, "]" or ")"), later for what it stood for. {$name} in a sent line too.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secure := range []bool{false, true} {
			if secure && strings.HasPrefix(name, "plain") {
				continue
			}
			t.Run(name+map[bool]string{false: "/plain", true: "/tls"}[secure], func(t *testing.T) {
				t.Parallel()
				p := &play{t: t, w: newWorld(t, nil), secure: secure, file: file}
				p.as, p.clients, p.vars = map[string]string{}, map[string]*client{}, map[string]string{}
				for i, line := range strings.Split(string(text), "\n") {
					p.lineNo = i + 1
					p.perform(strings.TrimRight(line, " \t"))
				}
				for name := range p.clients {
					p.settle(name)
				}
			})
		}
	}
}

// play is one transcript being performed.
type play struct {
	t       *testing.T
	w       *world
	secure  bool
	file    string
	lineNo  int
	as      map[string]string
	clients map[string]*client
	vars    map[string]string
}

func (p *play) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s:%d: %s", p.file, p.lineNo, fmt.Sprintf(format, args...))
}

var scriptLine = regexp.MustCompile(`^([A-Z])(>>|>|<=|<|!|\.) ?(.*)$`)

func (p *play) perform(line string) {
	p.t.Helper()
	if line == "" || line[0] == '#' {
		return
	}
	if line[0] == '@' {
		p.direct(strings.Fields(line), line)
		return
	}
	m := scriptLine.FindStringSubmatch(line)
	if m == nil {
		p.fail("what is this? %s", line)
	}
	name, text := m[1], unescape(m[3])
	c := p.client(name)
	end := "\r\n"
	if short, found := strings.CutSuffix(text, `\`); found && !strings.HasSuffix(m[3], `\\`) && m[2][0] == '>' {
		text, end = short, ""
	}
	switch m[2] {
	case ">":
		for other := range p.clients { // commands of different clients do not overlap, but for IDLE
			if other == name || !p.clients[other].idles {
				p.settle(other)
			}
		}
		c.idles = strings.EqualFold(text, "IDLE")
		c.send(p.substitute(text), end)
	case ">>":
		c.raw(p.substitute(text) + end)
	case "<":
		p.expect(c, text, false)
	case "<=":
		p.expect(c, text, true)
	case "!":
		p.settle(name)
		for _, l := range c.seen {
			if strings.Contains(l, text) {
				p.fail("%s was told: %s", name, l)
			}
		}
	case ".":
		p.settle(name)
		n := 0
		for _, l := range c.seen {
			if strings.HasPrefix(l, "* ") {
				n++
			}
		}
		if strconv.Itoa(n) != text {
			p.fail("%s was told %d lines: %q", name, n, c.seen)
		}
	}
}

func (p *play) direct(words []string, line string) {
	p.t.Helper()
	switch {
	case words[0] == "@as" && len(words) == 3:
		p.as[words[1]] = words[2]
		p.client(words[1])
	case words[0] == "@mail" && len(words) >= 5:
		flags := strings.Split(words[3], ",")
		if words[3] == "-" {
			flags = nil
		}
		subject := strings.Join(words[4:], " ")
		p.w.mail(words[1], words[2], flags, "From: Bob <bob@example.test>\r\nTo: alice@example.test\r\nSubject: "+subject+
			"\r\nDate: Tue, 3 Nov 2026 10:11:12 +0100\r\nMessage-ID: <"+strings.ReplaceAll(subject, " ", ".")+"@example.test>\r\n\r\nText of "+subject+".\r\n")
	case words[0] == "@file" && len(words) == 5:
		p.w.file(words[1], words[2], strings.FieldsFunc(words[3], func(c rune) bool { return c == ',' || c == '-' }), words[4])
	case words[0] == "@repeat":
		n, _ := strconv.Atoi(words[1])
		_, rest, _ := strings.Cut(line, words[1]+" ")
		for range n {
			p.perform(rest)
		}
	case words[0] == "@fill" && len(words) == 4:
		n, _ := strconv.Atoi(words[2])
		p.client(words[1]).raw(strings.Repeat(unescape(words[3]), n))
	case words[0] == "@starttls":
		p.client(words[1]).startTLS()
	case words[0] == "@close":
		_ = p.client(words[1]).conn.Close()
		delete(p.clients, words[1])
	default:
		p.fail("unknown direction: %s", line)
	}
}

func (p *play) client(name string) *client {
	p.t.Helper()
	if c := p.clients[name]; c != nil {
		return c
	}
	c := p.w.dial(name, p.secure)
	p.clients[name] = c
	switch who := p.as[name]; who {
	case "-":
	case "":
		c.greet("alice")
	default:
		c.greet(who)
	}
	return c
}

// settle reads what is left of a client's command, which must have succeeded if nothing was said about it.
func (p *play) settle(name string) {
	p.t.Helper()
	c := p.clients[name]
	if c.tag == "" {
		return
	}
	if _, tagged := c.rest(); !strings.HasPrefix(tagged, "OK") {
		p.fail("before this line %s's command got: %s (%q)", name, tagged, c.seen)
	}
}

func (p *play) expect(c *client, want string, next bool) {
	p.t.Helper()
	from := len(c.seen)
	for {
		got := c.line()
		tagged := false
		if rest, found := strings.CutPrefix(got, c.tag+" "); found && c.tag != "" {
			got, tagged = rest, true
			c.tag = ""
		}
		if p.match(want, got) {
			if got == "EOF" {
				c.tag = ""
			}
			return
		}
		if tagged || next || got == "EOF" {
			p.fail("%s expected\n\t%s\nand got\n\t%s", c.name, want, strings.Join(append(c.seen[from:], "= "+got), "\n\t"))
		}
	}
}

var variable = regexp.MustCompile(`\$[a-z][a-z0-9]*`)

func (p *play) substitute(text string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		if known, there := p.vars[v[1:]]; there {
			return known
		}
		return v
	})
}

// match compares a response with the expected text, and learns new variables from it.
func (p *play) match(want, got string) bool {
	want = p.substitute(want)
	var names []string
	var re strings.Builder
	re.WriteString("(?s)^")
	for want != "" {
		loc := variable.FindStringIndex(want)
		dots := strings.Index(want, "…")
		switch {
		case dots >= 0 && (loc == nil || dots < loc[0]):
			re.WriteString(quoted(want[:dots]) + ".*?")
			want = want[dots+len("…"):]
		case loc != nil:
			re.WriteString(quoted(want[:loc[0]]) + `([^ \])]+)`)
			names = append(names, want[loc[0]+1:loc[1]])
			want = want[loc[1]:]
		default:
			re.WriteString(quoted(want))
			want = ""
		}
	}
	// A status response may go on with text for people.
	if regexp.MustCompile(`^(\^)?\(\?s\)\^(\\\* )?(OK|NO|BAD|BYE)( \\\[.*\\\])?$`).MatchString(re.String()) {
		re.WriteString("( .*)?")
	}
	m := regexp.MustCompile(re.String() + "$").FindStringSubmatch(octets(got))
	if m == nil {
		return false
	}
	for i, n := range names {
		p.vars[n] = m[i+1]
	}
	return true
}

// octets makes a character of every octet: responses need not be UTF-8, regular expressions must.
func octets(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

func quoted(s string) string { return regexp.QuoteMeta(octets(s)) }

func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			switch s[i+1] {
			case 'r', 'n', 't':
				b.WriteByte(map[byte]byte{'r': '\r', 'n': '\n', 't': '\t'}[s[i+1]])
				i++
				continue
			case '\\':
				b.WriteByte('\\')
				i++
				continue
			case 'x':
				if i+3 < len(s) {
					if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
						b.WriteByte(byte(n))
						i += 3
						continue
					}
				}
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
