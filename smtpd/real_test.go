package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/storage"
)

// house is a real directory, store, deliverer and authenticator.
type house struct {
	t     testing.TB
	dir   string
	store *storage.Store
	o     Options
}

func newHouse(t testing.TB) *house {
	t.Helper()
	people, err := directory.Open(nil, directory.Seed{
		Domains: []directory.Domain{{Name: "example.test"}},
		Accounts: []directory.SeedAccount{
			{Account: directory.Account{Address: "alice@example.test"}, Password: "secret"},
			{Account: directory.Account{Address: "bob@example.test"}, Password: "secret"},
			{Account: directory.Account{Address: "one@example.test", QuotaMessages: 1}, Password: "secret"},
		},
	}, directory.WithHashParams(directory.HashParams{Memory: 64, Time: 1, Lanes: 1}))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: t.TempDir()}
	h.store, err = storage.Open(storage.Options{Dir: h.dir, Reserve: 1,
		Quota: func(a string) storage.Quota { return delivery.QuotaOf(people, a) }})
	if err != nil {
		t.Fatal(err)
	}
	h.o = Options{
		Hostname: "mx.example.test", Store: h.store, TLS: testTLS(),
		Delivery: delivery.New(delivery.Options{Directory: people, Store: h.store, Hostname: "mx.example.test"}),
		Auth:     auth.New(people, auth.Options{Sleep: func(context.Context, time.Duration) error { return nil }}),
	}
	t.Cleanup(h.close)
	return h
}

func (h *house) close() {
	for _, address := range []string{"alice@example.test", "bob@example.test", "one@example.test"} {
		a, err := h.store.Account(address)
		if errors.Is(err, storage.ErrNoAccount) {
			continue
		}
		if err != nil {
			h.t.Error(err)
			continue
		}
		if problems, err := a.Check(); err != nil || len(problems) > 0 {
			h.t.Errorf("%s: %v %v", address, problems, err)
		}
		a.Release()
	}
	// Nothing half taken in stays behind.
	left, err := os.ReadDir(filepath.Join(h.dir, "tmp"))
	if err != nil || len(left) > 0 {
		h.t.Errorf("in tmp: %v, %v", left, err)
	}
	if err := h.store.Close(); err != nil {
		h.t.Error(err)
	}
}

// serve starts a service; it ends before the house is checked.
func (h *house) serve(service Service) string {
	h.t.Helper()
	o := h.o
	o.Service = service
	s := New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	h.t.Cleanup(func() {
		s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			h.t.Error(err)
		}
		<-done
	})
	return l.Addr().String()
}

// inbox reads all of an account's messages.
func (h *house) inbox(address string) (all []string) {
	h.t.Helper()
	a, err := h.store.Account(address)
	if errors.Is(err, storage.ErrNoAccount) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Release()
	box, err := a.Mailbox("INBOX")
	if err != nil {
		h.t.Fatal(err)
	}
	v, err := a.View(box.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, row := range v.Rows(0, v.Len()) {
		b, err := a.OpenMessage(box.ID, row.UID)
		if err != nil {
			h.t.Fatal(err)
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil {
			h.t.Fatal(err)
		}
		b.Close()
		all = append(all, string(text))
	}
	return all
}

func TestRealLMTP(t *testing.T) {
	h := newHouse(t)
	c := dial(t, h.serve(LMTP))
	c.expect("220")
	c.say("LHLO mta.test", "250")
	for i, want := range []string{"250 2.0.0 <one@example.test>", "452 4.2.2 <one@example.test>: mailbox is full"} {
		c.say("MAIL FROM:<x@else.test>", "250")
		// Both are accepted while there is room.
		if i == 0 {
			c.say("RCPT TO:<one@example.test>", "250")
		} else {
			c.say("RCPT TO:<one@example.test>", "452 4.2.2")
			c.say("RSET", "250")
			continue
		}
		c.say("RCPT TO:<bob@example.test>", "250")
		c.say("RCPT TO:<one@example.test>", "250")
		c.say("DATA", "354")
		c.send("Subject: " + fmt.Sprint(i) + "\r\n\r\nbody\r\n.\r\n")
		c.expect(want)
		c.expect("250 2.0.0 <bob@example.test>")
		c.expect(want)
	}
	if got := h.inbox("one@example.test"); len(got) != 1 {
		t.Errorf("%d messages", len(got))
	}
	got := h.inbox("bob@example.test")
	if len(got) != 1 || !strings.HasPrefix(got[0], "Return-Path: <x@else.test>\r\nReceived: from mta.test ([127.0.0.1])\r\n") ||
		!strings.HasSuffix(got[0], "+0000\r\nSubject: 0\r\n\r\nbody\r\n") && !strings.HasSuffix(got[0], "\r\nSubject: 0\r\n\r\nbody\r\n") {
		t.Errorf("%q", got)
	}
}

// One recipient runs out of room between RCPT and the end of the data.
func TestRealLMTPOverQuotaMeanwhile(t *testing.T) {
	h := newHouse(t)
	addr := h.serve(LMTP)
	first, second := dial(t, addr), dial(t, addr)
	for _, c := range []*client{first, second} {
		c.expect("220")
		c.say("LHLO c", "250")
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<alice@example.test>", "250")
		c.say("RCPT TO:<one@example.test>", "250")
	}
	first.send("BDAT 6 LAST\r\na: b\r\n")
	first.expect("250 2.0.0 <alice@example.test>")
	first.expect("250 2.0.0 <one@example.test>")
	second.send("BDAT 6 LAST\r\na: c\r\n")
	second.expect("250 2.0.0 <alice@example.test>")
	second.expect("452 4.2.2 <one@example.test>")
}

func TestRealCutOff(t *testing.T) {
	h := newHouse(t)
	c := dial(t, h.serve(SMTP))
	c.expect("220")
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<alice@example.test>", "250")
	c.say("DATA", "354")
	c.send("Subject: half\r\n\r\n" + strings.Repeat("half a message\r\n", 10_000) + ".")
	c.c.Close()
	// The house is looked at when the session has ended.
	t.Cleanup(func() {
		if got := h.inbox("alice@example.test"); len(got) != 0 {
			t.Errorf("%q", got)
		}
	})
}

// go-smtp's client, as other people's programs use it.
func TestGoSMTPClient(t *testing.T) {
	h := newHouse(t)
	config := &tls.Config{InsecureSkipVerify: true}
	for service, connect := range map[Service]func(string) (*smtp.Client, error){
		Submission:  func(a string) (*smtp.Client, error) { return smtp.DialStartTLS(a, config) },
		Submissions: func(a string) (*smtp.Client, error) { return smtp.DialTLS(a, config) },
	} {
		c, err := connect(h.serve(service))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("alice@example.test", nil); err == nil || !strings.Contains(err.Error(), "authentication required") {
			t.Errorf("before login: %v", err)
		}
		if err := c.Auth(sasl.NewPlainClient("", "alice@example.test", "wrong")); err == nil {
			t.Error("wrong password")
		}
		var mechanism sasl.Client = sasl.NewPlainClient("", "alice@example.test", "secret")
		if service == Submissions {
			mechanism = sasl.NewLoginClient("alice@example.test", "secret")
		}
		if err := c.Auth(mechanism); err != nil {
			t.Fatal(err)
		}
		var refused *smtp.SMTPError
		err = c.Mail("bob@example.test", nil)
		if !errors.As(err, &refused) || refused.Code != 550 || refused.EnhancedCode != (smtp.EnhancedCode{5, 7, 1}) {
			t.Errorf("as bob: %v", err)
		}
		err = c.SendMail("alice@example.test", []string{"bob@example.test"}, strings.NewReader(
			"From: Alice <alice@example.test>\r\nTo: bob@example.test\r\nBcc: x@y.test\r\nSubject: "+string(service)+"\r\n\r\nhi\r\n.\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	got := h.inbox("bob@example.test")
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	for _, m := range got {
		if !strings.Contains(m, "with ESMTPSA id ") || !strings.Contains(m, "for <bob@example.test>") ||
			!strings.Contains(m, "\r\nMessage-ID: <") || !strings.Contains(m, "\r\nDate: ") || strings.Contains(m, "Bcc") ||
			!strings.HasSuffix(m, "\r\n\r\nhi\r\n.\r\n") {
			t.Errorf("%q", m)
		}
	}
}

// DSN's and other parameters reach the envelope.
func TestEnvelopeIsKept(t *testing.T) {
	post := &fakePost{}
	_, addr := start(t, Options{Service: SMTP, TLS: testTLS(), Trusted: loopback}, post, nil)
	c, err := smtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Mail("a@b.test", &smtp.MailOptions{Body: smtp.Body8BitMIME, Size: 10, RequireTLS: true, UTF8: true,
		Return: smtp.DSNReturnHeaders, EnvelopeID: "QQ+ =1"})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Rcpt("alice@example.test", &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure},
		OriginalRecipientType: smtp.DSNAddressTypeUTF8, OriginalRecipient: "ü@x.test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("bob@example.test", &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyNever},
		OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "b+b@x.test"}); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(func() error { _, err := io.WriteString(w, "a: b\r\n\r\n"); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	env := post.last(t).env
	r := env.Recipients
	if env.Sender != "a@b.test" || env.Body != "8BITMIME" || !env.RequireTLS || !env.SMTPUTF8 || env.Return != "HDRS" ||
		env.EnvelopeID != "QQ+ =1" || len(env.ID) != 16 || len(r) != 2 ||
		strings.Join(r[0].Notify, ",") != "DELAY,FAILURE" || r[0].Original != "utf-8;ü@x.test" ||
		strings.Join(r[1].Notify, ",") != "NEVER" || r[1].Original != "rfc822;b+b@x.test" {
		t.Errorf("%+v", env)
	}
	o := env.Origin
	if o.Service != "smtp" || !o.Trusted || !strings.HasPrefix(o.TLS, "TLS 1.3 TLS_") || o.Hello != "localhost" ||
		o.Protocol != "UTF8SMTPS" || !o.Addr.IsLoopback() {
		t.Errorf("%+v", o)
	}
}
