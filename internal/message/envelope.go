package message

// envelope is the header fields that ENVELOPE tells (RFC 9051 section 7.5.2). Of several equal fields the last counts: that
// is the one a DKIM signature covers; of addresses, all do.
type envelope struct {
	date, subject, inReplyTo, messageID nstring
	from, sender, replyTo, to, cc, bcc  []string
}

// add takes a field in, by its name in lower case.
func (e *envelope) add(key string, raw []byte) {
	switch key {
	case "date":
		e.date.set(raw)
	case "subject":
		e.subject.set(raw)
	case "in-reply-to":
		e.inReplyTo.set(raw)
	case "message-id":
		e.messageID.set(raw)
	case "from":
		e.from = append(e.from, FieldValue(raw))
	case "sender":
		e.sender = append(e.sender, FieldValue(raw))
	case "reply-to":
		e.replyTo = append(e.replyTo, FieldValue(raw))
	case "to":
		e.to = append(e.to, FieldValue(raw))
	case "cc":
		e.cc = append(e.cc, FieldValue(raw))
	case "bcc":
		e.bcc = append(e.bcc, FieldValue(raw))
	}
}

// text writes the ENVELOPE. Absent or empty Sender and Reply-To are those of From.
func (e *envelope) text() string {
	from := addressList(e.from, maxEnvelope/6)
	sender := addressList(e.sender, maxEnvelope/6)
	if sender == nil {
		sender = from
	}
	replyTo := addressList(e.replyTo, maxEnvelope/6)
	if replyTo == nil {
		replyTo = from
	}
	b := make([]byte, 0, 256+3*len(from))
	b = append(e.date.append(append(b, '(')), ' ')
	b = append(e.subject.append(b), ' ')
	for _, list := range [][]byte{from, sender, replyTo} {
		b = append(appendList(b, list), ' ')
	}
	for _, values := range [][]string{e.to, e.cc, e.bcc} {
		b = append(appendList(b, addressList(values, maxEnvelope/6)), ' ')
	}
	b = append(e.inReplyTo.append(b), ' ')
	return string(append(e.messageID.append(b), ')'))
}

func appendList(b, list []byte) []byte {
	if list == nil {
		return append(b, "NIL"...)
	}
	b = append(append(b, '('), list...)
	return append(b, ')')
}

// addressList writes the addresses of the fields' values, at most limit bytes of them, nil if there are none.
func addressList(values []string, limit int) []byte {
	var b []byte
	for _, v := range values {
		parseAddresses(v, func(a address) bool {
			n := len(b)
			b = a.append(b)
			if len(b) > limit {
				b = b[:n]
				return false
			}
			return true
		})
	}
	return b
}

// append writes an address as RFC 9051 has it: (name adl mailbox host).
func (a address) append(b []byte) []byte {
	b = append(b, '(')
	for i, s := range []nstring{a.name, a.route, a.mailbox, a.host} {
		if i > 0 {
			b = append(b, ' ')
		}
		b = s.append(b)
	}
	return append(b, ')')
}
