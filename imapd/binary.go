package imapd

import (
	"bytes"
	"io"

	"mailsrv/internal/message"
	"mailsrv/storage"
)

// heldBinary is the size up to which a decoded part is kept from counting its octets to sending them.
const heldBinary = 256 << 10

// binarySection finds the content of BINARY[…]: the part with its content-transfer-encoding undone (RFC 3516 section 4.2). Multiparts,
// embedded messages and the whole message have no encoding of their own and come as they are. known is false for
// an encoding that we cannot undo ([UNKNOWN-CTE]); ok is false if there is no such part.
func binarySection(body storage.Body, sum *message.Summary, path []int) (c content, ok, known bool, err error) {
	p := &sum.Root
	if len(path) > 0 {
		if p = sum.Part(path); p == nil {
			return content{}, false, true, nil
		}
	}
	if len(path) == 0 || p.Multipart() || p.Embedded() {
		from, to := p.Body, p.End
		if len(path) == 0 {
			from, to = 0, body.Size()
		}
		from, to = min(from, body.Size()), min(to, body.Size())
		c = content{size: to - from, raw: io.NewSectionReader(body, from, to-from)}
		c.nul, err = hasNUL(io.NewSectionReader(c.raw, 0, c.size))
		return c, true, true, err
	}
	decoded, known := message.Decode(body, p)
	if !known {
		return content{}, true, false, nil
	}
	c, err = decodedContent(decoded, func() io.Reader {
		again, _ := message.Decode(body, p)
		return again
	})
	return c, true, true, err
}

// decodedContent reads r once: to count, to look for NUL, and to keep what is small.
func decodedContent(r io.Reader, again func() io.Reader) (content, error) {
	head, err := io.ReadAll(io.LimitReader(r, heldBinary+1))
	if err != nil {
		return content{}, err
	}
	c := content{size: int64(len(head)), nul: bytes.IndexByte(head, 0) >= 0, held: head}
	if len(head) <= heldBinary {
		return c, nil
	}
	rest := &nulCounter{}
	_, err = io.Copy(rest, r)
	return content{size: c.size + rest.n, nul: c.nul || rest.nul, make: again}, err
}

// nulCounter counts octets and notices NUL.
type nulCounter struct {
	n   int64
	nul bool
}

func (c *nulCounter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.nul = c.nul || bytes.IndexByte(p, 0) >= 0
	return len(p), nil
}

func hasNUL(r io.Reader) (bool, error) {
	var c nulCounter
	_, err := io.Copy(&c, r)
	return c.nul, err
}
