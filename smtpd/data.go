package smtpd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
)

// data is DATA.
func (s *session) data(ctx context.Context, _ string) reply {
	switch {
	case s.tx.env.Body == "BINARYMIME":
		return binaryNeedsBDAT // RFC 3030 section 3
	case len(s.tx.env.Recipients) == 0:
		return recipientsFirst
	}
	if err := s.srv.post.Room(s.tx.size); err != nil {
		return s.refused("DATA", &s.tx.env, replyTo(err))
	}
	s.tx.intake = newIntake(s, s.tx)
	s.say(goAhead)
	if err := s.copyMessage(&dotReader{r: s.in}); err != nil {
		return s.brokenOff(err)
	}
	return s.finish(ctx)
}

var errEndless = errors.New("message without an end")

// copyMessage reads the message to its real end, whatever is thought of it meanwhile.
func (s *session) copyMessage(r io.Reader) error {
	if s.buf == nil {
		s.buf = make([]byte, bufferSize)
	}
	for {
		n, err := r.Read(s.buf)
		s.tx.intake.take(s.buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if s.tx.intake.seen > s.srv.limits.endless() {
			return errEndless
		}
	}
}

// brokenOff ends a connection in the middle of a message: there is no telling where the next command would begin.
func (s *session) brokenOff(err error) reply {
	r := reply{hangup: true}
	switch {
	case err == errEndless:
		r = endlessMessage
	case errors.Is(err, os.ErrDeadlineExceeded):
		r = idleTooLong
	}
	r.cause = err
	return s.refused("DATA", &s.tx.env, r)
}

// finish answers the message and ends the transaction: once on SMTP, once for each recipient on LMTP (RFC 2033 section 4.2).
func (s *session) finish(ctx context.Context) reply {
	tx := s.tx
	answers := tx.intake.finish(ctx)
	tx.intake = nil
	s.tx = nil
	if s.srv.service != LMTP {
		r := oneAnswer(answers)
		if !r.bad() {
			s.errors = 0
		}
		return r
	}
	for i, r := range answers[:len(answers)-1] {
		s.say(r.to(tx.env.Recipients[i].Address))
	}
	last := len(answers) - 1
	return answers[last].to(tx.env.Recipients[last].Address)
}

// bdat is BDAT (RFC 3030 section 2). Its octets follow whatever we think of it, so they are read first of all.
func (s *session) bdat(ctx context.Context, arg string) reply {
	size, last, good := parseBDAT(arg)
	switch {
	case !good:
		return badChunkSize
	case size > s.srv.limits.endless():
		return hugeChunk
	}
	if r, refused := s.beginChunk(); refused {
		if _, err := io.CopyN(io.Discard, s.in, size); err != nil {
			return s.unread(err)
		}
		return r
	}
	if err := s.copyMessage(&exactReader{s.in, size}); err != nil {
		return s.brokenOff(err)
	}
	in := s.tx.intake
	switch {
	case last:
		return s.finish(ctx)
	case in.answer != nil:
		// RFC 3030 section 2: after a failed chunk the transaction is over.
		r := s.refused("BDAT", in.env, *in.answer)
		s.drop()
		return r
	}
	return reply{code: 250, status: "2.0.0", text: strconv.FormatInt(size, 10) + " octets received"}
}

// beginChunk asks what bdat needs, and opens the intake with the first chunk.
func (s *session) beginChunk() (reply, bool) {
	if r, refused := s.refuses(greeted|login|inMail, ""); refused {
		return r, true
	}
	if len(s.tx.env.Recipients) == 0 {
		return recipientsFirst, true
	}
	if s.tx.intake == nil {
		if err := s.srv.post.Room(s.tx.size); err != nil {
			r := s.refused("BDAT", &s.tx.env, replyTo(err))
			s.drop()
			return r, true
		}
		s.tx.intake = newIntake(s, s.tx)
	}
	return reply{}, false
}

// parseBDAT reads "size [LAST]".
func parseBDAT(arg string) (size int64, last, good bool) {
	number, word, more := strings.Cut(arg, " ")
	n, err := strconv.ParseUint(number, 10, 63)
	last = more && strings.EqualFold(strings.TrimSpace(word), "LAST")
	return int64(n), last, err == nil && last == more
}

// exactReader is io.LimitReader that knows a connection's end from a chunk's.
type exactReader struct {
	r *bufio.Reader
	n int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

var _ post = office{}
