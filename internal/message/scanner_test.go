package message

import (
	"bytes"
	"fmt"
	"math/rand"
	"strings"
	"testing"
)

// pattern writes s n times in one Write, without the test holding it.
func pattern(s *Scanner, text string, n int) {
	block := []byte(strings.Repeat(text, min(n, max(1, 64<<10/len(text)))))
	for left := len(text) * n; left > 0; {
		k, _ := s.Write(block[:min(len(block), left)])
		left -= k
	}
}

// Whatever is written, what the Scanner holds is bounded, and it ends in time.
func TestScannerBounds(t *testing.T) {
	const big = 16 << 20
	for name, write := range map[string]func(*Scanner){
		"header without end": func(s *Scanner) { pattern(s, "X-Bomb: bomb\r\n", big/14) },
		"header line":        func(s *Scanner) { pattern(s, "X-Bomb: a", 1); pattern(s, "b", big) },
		"folded line":        func(s *Scanner) { pattern(s, "Subject: a", 1); pattern(s, "\r\n b", big/4) },
		"body line":          func(s *Scanner) { pattern(s, "\r\n", 1); pattern(s, "b", big) },
		"dashes": func(s *Scanner) {
			pattern(s, "Content-Type: multipart/mixed; boundary=-\r\n\r\n", 1)
			pattern(s, "-", big)
		},
		"long boundary line": func(s *Scanner) {
			pattern(s, "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b", 1)
			pattern(s, " ", big)
		},
		"parts": func(s *Scanner) {
			pattern(s, "Content-Type: multipart/mixed; boundary=b\r\n\r\n", 1)
			pattern(s, "--b\r\n\r\n\r\n", big/9)
		},
		"parts with much to say": func(s *Scanner) {
			pattern(s, "Content-Type: multipart/mixed; boundary=b\r\n\r\n", 1)
			pattern(s, "--b\r\nContent-Type: text/x; name="+strings.Repeat("n", 5000)+"\r\n\r\n\r\n", big/5000)
		},
		"nested messages": func(s *Scanner) { pattern(s, "Content-Type: message/rfc822\r\n\r\n", big/32) },
		"nested multiparts": func(s *Scanner) {
			for i := range 3000 {
				pattern(s, fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%dx\r\n\r\n--b%dx\r\n", i, i), 1)
			}
		},
		"commas":     func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "a,", 120_000); pattern(s, "\r\n", 2) },
		"brackets":   func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "[ ", 120_000); pattern(s, "\r\n", 2) },
		"angles":     func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "<", 240_000); pattern(s, "\r\n", 2) },
		"angles too": func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "<a@", 80_000); pattern(s, "\r\n", 2) },
		"quotes":     func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "\"", 240_001); pattern(s, "\r\n", 2) },
		"comments":   func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "(", 240_000); pattern(s, "\r\n", 2) },
		"ats":        func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "a@b ", 60_000); pattern(s, "\r\n", 2) },
		"words":      func(s *Scanner) { pattern(s, "To: ", 1); pattern(s, "=?utf-8?q?a", 20_000); pattern(s, "\r\n", 2) },
		"subject":    func(s *Scanner) { pattern(s, "Subject: ", 1); pattern(s, "=?q?q?", 40_000); pattern(s, "\r\n", 2) },
		"type":       func(s *Scanner) { pattern(s, "Content-Type: a/b", 1); pattern(s, ";c", 120_000); pattern(s, "\r\n", 2) },
		"value": func(s *Scanner) {
			pattern(s, "Content-Type: a/b; x=", 1)
			pattern(s, "c ", 120_000)
			pattern(s, "\r\n", 2)
		},
		"parens": func(s *Scanner) {
			pattern(s, "Content-Type: a/b; x=y", 1)
			pattern(s, "(", 240_000)
			pattern(s, "\r\n", 2)
		},
		"languages": func(s *Scanner) {
			pattern(s, "Content-Language: ", 1)
			pattern(s, "a,", 120_000)
			pattern(s, "\r\n", 2)
		},
		"references":  func(s *Scanner) { pattern(s, "References: ", 1); pattern(s, "<a>", 80_000); pattern(s, "\r\n", 2) },
		"references<": func(s *Scanner) { pattern(s, "References: ", 1); pattern(s, "<", 240_000); pattern(s, "\r\n", 2) },
		"date":        func(s *Scanner) { pattern(s, "Date: ", 1); pattern(s, "1 ", 120_000); pattern(s, "\r\n", 2) },
		"many fields": func(s *Scanner) { pattern(s, "To: a\r\nCc: b\r\nSubject: x\r\n", 10_000); pattern(s, "\r\n", 1) },
		"html": func(s *Scanner) {
			pattern(s, "Content-Type: text/html\r\n\r\n", 1)
			pattern(s, "<a b=\"", big/6)
		},
		"html tags": func(s *Scanner) { pattern(s, "Content-Type: text/html\r\n\r\n", 1); pattern(s, "<p><pre>", big/8) },
		"quoted-printable": func(s *Scanner) {
			pattern(s, "Content-Transfer-Encoding: quoted-printable\r\n\r\n", 1)
			pattern(s, "= ", big/2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewScanner()
			write(s)
			if held := cap(s.held.buf) + cap(s.block) + cap(s.preview.raw); held > 2*maxHeaderBlock*2+2*maxPreviewRaw {
				t.Errorf("%d bytes held", held)
			}
			if s.parts > maxParts+maxDepth || len(s.open) > maxDepth+1 {
				t.Errorf("%d parts, %d open", s.parts, len(s.open))
			}
			sum := s.Finish()
			if n := len(sum.AppendBinary(nil)); n > maxStructure+maxEnvelope+maxParts*150 {
				t.Errorf("summary of %d bytes", n)
			}
			if _, err := ParseSummary(sum.AppendBinary(nil)); err != nil {
				t.Error(err)
			}
			for _, text := range []string{sum.Envelope, sum.BodyStructure, BodyOf(sum.BodyStructure)} {
				if valueLen(text) != len(text) {
					t.Errorf("not one list: %.200q", text)
				}
			}
		})
	}
}

// A thousand levels: the first hundred are opened, and the rest can still be read as text.
func TestScannerDepth(t *testing.T) {
	var b bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"level %d\"\r\n\r\n--level %d\r\n", i, i)
	}
	b.WriteString("\r\ndeep\r\n")
	s := scan(b.Bytes())
	checkSummary(t, s, b.Bytes())
	depth := 0
	for p := &s.Root; len(p.Children) > 0; p = &p.Children[0] {
		depth++
	}
	if depth < maxDepth-1 || depth > maxDepth+1 {
		t.Errorf("depth %d", depth)
	}
	if text, err := BestText(bytes.NewReader(b.Bytes()), s, 1<<20); err != nil || !strings.Contains(text, "deep") {
		t.Errorf("text %.100q %v", text, err)
	}
}

// When there are too many parts, the last one takes in the rest.
func TestScannerParts(t *testing.T) {
	raw := []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 3*maxParts) + "--b--\r\n")
	s := scan(raw)
	checkSummary(t, s, raw)
	n := len(s.Root.Children)
	if n != maxParts-1 || s.Root.Children[n-1].End != s.Size {
		t.Errorf("%d parts, the last ends at %d of %d", n, s.Root.Children[n-1].End, s.Size)
	}
}

// The oracle for boundaries: RFC 2046 section 5.1.1 on small alphabets, against a scan by definition. Every message is made
// of lines from a short list.
func TestScannerBoundaries(t *testing.T) {
	lines := []string{"--b\r\n", "--b--\r\n", "\r\n", "x\r\n", "--\r\n", "--b \t\r\n", "-"}
	head := "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	var walk func(body string, depth int)
	walk = func(body string, depth int) {
		raw := []byte(head + body)
		s := scan(raw)
		checkSummary(t, s, raw)
		if got, want := bodies(s, raw), split(body); got != want {
			t.Fatalf("%q: got %s, want %s", body, got, want)
		}
		if depth > 0 {
			for _, l := range lines {
				walk(body+l, depth-1)
			}
		}
	}
	walk("", 5)
}

func bodies(s *Summary, raw []byte) string {
	var out []string
	for i := range s.Root.Children {
		out = append(out, fmt.Sprintf("%q", raw[s.Root.Children[i].Body:s.Root.Children[i].End]))
	}
	return strings.Join(out, " ")
}

// split cuts a multipart body with boundary b by definition; parts without any delimiter are one text.
func split(body string) string {
	isDelimiter := func(line string) (closing, ok bool) {
		text := strings.TrimRight(line, " \t\r\n")
		return text == "--b--", text == "--b" || text == "--b--"
	}
	var out []string
	var part []string
	in, any := false, false
	flush := func(delimited bool) {
		if !in {
			return
		}
		text := strings.Join(part, "")
		head, content, blank := strings.Cut(text, "\r\n")
		if blank && head == "" {
			if delimited {
				content = strings.TrimSuffix(content, "\r\n")
			}
		} else { // no header: all is body
			content = text
			if delimited {
				content = strings.TrimSuffix(content, "\r\n")
			}
		}
		out = append(out, fmt.Sprintf("%q", content))
		part = nil
	}
	for _, line := range strings.SplitAfter(body, "\n") {
		closing, ok := isDelimiter(line)
		switch {
		case ok && any && !in: // epilogue
		case ok:
			flush(true)
			in, any = !closing, true
		case in:
			part = append(part, line)
		}
	}
	flush(false)
	if len(out) == 0 {
		return fmt.Sprintf("%q", body)
	}
	return strings.Join(out, " ")
}

func benchMessage(attachment int) []byte {
	var b bytes.Buffer
	data := make([]byte, attachment)
	rand.New(rand.NewSource(1)).Read(data)
	_ = Compose(&b, Draft{
		From: []string{"Alice Example <alice@example.test>"}, To: []string{"Bob <bob@example.test>", "carol@example.test"},
		Subject: "Zwei größere Dateien", Text: strings.Repeat("Some lines of text, as people write them.\n", 40),
		Attachment: &Attachment{Name: "a.bin", Data: data},
	})
	return b.Bytes()
}

func BenchmarkScanner(b *testing.B) {
	for _, size := range []int{0, 100 << 10, 10 << 20} {
		raw := benchMessage(size)
		b.Run(fmt.Sprintf("%dKiB", len(raw)>>10), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				s := NewScanner()
				for rest := raw; len(rest) > 0; rest = rest[min(32<<10, len(rest)):] {
					_, _ = s.Write(rest[:min(32<<10, len(rest))])
				}
				s.Finish()
			}
		})
	}
}

func BenchmarkParseSummary(b *testing.B) {
	enc := scan(benchMessage(1000)).AppendBinary(nil)
	b.SetBytes(int64(len(enc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSummary(enc); err != nil {
			b.Fatal(err)
		}
	}
}
