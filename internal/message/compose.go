package message

import "io"

// Draft is a text message to be composed.
type Draft struct {
	From, To   []string // addresses, or "Name <address>"
	Subject    string
	Text       string
	Date       string // RFC 5322 date-time; "" is now
	MessageID  string // "" is a fresh one at Hostname
	Hostname   string
	Extra      map[string]string // further header fields
	Attachment *Attachment
}

// Attachment is one file of a Draft.
type Attachment struct {
	Name, Type string
	Data       []byte
}

// Compose writes the draft as an RFC 5322 message with CRLF line ends: MIME text/plain UTF-8 (with HTML and attachment as
// multipart/mixed), RFC 2047 where needed, a transfer encoding that survives any text. Values with CR, LF or NUL are
// refused: that is header injection.
func Compose(w io.Writer, d Draft) error { panic("message room") }
