package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on a reply. RFC 5321 section 4.5.3.1.5 has lines of 512 octets; real servers write more, hostile ones without end.
const (
	maxReplyLine  = 4 << 10
	maxReplyLines = 200
	maxReply      = 32 << 10
)

var (
	errReplyTooLong = errors.New("a reply longer than anybody needs")
	errNoReply      = errors.New("not an SMTP reply")
)

// reply is one SMTP reply, read whole.
type reply struct {
	code   int      // 200 … 599
	status string   // RFC 3463, "" if the server gave none that fits the code
	lines  []string // the words of each line, without code and status; valid UTF-8 without controls
}

// text is the whole reply's words in one line.
func (r *reply) text() string { return strings.Join(r.lines, " ") }

func (r *reply) class() int { return r.code / 100 }

// statusOr is the server's status, or class.0.0 (RFC 3463: "other undefined status").
func (r *reply) statusOr() string {
	if r.status != "" {
		return r.status
	}
	return fmt.Sprintf("%d.0.0", r.class())
}

// readReply reads one reply. Bare LF ends a line too. The error is the reader's (io.ErrUnexpectedEOF within a reply, so that half
// a reply is none), errReplyTooLong, or errNoReply for what is not SMTP.
func readReply(br *bufio.Reader) (*reply, error) {
	r := &reply{}
	for total := 0; ; {
		line, err := readReplyLine(br, min(maxReplyLine, maxReply-total))
		if err != nil {
			if err == io.EOF && len(r.lines) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		total += len(line)
		more, err := r.add(line)
		if err != nil {
			return nil, err
		}
		if !more {
			return r, nil
		}
		if len(r.lines) >= maxReplyLines {
			return nil, errReplyTooLong
		}
	}
}

// add takes a line "250-words", and reports whether more follow.
func (r *reply) add(line string) (more bool, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return false, fmt.Errorf("%w: %.60q", errNoReply, line)
	}
	code := int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	words := ""
	if len(line) > 3 {
		if line[3] != ' ' && line[3] != '-' {
			return false, fmt.Errorf("%w: %.60q", errNoReply, line)
		}
		more, words = line[3] == '-', line[4:]
	}
	if r.code != 0 && code != r.code {
		return false, fmt.Errorf("%w: %d and %d in one reply", errNoReply, r.code, code)
	}
	r.code = code
	status, rest := cutStatus(code, words)
	if status != "" && (r.status == "" || status == r.status) {
		r.status, words = status, rest
	}
	r.lines = append(r.lines, printable(words))
	return more, nil
}

// cutStatus cuts an enhanced status code off (RFC 2034 section 4) if it is of the reply's class.
func cutStatus(code int, words string) (status, rest string) {
	status, rest, _ = strings.Cut(words, " ")
	parts := strings.Split(status, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return "", words
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return "", words
		}
	}
	return status, rest
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// printable makes the words fit for logs, DSNs and terminals.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || 0x80 <= c && c < 0xa0 || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimRight(s, " ")
}

// readReplyLine reads up to a line end, which it cuts off; limit is for the whole line.
func readReplyLine(br *bufio.Reader, limit int) (string, error) {
	var b []byte
	for {
		piece, err := br.ReadSlice('\n')
		if len(b)+len(piece) > limit {
			return "", errReplyTooLong
		}
		b = append(b, piece...)
		switch {
		case err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(b) > 0:
			return "", io.ErrUnexpectedEOF
		default:
			return "", err
		}
	}
}
