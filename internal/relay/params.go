package relay

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/queue"
)

// mailLine is MAIL with what the other side offered and the message needs.
func (a *attempt) mailLine(s *session, c *content) string {
	m := a.m
	line := "MAIL FROM:<" + wirePath(m.Sender, c.utf8) + ">"
	if s.has("SIZE") {
		line += fmt.Sprintf(" SIZE=%d", c.size)
	}
	if c.body != "" {
		line += " BODY=" + c.body
	}
	if c.utf8 {
		line += " SMTPUTF8"
	}
	if m.RequireTLS && (m.Sender != "" || s.has("REQUIRETLS")) {
		line += " REQUIRETLS"
	}
	if m.Priority != 0 && s.has("MT-PRIORITY") {
		line += fmt.Sprintf(" MT-PRIORITY=%d", m.Priority)
	}
	if by := deliverBy(m, time.Now()); by != "" && s.has("DELIVERBY") {
		line += " BY=" + by
	}
	if s.has("DSN") {
		if m.Return == "FULL" || m.Return == "HDRS" {
			line += " RET=" + m.Return
		}
		if e := xtext(m.EnvelopeID); e != "" && len(e) <= 100 { // RFC 3461 section 5.4
			line += " ENVID=" + e
		}
	}
	return line
}

// deliverBy is BY's value (RFC 2852 section 4): the seconds that are left, "" if there is no deadline.
func deliverBy(m *queue.Outgoing, now time.Time) string {
	if m.DeliverBy.IsZero() {
		return ""
	}
	left, mode := int64(m.DeliverBy.Sub(now)/time.Second), "R"
	if m.DeliverByNotify {
		mode = "N"
	} else {
		left = max(left, 1)
	}
	if m.DeliverByTrace {
		mode += "T"
	}
	return fmt.Sprintf("%d;%s", min(max(left, -999_999_999), 999_999_999), mode)
}

// deadline refuses what the server could not return in time: it knows no deadlines, or none so near (RFC 2852 section
// 4.1.4.1).
func (a *attempt) deadline(s *session) *failure {
	m := a.m
	if m.DeliverBy.IsZero() || m.DeliverByNotify {
		return nil
	}
	if !s.has("DELIVERBY") {
		return permFailure("message", "5.3.3", "the server cannot return the message if it comes too late (DELIVERBY), as was asked for")
	}
	least, err := strconv.ParseInt(s.ext["DELIVERBY"], 10, 32)
	if err == nil && time.Until(m.DeliverBy) < time.Duration(least)*time.Second {
		return permFailure("message", "5.4.7", "the server takes no deadlines within %d seconds", least)
	}
	return nil
}

func (a *attempt) rcptLine(s *session, i int, utf8 bool) string {
	rcpt := &a.m.Recipients[i]
	line := "RCPT TO:<" + wirePath(rcpt.Address, utf8) + ">"
	if s.has("DSN") {
		if len(rcpt.Notify) > 0 {
			line += " NOTIFY=" + strings.Join(rcpt.Notify, ",")
		}
		if o := originalRecipient(rcpt.Original); o != "" {
			line += " ORCPT=" + o
		}
	}
	return line
}

// originalRecipient writes "type;address" as ORCPT's value (RFC 3461 section 4.2, RFC 6533 section 3), "" if it cannot be.
func originalRecipient(original string) string {
	kind, address, ok := strings.Cut(original, ";")
	if !ok || kind == "" || address == "" || xtext(kind) != kind {
		return ""
	}
	value := ""
	if strings.EqualFold(kind, "utf-8") {
		value = utf8Xtext(address)
	} else {
		value = xtext(address)
	}
	if len(kind)+1+len(value) > 500 {
		return ""
	}
	return kind + ";" + value
}

// xtext is RFC 3461 section 4's.
func xtext(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// utf8Xtext is RFC 6533 section 3's utf-8-addr-xtext, which is ASCII and passes everywhere.
func utf8Xtext(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c > ' ' && c < 0x7f && c != '+' && c != '=' && c != '\\' {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, "\\x{%X}", c)
		}
	}
	return b.String()
}

// wirePath is an address as it stands between the angle brackets: its local part quoted where that must be, its domain in
// A-labels unless the other side takes UTF-8.
func wirePath(address string, utf8 bool) string {
	local, domain, ok := cutAddress(address)
	if !ok {
		return address // "", or postmaster
	}
	if !utf8 && !isASCII(domain) {
		domain = asciiDomain(domain)
	}
	quoted := len(local) > 1 && local[0] == '"' && local[len(local)-1] == '"'
	if !quoted && !dotString(local) {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	return local + "@" + domain
}

// dotString reports whether a local part needs no quotes (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
func dotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(c rune) bool {
			return c <= ' ' || c == 0x7f || strings.ContainsRune(`()<>[]:;@\,"`, c)
		}) {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
