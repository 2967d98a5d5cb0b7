package relay

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/message"
)

// content is the message as one server gets it.
type content struct {
	size  int64
	body  string // BODY=
	utf8  bool   // SMTPUTF8
	bdat  bool
	raw   bool // BINARYMIME: the bytes as they are
	write func(w io.Writer) error
}

// bodyForm is what the message is brought down to.
type bodyForm int

const (
	sevenBit bodyForm = iota
	eightBit          // from binary
)

// content decides how the message goes over the session, and settles who cannot get it at all.
func (a *attempt) content(s *session) (*content, *failure) {
	m := a.m
	c := &content{size: m.Size, write: func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(fromDisk{m.Message}, 0, m.Size))
		return err
	}}
	if f := a.deadline(s); f != nil {
		return nil, f
	}
	if f := a.internationalised(s, c); f != nil {
		return nil, f
	}
	var form bodyForm
	convert := false
	switch eight := s.has("8BITMIME"); {
	case m.Body == "BINARYMIME" && s.has("BINARYMIME") && s.has("CHUNKING"):
		c.body, c.bdat, c.raw = "BINARYMIME", true, true
	case m.Body == "BINARYMIME" && eight:
		convert, form, c.body = true, eightBit, "8BITMIME"
	case (m.Body == "8BITMIME" || c.utf8) && eight:
		c.body = "8BITMIME"
	case m.Body != "7BIT" && !eight:
		convert = true
	}
	if convert {
		b, err := a.converted(form)
		if err != nil {
			return nil, conversionFailure(err)
		}
		c.size, c.write = b.size, b.writeTo
	}
	if limit, err := strconv.ParseInt(s.ext["SIZE"], 10, 64); err == nil && limit > 0 && c.size > limit {
		return nil, permFailure("message", "5.3.4", "the message has %d octets, and the server takes at most %d", c.size, limit)
	}
	c.bdat = c.bdat || c.size > bdatAbove && s.has("CHUNKING")
	return c, nil
}

func conversionFailure(err error) *failure {
	if errors.Is(err, errCannotConvert) {
		return permFailure("message", "5.6.3", "the server takes only 7-bit mail, and this message cannot be made so: %s",
			strings.TrimPrefix(err.Error(), errCannotConvert.Error()+": "))
	}
	return tempFailure("message", "4.3.0", "the message cannot be read here: %s", printable(err.Error()))
}

// internationalised sets c.utf8 if the message goes as RFC 6531 has it. Where the server knows nothing of that, domains go as
// A-labels, and what then still needs UTF-8 cannot go (section 3.2, 5.6.7 of RFC 6531 section 3.5's list).
func (a *attempt) internationalised(s *session, c *content) *failure {
	needs := a.m.SMTPUTF8 || !isASCII(a.m.Sender)
	for _, i := range a.pending() {
		needs = needs || !isASCII(a.m.Recipients[i].Address)
	}
	if !needs {
		return nil
	}
	if s.has("SMTPUTF8") {
		c.utf8 = true
		return nil
	}
	const lacks = "the server takes no internationalised mail (SMTPUTF8), and %s needs it"
	if local, _, _ := cutAddress(a.m.Sender); !isASCII(local) {
		return permFailure("message", "5.6.7", lacks, "the sender's address")
	}
	if a.m.SMTPUTF8 {
		b, err := a.converted(eightBit)
		if err != nil && !errors.Is(err, errCannotConvert) {
			return conversionFailure(err)
		}
		if b.utf8Header {
			return permFailure("message", "5.6.7", lacks, "the message's header")
		}
	}
	t := &transaction{s: s, start: time.Now()}
	for _, i := range a.pending() {
		if local, _, _ := cutAddress(a.m.Recipients[i].Address); !isASCII(local) {
			a.decide(i, permFailure("message", "5.6.7", lacks, "the recipient's address"), t)
		}
	}
	return nil
}

var errCannotConvert = errors.New("cannot be converted")

// converted is a message made of pieces of the original, texts of ours, and parts to be encoded.
type converted struct {
	m          io.ReaderAt
	pieces     []piece
	size       int64
	utf8Header bool // a header in it is not ASCII
	err        error
}

type piece struct {
	from, to int64  // of the original
	text     string // or this
	encoding string // how the original's bytes go; "" as they are
}

// converted brings the message down to a form, once.
func (a *attempt) converted(form bodyForm) (*converted, error) {
	if b := a.bodies[form]; b != nil {
		return b, b.err
	}
	b := &converted{m: fromDisk{a.m.Message}}
	a.bodies[form] = b
	sum, err := message.Summarize(io.NewSectionReader(b.m, 0, a.m.Size))
	if err != nil {
		b.err = err
		return b, err
	}
	v := &converter{out: b, eight: form == eightBit}
	v.part(&sum.Root, true, false)
	v.copyTo(a.m.Size)
	var n counter
	if b.err = v.err; b.err == nil {
		b.err = b.writeTo(&n)
	}
	b.size = int64(n)
	if b.err == nil && v.changed {
		// Signatures over the body that are not inside it (DKIM of other servers; ours are made for 7 bits) no longer fit.
		a.r.log.Info("message re-encoded for a server without 8BITMIME", "id", a.m.ID)
	}
	return b, b.err
}

func (b *converted) writeTo(w io.Writer) error {
	for _, p := range b.pieces {
		if _, err := io.WriteString(w, p.text); err != nil {
			return err
		}
		r := io.NewSectionReader(b.m, p.from, p.to-p.from)
		var err error
		switch p.encoding {
		case "quoted-printable":
			q := quotedprintable.NewWriter(w)
			if _, err = io.Copy(q, r); err == nil {
				err = q.Close()
			}
		case "base64":
			err = writeBase64(w, r)
		default:
			_, err = io.Copy(w, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeBase64 writes lines of 76 characters, each with its end.
func writeBase64(w io.Writer, r io.Reader) error {
	in := make([]byte, 57*64)
	for {
		n, err := io.ReadFull(r, in)
		var lines []byte
		for rest := in[:n]; len(rest) > 0; {
			k := min(57, len(rest))
			lines = append(base64.StdEncoding.AppendEncode(lines, rest[:k]), crlf...)
			rest = rest[k:]
		}
		if _, werr := w.Write(lines); werr != nil {
			return werr
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// converter walks the MIME tree and writes down the pieces.
type converter struct {
	out     *converted
	eight   bool  // 8 bits may stay, binary may not
	pos     int64 // the original up to here has its piece
	changed bool
	err     error
}

func (v *converter) copyTo(to int64) {
	if to > v.pos {
		v.out.pieces = append(v.out.pieces, piece{from: v.pos, to: to})
		v.pos = to
	}
}

// part converts one part. Nothing within a multipart/signed may change: its signature is over the encoded text (RFC 1847
// section 2.1), and who made it should have made it of 7 bits.
func (v *converter) part(p *message.Part, root, signed bool) {
	if v.err != nil {
		return
	}
	header := make([]byte, min(p.Body-p.Header, 1<<20))
	if n, err := v.out.m.ReadAt(header, p.Header); err != nil && (err != io.EOF || n < len(header)) {
		v.err = err
		return
	}
	if !isASCII(string(header)) {
		v.out.utf8Header = true
	}
	if len(p.Children) > 0 {
		v.container(p, header, root, signed)
		return
	}
	octets, err := v.look(p)
	if err != nil {
		v.err = err
		return
	}
	declared := p.Encoding == "8bit" || p.Encoding == "binary"
	switch {
	case !octets.need(v.eight, p.Encoding):
		if declared && !signed && (p.Encoding == "binary" || !v.eight) {
			v.header(p, header, root, octets.plainName())
		}
	case signed:
		v.err = fmt.Errorf("%w: a part of it is signed", errCannotConvert)
	case p.Type == "multipart" || p.Type == "message":
		v.err = fmt.Errorf("%w: a part of type %s/%s has no encoding", errCannotConvert, p.Type, p.Subtype)
	case !declared && p.Encoding != "7bit":
		v.err = fmt.Errorf("%w: a part in %.20s is not", errCannotConvert, p.Encoding)
	default:
		encoding := octets.encoding(p)
		v.header(p, header, root, encoding)
		v.copyTo(p.Body)
		v.out.pieces = append(v.out.pieces, piece{from: p.Body, to: p.End, encoding: encoding})
		v.pos, v.changed = p.End, true
	}
}

// container is a multipart or an embedded message: it has no encoding of its own but the claim of what is within.
func (v *converter) container(p *message.Part, header []byte, root, signed bool) {
	signed = signed || p.Type == "multipart" && p.Subtype == "signed"
	claim := "7bit"
	if v.eight {
		claim = "8bit"
	}
	if !signed && (p.Encoding == "binary" || p.Encoding == "8bit" && !v.eight) {
		v.header(p, header, root, claim)
	}
	for i := range p.Children {
		v.part(&p.Children[i], false, signed)
	}
}

// header copies a part's header with another Content-Transfer-Encoding.
func (v *converter) header(p *message.Part, header []byte, root bool, encoding string) {
	var have struct{ version, kind bool }
	at := 0 // of the field under way
	message.Fields(header, func(name string, raw []byte) bool {
		i := at + max(0, bytes.Index(header[at:], raw))
		at = i + len(raw)
		switch strings.ToLower(name) {
		case "mime-version":
			have.version = true
		case "content-type":
			have.kind = true
		case "content-transfer-encoding":
			v.copyTo(p.Header + int64(i))
			v.pos = p.Header + int64(at)
		}
		return true
	})
	add := "Content-Transfer-Encoding: " + encoding + "\r\n"
	if root && !have.kind && encoding != "7bit" && encoding != "8bit" {
		add = "Content-Type: text/plain; charset=unknown-8bit\r\n" + add // RFC 1428 section 3
	}
	if root && !have.version {
		add = "MIME-Version: 1.0\r\n" + add
	}
	end := p.Body // before the empty line
	switch {
	case bytes.HasSuffix(header, crlf):
		end -= 2
	case bytes.HasSuffix(header, crlf[1:]):
		end--
	}
	v.copyTo(end)
	v.out.pieces = append(v.out.pieces, piece{text: add})
}

// octets is what a body is made of.
type octets struct {
	total, high int64
	nul         bool
	bareEnd     bool // CR or LF alone
	longLine    bool // RFC 5322 section 2.1.1: more than 998
}

func (v *converter) look(p *message.Part) (o octets, err error) {
	buf := make([]byte, 32<<10)
	r := io.NewSectionReader(v.out.m, p.Body, p.End-p.Body)
	line, cr := 0, false
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			o.bareEnd = o.bareEnd || cr != (c == '\n')
			cr = c == '\r'
			o.nul = o.nul || c == 0
			if c >= 0x80 {
				o.high++
			}
			if line++; c == '\n' {
				line = 0
			}
			o.longLine = o.longLine || line > 998+2
		}
		o.total += int64(n)
		if err == io.EOF {
			o.bareEnd = o.bareEnd || cr
			return o, nil
		} else if err != nil {
			return o, err
		}
	}
}

func (o *octets) binary() bool { return o.nul || o.bareEnd || o.longLine }

// need reports whether the body cannot go as it is. Lines that are too long are an encoding's matter only where binary was
// declared: others send them too, and servers take them.
func (o *octets) need(eight bool, encoding string) bool {
	return encoding == "binary" && o.binary() || !eight && o.high > 0
}

// plainName is the encoding that a body without need of any has.
func (o *octets) plainName() string {
	if o.high > 0 {
		return "8bit"
	}
	return "7bit"
}

// encoding chooses: text that is mostly ASCII stays readable.
func (o *octets) encoding(p *message.Part) string {
	if p.Type == "text" && !o.nul && !o.bareEnd && o.high*3 < o.total {
		return "quoted-printable"
	}
	return "base64"
}
