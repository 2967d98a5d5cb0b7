package message

import (
	"bytes"
	"io"
)

// Scanner summarises a message as its bytes pass. The zero Scanner is not ready: use NewScanner.
//
// It works on lines. A header's lines are collected into a block; a body's are only counted, except those that begin
// with "--" and may be a boundary. What it holds is bounded by the constants in limits.go, whatever the message.
type Scanner struct {
	off   int64   // bytes consumed
	lines int64   // LFs consumed
	last  [2]byte // the last two bytes consumed

	held held // the line that is not consumed yet

	open    []*node // the root … the part whose header or body we are in
	inside  bool    // of a header
	block   []byte  // the header so far
	skipped bool    // a "From " line was skipped in this header
	delims  []delim // boundaries of the open multiparts, outermost first

	root    *node
	parts   int
	headers int // bytes of headers looked at

	budget  int // what is left of maxStructure bytes
	top     top // what only the outermost header says
	preview previewer
}

// held is the beginning of a line that is to be completed before it can be judged.
type held struct {
	active bool
	buf    []byte  // at most maxHeaderBlock
	n      int64   // the line's length so far
	tail   [2]byte // its last two bytes, or of what was before it
}

type delim struct {
	boundary []byte
	level    int // of the multipart in Scanner.open
}

// node is a Part under construction.
type node struct {
	Part
	message    bool   // root or embedded message
	digest     bool   // child of a multipart/digest: RFC 2046 section 5.1.5 changes its default type
	boundary   string // of a multipart
	head, tail string // BODYSTRUCTURE text before and after the sizes
	envelope   string // of a message
	before     int64  // lines before Body
	kids       []*node
}

// NewScanner begins a message.
func NewScanner() *Scanner {
	s := &Scanner{budget: maxStructure}
	s.root = s.begin(true, false)
	return s
}

// nodeCost is about what a node costs beyond its texts.
const nodeCost = 600

// Held is about how many bytes the Scanner holds, but for the preview's at most 128 KiB. Ordinary mail makes it hold some
// kilobytes; by the constants in limits.go a message made for it, some megabytes. Who takes in many messages at once
// can give up a Scanner that holds too much, and scan the message again when it is whole and nothing has to wait.
func (s *Scanner) Held() int {
	return cap(s.block) + cap(s.held.buf) + s.parts*nodeCost + 2*(maxStructure-s.budget)
}

// Write never fails and never keeps p.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if s.held.active || s.inside || s.mayDelimit(p) {
			p = s.hold(p)
		} else {
			p = s.skim(p)
		}
	}
	return n, nil
}

// mayDelimit reports whether p begins a line that could be a boundary.
func (s *Scanner) mayDelimit(p []byte) bool {
	return len(s.delims) > 0 && p[0] == '-' && (s.off == 0 || s.last[1] == '\n')
}

// hold takes in p up to the end of the line, and judges the line when it is complete. A line in a body that is longer
// than any boundary is let go.
func (s *Scanner) hold(p []byte) (rest []byte) {
	h := &s.held
	piece := p
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		piece = p[:i+1]
		if !h.active {
			s.judge(line{piece, int64(len(piece)), tailOf(s.last, piece)})
			return p[i+1:]
		}
	}
	if !h.active {
		h.active, h.tail = true, s.last
	}
	bound := maxHeaderBlock
	if !s.inside {
		bound = maxDelimiter
	}
	room := max(0, bound-len(h.buf))
	if room > 0 {
		piece = piece[:min(len(piece), room)]
		h.buf = append(h.buf, piece...)
	}
	h.n += int64(len(piece))
	h.tail = tailOf(h.tail, piece)
	if h.tail[1] == '\n' || len(h.buf) == bound && !s.inside && s.noBoundary(h.buf) {
		s.release()
	}
	return p[len(piece):]
}

func (s *Scanner) noBoundary(line []byte) bool {
	i, _ := s.match(line)
	return i < 0
}

// release judges the held line.
func (s *Scanner) release() {
	l := line{s.held.buf, s.held.n, s.held.tail}
	s.held = held{buf: l.text[:0]}
	s.judge(l)
}

// skim passes over body bytes until a line begins that may be a boundary.
func (s *Scanner) skim(p []byte) (rest []byte) {
	n := len(p)
	if len(s.delims) > 0 {
		if i := bytes.Index(p, []byte("\n--")); i >= 0 {
			n = i + 1
		} else if bytes.HasSuffix(p, []byte("\n-")) {
			n--
		}
	}
	s.preview.write(p[:n])
	s.off += int64(n)
	s.lines += int64(bytes.Count(p[:n], []byte{'\n'}))
	s.last = tailOf(s.last, p[:n])
	return p[n:]
}

// line is a line with its end, if it has one.
type line struct {
	text []byte  // perhaps only its beginning
	n    int64   // its length
	tail [2]byte // its last two bytes, or with the one before it
}

// tailOf returns the last two bytes of what was there followed by b.
func tailOf(last [2]byte, b []byte) [2]byte {
	switch len(b) {
	case 0:
		return last
	case 1:
		return [2]byte{last[1], b[0]}
	}
	return [2]byte(b[len(b)-2:])
}

// pass consumes a line.
func (s *Scanner) pass(l line) {
	s.off += l.n
	s.last = l.tail
	if l.tail[1] == '\n' {
		s.lines++
	}
}

// judge decides what a line is.
func (s *Scanner) judge(l line) {
	if i, closing := s.match(l.text); i >= 0 && s.endParts(i, closing) {
		s.pass(l)
		if !closing {
			s.begin(false, s.innermost().isDigest())
		}
		return
	}
	for s.inside {
		switch s.classify(l.text) {
		case fieldLine:
			s.block = append(s.block, l.text[:min(len(l.text), maxHeaderBlock-len(s.block))]...)
			s.pass(l)
			return
		case mboxLine:
			s.skipped = true
			s.pass(l)
			return
		case blankLine:
			s.pass(l)
			s.endHeader(l.text)
			return
		case bodyLine: // no empty line; if a message is embedded here, this may be its header
			s.endHeader(nil)
		}
	}
	s.preview.write(l.text)
	s.pass(l)
}

type lineKind int

const (
	fieldLine lineKind = iota
	mboxLine
	blankLine
	bodyLine
)

// classify says what a line inside a header is. A line that can be no field ends the header, as Postfix has it: so a
// message without any header is all body.
func (s *Scanner) classify(line []byte) lineKind {
	text := trimEOL(line)
	switch {
	case len(text) == 0:
		return blankLine
	case text[0] == ' ' || text[0] == '\t':
		if len(s.block) > 0 {
			return fieldLine
		}
		if len(bytes.Trim(text, " \t")) == 0 {
			return blankLine // QUIRK: some mailers write a space into the empty line
		}
		return bodyLine
	case fieldName(text) > 0:
		return fieldLine
	case len(s.block) == 0 && !s.skipped && s.innermost().message &&
		(bytes.HasPrefix(text, []byte("From ")) || bytes.HasPrefix(text, []byte(">From "))):
		return mboxLine // QUIRK: an mbox separator that came along
	}
	return bodyLine
}

// match finds the innermost open multipart whose boundary the line is: exactly (with trailing white space), else the
// one with the longest boundary that the line begins with (RFC 2046 section 5.1.1: "it is sufficient that the boundary
// appear in its entirety following the CRLF"). It returns -1 if there is none.
func (s *Scanner) match(line []byte) (i int, closing bool) {
	if len(s.delims) == 0 || !bytes.HasPrefix(line, []byte("--")) {
		return -1, false
	}
	text := bytes.TrimRight(line[2:], " \t\r\n")
	best := -1
	for i := len(s.delims) - 1; i >= 0; i-- {
		b := s.delims[i].boundary
		rest, ok := bytes.CutPrefix(text, b)
		if !ok {
			continue
		}
		if len(rest) == 0 || string(rest) == "--" {
			return i, len(rest) > 0
		}
		if best < 0 || len(b) > len(s.delims[best].boundary) {
			best = i
		}
	}
	if best < 0 {
		return -1, false
	}
	return best, bytes.HasPrefix(text[len(s.delims[best].boundary):], []byte("--"))
}

// endParts ends the parts that a boundary line of multipart i ends. It refuses, and the line is body, if there are too
// many parts already.
func (s *Scanner) endParts(i int, closing bool) bool {
	if !closing && s.parts >= maxParts {
		s.delims = nil
		return false
	}
	s.closeTo(s.delims[i].level+1, s.eol())
	if closing {
		s.delims = s.delims[:i]
	} else {
		s.delims = s.delims[:i+1]
	}
	return true
}

// eol is the length of the line end just consumed: it belongs to the boundary that follows it.
func (s *Scanner) eol() int64 {
	switch {
	case s.off >= 2 && s.last == [2]byte{'\r', '\n'}:
		return 2
	case s.off >= 1 && s.last[1] == '\n':
		return 1
	}
	return 0
}

// closeTo ends the open parts from the given level on, eol bytes before here.
func (s *Scanner) closeTo(level int, eol int64) {
	for s.inside { // a header without an end; an embedded message may begin in it
		s.endHeader(nil)
		eol = 0 // that line end is the last field's
	}
	end, lines := s.off-eol, s.lines
	if eol > 0 {
		lines--
	}
	if n := s.innermost(); end < n.Body {
		end, lines = n.Body, n.before // the empty line after the header is the one before the boundary
	}
	for len(s.open) > level {
		n := s.innermost()
		s.open = s.open[:len(s.open)-1]
		n.End, n.Lines = end, lines-n.before
		if n.Type == "multipart" && len(n.kids) == 0 {
			kid := s.textNode(n)
			kid.Header, kid.Body, kid.End, kid.Lines = n.Body, n.Body, n.End, n.Lines
		}
		if s.preview.of == n {
			s.preview.finish()
		}
	}
}

func (s *Scanner) innermost() *node { return s.open[len(s.open)-1] }

func (n *node) isDigest() bool { return n.Type == "multipart" && n.Subtype == "digest" }

// begin opens a part whose header begins here.
func (s *Scanner) begin(message, digest bool) *node {
	n := &node{message: message, digest: digest}
	n.Header = s.off
	if len(s.open) > 0 {
		parent := s.innermost()
		parent.kids = append(parent.kids, n)
	}
	s.open = append(s.open, n)
	s.parts++
	s.inside, s.skipped, s.block = true, false, s.block[:0]
	return n
}

// endHeader ends the header of the innermost part here, behind the blank line if there was one, and opens what its body holds.
func (s *Scanner) endHeader(blank []byte) {
	n := s.innermost()
	n.Body, n.before = s.off, s.lines
	s.inside = false
	block := s.block
	if s.headers += len(block); s.headers > maxHeaders {
		block = nil
	}
	s.readHeader(n, block)
	if n == s.root && s.off == int64(len(block)+len(blank)) { // all of the header is in block
		s.top.fields = listedFields(block, blank)
	}
	switch {
	case n.boundary != "":
		s.delims = append(s.delims, delim{[]byte(n.boundary), len(s.open) - 1})
	case n.Type == "multipart":
		kid := s.textNode(n)
		kid.Header, kid.Body, kid.before = n.Body, n.Body, n.before
		s.open = append(s.open, kid)
		s.preview.begin(kid)
	case n.holdsMessage():
		s.begin(true, false)
	default:
		s.preview.begin(n)
	}
}

// holdsMessage reports whether the part's body is a message (RFC 2046 section 5.2.1, RFC 6532 section 3.7).
func (n *node) holdsMessage() bool {
	return n.Type == "message" && (n.Subtype == "rfc822" || n.Subtype == "global")
}

// textNode gives a multipart in which no part can be found the one part that RFC 9051's grammar wants: its body as it
// is, as text/plain, so that it can be read.
func (s *Scanner) textNode(n *node) *node {
	kid := &node{}
	s.readHeader(kid, nil)
	n.kids = append(n.kids, kid)
	return kid
}

// Finish ends the message. The Scanner must not be used after it.
func (s *Scanner) Finish() *Summary {
	if s.held.active {
		s.release()
	}
	s.closeTo(0, 0)
	sum := &Summary{
		Size:       s.off,
		HeaderSize: s.root.Body,
		Envelope:   s.root.envelope,
		Preview:    s.preview.text,
		Fields:     s.top.fields,
		Root:       s.root.part(),
	}
	sum.BodyStructure = string(s.root.appendStructure(nil))
	s.top.fill(sum)
	return sum
}

// part returns the finished tree.
func (n *node) part() Part {
	p := n.Part
	for _, kid := range n.kids {
		p.Children = append(p.Children, kid.part())
	}
	return p
}

// Summarize scans r to its end; the error is r's.
func Summarize(r io.Reader) (*Summary, error) {
	s := NewScanner()
	if _, err := io.Copy(s, r); err != nil {
		return nil, err
	}
	return s.Finish(), nil
}
