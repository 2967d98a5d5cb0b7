package imapd

import (
	"bufio"
	"bytes"
	"io"
)

// heldHeader is the size up to which a header block is read and filtered in memory; longer ones are filtered as they are
// read, once to count and once to send.
const heldHeader = 64 << 10

// headerFilter passes those fields of a header block whose name it likes, with their folds, and the empty line at the
// block's end, which belongs to every HEADER.FIELDS (RFC 9051 section 6.4.5.1).
type headerFilter struct {
	br     *bufio.Reader
	keep   func(name []byte) bool
	pass   bool // the field we are in is kept
	inLine bool // the next chunk continues a long line
	rest   []byte
	err    error
}

// newHeaderFilter filters a header block from its beginning.
func newHeaderFilter(block *io.SectionReader, keep func(name []byte) bool) io.Reader {
	return &headerFilter{br: bufio.NewReader(io.NewSectionReader(block, 0, block.Size())), keep: keep}
}

// filterHeader is headerFilter for a block in memory.
func filterHeader(block []byte, keep func(name []byte) bool) []byte {
	var out []byte
	pass := false
	for len(block) > 0 {
		n := bytes.IndexByte(block, '\n') + 1
		if n == 0 {
			n = len(block)
		}
		if pass = keepLine(block[:n], pass, keep); pass {
			out = append(out, block[:n]...)
		}
		block = block[n:]
	}
	return out
}

// keepLine judges a line, or its beginning; previous says whether the line before it was kept.
func keepLine(line []byte, previous bool, keep func(name []byte) bool) bool {
	switch {
	case len(bytes.TrimRight(line, "\r\n")) == 0:
		return true
	case line[0] == ' ' || line[0] == '\t':
		return previous
	}
	name, _, colon := bytes.Cut(line, []byte(":"))
	if !colon {
		return false // no field
	}
	return keep(bytes.TrimRight(name, " \t"))
}

func (f *headerFilter) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		chunk, err := f.br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			f.err = err
		}
		if !f.inLine && len(chunk) > 0 {
			f.pass = keepLine(chunk, f.pass, f.keep)
		}
		if f.inLine = err == bufio.ErrBufferFull; f.pass {
			f.rest = chunk
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
