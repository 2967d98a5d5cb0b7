package legacyd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"mailsrv/storage"
)

const (
	listChunk    = 64  // mails looked up at once
	previewBytes = 240 // of a text that is cut
	headerBytes  = 300 // of a subject or an address list that is cut
)

// listing collects a mailbox command's reply, newest mail first, within max bytes.
//
// The newest mails get half of the room for their whole texts; older ones are cut to a preview, unless they are as short,
// until the room is full: so a long mail does not push all others off the list. Room that is then left goes to whole
// texts again, the newest first.
type listing struct {
	max   int // of the reply's body
	used  int // brackets and commas included
	items []item
}

// item is one mail of a listing. Of a cut one the message is kept, for a second look.
type item struct {
	json    []byte
	cut     bool
	message storage.Message
}

// list answers a mailbox command. It reads as many of the newest messages as fit the reply, whatever the mailbox holds.
func (se *session) list() ([]byte, error) {
	if err := se.account.Refresh(se.inbox); err != nil {
		se.log.Warn("looking for foreign changes", "account", se.address, "err", err)
	}
	view, err := se.account.View(se.inbox)
	if err != nil {
		return nil, fmt.Errorf("viewing INBOX: %w", err)
	}
	l := &listing{max: se.s.o.MaxReply - headerSize, used: len("[]")}
	for end, full := view.Len(), false; end > 0 && !full; end -= listChunk {
		if full, err = se.listRows(l, view, max(end-listChunk, 0), end); err != nil {
			return nil, err
		}
	}
	for i := range l.items {
		if err := se.fill(l, &l.items[i]); err != nil {
			return nil, err
		}
	}
	return seal(typeMailbox, l.frame())
}

// frame is the items, oldest first, as a JSON array behind room for a header.
func (l *listing) frame() []byte {
	b := bytes.NewBuffer(make([]byte, headerSize, headerSize+l.used))
	b.WriteByte('[')
	for i, it := range slices.Backward(l.items) {
		b.Write(it.json)
		if i > 0 {
			b.WriteByte(',')
		}
	}
	b.WriteByte(']')
	return b.Bytes()
}

// listRows adds rows from..to-1 of the view, the newest first; full when one did not fit.
func (se *session) listRows(l *listing, view *storage.View, from, to int) (full bool, err error) {
	uids := make([]storage.UID, 0, to-from)
	for _, row := range view.Rows(from, to) {
		uids = append(uids, row.UID)
	}
	messages := make([]storage.Message, 0, len(uids))
	for m, err := range se.account.Messages(se.inbox, uids, true) {
		if err != nil {
			return false, fmt.Errorf("looking up mails: %w", err)
		}
		messages = append(messages, m)
	}
	for _, m := range slices.Backward(messages) {
		it, err := se.item(l, m)
		if gone(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		if !l.add(it) {
			return true, nil
		}
	}
	return false, nil
}

// gone reports whether the error says that a mail went while the list was made.
func gone(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// item shows a mail in the form that its place in the listing allows.
func (se *session) item(l *listing, m storage.Message) (item, error) {
	shown := se.mail(m)
	limit := max(l.max/2-l.used, previewBytes)
	text, cut, err := se.text(m, limit)
	if err != nil {
		return item{}, err
	}
	if !cut {
		shown.Text = text
		whole, err := encode(shown)
		if err != nil || len(text) <= previewBytes || l.used+len(whole)+1 <= l.max/2 {
			return item{json: whole}, err
		}
	}
	shown.Text = preview(m, text)
	shown.Source, shown.Destination = ellipsis(shown.Source, headerBytes), ellipsis(shown.Destination, headerBytes)
	shown.Header = ellipsis(shown.Header, headerBytes)
	short, err := encode(shown)
	return item{json: short, cut: true, message: m}, err
}

// preview is the beginning of a text that does not fit.
func preview(m storage.Message, text string) string {
	if p := m.Summary.Preview; p != "" {
		return clip(p, previewBytes) + "…"
	}
	return ellipsis(text, previewBytes)
}

func ellipsis(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return clip(s, n) + "…"
}

// add puts an item on the listing; false if there is no room for it.
func (l *listing) add(it item) bool {
	size := len(it.json)
	if len(l.items) > 0 {
		size++ // comma
	}
	if l.used+size > l.max {
		return false
	}
	l.used += size
	l.items = append(l.items, it)
	return true
}

// fill puts the whole text in the place of a preview if there is room left.
func (se *session) fill(l *listing, it *item) error {
	room := l.max - l.used
	if !it.cut || room == 0 {
		return nil
	}
	text, cut, err := se.text(it.message, len(it.json)+room)
	if cut || gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	shown := se.mail(it.message)
	shown.Text = text
	whole, err := encode(shown)
	if err != nil {
		return err
	}
	if more := len(whole) - len(it.json); more <= room {
		l.used += more
		it.json, it.cut = whole, false
	}
	return nil
}

func encode(m mail) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
