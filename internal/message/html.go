package message

import (
	"io"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// htmlText writes the text of an HTML document: what a browser without style would show, in lines. It stops after about
// limit bytes.
func htmlText(r io.Reader, limit int) string {
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	var w htmlWriter
	for w.out.Len() < limit {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() == html.ErrBufferExceeded {
				w.text(string(z.Raw())) // a tag or text without an end: what is known of it
			}
			return w.String()
		case html.TextToken:
			w.text(string(z.Text()))
		case html.StartTagToken, html.SelfClosingTagToken:
			name, hasAttr := z.TagName()
			w.start(atom.Lookup(name))
			if hasAttr && atom.Lookup(name) == atom.Img {
				w.image(z)
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			w.end(atom.Lookup(name))
		}
	}
	return w.String()
}

const maxToken = 1 << 20 // bytes of one tag or text

// htmlWriter lays text out: words with one space between, breaks where blocks begin and end.
type htmlWriter struct {
	out    strings.Builder
	hidden atom.Atom // the element whose content is not shown
	pre    int       // depth of <pre>
	breaks int       // line ends wanted before the next word
	space  bool      // a space wanted before it
}

func (w *htmlWriter) String() string { return strings.TrimSpace(w.out.String()) }

// hides reports whether an element's content is no text for people.
func hides(a atom.Atom) bool {
	switch a {
	case atom.Style, atom.Script, atom.Title, atom.Template, atom.Noscript, atom.Svg, atom.Select, atom.Textarea:
		return true
	}
	return false
}

// breaksOf is the number of line ends around an element: 2 is an empty line between.
func breaksOf(a atom.Atom) int {
	switch a {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Blockquote, atom.Ul, atom.Ol, atom.Dl,
		atom.Pre, atom.Table, atom.Hr:
		return 2
	case atom.Div, atom.Li, atom.Tr, atom.Dt, atom.Dd, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Main,
		atom.Address, atom.Center, atom.Form, atom.Fieldset, atom.Figure, atom.Nav, atom.Aside, atom.Body, atom.Html, atom.Head:
		return 1
	}
	return 0
}

func (w *htmlWriter) start(a atom.Atom) {
	if w.hidden != 0 {
		return
	}
	if hides(a) {
		w.hidden = a
		return
	}
	w.breaks = max(w.breaks, breaksOf(a))
	switch a {
	case atom.Br:
		w.breaks = min(w.breaks+1, 2)
	case atom.Pre:
		w.pre++
	case atom.Li:
		w.word("-")
		w.space = true
	case atom.Td, atom.Th:
		w.space = true
	}
}

func (w *htmlWriter) end(a atom.Atom) {
	if w.hidden != 0 {
		if a == w.hidden {
			w.hidden = 0
		}
		return
	}
	w.breaks = max(w.breaks, breaksOf(a))
	if a == atom.Pre && w.pre > 0 {
		w.pre--
	}
}

// image writes an image's alternative text.
func (w *htmlWriter) image(z *html.Tokenizer) {
	for {
		key, val, more := z.TagAttr()
		if string(key) == "alt" {
			w.text(string(val))
		}
		if !more {
			return
		}
	}
}

func (w *htmlWriter) text(s string) {
	if w.hidden != 0 {
		return
	}
	if w.pre > 0 {
		s = strings.ReplaceAll(s, "\r\n", "\n")
		if s != "" {
			w.word(s)
		}
		return
	}
	for i, word := range strings.FieldsFunc(s, isHTMLSpace) {
		w.space = w.space || i > 0 || isHTMLSpace(rune(s[0]))
		w.word(word)
	}
	if s != "" && isHTMLSpace(rune(s[len(s)-1])) {
		w.space = true
	}
}

// isHTMLSpace is white space that folds; a no-break space does not, but is written as a space.
func isHTMLSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\f' }

// word writes what is to stand before the word, and the word.
func (w *htmlWriter) word(s string) {
	switch {
	case w.out.Len() == 0:
	case w.breaks > 0:
		w.out.WriteString("\n\n"[:min(w.breaks, 2)])
	case w.space:
		w.out.WriteByte(' ')
	}
	w.breaks, w.space = 0, false
	w.out.WriteString(strings.ReplaceAll(s, "\u00a0", " "))
}
