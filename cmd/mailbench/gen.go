package main

import (
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"time"
)

// Mail is one generated message. The same seed and number give the same bytes on every machine, so that every
// server under test gets the same mail and answers can be checked against what was sent.
type Mail struct {
	Number  int
	Subject string
	From    string
	Body    []byte // the whole message, CRLF line ends
	Sum     uint32 // CRC-32C of Body
}

// Shape says what the generator makes. Sizes follow a rough log-normal around Median bytes, cut at Max; real mailboxes
// look like that: many short texts, some HTML alternatives, few large attachments.
type Shape struct {
	Seed   uint64
	Fixed  int // bytes of every message, 0: by distribution
	Median int
	Max    int
}

// Generator makes mail number 0, 1, 2 … independently of each other, so that several connections can share it.
type Generator struct{ shape Shape }

// NewGenerator makes a Generator; zero sizes become 4 KiB median and 1 MiB at most.
func NewGenerator(s Shape) *Generator {
	if s.Median == 0 {
		s.Median = 4 << 10
	}
	if s.Max == 0 {
		s.Max = 1 << 20
	}
	return &Generator{s}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var people = []string{"Anna Lindqvist", "Budi Santoso", "Chidi Okafor", "Dmitri Iwanow", "Élodie Martin", "Farid Haddad",
	"Grace O'Neill", "Haruki Mori", "Jürgen Groß", "Kateřina Nová"}

var words = strings.Fields(`the of and to in is that for it was on are as with they be at one have this from or had by
hot but some what there we can out other were all your when up use word how said an each she which do their time if
will way about many then them would write like so these her long make thing see him two has look more day could go come did
number sound no most people over know water than call first who may down side been now find invoice meeting Tuesday
Grüße señor façade naïve добрый день встреча 会議 請求書 ありがとう contrato Zürich smörgåsbord`)

var topics = []string{"Invoice", "Meeting on Tuesday", "Re: draft of the report", "Einladung zum Sommerfest", "Отчёт за неделю",
	"会議の件", "Photos", "Your order has shipped", "Lunch?", "Fwd: conference travel", "[list] release candidate"}

// firstField begins every generated message: what a server puts in front of it ends there.
const firstField = "Received: from relay.bench.test"

// Mail makes message n.
func (g *Generator) Mail(n int) Mail {
	r := rand.New(rand.NewPCG(g.shape.Seed, uint64(n)))
	size := g.shape.Fixed
	if size == 0 {
		size = int(float64(g.shape.Median) * expNorm(r))
		size = min(max(size, 600), g.shape.Max)
	}
	from := people[r.IntN(len(people))]
	subject := fmt.Sprintf("%s %d", topics[r.IntN(len(topics))], n)
	thread := n - n%8 // eight messages a thread
	var b strings.Builder
	b.Grow(size + 2048)
	date := time.Unix(1_700_000_000+int64(n)*97, 0).UTC()
	fmt.Fprintf(&b, firstField+" (relay.bench.test [192.0.2.%d])\r\n\tby mx.example.test with ESMTPS id B%08d;\r\n\t%s\r\n", n%250, n, date.Format(time.RFC1123Z))
	fmt.Fprintf(&b, "From: =?UTF-8?B?%s?= <p%d@bench.test>\r\n", b64(from), n%100)
	fmt.Fprintf(&b, "To: Somebody <somebody@example.test>\r\n")
	if r.IntN(3) == 0 {
		fmt.Fprintf(&b, "Cc: team@example.test, \"Other, One\" <other@example.test>\r\n")
	}
	fmt.Fprintf(&b, "Subject: =?UTF-8?B?%s?=\r\nDate: %s\r\nMessage-ID: <%d.%d@bench.test>\r\n", b64(subject), date.Format(time.RFC1123Z), g.shape.Seed, n)
	if n != thread {
		fmt.Fprintf(&b, "In-Reply-To: <%d.%d@bench.test>\r\nReferences: <%d.%d@bench.test> <%d.%d@bench.test>\r\n",
			g.shape.Seed, n-1, g.shape.Seed, thread, g.shape.Seed, n-1)
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	switch kind := r.IntN(10); {
	case kind < 5:
		b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
		text(&b, r, size-b.Len())
	case kind < 8:
		part := fmt.Sprintf("=_alt_%d", n)
		fmt.Fprintf(&b, "Content-Type: multipart/alternative; boundary=\"%s\"\r\n\r\n", part)
		fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", part)
		text(&b, r, (size-b.Len())/3)
		fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>", part)
		text(&b, r, size-b.Len()-80)
		fmt.Fprintf(&b, "</p></body></html>\r\n--%s--\r\n", part)
	default:
		part := fmt.Sprintf("=_mix_%d", n)
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n", part)
		fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", part)
		text(&b, r, min(600, (size-b.Len())/4))
		fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: application/pdf; name=\"report-%d.pdf\"\r\nContent-Disposition: attachment; filename=\"report-%d.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n", part, n, n)
		for b.Len() < size-80 {
			var raw [57]byte
			for i := range raw {
				raw[i] = byte(r.Uint32())
			}
			b.WriteString(base64.StdEncoding.EncodeToString(raw[:]))
			b.WriteString("\r\n")
		}
		fmt.Fprintf(&b, "--%s--\r\n", part)
	}
	body := []byte(b.String())
	return Mail{Number: n, Subject: subject, From: from, Body: body, Sum: crc32.Checksum(body, castagnoli)}
}

// text writes about n bytes of words in lines of at most 76 characters or so, ending with CRLF.
func text(b *strings.Builder, r *rand.Rand, n int) {
	for start, line := b.Len(), 0; ; {
		w := words[r.IntN(len(words))]
		b.WriteString(w)
		if line += len(w) + 1; line > 68 || b.Len()-start >= n {
			b.WriteString("\r\n")
			if b.Len()-start >= n {
				return
			}
			line = 0
			continue
		}
		b.WriteByte(' ')
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// expNorm is a log-normal factor around 1.
func expNorm(r *rand.Rand) float64 {
	f := 1.0
	for z := r.NormFloat64(); ; {
		if z >= 0.5 {
			f, z = f*1.6, z-0.5
		} else if z <= -0.5 {
			f, z = f/1.6, z+0.5
		} else {
			return f * (1 + z/2)
		}
	}
}
