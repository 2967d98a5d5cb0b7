package smtpd

// lines sees to it that a message consists of lines that end in CRLF (RFC 5321 section 2.3.8). From the world, what does not is
// refused: a CR or an LF by itself is how one message is made to look like two. From people's own programs it is
// repaired: each CR, LF or CRLF ends a line, NULs are dropped.
type lines struct {
	repair bool
	max    int    // octets of a line without its end
	cr     bool   // the last octet was CR
	length int    // of the line so far
	flaw   *reply // the first thing that is wrong and not to be repaired
	out    []byte // of the last pass
}

// pass takes the next octets and returns what they are to be. The result is valid until the next call; it is p itself if
// nothing is repaired here.
func (l *lines) pass(p []byte) []byte {
	if !l.repair {
		for _, c := range p {
			l.check(c)
		}
		return p
	}
	l.out = l.out[:0]
	for _, c := range p {
		switch {
		case c == '\n':
			l.end()
		case c == 0:
			if l.cr {
				l.end()
			}
		default:
			if l.cr {
				l.end()
			}
			if c == '\r' {
				l.cr = true
				continue
			}
			l.out = append(l.out, c)
			l.grow()
		}
	}
	return l.out
}

// finish returns what the end of the message settles.
func (l *lines) finish() []byte {
	l.out = l.out[:0]
	if l.cr && l.repair {
		l.end()
	} else if l.cr {
		l.found(&bareCR)
	}
	return l.out
}

func (l *lines) end() {
	l.out = append(l.out, "\r\n"...)
	l.cr, l.length = false, 0
}

func (l *lines) check(c byte) {
	switch {
	case c == '\n' && l.cr:
		l.length = 0
	case l.cr:
		l.found(&bareCR)
	case c == '\n':
		l.found(&bareLF)
	case c == 0:
		l.found(&hasNUL)
	case c != '\r':
		l.grow()
	}
	l.cr = c == '\r'
}

func (l *lines) grow() {
	if l.length++; l.length > l.max {
		l.found(&lineTooLong)
	}
}

func (l *lines) found(r *reply) {
	if l.flaw == nil {
		l.flaw = r
	}
}
