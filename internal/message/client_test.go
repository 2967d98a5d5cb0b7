package message

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// A real client's parser takes ENVELOPE and BODYSTRUCTURE of the whole corpus, and sees the same tree.
func TestClientReads(t *testing.T) {
	for name, raw := range corpus(t) {
		s := scan(raw)
		for _, structure := range []string{"BODYSTRUCTURE " + s.BodyStructure, "BODY " + BodyOf(s.BodyStructure)} {
			got, err := fetch(t, "ENVELOPE "+s.Envelope+" "+structure, strings.HasPrefix(structure, "BODYS"))
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, structure)
				continue
			}
			if got.Envelope.MessageID != s.MessageID && !strings.Contains(s.Envelope, " {") && s.MessageID != "" {
				t.Errorf("%s: the client sees id %q, we %q", name, got.Envelope.MessageID, s.MessageID)
			}
			var seen, ours []string
			got.BodyStructure.Walk(func(path []int, part imap.BodyStructure) bool {
				seen = append(seen, fmt.Sprint(path, " ", strings.ToLower(part.MediaType())))
				return true
			})
			walk(&s.Root, nil, &ours)
			if strings.Join(seen, "\n") != strings.Join(ours, "\n") {
				t.Errorf("%s: the client sees\n%s\nwe\n%s", name, strings.Join(seen, "\n"), strings.Join(ours, "\n"))
			}
		}
	}
}

// walk lists the parts as go-imap numbers them: embedded messages are leaves.
func walk(p *Part, path []int, out *[]string) {
	if !p.Multipart() && len(path) == 0 {
		path = []int{1}
	}
	*out = append(*out, fmt.Sprint(path, " ", p.Type+"/"+p.Subtype))
	if p.Multipart() {
		for i := range p.Children {
			walk(&p.Children[i], append(path[:len(path):len(path)], i+1), out)
		}
	}
}

// fetch has a client parse the items of one FETCH response.
func fetch(t *testing.T, items string, extended bool) (*imapclient.FetchMessageBuffer, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fmt.Fprint(ours, "* PREAUTH [CAPABILITY IMAP4rev1] hello\r\n")
		tag, _, _ := strings.Cut(readLine(ours), " ")
		fmt.Fprintf(ours, "* 1 FETCH (%s)\r\n%s OK done\r\n", items, tag)
	}()
	c := imapclient.New(theirs, nil)
	list, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{
		Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: extended},
	}).Collect()
	_ = c.Close()
	_ = ours.Close()
	<-done
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || list[0].Envelope == nil || list[0].BodyStructure == nil {
		return nil, fmt.Errorf("got %+v", list)
	}
	return list[0], nil
}

func readLine(c net.Conn) string {
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}
