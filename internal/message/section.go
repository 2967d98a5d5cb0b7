package message

// Part returns the part that an IMAP section number like 1.2.3 names (RFC 9051 section 6.4.5.1), or nil. An empty path is
// the whole message. A message that is not multipart has part 1, its body; numbers below an embedded message go
// through to that message's parts.
//
// What the section specifications ask for are ranges of the message's bytes, with p the part:
//
//	BODY[]                 0 … Size
//	BODY[HEADER]           Root.Header … Root.Body
//	BODY[TEXT]             Root.Body … Root.End
//	BODY[1.2]              p.Body … p.End
//	BODY[1.2.MIME]         p.Header … p.Body
//	BODY[1.2.HEADER]       of p.Children[0], if p.Embedded(): Header … Body; else there is none
//	BODY[1.2.TEXT]         of p.Children[0], if p.Embedded(): Body … End; else there is none
//
// [Summary.Section] says the same in code.
func (s *Summary) Part(path []int) *Part {
	p, inMessage := &s.Root, true
	for _, n := range path {
		if !inMessage && p.Embedded() {
			p, inMessage = &p.Children[0], true
		}
		switch {
		case p.Multipart():
			if n < 1 || n > len(p.Children) {
				return nil
			}
			p = &p.Children[n-1]
		case n != 1 || !inMessage:
			return nil
		}
		inMessage = false
	}
	return p
}

// Specifier is what a section specification ends with.
type Specifier int

const (
	Whole      Specifier = iota // BODY[], BODY[1.2]
	HeaderOnly                  // HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT
	TextOnly                    // TEXT
	MIMEOnly                    // MIME
)

// Section returns the range of bytes that BODY[path.what] names. ok is false if there is no such section: no such part,
// HEADER or TEXT of a part that holds no message, MIME of no part.
func (s *Summary) Section(path []int, what Specifier) (from, to int64, ok bool) {
	p := s.Part(path)
	switch {
	case p == nil:
		return 0, 0, false
	case what == MIMEOnly:
		return p.Header, p.Body, len(path) > 0
	case what == Whole && len(path) == 0:
		return 0, s.Size, true
	case what == Whole:
		return p.Body, p.End, true
	}
	if len(path) > 0 {
		if !p.Embedded() {
			return 0, 0, false
		}
		p = &p.Children[0]
	}
	if what == HeaderOnly {
		return p.Header, p.Body, true
	}
	return p.Body, p.End, true
}
