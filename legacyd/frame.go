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
	long bool // the body was longer than may be kept: it was read and is gone
}

// badFrame is a frame after which the stream cannot be trusted; the text is for the client.
type badFrame struct{ text string }

func (e *badFrame) Error() string { return e.text }

// frameReader reads frames. Memory grows with the bytes that arrive, not with the length that is announced.
type frameReader struct {
	r    io.Reader
	max  int // bytes of a body; after a longer one the stream is not trusted
	keep int // bytes of a body that are kept; a longer one is thrown away as it comes
	buf  []byte
}

// keepStrangers is frameReader.keep for who has not entered: an entry is an address and perhaps a password. Thousands of
// strangers who each announce a whole frame and do not finish it must not cost a frame's memory each.
const keepStrangers = 16 << 10

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
	if int(length) > f.keep {
		_, err := io.CopyN(io.Discard, f.r, int64(length))
		return frame{kind: kind, long: true}, midway(err)
	}
	err := f.body(int(length))
	return frame{kind: kind, body: f.buf}, midway(err)
}

// body reads n bytes into buf, which never has room for more than twice what has come.
func (f *frameReader) body(n int) error {
	if cap(f.buf) > keepBuffer {
		f.buf = nil
	}
	f.buf = f.buf[:0]
	for len(f.buf) < n {
		if len(f.buf) == cap(f.buf) {
			bigger := make([]byte, len(f.buf), min(n, max(2*len(f.buf), 512)))
			copy(bigger, f.buf)
			f.buf = bigger
		}
		k, err := f.r.Read(f.buf[len(f.buf):min(n, cap(f.buf))])
		f.buf = f.buf[:len(f.buf)+k]
		if err != nil && len(f.buf) < n {
			return err
		}
	}
	return nil
}

// midway is an error within a body: there the stream's end is a cut.
func midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
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
