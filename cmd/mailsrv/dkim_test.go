package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"mailsrv/internal/disk"
	"mailsrv/internal/mailauth"
)

// judge has another's verifier judge the DKIM signatures of a message by the keys of a folder: the domains that are right.
func judge(t *testing.T, keys *mailauth.Keys, message []byte) (good []string) {
	t.Helper()
	found, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		_, domain, _ := strings.Cut(name, "._domainkey.")
		list, err := keys.List(domain)
		for _, k := range list {
			if k.Name() == name {
				return []string{k.Record()}, err
			}
		}
		return nil, errors.Join(err, errors.New("no such key"))
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		if v.Err != nil {
			t.Errorf("%s: %v", v.Domain, v.Err)
			continue
		}
		good = append(good, v.Domain)
	}
	return good
}

// A signed message is filed as it came: its signatures hold after smtpd, the store and the Maildir had it.
func TestSignaturesSurviveUs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, demoConfig(t, ""))
	h.must("", "dkim", "new", "example.test")
	keys := mailauth.OpenKeys(disk.OS(), filepath.Join(h.dir, "demo-data", "dkim"))
	message := "From: alice@example.test\r\nTo: bob@example.test\r\nSubject: dots,\r\n\tfolds and  spaces \r\n\r\n" +
		".\r\n..two\r\n.one \t\r\n" + strings.Repeat("l", 900) + "\r\n\r\n \r\n\r\n"
	fields, err := mailauth.NewSigner(mailauth.Options{Keys: keys, Hostname: "mx.example.test"}).
		Fields(t.Context(), mailauth.Mail{Message: strings.NewReader(message), Size: int64(len(message)), Ours: true})
	if err != nil {
		t.Fatal(err)
	}
	r := h.start()
	c := r.dial("smtp")
	c.expect("220 ")
	c.say("EHLO client.example", "250 ")
	c.say("MAIL FROM:<alice@example.test>", "250 ")
	c.say("RCPT TO:<bob@example.test>", "250 ")
	c.say("DATA", "354 ")
	stuffed := strings.ReplaceAll("\r\n"+string(fields)+message, "\r\n.", "\r\n..")[2:]
	if _, err := io.WriteString(c, stuffed); err != nil {
		t.Fatal(err)
	}
	c.say(".", "250 ")
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	filed, err := filepath.Glob(filepath.Join(h.dir, "demo-data/accounts/example.test/bob/Maildir/*/*,U=*"))
	if err != nil || len(filed) != 1 {
		t.Fatal(filed, err)
	}
	data, err := os.ReadFile(filed[0])
	if err != nil {
		t.Fatal(err)
	}
	if good := judge(t, keys, data); !slices.Equal(good, []string{"example.test", "example.test"}) {
		t.Errorf("%q hold\n%s", good, data)
	}
}
