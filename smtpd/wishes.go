package smtpd

import (
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"mailsrv/internal/delivery"
)

// longestHold is the furthest release that FUTURERELEASE offers.
const longestHold = 365 * 24 * time.Hour

// mailOptions is what MAIL said: go-smtp's words for it, and those it has none for.
type mailOptions struct {
	smtp.MailOptions
	priority           int       // MT-PRIORITY (RFC 6710 section 3)
	release            time.Time // HOLDFOR or HOLDUNTIL (RFC 4865 section 3)
	by                 time.Time // BY (RFC 2852 section 4)
	byNotify, byTraced bool      // its mode N, else R; its T
}

// offers is what of MAIL's parameters a session has offered.
type offers struct {
	tls       bool
	deliverBy bool
	submit    bool // MT-PRIORITY and FUTURERELEASE: a known person's word for how urgent a message is, and when it is to go
	now       time.Time
}

// offered is what this session has to offer. On LMTP nothing waits; a stranger's priority would be everybody's.
func (s *session) offered() offers {
	return offers{tls: s.tls != "", deliverBy: s.srv.service != LMTP, submit: s.srv.service.submits(), now: s.srv.now()}
}

// lines are the EHLO keywords of the wishes.
func (c offers) lines() (lines []string) {
	if c.deliverBy {
		lines = append(lines, "DELIVERBY")
	}
	if c.submit {
		lines = append(lines, "MT-PRIORITY", "FUTURERELEASE "+strconv.Itoa(int(longestHold/time.Second))+" "+
			c.now.Add(longestHold).UTC().Format(time.RFC3339))
	}
	return lines
}

// wish reads the parameters about a message's time and place in the queue. known: it is one, and was offered.
func (o *mailOptions) wish(c offers, key, value string) (good, known bool) {
	switch {
	case key == "BY" && c.deliverBy:
		return o.readBy(value, c.now), true
	case key == "MT-PRIORITY" && c.submit:
		// RFC 6710 section 7: no sign but minus, no zero in front.
		n, err := strconv.Atoi(value)
		o.priority = n
		return err == nil && n >= -9 && n <= 9 && strconv.Itoa(n) == value, true
	case key == "HOLDFOR" && c.submit:
		n, err := strconv.ParseUint(value, 10, 32)
		hold := time.Duration(n) * time.Second
		good := err == nil && n > 0 && hold <= longestHold && o.release.IsZero()
		o.release = c.now.Add(hold)
		return good, true
	case key == "HOLDUNTIL" && c.submit:
		t, err := time.Parse(time.RFC3339, strings.ToUpper(value))
		good := err == nil && !t.After(c.now.Add(longestHold)) && o.release.IsZero()
		o.release = t
		return good, true
	}
	return false, false
}

// readBy reads "SECONDS;N", "SECONDS;R", either with a T behind (RFC 2852 section 4). Only a notice can be for a time past.
func (o *mailOptions) readBy(value string, now time.Time) bool {
	number, mode, _ := strings.Cut(strings.ToUpper(value), ";")
	n, err := strconv.Atoi(number)
	if err != nil || n > 999_999_999 || n < -999_999_999 || strings.HasPrefix(number, "+") {
		return false
	}
	mode, o.byTraced = strings.CutSuffix(mode, "T")
	o.byNotify, o.by = mode == "N", now.Add(time.Duration(n)*time.Second)
	return mode == "N" || mode == "R" && n > 0
}

// contradict reports whether a message has to be back before it may leave.
func (o *mailOptions) contradict() bool {
	return !o.by.IsZero() && !o.byNotify && !o.by.After(o.release)
}

func (o *mailOptions) grant(env *delivery.Envelope) {
	env.Priority, env.ReleaseAt = o.priority, o.release
	env.DeliverBy, env.DeliverByNotify, env.DeliverByTrace = o.by, o.byNotify, o.byTraced
}
