package smtpd

import (
	"errors"
	"strconv"
	"strings"

	"mailsrv/internal/delivery"
)

// reply is one answer. The zero reply says nothing: the handler has already said it.
type reply struct {
	code   int
	status string // RFC 3463, without the text; "" where RFC 2034 has none: greeting, HELO, EHLO, 334, 354
	text   string // lines between \n
	cause  error  // for the log only
	hangup bool   // the connection ends after it
}

// The answers that have nothing to fill in. docs/smtp-answers.md says what causes each; a test compares the two.
var (
	ok           = reply{code: 250, status: "2.0.0", text: "ok"}
	senderOK     = reply{code: 250, status: "2.1.0", text: "sender ok"}
	recipientOK  = reply{code: 250, status: "2.1.5", text: "recipient ok"}
	goAhead      = reply{code: 354, text: "send the message, end it with a line that is a single dot"}
	bye          = reply{code: 221, status: "2.0.0", text: "bye", hangup: true}
	readyForTLS  = reply{code: 220, status: "2.0.0", text: "ready for TLS"}
	loggedIn     = reply{code: 235, status: "2.7.0", text: "authenticated"}
	cannotVerify = reply{code: 252, status: "2.5.0",
		text: "addresses are not verified here, send the message and see"}
	help = reply{code: 214, status: "2.0.0", text: "commands: EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS AUTH QUIT; " +
		"RFC 5321 says the rest"}
	helpLMTP = reply{code: 214, status: "2.0.0", text: "commands: LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT; " +
		"RFC 2033 says the rest"}

	unknownCommand  = reply{code: 500, status: "5.5.2", text: "unknown command"}
	notImplemented  = reply{code: 502, status: "5.5.1", text: "command not implemented"}
	brokenLine      = reply{code: 500, status: "5.5.2", text: "a command line ends in CRLF and holds no CR and no NUL"}
	longLine        = reply{code: 500, status: "5.5.6", text: "command line too long"}
	veryLongLine    = reply{code: 500, status: "5.5.6", text: "command line much too long, closing", hangup: true}
	notSMTP         = reply{code: 421, status: "4.7.0", text: "this is not the protocol spoken here, closing", hangup: true}
	tooManyErrors   = reply{code: 421, status: "4.7.0", text: "too many errors, closing", hangup: true}
	idleTooLong     = reply{code: 421, status: "4.4.2", text: "idle for too long, closing", hangup: true}
	shuttingDown    = reply{code: 421, status: "4.3.2", text: "server is shutting down, try again in a minute", hangup: true}
	internalError   = reply{code: 421, status: "4.3.0", text: "internal error, closing", hangup: true}
	noArguments     = reply{code: 501, status: "5.5.4", text: "this command takes no argument"}
	helloArgument   = reply{code: 501, status: "5.5.4", text: "tell your host name or address literal"}
	sayHelloFirst   = reply{code: 503, status: "5.5.1", text: "say EHLO first"}
	sayLHLO         = reply{code: 500, status: "5.5.1", text: "this is LMTP, say LHLO"}
	notLMTP         = reply{code: 500, status: "5.5.1", text: "this is not LMTP, say EHLO"}
	nestedMail      = reply{code: 503, status: "5.5.1", text: "there is a sender already, say RSET first"}
	mailFirst       = reply{code: 503, status: "5.5.1", text: "say MAIL first"}
	recipientsFirst = reply{code: 503, status: "5.5.1", text: "no recipient was accepted"}
	chunksBegun     = reply{code: 503, status: "5.5.1", text: "the message is being sent with BDAT, finish or RSET it"}
	binaryNeedsBDAT = reply{code: 503, status: "5.6.1", text: "BODY=BINARYMIME is sent with BDAT"}
	badChunkSize    = reply{code: 501, status: "5.5.4", text: "say BDAT with a size and perhaps LAST; closing", hangup: true}
	hugeChunk       = reply{code: 552, status: "5.3.4", text: "chunk much larger than any message may be, closing", hangup: true}
	mailSyntax      = reply{code: 501, status: "5.1.7", text: "say MAIL FROM:<address>"}
	rcptSyntax      = reply{code: 501, status: "5.1.3", text: "say RCPT TO:<address>"}
	needSMTPUTF8    = reply{code: 553, status: "5.6.7", text: "an address beyond ASCII needs SMTPUTF8"}
	tooManyRcpts    = reply{code: 452, status: "4.5.3", text: "too many recipients, send the rest in another transaction"}
	messageTooLarge = reply{code: 552, status: "5.3.4", text: "message is larger than SIZE allows"}
	headerTooLarge  = reply{code: 552, status: "5.3.4", text: "message header is too large"}
	lineTooLong     = reply{code: 554, status: "5.6.0", text: "message has a line that is much too long"}
	bareCR          = reply{code: 550, status: "5.6.11", text: "message has a CR without LF"}
	bareLF          = reply{code: 550, status: "5.6.11", text: "message has an LF without CR"}
	hasNUL          = reply{code: 550, status: "5.6.11", text: "message has a NUL octet, which only BINARYMIME may"}
	endlessMessage  = reply{code: 552, status: "5.3.4", text: "message is much larger than SIZE allows, closing", hangup: true}
	twoFroms        = reply{code: 554, status: "5.6.0", text: "message has more than one From or Sender field"}
	badFrom         = reply{code: 554, status: "5.6.0", text: "the From or Sender field cannot be read"}
	tlsNotOffered   = reply{code: 502, status: "5.5.1", text: "TLS is not offered here"}
	tlsAlready      = reply{code: 503, status: "5.5.1", text: "TLS is on already"}
	needTLS         = reply{code: 530, status: "5.7.0", text: "say STARTTLS first"}
	needLogin       = reply{code: 530, status: "5.7.0", text: "authentication required"}
	authNotOffered  = reply{code: 502, status: "5.5.1", text: "AUTH is not offered here, mail programs use port 587 or 465"}
	authNeedsTLS    = reply{code: 538, status: "5.7.11", text: "encryption required for authentication"}
	authTwice       = reply{code: 503, status: "5.5.1", text: "authenticated already"}
	authInMail      = reply{code: 503, status: "5.5.1", text: "AUTH is not for the middle of a mail transaction"}
	authSyntax      = reply{code: 501, status: "5.5.4", text: "say AUTH with a mechanism and perhaps an initial response"}
	authMechanism   = reply{code: 504, status: "5.5.4", text: "unknown authentication mechanism"}
	authBase64      = reply{code: 501, status: "5.5.2", text: "that is not base64"}
	authLongLine    = reply{code: 500, status: "5.5.6", text: "authentication exchange line is too long"}
	authCancelled   = reply{code: 501, status: "5.7.0", text: "authentication cancelled"}
	authFailed      = reply{code: 535, status: "5.7.8", text: "authentication failed"}
	authTrouble     = reply{code: 454, status: "4.7.0", text: "authentication is not possible now, try again later"}
	authThrottled   = reply{code: 421, status: "4.7.0", text: "too many failed logins, try again later", hangup: true}
	loginOver       = reply{code: 421, status: "4.7.0", text: "the account's password was changed, or it was closed; log in again", hangup: true}
	requireTLSNeeds = reply{code: 530, status: "5.7.0", text: "REQUIRETLS needs TLS here too"}

	tooManyConnections = reply{code: 421, status: "4.7.0", text: "too many connections, try again later", hangup: true}
	tooManyFromAddress = reply{code: 421, status: "4.7.0", text: "too many connections from your address", hangup: true}
	tooManyAMinute     = reply{code: 421, status: "4.7.0", text: "too many connections a minute from your address", hangup: true}
	tooManyMessages    = reply{code: 451, status: "4.7.0", text: "too many messages a minute from your address, slow down"}
)

// badParameter is for parameters of MAIL and RCPT with values that cannot be right (RFC 5321 section 4.1.1.11).
func badParameter(name string) reply {
	return reply{code: 501, status: "5.5.4", text: name + ": bad value or said twice"}
}

// unknownParameter is for those we did not offer.
func unknownParameter(name string) reply {
	return reply{code: 555, status: "5.5.4", text: name + ": unknown parameter"}
}

// replyTo is the answer for an error of delivery.
func replyTo(err error) reply {
	var e *delivery.Error
	if !errors.As(err, &e) {
		e = delivery.Refusal(err)
	}
	return reply{code: e.Code, status: e.Status, text: oneLine(e.Text), cause: e.Cause}
}

// accepted is the answer for a message that is safe.
func accepted(id string) reply {
	return reply{code: 250, status: "2.0.0", text: "accepted as " + id}
}

// bad reports whether it refuses.
func (r reply) bad() bool { return r.code >= 400 }

// to is the reply for one recipient of several (LMTP).
func (r reply) to(address string) reply {
	if who := "<" + address + ">"; !strings.HasPrefix(r.text, who) {
		r.text = who + " " + r.text
	}
	return r
}

// appendTo appends the wire form. RFC 5321 section 4.2.1; a status stands in each line (RFC 2034 section 4).
func (r reply) appendTo(b []byte) []byte {
	for rest, more := r.text, true; more; {
		var line string
		line, rest, more = strings.Cut(rest, "\n")
		b = strconv.AppendInt(b, int64(r.code), 10)
		if more {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if r.status != "" {
			b = append(append(b, r.status...), ' ')
		}
		b = append(append(b, line...), "\r\n"...)
	}
	return b
}

// oneLine keeps what a client said from ending our line, and the line within RFC 5321 section 4.5.3.1.5's 512 octets.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 480 {
		s = strings.ToValidUTF8(s[:480], "")
	}
	return s
}
