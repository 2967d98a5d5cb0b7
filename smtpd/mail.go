package smtpd

import (
	"context"
	"strings"

	"mailsrv/internal/delivery"
)

// mail is MAIL FROM: it opens the transaction.
func (s *session) mail(ctx context.Context, arg string) reply {
	if s.tx != nil {
		return nestedMail
	}
	sender, o, r := s.readMail(arg)
	if r != nil {
		return *r
	}
	if o.Size > s.srv.limits.MessageSize {
		return s.refused("MAIL", &delivery.Envelope{Sender: sender}, messageTooLarge)
	}
	if !s.trusted && !s.srv.messages.take(s.peer) {
		return s.refused("MAIL", &delivery.Envelope{Sender: sender}, tooManyMessages)
	}
	if s.account != "" && s.srv.auth.Epoch(s.account) != s.epoch {
		return s.refused("MAIL", &delivery.Envelope{Sender: sender}, loginOver)
	}
	tx := &transaction{size: o.Size, env: delivery.Envelope{
		ID: delivery.NewID(), Sender: sender, Origin: s.origin(o.UTF8),
		SMTPUTF8: o.UTF8, Body: string(o.Body), RequireTLS: o.RequireTLS,
		Return: string(o.Return), EnvelopeID: o.EnvelopeID,
	}}
	o.grant(&tx.env)
	if err := s.srv.post.CheckSender(ctx, &tx.env, o.Size); err != nil {
		return s.refused("MAIL", &tx.env, replyTo(err))
	}
	s.tx = tx
	return senderOK
}

func (s *session) readMail(arg string) (sender string, o mailOptions, refused *reply) {
	path, found := cutFold(arg, "FROM:")
	if !found {
		return "", o, &mailSyntax
	}
	// QUIRK: old Outlooks and scripts put a space here.
	sender, rest, good := parsePath(strings.TrimLeft(path, " "), false)
	if !good {
		return "", o, &mailSyntax
	}
	o, refused = mailParameters(rest, s.offered())
	if refused == nil && !o.UTF8 && !isASCII(sender) {
		refused = &needSMTPUTF8
	}
	return sender, o, refused
}

// rcpt is RCPT TO.
func (s *session) rcpt(ctx context.Context, arg string) reply {
	path, found := cutFold(arg, "TO:")
	if !found {
		return rcptSyntax
	}
	address, rest, good := parsePath(strings.TrimLeft(path, " "), true)
	// RFC 5321 section 4.5.1: <postmaster> has no domain, in any case of letters; nobody else does.
	if !good || address == "" || !strings.Contains(address, "@") && !strings.EqualFold(address, "postmaster") {
		return rcptSyntax
	}
	o, refused := rcptParameters(rest)
	if refused != nil {
		return *refused
	}
	if !s.tx.env.SMTPUTF8 && (!isASCII(address) || !isASCII(o.OriginalRecipient)) {
		return needSMTPUTF8
	}
	if len(s.tx.env.Recipients) >= s.srv.limits.Recipients {
		return tooManyRcpts
	}
	if s.tx.rcptOctets += len(address) + len(o.OriginalRecipient); s.tx.rcptOctets > maxRcptOctets {
		return tooManyRcpts
	}
	r := delivery.Recipient{Address: address}
	for _, n := range o.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if o.OriginalRecipient != "" {
		r.Original = string(o.OriginalRecipientType) + ";" + o.OriginalRecipient
	}
	if err := s.srv.post.CheckRecipient(ctx, &s.tx.env, r, s.tx.size); err != nil {
		return s.refused("RCPT", &s.tx.env, replyTo(err))
	}
	s.tx.env.Recipients = append(s.tx.env.Recipients, r)
	return recipientOK
}

// refused logs an envelope that is not taken and passes the answer on.
func (s *session) refused(verb string, env *delivery.Envelope, r reply) reply {
	s.log.Info("refused", "verb", verb, "id", env.ID, "from", env.Sender, "code", r.code, "status", r.status,
		"answer", r.text, "cause", r.cause, "account", s.account, "tls", s.tls)
	s.count(r)
	return r
}

func (s *session) count(r reply) {
	if s.srv.meter != nil {
		s.srv.meter.MessageRefused(string(s.srv.service), r.status)
	}
}

// cutFold is strings.CutPrefix for ASCII in any case.
func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
