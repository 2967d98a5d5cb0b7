package e2e

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
)

// courseClient speaks the course protocol.
type courseClient struct {
	t    *testing.T
	conn net.Conn
}

type courseMail struct {
	ID          int
	Source      string
	Destination string
	Header      string
	Text        string
}

func (s *server) course(local string) *courseClient {
	s.t.Helper()
	c := &courseClient{s.t, s.dial("legacy")}
	var ok string
	c.call(0, map[string]string{"name": address(local)}, &ok)
	return c
}

// call sends a command and decodes the answer into out. An error answer fails the test.
func (c *courseClient) call(kind int32, body, out any) {
	c.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(kind))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(data)))
	if _, err := c.conn.Write(append(frame, data...)); err != nil {
		c.t.Fatal(err)
	}
	var head [8]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		c.t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint32(head[4:]))
	if _, err := io.ReadFull(c.conn, answer); err != nil {
		c.t.Fatal(err)
	}
	if got := int32(binary.BigEndian.Uint32(head[:4])); got < 0 {
		c.t.Fatalf("command %d %s: error %s", kind, data, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		c.t.Fatalf("command %d: %s: %v", kind, answer, err)
	}
}

// One message through everything: swaks delivers it, IDLE announces it, the course client lists and opens it, which IMAP sees
// as \Seen, and deletes it, which IMAP sees go.
func TestOneMessageThroughAll(t *testing.T) {
	needs(t, "swaks")
	s := start(t, options{})
	watcher := s.imap("alice")
	watcher.do("SELECT INBOX")
	second := s.imap("alice")
	second.do("SELECT INBOX")
	watcher.idle()

	s.do(nil, "swaks", "--server", s.addr("smtp"), "--from", "someone@remote.test", "--to", address("alice"), "--header",
		"Subject: follow me", "--body", "the text\n").want(0)
	watcher.until(`^\* 1 EXISTS`)

	course := s.course("alice")
	var mails []courseMail
	course.call(2, nil, &mails)
	if len(mails) != 1 || mails[0].Header != "follow me" || !strings.Contains(mails[0].Text, "the text") || mails[0].Destination != address("alice") {
		t.Fatalf("the course client lists %+v", mails)
	}
	if got := second.uids("UNSEEN"); len(got) != 1 {
		t.Errorf("before it is opened, unseen are %q", got)
	}
	var opened courseMail
	course.call(3, map[string]any{"index": mails[0].ID}, &opened)
	if opened.Header != "follow me" {
		t.Errorf("opened %+v", opened)
	}
	watcher.until(`^\* 1 FETCH \(.*FLAGS \(.*\\Seen.*\)`)
	if got := second.uids("SEEN"); len(got) != 1 {
		t.Errorf("after it is opened, seen are %q", got)
	}

	var ok string
	course.call(4, map[string]any{"index": mails[0].ID}, &ok)
	watcher.until(`^\* 1 EXPUNGE`)
	watcher.done()
	second.send("x NOOP\r\n")
	second.until(`^\* 1 EXPUNGE`)
	second.until(`^x OK`)

	// And back: what IMAP files, the course client sees; what the course client sends, IMAP is told of.
	second.idle()
	watcher.append("INBOX", "", message("bob@"+domain, address("alice"), "appended", "by IMAP\r\n"))
	second.until(`^\* 1 EXISTS`)
	course.call(2, nil, &mails)
	if len(mails) != 1 || mails[0].Header != "appended" {
		t.Errorf("the course client lists %+v", mails)
	}
	course.call(1, map[string]string{"to": address("alice"), "header": "to myself", "text": "x"}, &ok)
	second.until(`^\* 2 EXISTS`)
	second.done()
}
