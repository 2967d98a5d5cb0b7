package mailauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"mailsrv/internal/resolve"
)

// Options of a Signer.
type Options struct {
	Keys     *Keys
	Hostname string           // who says so in ARC-Authentication-Results
	Resolver resolve.Resolver // for judging what others signed; nil: no ARC seals are made
	// Timeout bounds the look-ups for one message; 0 is 10 seconds.
	Timeout time.Duration
	Now     func() time.Time
}

// Signer puts our name to what leaves. Safe for use by several goroutines.
type Signer struct {
	o Options
}

// NewSigner makes a Signer.
func NewSigner(o Options) *Signer {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Signer{o}
}

// Mail is a message that leaves, once, for however many recipients.
type Mail struct {
	Message io.ReaderAt // lines end with CRLF
	Size    int64
	Sender  string // reverse-path; "" is the null sender
	// Ours says that we know who wrote it: an account that logged in and may use the From address, or this server. It is
	// signed. What is not ours never is, whatever its From says.
	Ours bool
	// For is the address here that mail of others is sent on for; "" if it is not.
	For  string
	Peer netip.Addr // who brought it
}

// ErrARC is of a message that could not be sealed just now; it may go as it is, since a seal only helps.
var ErrARC = errors.New("not sealed")

// Fields returns the header fields to put in front of a message that leaves, with CRLFs: one DKIM signature for each
// algorithm that the author's domain has a key of, or an ARC set, or nothing. Errors that are [ErrARC] may be passed over;
// others say that a signature should be there and cannot be made.
func (s *Signer) Fields(ctx context.Context, m Mail) ([]byte, error) {
	h, body, err := readHeader(m.Message, m.Size)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	switch {
	case m.Ours:
		return s.sign(m, h, body)
	case m.For != "" && s.o.Resolver != nil:
		ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
		set, err := s.seal(ctx, m, h, body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrARC, err)
		}
		return set, nil
	}
	return nil, nil
}

// keysFor finds the keys that may speak for a message: those of the author's domain, which is what DMARC asks for (RFC 7489
// section 3.1.1), else the envelope's, else the server's own, which at least says who answers for it.
func (s *Signer) keysFor(m Mail, h header) ([]Key, error) {
	for _, domain := range []string{h.fromDomain(), domainOf(m.Sender), s.o.Hostname} {
		if keys, err := s.o.Keys.Signing(domain); err != nil || len(keys) > 0 {
			return keys, err
		}
	}
	return nil, nil
}

// sign makes the DKIM signatures, all in one pass over the message.
func (s *Signer) sign(m Mail, h header, body int64) ([]byte, error) {
	keys, err := s.keysFor(m, h)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	names := signedFields(h)
	var signers []*dkim.Signer
	var writers []io.Writer
	defer func() {
		for _, d := range signers {
			_ = d.Close() // ends its goroutine, whatever happened; after a good end twice does no harm
		}
	}()
	for _, key := range keys {
		d, err := dkim.NewSigner(&dkim.SignOptions{
			Domain: key.Domain, Selector: key.Selector, Signer: key.signer, HeaderKeys: names,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed,
			BodyCanonicalization:   dkim.CanonicalizationRelaxed,
		})
		if err != nil {
			return nil, fmt.Errorf("sign as %s: %w", key.Name(), err)
		}
		signers, writers = append(signers, d), append(writers, d)
	}
	if err := feed(io.MultiWriter(writers...), m, h, body); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var fields strings.Builder
	for i, d := range signers {
		if err := d.Close(); err != nil {
			return nil, fmt.Errorf("sign as %s: %w", keys[i].Name(), err)
		}
		fields.WriteString(d.Signature())
	}
	signers = nil
	return []byte(fields.String()), nil
}

// feed writes the fields, the empty line and the body. Not the header as it is: lines that belong to no field would be
// taken for one.
func feed(w io.Writer, m Mail, h header, body int64) error {
	for _, f := range h {
		if _, err := w.Write(f.raw); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "\r\n"); err != nil {
		return err
	}
	_, err := io.CopyBuffer(w, io.NewSectionReader(m.Message, body, m.Size-body), make([]byte, 32<<10))
	return err
}

// What is signed (RFC 6376 section 5.4.1): what people see and what decides how it is shown. The sealed ones are signed once
// more than they are there, so that nobody can add another (section 8.15). Trace fields are not: they change on the way.
var (
	sealedFields = []string{"From", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type",
		"Content-Transfer-Encoding"}
	otherFields = []string{"Sender", "In-Reply-To", "References", "Content-Disposition", "Content-Language", "Resent-Date",
		"Resent-From", "Resent-To", "Resent-Cc", "Resent-Message-ID", "List-Id", "List-Help", "List-Unsubscribe",
		"List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive", "Auto-Submitted", "Autocrypt",
		"Feedback-ID"}
)

// maxSigned bounds the h= list: go-msgauth writes it in one line, which may have 998 octets.
const maxSigned = 48

// signedFields is the h= list for a header.
func signedFields(h header) []string {
	var names []string
	for _, name := range sealedFields {
		for range min(h.count(name), 2) + 1 {
			names = append(names, name)
		}
	}
	for _, name := range otherFields {
		for range min(h.count(name), 2) {
			if len(names) < maxSigned {
				names = append(names, name)
			}
		}
	}
	return names
}
