package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	gomail "github.com/emersion/go-message/mail"

	"mailsrv/internal/delivery"
	"mailsrv/internal/message"
	"mailsrv/storage/kv"
)

// keySamples in system.db says that the sample mails were delivered: a crash among them costs a second copy, none is lost.
const keySamples = "demo/samples"

// fillDemo delivers the sample mails to the first declared account, once in the life of a data folder. They go the way of all mail.
func (s *server) fillDemo() error {
	if !s.cfg.Demo || len(s.cfg.Accounts) == 0 {
		return nil
	}
	filled := false
	err := s.system.View(func(r kv.Reader) error {
		filled = r.Get([]byte(keySamples)) != nil
		return nil
	})
	if filled || err != nil {
		return err
	}
	account, ok := s.people.Account(s.cfg.Accounts[0].Address)
	if !ok || account.Disabled {
		return nil
	}
	for i, sample := range s.samples(account.Address, time.Now()) {
		if err := s.deliver(account.Address, sample); err != nil {
			return fmt.Errorf("demo: sample mail %d: %w", i+1, err)
		}
	}
	s.log.Info("sample mails delivered", "account", account.Address)
	return s.system.Update(func(tx kv.Tx) error { return tx.Put([]byte(keySamples), []byte{1}) })
}

// sample writes one mail.
type sample struct {
	sender string
	write  func(io.Writer) error
}

func (s *server) deliver(to string, m sample) error {
	env := &delivery.Envelope{
		ID:         delivery.NewID(),
		Sender:     m.sender,
		Recipients: []delivery.Recipient{{Address: to}},
		Body:       "8BITMIME",
		SMTPUTF8:   true,
		Origin: delivery.Origin{Service: "lmtp", Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Hello: "localhost",
			Protocol: "LMTP", Trusted: true},
	}
	in, err := s.mail.Incoming()
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.WriteString(in, s.deliverer.Trace(env)); err != nil {
		return err
	}
	if err := m.write(in); err != nil {
		return err
	}
	if err := in.Seal(); err != nil {
		return err
	}
	return s.deliverer.Deliver(context.Background(), env, in)[0]
}

// samples are what a mailbox looks like after two days: oldest first.
func (s *server) samples(to string, now time.Time) []sample {
	_, domain, _ := strings.Cut(to, "@")
	bob, carol := "bob@"+domain, "carol@"+domain
	ago := func(d time.Duration) string { return now.Add(-d).Format(time.RFC1123Z) }
	first := "lunch-1@" + s.cfg.Hostname
	return []sample{
		text("postmaster@"+domain, message.Draft{
			From: []string{"Mailsrv <postmaster@" + domain + ">"}, To: []string{to}, Date: ago(49 * time.Hour),
			Hostname: s.cfg.Hostname, Subject: "Welcome: how to use this server", Text: s.welcome(to, domain),
		}),
		{"orders@shop.example", func(w io.Writer) error { return writeInvoice(w, to, now.Add(-26*time.Hour)) }},
		text("haruka@example.net", message.Draft{
			From: []string{"はるか <haruka@example.net>"}, To: []string{to}, Date: ago(20 * time.Hour), Hostname: "example.net",
			Subject: "京都からのはがき — открытка из Киото", Text: "こんにちは！\n\n桜が咲きました。写真をあとで送ります。\n\n" +
				"Привет из Киото, здесь уже цветёт сакура 🌸\n\nはるか\n",
		}),
		text(bob, message.Draft{
			From: []string{"Bob <" + bob + ">"}, To: []string{to, carol}, Date: ago(5 * time.Hour), Hostname: s.cfg.Hostname,
			MessageID: first, Subject: "Lunch on Thursday?",
			Text: "Hi both,\n\nthe new place at the corner has dumplings. Thursday at half past twelve?\n\nBob\n",
		}),
		text(carol, message.Draft{
			From: []string{"Carol <" + carol + ">"}, To: []string{bob, to}, Date: ago(4 * time.Hour), Hostname: s.cfg.Hostname,
			Subject: "Re: Lunch on Thursday?",
			Extra:   map[string]string{"In-Reply-To": "<" + first + ">", "References": "<" + first + ">"},
			Text: "> Thursday at half past twelve?\n\nI am in. Alice, will you be back from the lab by then?\n\nCarol\n\n" +
				"-- \nCarol · 2nd floor, left\n",
		}),
	}
}

func text(sender string, d message.Draft) sample {
	return sample{sender, func(w io.Writer) error { return message.Compose(w, d) }}
}

func (s *server) welcome(to, domain string) string {
	return fmt.Sprintf(`Hello,

this mailbox is real: it was delivered to it like any other mail, and it stays when the server is started again.

Things to try:

  - Write to bob@%[2]s or carol@%[2]s; they have the same password as you.
  - Open this mailbox with a mail client and with the course client at once, delete a mail in one, and watch the other.
  - Send to %[3]s: what is behind the + is a tag.
  - Make somebody else:  mailsrv -config FILE user add dave@%[2]s -password-stdin
  - Look into the data folder: it is a Maildir, and grep works.

What listens where was printed when the server started.
`, to, domain, strings.Replace(to, "@", "+news@", 1))
}

// writeInvoice writes what Compose does not: HTML beside its text, and a picture.
func writeInvoice(w io.Writer, to string, when time.Time) error {
	var h gomail.Header
	h.SetDate(when)
	h.SetSubject("Your order no. 1042 is on its way")
	h.SetAddressList("From", []*gomail.Address{{Name: "The Bicycle Shop", Address: "orders@shop.example"}})
	h.SetAddressList("To", []*gomail.Address{{Address: to}})
	h.SetMessageID("order-1042@shop.example")
	m, err := gomail.CreateWriter(w, h)
	if err != nil {
		return err
	}
	if err := writeAlternatives(m); err != nil {
		return err
	}
	var ah gomail.AttachmentHeader
	ah.Set("Content-Type", "image/png")
	ah.SetFilename("order-1042.png")
	picture, err := m.CreateAttachment(ah)
	if err != nil {
		return err
	}
	if _, err := picture.Write(swatch()); err != nil {
		return err
	}
	if err := picture.Close(); err != nil {
		return err
	}
	return m.Close()
}

func writeAlternatives(m *gomail.Writer) error {
	inline, err := m.CreateInline()
	if err != nil {
		return err
	}
	for _, alternative := range []struct{ kind, body string }{
		{"text/plain", "Thank you for your order.\r\n\r\n  1 bell, brass          12.00\r\n  2 tubes, 28 inch       11.80\r\n\r\n" +
			"It left us today; the label is attached.\r\n"},
		{"text/html", "<html><body><h2>Thank you for your order.</h2>\r\n<table><tr><td>1 bell, <b>brass</b></td><td>12.00</td></tr>\r\n" +
			"<tr><td>2 tubes, 28 inch</td><td>11.80</td></tr></table>\r\n<p>It left us today; the label is attached.</p></body></html>\r\n"},
	} {
		var ih gomail.InlineHeader
		ih.SetContentType(alternative.kind, map[string]string{"charset": "utf-8"})
		part, err := inline.CreatePart(ih)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(part, alternative.body); err != nil {
			return err
		}
		if err := part.Close(); err != nil {
			return err
		}
	}
	return inline.Close()
}

// swatch is a small picture.
func swatch() []byte {
	img := image.NewRGBA(image.Rect(0, 0, 96, 48))
	for y := range 48 {
		for x := range 96 {
			img.Set(x, y, color.RGBA{uint8(40 + 2*x), uint8(90 + 3*y), 120, 255})
		}
	}
	var b bytes.Buffer
	_ = png.Encode(&b, img) // into memory
	return b.Bytes()
}

// tellAddresses prints what listens where, and, in the demo, how to connect.
func (s *server) tellAddresses() {
	var b strings.Builder
	fmt.Fprintf(&b, "\nmailsrv %s serves %s\n\n", version(), s.cfg.Hostname)
	table := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, l := range s.listeners {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", l.service, l.Addr(), serviceNotes[l.service])
	}
	table.Flush()
	if s.cfg.Demo && len(s.cfg.Accounts) > 0 {
		s.tellHow(&b)
	}
	fmt.Fprintf(&b, "\n  certificate SHA-256 %s\n\n", s.certs.Fingerprint())
	_, _ = io.WriteString(s.out.out, b.String()) // nobody may be reading: the server serves all the same
}

var serviceNotes = map[string]string{
	"smtp":        "mail from the world, STARTTLS",
	"submission":  "mail from people, STARTTLS and login",
	"submissions": "mail from people, TLS and login",
	"lmtp":        "mail from another server",
	"imap":        "reading mail, STARTTLS",
	"imaps":       "reading mail, TLS",
	"legacy":      "the course protocol",
	"http":        "/healthz /readyz /metrics",
}

// tellHow prints lines to copy.
func (s *server) tellHow(b *strings.Builder) {
	var names []string
	for _, a := range s.cfg.Accounts {
		names = append(names, a.Address)
	}
	who := s.cfg.Accounts[0]
	password := cmp.Or(who.Password, "PASSWORD")
	other := s.cfg.Accounts[len(s.cfg.Accounts)-1].Address
	fmt.Fprintf(b, "\n  %s; password of %s: %s\n\n", strings.Join(names, ", "), who.Address, password)
	line := func(name, needs, format string, args ...any) {
		if needs != "" {
			fmt.Fprintf(b, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
		}
	}
	imaps, submissions := s.addressOf("imaps"), s.addressOf("submissions")
	imapHost, imapPort, _ := net.SplitHostPort(imaps)
	smtpHost, smtpPort, _ := net.SplitHostPort(submissions)
	line("Thunderbird", imaps, "IMAP server %s, port %s, SSL/TLS, normal password; user name %s", imapHost, imapPort, who.Address)
	line("", submissions, "SMTP server %s, port %s, SSL/TLS, normal password; accept the certificate below", smtpHost, smtpPort)
	line("swaks", s.addressOf("smtp"), "swaks --server %s --to %s", s.addressOf("smtp"), who.Address)
	line("", s.addressOf("submission"), "swaks --server %s --tls --auth-user %s --auth-password %s --from %s --to %s",
		s.addressOf("submission"), who.Address, password, who.Address, other)
	line("curl", imaps, "curl -k -u %s:%s 'imaps://%s/INBOX;MAILINDEX=1'", who.Address, password, imaps)
	line("mbsync", imaps, "IMAPAccount: Host %s, Port %s, SSLType IMAPS (isync 1.5: TLSType), User %s, Pass %s, CertificateFile %s",
		imapHost, imapPort, who.Address, password, filepath.Join(s.cfg.Data, "tls", "self-signed.pem"))
	line("course", s.addressOf("legacy"), "connect the course client to %s, then: entry %s", s.addressOf("legacy"), who.Address)
}
