package legacyd

import (
	"errors"
	"fmt"
	"strings"

	"mailsrv/internal/message"
	"mailsrv/storage"
)

// mail is a mail as the client sees it; it prints the keys in this order.
type mail struct {
	ID          storage.UID `json:"id"`
	Source      string      `json:"source"`
	Destination string      `json:"destination"`
	Header      string      `json:"header"`
	Text        string      `json:"text"`
}

// maxText bounds the text that open returns, in bytes.
const maxText = 16 << 20

// open returns a mail whole and marks it \Seen.
func (se *session) open(r request) ([]byte, error) {
	m, err := se.find(r)
	if err != nil {
		return nil, err
	}
	text, cut, err := se.text(m, maxText)
	if err != nil {
		return nil, err
	}
	if cut {
		text += fmt.Sprintf("\n[cut after %d bytes: read the rest with a mail client]", len(text))
	}
	shown := se.mail(m)
	shown.Text = text
	reply, err := encodeFrame(typeOpen, shown)
	if err != nil {
		return nil, err
	}
	// Not being able to mark it, on a full disk say, is no reason to keep the mail from its reader.
	if _, err := se.account.Store(se.inbox, []storage.UID{m.UID}, storage.FlagChange{
		Op: storage.AddFlags, Flags: []string{`\Seen`},
	}); err != nil {
		se.log.Warn("marking a mail as seen", "account", se.address, "uid", m.UID, "err", err)
	}
	return reply, nil
}

// del removes a mail as an IMAP expunge does.
func (se *session) del(r request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	if uid == 0 {
		return refuse(textNoMail)
	}
	gone, _, err := se.account.Expunge(se.inbox, []storage.UID{uid}, false)
	if err != nil {
		return fmt.Errorf("expunging %d: %w", uid, err)
	}
	if len(gone) == 0 {
		return refuse(textNoMail)
	}
	return nil
}

// find looks up the mail that a request's index names.
func (se *session) find(r request) (storage.Message, error) {
	uid, err := r.uid()
	if err != nil {
		return storage.Message{}, err
	}
	if uid != 0 {
		for m, err := range se.account.Messages(se.inbox, []storage.UID{uid}, true) {
			if err != nil {
				return m, fmt.Errorf("looking up %d: %w", uid, err)
			}
			return m, nil
		}
	}
	return storage.Message{}, refuse(textNoMail)
}

// mail shows what the index knows of a message: everything but its text.
func (se *session) mail(m storage.Message) mail {
	from, to := envelopeAddresses(m.Summary.Envelope)
	if to == "" { // a blind copy, or a list's
		to = se.address
	}
	return mail{ID: m.UID, Source: from, Destination: to, Header: m.Summary.Subject}
}

// text reads a message's best plain text; cut if that is longer than limit bytes. A message that has gone since it was
// looked up is refused.
func (se *session) text(m storage.Message, limit int) (text string, cut bool, err error) {
	body, err := se.account.OpenMessage(se.inbox, m.UID)
	if errors.Is(err, storage.ErrNoMessage) {
		return "", false, refuse(textNoMail)
	}
	if err != nil {
		return "", false, fmt.Errorf("opening %d: %w", m.UID, err)
	}
	defer body.Close()
	// BestText cuts between characters, so it may return a little less than it was allowed.
	text, err = message.BestText(body, m.Summary, int64(limit)+8)
	if err != nil {
		return "", false, fmt.Errorf("reading %d: %w", m.UID, err)
	}
	if len(text) > limit {
		return clip(text, limit), true, nil
	}
	return text, false, nil
}

// clip cuts s to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return strings.TrimRight(s[:n], " \r\n")
}
