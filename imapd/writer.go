package imapd

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// flushAt is how much of a command's responses is gathered before it goes out: one write a command, or one every 64 KiB.
const flushAt = 64 << 10

// writer writes responses. Its methods append one element each and return the writer, so that a response is one
// chain:
//
//	out.Star().Raw("STATUS ").Mailbox(name).Raw(" (MESSAGES ").Num(n).Raw(")").CRLF()
//
// Nothing leaves before Flush or before 64 KiB are gathered at a CRLF. The first error of the connection sticks; writing goes on into
// nothing, and Flush returns it.
type writer struct {
	w    io.Writer
	buf  []byte // nil between commands: ten thousand idle connections hold no buffers
	err  error
	utf8 bool // quoted strings and mailbox names may be UTF-8 (IMAP4rev2 or UTF8=ACCEPT enabled)
	sent int64

	beforeWrite func() // sets the write deadline
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, flushAt+4<<10); return &b }}

func newWriter(w io.Writer) *writer { return &writer{w: w} }

// Raw appends text as it is: literal parts of a response that need no quoting.
func (w *writer) Raw(s string) *writer {
	w.ready()
	w.buf = append(w.buf, s...)
	return w
}

// Bytes is Raw for bytes.
func (w *writer) Bytes(b []byte) *writer {
	w.ready()
	w.buf = append(w.buf, b...)
	return w
}

func (w *writer) ready() {
	if w.buf == nil {
		w.buf = (*buffers.Get().(*[]byte))[:0]
	}
}

// Star begins an untagged response: "* ".
func (w *writer) Star() *writer { return w.Raw("* ") }

// SP appends a space.
func (w *writer) SP() *writer { return w.Raw(" ") }

// CRLF ends a response, and sends what is gathered if it is much.
func (w *writer) CRLF() *writer {
	w.Raw("\r\n")
	if len(w.buf) >= flushAt {
		w.send()
	}
	return w
}

// Num appends a number.
func (w *writer) Num(n uint64) *writer {
	w.ready()
	w.buf = strconv.AppendUint(w.buf, n, 10)
	return w
}

// Str appends string or astring: quoted where it can be, else a literal (8-bit, CR, LF, or long).
func (w *writer) Str(s string) *writer {
	if !quotable(s, w.utf8) {
		return w.Raw("{").Num(uint64(len(s))).Raw("}\r\n").Raw(s)
	}
	w.Raw(`"`)
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			return w.Raw(s).Raw(`"`)
		}
		w.Raw(s[:i]).Raw(`\`).Raw(s[i : i+1])
		s = s[i+1:]
	}
}

// NString appends nstring: s, or NIL if it is not there.
func (w *writer) NString(s string, there bool) *writer {
	if !there {
		return w.Raw("NIL")
	}
	return w.Str(s)
}

// quotable reports whether s may be a quoted string (RFC 9051 section 9, quoted).
func quotable(s string, utf8OK bool) bool {
	if len(s) > 1000 {
		return false
	}
	eightBit := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0 || c == '\r' || c == '\n':
			return false
		case c >= 0x80:
			eightBit = true
		}
	}
	return !eightBit || utf8OK && utf8.ValidString(s)
}

// Mailbox appends a mailbox name in the encoding the client speaks.
func (w *writer) Mailbox(name string) *writer { return w.Str(encodeMailboxName(name, w.utf8)) }

// Flags appends "(" flags ")".
func (w *writer) Flags(names []string) *writer {
	w.Raw("(")
	for i, f := range names {
		if i > 0 {
			w.SP()
		}
		w.Raw(f)
	}
	return w.Raw(")")
}

// DateTime appends date-time, in quotes.
func (w *writer) DateTime(t time.Time) *writer {
	w.Raw(`"`)
	w.buf = t.AppendFormat(w.buf, "_2-Jan-2006 15:04:05 -0700")
	return w.Raw(`"`)
}

// LiteralFrom appends a literal ("{size}", or "~{size}" if binary) with exactly size octets of r. NUL is for literal8 only (RFC 9051
// section 4.3.1): in another literal 0x80 stands for it, as in other servers' answers, so that sizes and offsets hold; what came
// with BODY=BINARYMIME can be had as it is by BINARY. If r ends before, the rest is
// filled with spaces, so that the stream stays in step, and the error is returned: the announced size cannot be taken
// back (a foreign hand changed the file).
func (w *writer) LiteralFrom(r io.Reader, size int64, binary bool) error {
	if binary {
		w.Raw("~")
	}
	w.Raw("{").Num(uint64(size)).Raw("}\r\n")
	for left := size; left > 0; {
		if len(w.buf) >= flushAt {
			w.send()
		}
		room := w.buf[len(w.buf):cap(w.buf)]
		if len(room) == 0 {
			w.send()
			continue
		}
		room = room[:min(int64(len(room)), left)]
		n, err := io.ReadFull(r, room)
		if err != nil {
			for i := n; i < len(room); i++ {
				room[i] = ' '
			}
		}
		if !binary {
			replaceNUL(room)
		}
		w.buf = w.buf[:len(w.buf)+len(room)]
		if left -= int64(len(room)); err != nil {
			w.pad(left)
			return err
		}
	}
	return nil
}

func replaceNUL(p []byte) {
	for {
		i := bytes.IndexByte(p, 0)
		if i < 0 {
			return
		}
		p[i] = 0x80
		p = p[i+1:]
	}
}

func (w *writer) pad(n int64) {
	blank := strings.Repeat(" ", 4096)
	for ; n > 0 && w.err == nil; n -= int64(len(blank)) {
		if w.Raw(blank[:min(n, int64(len(blank)))]); len(w.buf) >= flushAt {
			w.send()
		}
	}
}

// Status appends a whole status response: `tag OK [CODE] text`; the tag "*" makes it untagged.
func (w *writer) Status(tag string, r reply) *writer {
	w.Raw(tag).SP().Raw(r.status).SP()
	if r.code != "" {
		w.Raw("[").Raw(r.code).Raw("] ")
	}
	return w.Raw(cleanText(r.text)).CRLF()
}

// cleanText makes sure that text is text: at least one character, none that would end the line.
func cleanText(s string) string {
	if s == "" {
		return "Done"
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f { // RFC 3501: text is 7-bit
			return '?'
		}
		return c
	}, s)
}

// Flush sends what is gathered and gives the buffer back.
func (w *writer) Flush() error {
	if w.buf == nil {
		return w.err
	}
	w.send()
	b := w.buf
	if w.buf = nil; cap(b) <= 2*flushAt {
		buffers.Put(&b)
	}
	return w.err
}

func (w *writer) send() {
	if w.err == nil && len(w.buf) > 0 {
		if w.beforeWrite != nil {
			w.beforeWrite()
		}
		var n int
		n, w.err = w.w.Write(w.buf)
		w.sent += int64(n)
	}
	w.buf = w.buf[:0]
}
