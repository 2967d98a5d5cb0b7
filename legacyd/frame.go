package legacyd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Command types, client to server. Replies bear the same numbers, and typeError.
const (
	typeEntry   = 0 // as a reply: "OK", also to send and del
	typeSend    = 1
	typeMailbox = 2
	typeOpen    = 3
	typeDel     = 4
	typeQuit    = 5
	typeError   = -2
)

const headerSize = 8 // type and length, 4 bytes each, signed, big-endian

// frame is one message of the protocol. body is valid until the next read.
type frame struct {
	kind int32
	body []byte
}

// badFrame is a frame after which the stream cannot be trusted; the text is for the client.
type badFrame struct{ text string }

func (e *badFrame) Error() string { return e.text }

// frameReader reads frames. Memory grows with the bytes that arrive, not with the length that is announced.
type frameReader struct {
	r   io.Reader
	max int
	buf bytes.Buffer
}

// keepBuffer is how much of a frame's memory a session keeps for the next frame.
const keepBuffer = 64 << 10

// next reads a frame. io.EOF: the client left between frames. *badFrame: it must be told and hung up on.
func (f *frameReader) next() (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return frame{}, err
	}
	kind := int32(binary.BigEndian.Uint32(header[:4]))
	length := int32(binary.BigEndian.Uint32(header[4:]))
	switch {
	case length < 0:
		return frame{}, &badFrame{fmt.Sprintf("Negative body length %d", length)}
	case int(length) > f.max:
		return frame{}, &badFrame{fmt.Sprintf("Body length %d is above the limit of %d bytes", length, f.max)}
	}
	if f.buf.Cap() > keepBuffer {
		f.buf = bytes.Buffer{}
	}
	f.buf.Reset()
	n, err := io.CopyN(&f.buf, f.r, int64(length))
	if err == io.EOF && n < int64(length) {
		err = io.ErrUnexpectedEOF
	}
	return frame{kind: kind, body: f.buf.Bytes()}, err
}

// encodeFrame makes header and JSON body one piece, to be written with one call: the client reads a reply with two plain recvs.
// kind and body are ours and always encode.
func encodeFrame(kind int32, body any) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, headerSize, 256))
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return nil, err
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
	return seal(kind, b.Bytes())
}

// seal fills in the header that was left free before the body.
func seal(kind int32, b []byte) ([]byte, error) {
	if len(b)-headerSize > 1<<31-1 {
		return nil, fmt.Errorf("reply of %d bytes does not fit a frame", len(b))
	}
	binary.BigEndian.PutUint32(b[:4], uint32(kind))
	binary.BigEndian.PutUint32(b[4:8], uint32(len(b)-headerSize))
	return b, nil
}
