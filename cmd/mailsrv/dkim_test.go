package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"mailsrv/internal/disk"
	"mailsrv/internal/mailauth"
	"mailsrv/internal/resolve"
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

// Alice writes to an alias elsewhere that sends it back to Bob here: signed when it leaves us, sealed when it leaves there,
// and both hold at the end. What a stranger writes in Alice's name is sealed on that way, and never signed.
func TestSignedAndSealed(t *testing.T) {
	t.Parallel()
	ports := []string{freePort(t), freePort(t)}
	domains := []string{"example.test", "partner.test"}
	config := func(i int, dns string) string {
		text := strings.NewReplacer("example.test", domains[i], `smtp = ["127.0.0.1:0"]`, fmt.Sprintf("smtp = [%q]", ports[i])).
			Replace(demoConfig(t, ""))
		return text + fmt.Sprintf("[dns]\nserver = %q\n[[route]]\ndomain = %q\nhost = %q\n[[alias]]\naddress = \"team@%s\"\nto = [\"bob@%s\"]\n",
			dns, domains[1-i], ports[1-i], domains[i], domains[1-i])
	}
	var houses []*house
	zone := ""
	for i, d := range domains {
		houses = append(houses, newHouse(t, config(i, "127.0.0.1:1")))
		zone += houses[i].must("", "dkim", "new", d)
	}
	dns := zoneServer(t, zone)
	var servers []*running
	for i, h := range houses {
		h.write("mailsrv.toml", config(i, dns))
		servers = append(servers, h.start())
	}
	servers[0].submit("alice@example.test", "team@partner.test", "there and back")
	c := servers[1].dial("smtp")
	c.expect("220 ")
	c.say("EHLO evil.example", "250 ")
	c.say("MAIL FROM:<alice@partner.test>", "250 ")
	c.say("RCPT TO:<team@partner.test>", "250 ")
	c.say("DATA", "354 ")
	c.say("From: alice@partner.test\r\nSubject: forged\r\n\r\nHello\r\n.", "250 ")

	inbox := filepath.Join(houses[0].dir, "demo-data/accounts/example.test/bob/Maildir/*/*,U=*")
	var filed []string
	eventually(t, "both messages", func() bool {
		filed, _ = filepath.Glob(inbox)
		return len(filed) >= 2
	})
	for _, r := range servers {
		if code := r.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit %d\n%s", code, r.logged())
		}
	}
	resolver, err := resolve.New(resolve.Options{Server: dns})
	if err != nil {
		t.Fatal(err)
	}
	keys := mailauth.OpenKeys(disk.OS(), filepath.Join(houses[0].dir, "demo-data", "dkim"))
	for _, file := range filed {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := mailauth.ValidateChain(t.Context(), resolver, bytes.NewReader(data), int64(len(data)), time.Now())
		if err != nil || chain.State != mailauth.ChainPass || !slices.Equal(chain.Sealers, []string{"partner.test"}) {
			t.Errorf("%+v, %v\n%s", chain, err, data)
		}
		want, result := []string{"example.test", "example.test"}, "dkim=pass header.d=example.test"
		if bytes.Contains(data, []byte("forged")) {
			want, result = nil, "dkim=none"
		}
		if good := judge(t, keys, data); !slices.Equal(good, want) || !bytes.Contains(data, []byte(result)) {
			t.Errorf("%q hold, want %q and %s\n%s", good, want, result, data)
		}
		if n := bytes.Count(data, []byte("Return-Path:")); n != 1 {
			t.Errorf("%d Return-Paths", n)
		}
	}
}
