package legacyd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"unicode/utf8"

	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/message"
	"mailsrv/storage"
)

// maxHeader bounds a subject, in bytes. SMTP clients are bound by their lines; here the frame would be the only bound.
const maxHeader = 16 << 10

// send submits a mail from the entered address. It returns after the mail is durably filed.
func (se *session) send(ctx context.Context, r request) error {
	var fields [3]string
	for i, key := range []string{"to", "header", "text"} {
		var err error
		if fields[i], err = r.text(key); err != nil {
			return err
		}
	}
	to, header, text := strings.TrimSpace(fields[0]), fields[1], fields[2]
	// In an address or a subject these would begin a header field of the client's making.
	if strings.ContainsAny(fields[0], "\r\n\x00") {
		return refuse(textDestination)
	}
	if strings.ContainsAny(header, "\r\n\x00") {
		return refuse("Header must be one line")
	}
	if len(header) > maxHeader {
		return refuse(fmt.Sprintf("Header is longer than %d bytes", maxHeader))
	}
	if _, err := directory.Canonical(to); err != nil {
		return refuse(textDestination)
	}
	if !se.proved && !se.s.o.Directory.Local(to) {
		// Who merely said a name does not send to the world in it, or every program on this machine could in anybody's.
		return refuse(textDestination)
	}
	return se.submit(ctx, to, header, text)
}

// submit composes the mail and hands it to delivery, as a submission of the entered account.
func (se *session) submit(ctx context.Context, to, header, text string) error {
	env := &delivery.Envelope{
		ID:         delivery.NewID(),
		Sender:     se.name,
		Recipients: []delivery.Recipient{{Address: to}},
		Origin: delivery.Origin{
			Service: service, Addr: se.peer, Hello: greetingName(se.conn), Account: se.address, Protocol: service, Trusted: se.trusted,
		},
		SMTPUTF8: !ascii(se.name) || !ascii(to),
		Body:     "7BIT",
	}
	var mail bytes.Buffer
	err := message.Compose(&mail, message.Draft{
		From: []string{se.name}, To: []string{to}, Subject: header, Text: text, Hostname: se.s.o.Hostname,
	})
	if err != nil {
		return refuse("Mail cannot be written: " + err.Error())
	}
	if !ascii(mail.String()) {
		env.Body = "8BITMIME"
	}
	// Shutdown lets what has begun be finished: the client is waiting for its OK.
	ctx = context.WithoutCancel(ctx)
	d := se.s.o.Deliverer
	if err := d.CheckSender(ctx, env, int64(mail.Len())); err != nil {
		return se.refused(to, err)
	}
	if err := d.CheckRecipient(ctx, env, env.Recipients[0], int64(mail.Len())); err != nil {
		return se.refused(to, err)
	}
	in, err := se.incoming(d.Trace(env), &mail)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := d.Deliver(ctx, env, in)[0]; err != nil {
		return se.refused(to, err)
	}
	se.s.o.Meter.MessageAccepted(service, in.Size())
	se.log.Info("sent", "id", env.ID, "from", se.address, "to", to, "size", in.Size())
	return nil
}

// incoming puts the trace headers and the mail into a sealed Incoming.
func (se *session) incoming(trace string, mail io.Reader) (in *storage.Incoming, err error) {
	in, err = se.s.o.Store.Incoming()
	if err != nil {
		return nil, fmt.Errorf("taking in a mail: %w", err)
	}
	defer func() {
		if err != nil {
			in.Close()
		}
	}()
	if _, err = io.Copy(in, io.MultiReader(strings.NewReader(trace), mail)); err != nil {
		return nil, fmt.Errorf("taking in a mail: %w", err)
	}
	if err = in.Seal(); err != nil {
		return nil, fmt.Errorf("taking in a mail: %w", err)
	}
	return in, nil
}

// refused turns delivery's refusal into the client's words: the published ones for an address that leads nowhere from here.
func (se *session) refused(to string, err error) error {
	var e *delivery.Error
	if !errors.As(err, &e) {
		return err
	}
	se.s.o.Meter.MessageRefused(service, e.Status)
	se.log.Info("send refused", "from", se.address, "to", to, "err", e, "cause", e.Cause)
	nowhere := strings.HasPrefix(e.Status, "5.1.") || !se.s.o.Directory.Local(to)
	if !e.Temporary() && nowhere {
		return refuse(textDestination)
	}
	return refuse(e.Text)
}

// greetingName stands where SMTP has the client's EHLO: an address literal, since the protocol has no greeting.
func greetingName(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	switch {
	case err != nil:
		return "localhost"
	case strings.Contains(host, ":"):
		return "[IPv6:" + host + "]"
	}
	return "[" + host + "]"
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
