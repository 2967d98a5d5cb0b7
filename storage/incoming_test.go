package storage

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"mailsrv/internal/message"
)

// A message that was made to be heavy costs little while it is on its way, and is described like any other in the end.
func TestHeavyMessages(t *testing.T) {
	part := "--b\r\nContent-Type: text/plain; name=" + strings.Repeat("n", 300) + "\r\nContent-ID: <a@b>\r\n\r\nx\r\n"
	for name, text := range map[string]string{
		"ordinary":    "Subject: s\r\nTo: a@b.test\r\n\r\nhi\r\n",
		"many parts":  "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat(part, 5000),
		"large field": "Subject: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"unfinished":  "Subject: s\r\nTo: " + strings.Repeat("a@b.test, ", 30_000),
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t, Options{Dir: t.TempDir(), Reserve: 1})
			scan := message.NewScanner()
			in, err := s.Incoming()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			for p := text; p != ""; p = p[min(4096, len(p)):] {
				scan.Write([]byte(p[:min(4096, len(p))]))
				if _, err := in.Write([]byte(p[:min(4096, len(p))])); err != nil {
					t.Fatal(err)
				}
				if in.scan != nil && in.scan.Held() > heavyScan {
					t.Fatalf("holds %d bytes", in.scan.Held())
				}
			}
			if in.heavy != (name != "ordinary") {
				t.Errorf("heavy: %v", in.heavy)
			}
			if err := in.Seal(); err != nil {
				t.Fatal(err)
			}
			if want := scan.Finish(); fmt.Sprintf("%q", in.encoded) != fmt.Sprintf("%q", want.AppendBinary(nil)) ||
				in.Summary().Size != want.Size || !reflect.DeepEqual(in.Summary().Root.Children, want.Root.Children) {
				t.Error("the summary is another one")
			}
		})
	}
}
