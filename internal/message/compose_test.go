package message

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"testing"
	"unicode/utf8"
)

func compose(t testing.TB, d Draft) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Compose(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkLines: CRLF ends every line, none is long, nothing is in it that a relay may touch.
func checkLines(t testing.TB, raw []byte, ascii bool) {
	t.Helper()
	for line := range bytes.Lines(raw) {
		text, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || len(text) > 998 || bytes.ContainsAny(text, "\r\n\x00") {
			t.Fatalf("bad line %q in\n%s", line, raw)
		}
		if ascii && bytes.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
			t.Fatalf("not ASCII: %q", line)
		}
	}
}

func TestComposeText(t *testing.T) {
	long := strings.Repeat("long ", 400)
	for _, text := range []string{
		"", "\n", "hello", "hello\n", "two\nlines", "a\n\n\nb\n\n", " \n", "trailing \nspace\t\n ", "a\rb", "a\r\rb\r", "\r", "a\r\r\nb",
		".", "..\n.\n", ".hidden\n", "From me\n", "x\nFrom you\n>From\n", "NUL\x00here", "\x01\x02\x7f", "=", "=3D", "a=\nb", "=?utf-8?q?x?=\n",
		long, long + "\n", strings.Repeat("x", 5000), strings.Repeat(".", 300), strings.Repeat("Я", 5000), strings.Repeat("é", 75) + "\n",
		"Привет, мир!\nКак дела?\n", "日本語\n", "naïve café\n", "mostly ascii with one é in a long line of text that says nothing\n",
		"👍🏽", "-- \nsig\n", "--boundary\n", "\ufeffBOM", "tab\there\n", strings.Repeat("=", 200),
	} {
		for _, a := range []*Attachment{nil, {Name: "ä b.bin", Data: []byte(text + "\x00\xff")}} {
			raw := compose(t, Draft{From: []string{"a@example.test"}, To: []string{"b@example.test"}, Text: text, Attachment: a})
			checkLines(t, raw, true)
			s := scan(raw)
			checkSummary(t, s, raw)
			p := &s.Root
			if a != nil {
				p = s.Part([]int{1})
			}
			got, err := Text(bytes.NewReader(raw), p, 1<<20)
			if want := strings.ReplaceAll(text, "\r\n", "\n"); err != nil || got != want {
				t.Errorf("%v: got %q, want %q, in\n%s", err, got, want, raw)
			}
			if a == nil {
				continue
			}
			body, known := Decode(bytes.NewReader(raw), s.Part([]int{2}))
			data, err := io.ReadAll(body)
			if !known || err != nil || !bytes.Equal(data, a.Data) || s.Part([]int{2}).Filename != a.Name {
				t.Errorf("attachment %q %v: %q %v", s.Part([]int{2}).Filename, known, data, err)
			}
		}
	}
}

// Others read it as we do.
func TestComposeIsRead(t *testing.T) {
	raw := compose(t, Draft{
		From:       []string{"Алиса Иванова <alice@example.test>"},
		To:         []string{`"Bob, the builder" <bob@example.test>`, "carol@example.test", "D. E. F. <d@example.test>"},
		Subject:    "Обед в четверг? " + strings.Repeat("очень ", 30) + "да",
		Text:       "Привет!\n",
		Date:       "Mon, 7 Oct 2024 10:15:00 +0200",
		MessageID:  "1@example.test",
		Extra:      map[string]string{"In-Reply-To": "<0@example.test>", "X-Note": "ünïcode"},
		Attachment: &Attachment{Name: "отчёт за год.pdf", Type: "application/pdf", Data: []byte("%PDF")},
	})
	checkLines(t, raw, true)
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	from, err := m.Header.AddressList("From")
	if err != nil || len(from) != 1 || from[0].Name != "Алиса Иванова" || from[0].Address != "alice@example.test" {
		t.Errorf("From %v %v", from, err)
	}
	to, err := m.Header.AddressList("To")
	if err != nil || len(to) != 3 || to[0].Name != "Bob, the builder" || to[2].Name != "D. E. F." {
		t.Errorf("To %v %v", to, err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || !strings.HasPrefix(subject, "Обед в четверг? очень") || !strings.HasSuffix(subject, " да") {
		t.Errorf("Subject %q %v", subject, err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if _, err = parts.NextPart(); err != nil {
		t.Fatal(err)
	}
	part, err := parts.NextPart()
	if err != nil || part.FileName() != "отчёт за год.pdf" {
		t.Errorf("attachment %v: %v", part, err)
	}
	s := scan(raw)
	if s.SentDay != 20241007 || s.MessageID != "1@example.test" || s.InReplyTo != "0@example.test" || s.Subject != subject {
		t.Errorf("summary %+v", s)
	}
}

func TestComposeAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"a@b.test":                       `a@b.test`,
		"<a@b.test>":                     `a@b.test`,
		"Name <a@b.test>":                `Name <a@b.test>`,
		"Foo, Inc. <a@b.test>":           `"Foo, Inc." <a@b.test>`,
		`"Q \"x\" y" <a@b.test>`:         `"Q \"x\" y" <a@b.test>`,
		"Renée <a@b.test>":               `=?utf-8?q?Ren=C3=A9e?= <a@b.test>`,
		"=?x <a@b.test>":                 `=?utf-8?b?PT94?= <a@b.test>`,
		"josé@bücher.test":               `josé@bücher.test`,
		`"a b"@c.test`:                   `"a b"@c.test`,
		`a b@c.test`:                     `"a b"@c.test`,
		`"plain"@c.test`:                 `plain@c.test`,
		`"a@b"@c.test`:                   `"a@b"@c.test`,
		"a@[192.0.2.1]":                  `a@[192.0.2.1]`,
		"evil <x@y.test> <a@b.test>":     `"evil <x@y.test>" <a@b.test>`,
		"a..b@c.test":                    `"a..b"@c.test`,
		"a@b@c.test":                     `"a@b"@c.test`,
		"":                               "",
		"nobody":                         "",
		"@b.test":                        "",
		"a@":                             "",
		"a@b c":                          "",
		"a@b,c@d.test":                   `"a@b,c"@d.test`,
		"a@b>,<c":                        "",
		"<a@b.test>, <c@d.test>":         `"<a@b.test>," <c@d.test>`,
		"a@b.test\r\nBcc: x@y.test":      "injection",
		"Name\n <a@b.test>":              "injection",
		"a\x00@b.test":                   "injection",
		"a@[1]x":                         "",
		strings.Repeat("x", 2000) + "@b": "",
	} {
		got, err := mailboxes("To", []string{in})
		switch {
		case want == "injection":
			if !errors.Is(err, ErrInjection) {
				t.Errorf("%q: %q %v", in, got, err)
			}
		case want == "" && err == nil, want != "" && (err != nil || got != want):
			t.Errorf("%q: got %s %v, want %s", in, got, err, want)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	good := func() Draft { return Draft{From: []string{"a@example.test"}, To: []string{"b@example.test"}} }
	for name, spoil := range map[string]func(*Draft){
		"subject":           func(d *Draft) { d.Subject = "x\r\nBcc: evil@example.test" },
		"subject LF":        func(d *Draft) { d.Subject = "x\ny" },
		"subject CR":        func(d *Draft) { d.Subject = "x\ry" },
		"subject NUL":       func(d *Draft) { d.Subject = "x\x00y" },
		"date":              func(d *Draft) { d.Date = "now\r\n\r\nbody" },
		"id":                func(d *Draft) { d.MessageID = "x@y\n" },
		"id with space":     func(d *Draft) { d.MessageID = "x y" },
		"hostname":          func(d *Draft) { d.Hostname = "x\r\ny" },
		"extra value":       func(d *Draft) { d.Extra = map[string]string{"X-A": "b\nc"} },
		"extra name":        func(d *Draft) { d.Extra = map[string]string{"X A": "b"} },
		"extra name line":   func(d *Draft) { d.Extra = map[string]string{"X-A: b\r\nX-B": "b"} },
		"extra empty":       func(d *Draft) { d.Extra = map[string]string{"": "b"} },
		"extra ours":        func(d *Draft) { d.Extra = map[string]string{"subject": "b"} },
		"extra content":     func(d *Draft) { d.Extra = map[string]string{"Content-Type": "b"} },
		"no from":           func(d *Draft) { d.From = nil },
		"attachment name":   func(d *Draft) { d.Attachment = &Attachment{Name: "a\r\nb"} },
		"attachment type":   func(d *Draft) { d.Attachment = &Attachment{Type: "text/html; x=y"} },
		"attachment type 2": func(d *Draft) { d.Attachment = &Attachment{Type: "multipart/mixed"} },
	} {
		d := good()
		spoil(&d)
		var b bytes.Buffer
		if err := Compose(&b, d); err == nil || b.Len() > 0 {
			t.Errorf("%s: %v, wrote\n%s", name, err, b.Bytes())
		}
	}
	raw := compose(t, Draft{From: []string{"a@example.test"}, Hostname: "mx.example.test"})
	if s := scan(raw); !strings.HasSuffix(s.MessageID, "@mx.example.test") || s.Date.IsZero() {
		t.Errorf("fresh id %q date %v", s.MessageID, s.Date)
	}
	if !bytes.Contains(raw, []byte("\r\nTo: undisclosed-recipients:;\r\n")) {
		t.Errorf("no To in\n%s", raw)
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("subject", "text\n", "Name <a@b.test>", "file.txt")
	f.Add("тема =?x?= ", "a\r\r\n\x00\xff", `"q\"" <ü@ö>`, "ä b")
	f.Fuzz(func(t *testing.T, subject, text, address, file string) {
		var b bytes.Buffer
		err := Compose(&b, Draft{
			From: []string{address}, To: []string{"b@example.test"}, Subject: subject, Text: text,
			Attachment: &Attachment{Name: file, Data: []byte(text)},
		})
		if err != nil {
			return
		}
		raw := b.Bytes()
		checkLines(t, raw, false)
		s := scan(raw)
		checkSummary(t, s, raw)
		if want := strings.ToValidUTF8(subject, "\uFFFD"); len(want) < maxSubject && s.Subject != want {
			t.Fatalf("subject %q, want %q", s.Subject, want)
		}
		if len(s.Root.Children) != 2 {
			t.Fatalf("%d parts in\n%s", len(s.Root.Children), raw)
		}
		got, err := Text(bytes.NewReader(raw), s.Part([]int{1}), 1<<30)
		if want := strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\r\n", "\n"); err != nil || got != want {
			t.Fatalf("text %q %v, want %q in\n%s", got, err, want, raw)
		}
		if n := strings.Count(string(raw), "\nFrom: "); n != 1 || !utf8.Valid(raw) {
			t.Fatalf("%d From fields in\n%s", n, raw)
		}
	})
}
