package message

// Bounds on what one message can make us keep. Beyond them the Summary says less; nothing fails.
const (
	maxHeaderBlock = 256 << 10 // bytes of one header block that are looked at; the rest is still part of the header
	maxHeaders     = 4 << 20   // bytes of header blocks looked at in one message; then parts are text/plain
	maxParts       = 4000      // nodes of the MIME tree; the last part takes in the rest of the message
	maxDepth       = 100       // levels of the MIME tree; deeper multiparts and messages stay closed
	maxBoundary    = 1000      // RFC 2046 section 5.1.1 says 70; mail with more is seen
	maxDelimiter   = 4 << 10   // bytes of a line that are compared with the boundaries
	maxParams      = 100       // parameters of one Content-Type or Content-Disposition
	maxEnvelope    = 256 << 10 // bytes of one ENVELOPE; addresses beyond are left out
	maxStructure   = 512 << 10 // bytes of header text in BODYSTRUCTURE and the parts; then parts are described without
	maxSubject     = 4 << 10   // bytes of Summary.Subject
	maxFields      = 8 << 10   // bytes of Summary.Fields; what is longer is left to the message's file
	maxID          = 1 << 10   // bytes of a message id; RFC 5322 section 2.1.1 has lines end at 998
	maxReferences  = 200       // ids; the first and the latest are kept
	maxFilename    = 1 << 10   // bytes of Part.Filename
	maxPreviewRaw  = 128 << 10 // encoded bytes of a text part that are kept to make the preview
	maxPreview     = 200       // characters, RFC 8970 section 3.1
)
