package relay

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"mailsrv/internal/message"
	"mailsrv/internal/queue"
)

func lf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

// down converts a message as for a server of 7 bits, or of 8.
func down(text string, form bodyForm) (string, error) {
	r := New(Options{Hostname: "us.test"})
	defer r.Close()
	a := &attempt{r: r, m: &queue.Outgoing{Message: strings.NewReader(text), Size: int64(len(text))}, bodies: map[bodyForm]*converted{}}
	c, err := a.converted(form)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := c.writeTo(&out); err != nil {
		return "", err
	}
	if int64(out.Len()) != c.size {
		panic("size")
	}
	return out.String(), nil
}

func TestDowngrade(t *testing.T) {
	for _, test := range []struct {
		name     string
		form     bodyForm
		in, want string
	}{
		{"nothing to do", sevenBit, "Subject: x\n\nhi\n", "Subject: x\n\nhi\n"},
		{"a claim of 8 bits that is none", sevenBit, "MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\n\nhi\n",
			"MIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\n\nhi\n"},
		{"text", sevenBit, "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding:\n 8bit\nX: y\n\nfür=alle \n",
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nX: y\nContent-Transfer-Encoding: quoted-printable\n\nf=C3=BCr=3Dalle=20\n"},
		{"not MIME", sevenBit, "Subject: x\n\nein m\xfcder Satz\n",
			"Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\nein m=FCder Satz\n"},
		{"mostly not ASCII", sevenBit, "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\näöü\n",
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw6TDtsO8DQo=\n"},
		{"a tree", sevenBit, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\npreamble\n--b\n\nplain\n" +
			"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nfür alle\n" +
			"--b\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nAAAA\n" +
			"--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: inner\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\nauch für\n--b--\nend\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\npreamble\n--b\n\nplain\n" +
				"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nf=C3=BCr alle\n" +
				"--b\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nAAAA\n" +
				"--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: inner\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nauch f=C3=BCr\n--b--\nend\n"},
		{"binary to 8 bits", eightBit, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: binary\n\n" +
			"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nfür\n" +
			"--b\nContent-Type: image/x\nContent-Transfer-Encoding: binary\n\na\x00b\n--b--\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n" +
				"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nfür\n" +
				"--b\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nYQBi\n\n--b--\n"},
		{"signed, of 7 bits whatever it says", sevenBit, "MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b\n\n" +
			"--b\nContent-Transfer-Encoding: 8bit\n\nplain\n--b\n\nsig\n--b--\n", "same"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, want := lf(test.in), lf(test.want)
			if test.want == "same" {
				want = in
			}
			got, err := down(in, test.form)
			if err != nil || got != want {
				t.Errorf("%v\n%q, want\n%q", err, got, want)
			}
		})
	}
	for name, in := range map[string]string{
		"signed":    "MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b\n\n--b\nContent-Transfer-Encoding: 8bit\n\nfür\n--b\n\nsig\n--b--\n",
		"partial":   "MIME-Version: 1.0\nContent-Type: message/partial; id=x; number=1\n\nfür\n",
		"wrong CTE": "MIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\nfür\n",
	} {
		if got, err := down(lf(in), sevenBit); err == nil || !strings.HasPrefix(err.Error(), errCannotConvert.Error()) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// What comes out has 7 bits, short lines, and decodes to what went in.
func FuzzDowngrade(f *testing.F) {
	f.Add([]byte("für\r\n\x00\xff"), true)
	f.Add([]byte("a b \t\r\n.\r\n=\r\n"), true)
	f.Add(bytes.Repeat([]byte("ä"), 600), false)
	f.Fuzz(func(t *testing.T, body []byte, text bool) {
		kind := "image/x"
		if text {
			kind = "text/plain"
			body = []byte(oracle(string(body), false)) // text has line ends
		}
		in := "MIME-Version: 1.0\r\nContent-Type: " + kind + "\r\nContent-Transfer-Encoding: binary\r\n\r\n" + string(body)
		out, err := down(in, sevenBit)
		if err != nil {
			t.Fatal(err)
		}
		if !isASCII(out) {
			t.Errorf("not 7 bits: %q", out)
		}
		sum, err := message.Summarize(strings.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		r, known := message.Decode(strings.NewReader(out), &sum.Root)
		back, err := io.ReadAll(r)
		if !known || err != nil || !bytes.Equal(back, body) {
			t.Errorf("%q came back as %q (%v)", body, back, err)
		}
	})
}

func TestDowngradeOnTheWire(t *testing.T) {
	body := "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nfür alle\r\n"
	synctest.Test(t, func(t *testing.T) {
		script := strings.NewReplacer("S: 250 me", "S: 250-me\nS: 250 SIZE 200", "C* MAIL", "C: MAIL FROM:<a@us.test> SIZE=122",
			"D: *", `D: MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nf=C3=BCr alle\r\n`).Replace(plainServer)
		m := mail(body, "b@p.test")
		m.Body = "8BITMIME"
		want(t, one(t, script, m, nil)[0], "delivered")
		want(t, one(t, ehlo+"S: 250-me\nS: 250 SIZE 121", m, nil)[0], "failed 0 5.3.4 the message has 122 octets")
		m = mail("MIME-Version: 1.0\r\nContent-Type: message/partial\r\n\r\nfür\r\n", "b@p.test")
		m.Body = "8BITMIME"
		want(t, one(t, ehlo+"S: 250 me", m, nil)[0], "failed 0 5.6.3 the server takes only 7-bit mail, and this message cannot be made so: a part of type message/partial has no encoding")
		m.Body = "BINARYMIME"
		want(t, one(t, strings.NewReplacer("S: 250 me", "S: 250-me\nS: 250 8BITMIME", "C* MAIL", "C: MAIL FROM:<a@us.test> BODY=8BITMIME").Replace(plainServer), m, nil)[0], "delivered")
	})
}
