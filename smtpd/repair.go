package smtpd

import (
	"io"
	"mime"
	"net/mail"
	"strings"

	"mailsrv/internal/delivery"
)

// usual are the fields one of which any mail program writes. A header that has none of them is none: it is a line of text
// that happens to have a colon, such as the chat lab's "nick: hello".
var usual = map[string]bool{
	"from": true, "sender": true, "reply-to": true, "to": true, "cc": true, "bcc": true, "subject": true, "date": true,
	"message-id": true, "in-reply-to": true, "references": true, "mime-version": true, "content-type": true,
	"content-transfer-encoding": true, "received": true, "return-path": true, "user-agent": true, "x-mailer": true,
	"comments": true, "keywords": true, "dkim-signature": true, "auto-submitted": true, "chat-version": true,
	"resent-from": true, "resent-to": true, "list-id": true, "autocrypt": true, "importance": true, "x-priority": true,
}

// repair does for a submitted message what RFC 6409 section 8 allows: it adds From, To, Date and Message-ID where they lack,
// takes Bcc away, and looks at who it says it is from.
func (in *intake) repair() *reply {
	h := &in.head
	bareText := true
	for _, f := range h.fields {
		bareText = bareText && !usual[strings.ToLower(f.name)]
	}
	if bareText {
		// All of it is text. A blank line in front of it was nobody's separator either, but that is not text.
		if len(h.fields) > 0 {
			h.body = 0
		}
		h.fields = nil
	}
	blind := h.count("Bcc")+h.count("Resent-Bcc") > 0
	for _, name := range []string{"Return-Path", "Bcc", "Resent-Bcc"} {
		h.remove(name)
	}
	if r := in.checkFrom(); r != nil {
		return r
	}
	in.complete(bareText, blind)
	return nil
}

// complete adds what lacks.
func (in *intake) complete(bareText, blind bool) {
	h, env, srv := &in.head, in.env, in.s.srv
	if h.count("From") == 0 {
		from := env.Sender
		if from == "" {
			from = env.Origin.Account
		}
		h.set("From", angle(from))
	}
	if h.count("To")+h.count("Cc") == 0 {
		h.set("To", recipients(env, bareText, blind))
	}
	if h.count("Date") == 0 {
		h.set("Date", srv.now().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	}
	if h.count("Message-ID") == 0 {
		h.set("Message-ID", "<"+delivery.NewID()+"@"+srv.hostname+">")
	}
	if bareText {
		h.set("MIME-Version", "1.0")
		h.set("Content-Type", "text/plain; charset=utf-8")
		h.set("Content-Transfer-Encoding", "8bit")
	}
}

// recipients is the To field for a message without one. Recipients that a header chose not to name are not named by us,
// unless there is only one, who knows.
func recipients(env *delivery.Envelope, bareText, blind bool) string {
	n := len(env.Recipients)
	if blind || n > maxNamed || n > 1 && !bareText {
		return "undisclosed-recipients:;"
	}
	all := make([]string, n)
	for i, r := range env.Recipients {
		all[i] = angle(r.Address)
	}
	return strings.Join(all, ",\r\n\t")
}

func angle(address string) string { return "<" + address + ">" }

// checkFrom sees to it that people write under their own names. Two From fields are two readings: one for us, one for
// whoever reads the message.
func (in *intake) checkFrom() *reply {
	for _, name := range []string{"From", "Sender"} {
		if in.head.count(name) > 1 {
			return &twoFroms
		}
	}
	for _, f := range in.head.fields {
		if !strings.EqualFold(f.name, "From") && !strings.EqualFold(f.name, "Sender") {
			continue
		}
		addresses, good := addressesIn(unfold(f.raw))
		if !good {
			return &badFrom
		}
		for _, a := range addresses {
			if err := in.s.srv.post.CheckFrom(in.env, a); err != nil {
				r := replyTo(err)
				return &r
			}
		}
	}
	return nil
}

// addressesIn reads an address list; at least one.
func addressesIn(value string) (all []string, good bool) {
	p := mail.AddressParser{WordDecoder: &mime.WordDecoder{
		// The name's words are not what we want to know; no charset shall hinder us.
		CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil },
	}}
	list, err := p.ParseList(value)
	if err != nil {
		// QUIRK: names that would have to be quoted, as in: a@b.test (Sales) via C <a@b.test>.
		address, good := lastAngle(value)
		return []string{address}, good
	}
	for _, a := range list {
		all = append(all, a.Address)
	}
	return all, len(all) > 0
}

// lastAngle is the address of a value that ends in the only <address> it has.
func lastAngle(value string) (string, bool) {
	i := strings.IndexByte(value, '<')
	if i < 0 || strings.Count(value, "<") != 1 || strings.ContainsAny(value[:i], ",;\"") {
		return "", false
	}
	address, rest, good := parsePath(value[i:], false)
	return address, good && rest == "" && address != ""
}
