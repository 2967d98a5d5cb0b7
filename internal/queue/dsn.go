package queue

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	rfc5322 "mailsrv/internal/message"
)

// report is a delivery status notification: RFC 3464 in an RFC 6522 multipart/report, with RFC 6533's types where something
// in it is not ASCII.
type report struct {
	kind       kind
	result     string // RFC 3464 section 2.3.3's action; "postmaster" is a failure told to the postmaster
	host       string
	to         string
	now        time.Time
	about      *message
	recipients []reported

	header   []byte            // of the message it is about, with the empty line; nil: it is lost
	whole    *io.SectionReader // the message itself, if it is returned
	content8 bool              // what is returned has octets above 127
}

// reported is one recipient of the message a report is about.
type reported struct {
	address, original, instead string
	out                        Outcome
	when                       time.Time
	expired                    bool
	until                      time.Time
}

const (
	maxReturnedHeader = 64 << 10
	dateFormat        = "Mon, 2 Jan 2006 15:04:05 -0700"
)

// returns gives the report what it is about. RFC 3461 section 4.3: RET says how much of a message is returned, for failures
// only. Without it people who have logged in here get all of their message back, strangers its header: they have it, or
// never sent it.
func (r *report) returns(message *io.SectionReader, limit int64) (err error) {
	if r.header, err = readHeader(message, 0, maxReturnedHeader); err != nil {
		return err
	}
	m := r.about
	// RFC 8689 section 5: of a message with REQUIRETLS only the header goes back, whatever RET said.
	wanted := !m.requireTLS && (m.ret == "FULL" || m.ret == "" && m.account != "")
	if (r.kind == noticeFailed || r.kind == noticePostmaster) && wanted && message.Size() <= limit && m.body != "BINARYMIME" {
		r.whole = message
		r.content8, err = eightBits(io.NewSectionReader(message, 0, message.Size()))
		return err
	}
	r.content8 = !isASCII(string(r.header))
	return nil
}

func eightBits(r io.Reader) (bool, error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if !isASCII(string(buf[:n])) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// global reports whether RFC 6533's types are needed.
func (r *report) global() bool {
	return r.about.utf8 || !isASCII(r.about.sender) || slices.ContainsFunc(r.recipients, func(one reported) bool {
		return !isASCII(one.address) || !isASCII(one.original) || !isASCII(one.instead)
	})
}

func (r *report) eightBit() bool { return r.global() || r.content8 }

// dsnWriter keeps the first error.
type dsnWriter struct {
	w   io.Writer
	err error
}

func (w *dsnWriter) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.w, format, args...)
	}
}

// field writes a field on one line, folded at spaces where it is longer than RFC 5322 likes.
func (w *dsnWriter) field(name, value string) {
	line := name + ":"
	for i, word := range strings.Fields(value) {
		if i > 0 && len(line)+1+len(word) > 76 {
			w.printf("%s\r\n", line)
			line = ""
		}
		line += " " + word
	}
	w.printf("%s\r\n", line)
}

// write writes the report, with CRLFs; id is its own queue ID.
func (r *report) write(out io.Writer, id string) error {
	w := &dsnWriter{w: out}
	boundary := rand.Text()
	w.field("Date", r.now.Format(dateFormat))
	w.field("From", "Mail Delivery System <mailer-daemon@"+r.host+">")
	w.field("To", r.addressee())
	w.field("Subject", r.subject())
	w.field("Message-ID", "<"+id+"@"+r.host+">")
	w.field("Auto-Submitted", "auto-replied") // RFC 3834 section 5.1
	if original := r.messageID(); original != "" {
		w.field("In-Reply-To", original)
		w.field("References", original)
	}
	w.field("MIME-Version", "1.0")
	w.printf("Content-Type: multipart/report; report-type=%s;\r\n boundary=\"%s\"\r\n", r.subtype("delivery-status"), boundary)
	if r.eightBit() {
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.printf("\r\nThis is a MIME-encapsulated message.\r\n\r\n--%s\r\n", boundary)
	r.text(w)
	w.printf("\r\n--%s\r\n", boundary)
	r.status(w)
	if r.header != nil {
		w.printf("\r\n--%s\r\n", boundary)
		r.returned(w)
	}
	w.printf("\r\n--%s--\r\n", boundary)
	return w.err
}

func (r *report) addressee() string {
	if !strings.Contains(r.to, "@") {
		return r.to + "@" + r.host
	}
	return r.to
}

// subtype is the name of a part's type, or report-type, without "message/".
func (r *report) subtype(plain string) string {
	if r.global() {
		return "global-" + plain
	}
	return plain
}

func (r *report) subject() string {
	return map[kind]string{
		noticeFailed:     "Undelivered mail returned to sender",
		noticeDelayed:    "Your mail is delayed; it is still being tried",
		noticeSuccess:    "Your mail has been delivered",
		noticePostmaster: "Postmaster notice: a bounce could not be delivered",
	}[r.kind]
}

// messageID is that of the message the report is about, with its angle brackets.
func (r *report) messageID() (id string) {
	rfc5322.Fields(r.header, func(name string, raw []byte) bool {
		if !strings.EqualFold(name, "Message-ID") {
			return true
		}
		_, value, _ := strings.Cut(string(raw), ":")
		value = strings.TrimSpace(value)
		if strings.HasPrefix(value, "<") && strings.HasSuffix(value, ">") && len(value) < 500 && isASCII(value) &&
			!strings.ContainsAny(value, " \t\r\n") {
			id = value
		}
		return false
	})
	return id
}

// text is the part for people.
func (r *report) text(w *dsnWriter) {
	charset, encoding := "us-ascii", "7bit"
	if r.global() {
		charset, encoding = "utf-8", "8bit"
	}
	w.printf("Content-Description: Notification\r\nContent-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: %s\r\n\r\n",
		charset, encoding)
	w.printf("This is the mail server at %s.\r\n\r\n", r.host)
	switch r.kind {
	case noticeFailed:
		w.printf("Your message could not be delivered to:\r\n\r\n")
	case noticeDelayed:
		w.printf("Your message has not been delivered yet. You need not do anything: it is\r\n" +
			"still being tried. So far it could not be delivered to:\r\n\r\n")
	case noticeSuccess:
		w.printf("You asked to be told. Your message has gone to:\r\n\r\n")
	case noticePostmaster:
		w.printf("A bounce of this server could not be delivered. It was meant for:\r\n\r\n")
	}
	for _, one := range r.recipients {
		r.textOne(w, one)
	}
	switch {
	case r.header == nil && r.kind != noticeSuccess:
		w.printf("The message itself was lost here. Please send it again.\r\n")
	case r.whole != nil:
		w.printf("The message is below.\r\n")
	default:
		w.printf("The header of the message is below.\r\n")
	}
}

func (r *report) textOne(w *dsnWriter, one reported) {
	address := one.address
	if one.instead != "" {
		address = one.instead + "> (which leads to <" + one.address + ">"
		w.printf("  <%s)\r\n", r.plain(address))
	} else {
		w.printf("  <%s>\r\n", r.plain(address))
	}
	if one.expired {
		w.printf("    It was tried until its time was over. At last:\r\n")
	}
	said := r.plain(one.out.Text)
	if one.out.Code > 0 {
		said = fmt.Sprintf("%d %s", one.out.Code, strings.TrimPrefix(said, fmt.Sprintf("%d ", one.out.Code)))
	}
	if one.out.Remote != "" && r.result != "delivered" {
		said = r.plain(one.out.Remote) + " said: " + said
	}
	line := "   "
	for word := range strings.FieldsSeq(said) {
		if len(line)+1+len(word) > 76 && line != "   " {
			w.printf("%s\r\n", line)
			line = "   "
		}
		line += " " + word
	}
	w.printf("%s\r\n", line)
	switch {
	case !one.until.IsZero() && r.kind == noticeDelayed:
		w.printf("    It will be tried until %s.\r\n", one.until.Format(dateFormat))
	case r.result == "relayed":
		w.printf("    That server may not tell you what becomes of it.\r\n")
	}
	w.printf("\r\n")
}

// plain makes a text fit for the report: one line, ASCII unless the report is global.
func (r *report) plain(s string) string {
	s = clip(s, maxText)
	if r.global() {
		return s
	}
	return strings.Map(func(c rune) rune {
		if c >= 0x80 {
			return '?'
		}
		return c
	}, s)
}

// status is the part for programs: RFC 3464 section 2.
func (r *report) status(w *dsnWriter) {
	w.printf("Content-Description: Delivery report\r\nContent-Type: message/%s\r\n", r.subtype("delivery-status"))
	if r.global() {
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.printf("\r\n")
	if id := r.about.envelopeID; id != "" {
		w.field("Original-Envelope-Id", r.plain(id))
	}
	w.field("Reporting-MTA", "dns; "+r.host)
	if from := r.about.hello; from != "" && isASCII(from) && !strings.ContainsAny(from, " ;()<>") {
		w.field("Received-From-MTA", "dns; "+from)
	}
	w.field("Arrival-Date", r.about.arrived.Format(dateFormat))
	if !r.about.by.IsZero() {
		w.field("Deliver-By-Date", r.about.by.Format(dateFormat)) // RFC 2852 section 5
	}
	for _, one := range r.recipients {
		w.printf("\r\n")
		r.statusOne(w, one)
	}
}

func (r *report) statusOne(w *dsnWriter, one reported) {
	switch {
	case one.original != "":
		kind, address, _ := strings.Cut(one.original, ";")
		w.field("Original-Recipient", kind+"; "+r.plain(address))
	case one.instead != "":
		w.field("Original-Recipient", typed(one.instead))
	}
	w.field("Final-Recipient", typed(one.address))
	o := one.out
	action, status := r.result, o.Status
	switch {
	case r.kind == noticePostmaster:
		action = "failed"
	case r.kind == noticeSuccess && !strings.HasPrefix(status, "2"):
		status = "2.0.0"
	}
	if one.expired {
		status = "4.4.7" // RFC 3463 section 3.5: delivery time expired
	}
	w.field("Action", action)
	w.field("Status", status)
	if name, _, _ := strings.Cut(o.Remote, " "); name != "" && isASCII(name) {
		w.field("Remote-MTA", "dns; "+name)
	}
	text := r.plain(o.Text)
	switch {
	case o.Code > 0 && o.Remote != "":
		w.field("Diagnostic-Code", fmt.Sprintf("smtp; %d %s", o.Code, strings.TrimPrefix(text, fmt.Sprintf("%d ", o.Code))))
	case text != "" && o.Verdict != Delivered:
		w.field("Diagnostic-Code", "x-mailsrv; "+text)
	}
	if !one.when.IsZero() {
		w.field("Last-Attempt-Date", one.when.Format(dateFormat))
	}
	w.field("Final-Log-ID", r.about.id)
	if r.kind == noticeDelayed && !one.until.IsZero() {
		w.field("Will-Retry-Until", one.until.Format(dateFormat))
	}
}

// typed is an address with its type: RFC 6533 section 3.
func typed(address string) string {
	if isASCII(address) {
		return "rfc822; " + address
	}
	return "utf-8; " + address
}

// returned is the message, or its header.
func (r *report) returned(w *dsnWriter) {
	kind, what := "text/rfc822-headers", "The header of the message"
	switch {
	case r.whole != nil && r.about.utf8:
		kind, what = "message/global", "The message"
	case r.whole != nil:
		kind, what = "message/rfc822", "The message"
	case r.about.utf8:
		kind = "message/global-headers"
	}
	w.printf("Content-Description: %s\r\nContent-Type: %s\r\n", what, kind)
	if r.content8 {
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.printf("\r\n")
	if w.err != nil {
		return
	}
	if r.whole != nil {
		_, w.err = io.Copy(w.w, io.NewSectionReader(r.whole, 0, r.whole.Size()))
		return
	}
	_, w.err = w.w.Write(bytes.TrimSuffix(r.header, []byte("\r\n")))
}
