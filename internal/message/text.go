package message

import (
	"bytes"
	"io"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns the part's body as UTF-8: transfer encoding and charset undone, HTML reduced to its text if the part
// is text/html. Lines end with LF. At most limit bytes. r reads the whole message; the error is r's.
func Text(r io.ReaderAt, p *Part, limit int64) (string, error) {
	return readText(io.NewSectionReader(r, p.Body, p.End-p.Body), p, limit)
}

// maxHTMLOverhead is how much HTML is read for no text at all; style sheets are long, but not endless.
const maxHTMLOverhead = 1 << 20

// readText is Text of a body that is read from its beginning.
func readText(raw io.Reader, p *Part, limit int64) (string, error) {
	limit = max(0, min(limit, math.MaxInt32))
	source := &errorReader{r: raw}
	body, _ := decodeTransfer(p.Encoding, source)
	body = charsetReader(p.Charset, body)
	var text string
	if p.Type == "text" && p.Subtype == "html" {
		text = htmlText(io.LimitReader(body, maxHTMLOverhead+16*limit), int(limit))
	} else {
		b, _ := io.ReadAll(io.LimitReader(body, limit+utf8.UTFMax))
		text = string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	return cut(text, int(limit)), source.err
}

// errorReader remembers its reader's error, which decoders on top of it may hide.
type errorReader struct {
	r   io.Reader
	err error
}

func (e *errorReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// BestText is what a person without a mail client would read: text/plain, else HTML as text; attachments named on a last
// line ("[attachments: a.pdf, b.png]").
func BestText(r io.ReaderAt, s *Summary, limit int64) (string, error) {
	var c contents
	c.collect(&s.Root, true)
	out, err := joinTexts(r, c.texts, limit)
	for len(c.spare) > 0 && err == nil && strings.TrimSpace(out) == "" {
		out, err = joinTexts(r, c.spare[:1], limit)
		c.spare = c.spare[1:]
	}
	if err != nil {
		return "", err
	}
	if len(c.names) > 0 {
		last := "[attachments: " + strings.Join(c.names, ", ") + "]"
		out = cut(out, max(0, int(limit)-len(last)-1))
		if out != "" && !strings.HasSuffix(out, "\n") {
			out += "\n"
		}
		out += last
	}
	return cut(out, int(limit)), nil
}

// joinTexts reads the parts one after the other.
func joinTexts(r io.ReaderAt, parts []*Part, limit int64) (string, error) {
	var text strings.Builder
	for _, p := range parts {
		t, err := Text(r, p, limit-int64(text.Len()))
		if err != nil {
			return "", err
		}
		if t != "" && text.Len() > 0 && !strings.HasSuffix(text.String(), "\n") {
			text.WriteByte('\n')
		}
		text.WriteString(t)
		if int64(text.Len()) >= limit {
			break
		}
	}
	return text.String(), nil
}

// contents is what a person would see of a message.
type contents struct {
	texts []*Part
	spare []*Part  // other forms of the texts
	names []string // of attachments
}

// maxNamed is how many attachments are named.
const maxNamed = 50

// collect walks the tree; body is false for what is attached.
func (c *contents) collect(p *Part, body bool) {
	attached := p.Disposition == "attachment"
	switch {
	case p.Multipart() && p.Subtype == "alternative":
		c.alternative(p, body)
	case p.Multipart():
		for i := range p.Children {
			// RFC 2387: the other parts of a multipart/related belong to its root, they are not attachments.
			c.collect(&p.Children[i], body && (i == 0 || p.Subtype != "related"))
		}
	case body && !attached && p.displayable():
		c.texts = append(c.texts, p)
	case p.Embedded() && body && len(c.texts) == 0 && !attached:
		c.collect(&p.Children[0], true)
	case attached || p.Filename != "" || p.Embedded():
		c.name(orElse(p.Filename, p.Type+"/"+p.Subtype))
	}
}

// alternative takes the best of several forms of the same: plain text, else the first that holds text. The others' texts
// stand by, in case the best is blank.
func (c *contents) alternative(p *Part, body bool) {
	var best *contents
	for i := range p.Children {
		form := &contents{}
		form.collect(&p.Children[i], body)
		for _, name := range form.names {
			c.name(name)
		}
		switch {
		case len(form.texts) == 0:
		case best == nil:
			best = form
		case form.texts[0].plain() && !best.texts[0].plain():
			c.spare = append(c.spare, best.texts...)
			best = form
		default:
			c.spare = append(c.spare, form.texts...)
		}
		c.spare = append(c.spare, form.spare...)
	}
	if best != nil {
		c.texts = append(c.texts, best.texts...)
	}
}

func (p *Part) plain() bool { return p.Type == "text" && p.Subtype == "plain" }

// displayable reports whether the part is text for people.
func (p *Part) displayable() bool {
	return p.Type == "text" && (p.Subtype == "plain" || p.Subtype == "html" || p.Subtype == "enriched" || p.Subtype == "markdown") &&
		p.Filename == ""
}

func (c *contents) name(name string) {
	if len(c.names) < maxNamed {
		c.names = append(c.names, name)
	}
}

// previewer makes Summary.Preview of the first text part that has any text in it.
type previewer struct {
	of   *node // whose body passes
	raw  []byte
	text string
}

// begin sees the part's body pass, if it may be shown.
func (v *previewer) begin(n *node) {
	if v.text == "" && n.Type == "text" && (n.Subtype == "plain" || n.Subtype == "html") && n.Disposition != "attachment" {
		v.of, v.raw = n, v.raw[:0]
	}
}

func (v *previewer) write(b []byte) {
	if v.of != nil {
		v.raw = append(v.raw, b[:min(len(b), maxPreviewRaw-len(v.raw))]...)
	}
}

// finish ends the part. Its last line end may be a boundary's; that does not show.
func (v *previewer) finish() {
	text, _ := readText(bytes.NewReader(v.raw), &v.of.Part, 16*maxPreview)
	v.of = nil
	v.text = fold(text, maxPreview)
}

// isInvisible reports marks without width, with which advertisers fill up previews.
func isInvisible(r rune) bool {
	switch r {
	case '\u200b', '\u2060', '\ufeff', '\u034f', '\u00ad', utf8.RuneError:
		return true
	}
	return false
}

// fold makes text one line of at most n characters: white space folds, controls go. A zero-width non-joiner between
// letters is spelling, elsewhere filling.
func fold(text string, n int) string {
	var b strings.Builder
	space, count := false, 0
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			space = count > 0
			continue
		case unicode.IsControl(r), isInvisible(r), r == '\u200c' && (space || count == 0):
			continue
		}
		if space {
			if count+1 >= n {
				break
			}
			b.WriteByte(' ')
			count++
			space = false
		}
		if count >= n {
			break
		}
		b.WriteRune(r)
		count++
	}
	return b.String()
}
