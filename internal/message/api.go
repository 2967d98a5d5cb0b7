package message

import "io"

// The rest of this room's surface; see the package comment.

// Scanner summarises a message as its bytes pass. The zero Scanner is not ready: use NewScanner.
type Scanner struct{}

// NewScanner begins a message.
func NewScanner() *Scanner { panic("message room") }

// Write never fails and never keeps p.
func (s *Scanner) Write(p []byte) (int, error) { panic("message room") }

// Finish ends the message.
func (s *Scanner) Finish() *Summary { panic("message room") }

// Summarize scans r to its end; the error is r's.
func Summarize(r io.Reader) (*Summary, error) { panic("message room") }

// AppendBinary appends the summary's versioned encoding, drawn in encode.go.
func (s *Summary) AppendBinary(b []byte) []byte { panic("message room") }

// ParseSummary reads what AppendBinary wrote. b is not kept.
func ParseSummary(b []byte) (*Summary, error) { panic("message room") }

// BodyOf derives the BODY wire text (no extension data) from a BODYSTRUCTURE.
func BodyOf(bodyStructure string) string { panic("message room") }

// Decode returns the part's body with its content-transfer-encoding undone; broken encodings yield what can be read. known
// is false for an encoding we do not know (BINARY's [UNKNOWN-CTE]). r reads the whole message.
func Decode(r io.ReaderAt, p *Part) (body io.Reader, known bool) { panic("message room") }

// Text returns the part's body as UTF-8: transfer encoding and charset undone, HTML reduced to its text if the part
// is text/html. At most limit bytes.
func Text(r io.ReaderAt, p *Part, limit int64) (string, error) { panic("message room") }

// BestText is what a person without a mail client would read: text/plain, else HTML as text; attachments named on a last
// line ("[attachments: a.pdf, b.png]").
func BestText(r io.ReaderAt, s *Summary, limit int64) (string, error) { panic("message room") }

// DecodeHeader undoes RFC 2047 in a header value (unfolded), whatever the charset; what cannot be decoded stays.
func DecodeHeader(value string) string { panic("message room") }

// Fields iterates over the raw fields of a header block (as read from the message, from Part.Header to Part.Body): the name
// as written, and the whole field with its folds and final CRLF.
func Fields(header []byte, fn func(name string, raw []byte) bool) { panic("message room") }

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
