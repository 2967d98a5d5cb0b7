package relay

import (
	"bufio"
	"io"
)

// textWriter passes a message on with CRLF as its only line end: a bare CR or LF becomes one. What some server takes for the
// end of a message, and others do not, is how mail is smuggled; nothing of the kind leaves here. With dots it stuffs them
// (RFC 5321 section 4.5.2). Close ends a last line that has no end; it does not write the final dot.
type textWriter struct {
	w       *bufio.Writer
	dots    bool
	begun   bool // something was written
	inLine  bool // the last byte written was within a line
	afterCR bool // a CR came, and its line end was written; a LF next belongs to it
}

func (t *textWriter) Write(p []byte) (int, error) {
	var err error
	put := func(b []byte) {
		if err == nil {
			_, err = t.w.Write(b)
		}
	}
	from := 0
	for i, c := range p {
		skip := c == '\n' && t.afterCR
		t.afterCR = false
		switch {
		case skip:
			put(p[from:i])
			from = i + 1
		case c == '\r' || c == '\n':
			put(p[from:i])
			put(crlf)
			from, t.inLine, t.afterCR = i+1, false, c == '\r'
		default:
			if c == '.' && !t.inLine && t.dots {
				put(p[from:i])
				put(p[i : i+1])
				from = i
			}
			t.inLine = true
		}
	}
	put(p[from:])
	t.begun = t.begun || len(p) > 0
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// crlf is a table of two.
var crlf = []byte("\r\n")

func (t *textWriter) Close() error {
	if t.inLine {
		t.inLine = false
		_, err := t.w.Write(crlf)
		return err
	}
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

var _ io.Writer = (*counter)(nil)
