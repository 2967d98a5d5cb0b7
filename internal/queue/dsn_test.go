package queue

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"bufio"

	"mailsrv/internal/delivery"
)

var update = flag.Bool("update", false, "write the notices into testdata")

// Every kind of notice, as the sender gets it, and taken apart again by go-message.
func TestNotices(t *testing.T) {
	utf8Sample := strings.Replace(sample, "Subject: Hi", "Subject: Grüße", 1)
	long := sample + strings.Repeat("0123456789012345678901234567890123456789\r\n", 100)
	bounce := func(string, *Outgoing, Recipient) Outcome {
		return Outcome{Verdict: Failed, Code: 550, Status: "5.1.1", Text: "5.1.1 <bob@far.test>: no such user here, and we have looked for him in all the places where users are kept",
			Remote: "mx.far.test [192.0.2.1]:25", TLS: "TLS 1.3"}
	}
	account := delivery.Origin{Account: sender, Hello: "client.test"}
	tests := []struct {
		name   string
		env    delivery.Envelope
		text   string
		to     []string
		answer func(string, *Outgoing, Recipient) Outcome
		wait   time.Duration
		types  string // of the parts
	}{
		{name: "failed-full", env: delivery.Envelope{Origin: account, EnvelopeID: "QQ314159"}, answer: bounce,
			types: "text/plain message/delivery-status message/rfc822"},
		{name: "failed-headers", env: delivery.Envelope{Return: "HDRS", Origin: account}, answer: bounce,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "failed-stranger", env: delivery.Envelope{}, answer: bounce,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "failed-too-long", env: delivery.Envelope{Return: "FULL"}, text: long, answer: bounce,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "failed-requiretls", env: delivery.Envelope{Return: "FULL", Origin: account, RequireTLS: true}, answer: bounce,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "failed-two", env: delivery.Envelope{Recipients: []delivery.Recipient{{Address: far, Original: "rfc822;Bob@Far.test"},
			{Address: "carl@far.test"}}}, to: []string{far, "carl@far.test"}, answer: bounce,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "failed-utf8", env: delivery.Envelope{SMTPUTF8: true, Body: "8BITMIME", Return: "FULL",
			Recipients: []delivery.Recipient{{Address: "jürgen@far.test", Original: "utf-8;jürgen@far.test"}}}, to: []string{"jürgen@far.test"},
			text: utf8Sample, answer: bounce, types: "text/plain message/global-delivery-status message/global"},
		{name: "failed-utf8-headers", env: delivery.Envelope{SMTPUTF8: true, Return: "HDRS"}, text: utf8Sample, answer: bounce,
			types: "text/plain message/global-delivery-status message/global-headers"},
		{name: "failed-8bit", env: delivery.Envelope{Body: "8BITMIME", Return: "FULL"}, text: sample + "Grüße\r\n", answer: bounce,
			types: "text/plain message/delivery-status message/rfc822"},
		{name: "failed-alias", env: delivery.Envelope{Recipients: []delivery.Recipient{{Address: "team@here.test"}}}, to: []string{"team@here.test"},
			answer: bounce, types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "delayed", answer: refuse(450, "4.2.0", "come back later"), wait: 5 * time.Hour,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "expired", answer: refuse(450, "4.2.0", "come back later"), wait: 6 * 24 * time.Hour,
			types: "text/plain message/delivery-status text/rfc822-headers"},
		{name: "relayed", env: delivery.Envelope{Return: "FULL", Recipients: []delivery.Recipient{{Address: far, Notify: []string{"SUCCESS"}}}},
			types: "text/plain message/delivery-status text/rfc822-headers"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(o *Options) { o.Policy.ReturnSize = 2000 }, func(h *house) {
				h.world.says(test.answer)
				if test.text == "" {
					test.text = sample
				}
				if test.to == nil {
					test.to = []string{far}
				}
				env := test.env
				env.Sender = sender
				if test.name == "failed-alias" {
					in, err := h.write(test.text)
					if err != nil {
						t.Fatal(err)
					}
					env.ID = delivery.NewID()
					if err := h.enqueue(t.Context(), &env, in, []delivery.Onward{{Address: far, For: env.Recipients[0]}}); err != nil {
						t.Fatal(err)
					}
				} else if err := h.trySend(&env, test.text, test.to...); err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.wait + time.Second)
				boxes := h.people.inbox(sender)
				if len(boxes) == 0 {
					t.Fatal("no notice")
				}
				compareNotice(t, test.name, boxes[len(boxes)-1], test.types)
			})
		})
	}
}

func TestDeliveredNotice(t *testing.T) {
	bubble(t, nil, func(h *house) {
		in, err := h.write(sample)
		if err != nil {
			t.Fatal(err)
		}
		env := &delivery.Envelope{ID: delivery.NewID(), Sender: sender, EnvelopeID: "e1"}
		to := []delivery.Recipient{{Address: "bob@here.test", Notify: []string{"SUCCESS"}}, {Address: "carl@here.test"}}
		if err := h.delivered(env, in, to); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		boxes := h.people.inbox(sender)
		if len(boxes) != 1 || strings.Contains(boxes[0], "carl") {
			t.Fatalf("%v", boxes)
		}
		compareNotice(t, "delivered", boxes[0], "text/plain message/delivery-status text/rfc822-headers")
	})
}

var (
	changing = regexp.MustCompile(`[0-9a-hj-km-np-z]{16}|[A-Z2-7]{26}`)
	dates    = regexp.MustCompile(`\w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`)
)

// compareNotice holds a notice against its golden file, and what go-message makes of it against what it has to be.
func compareNotice(t *testing.T, name, text, types string) {
	t.Helper()
	for line := range strings.SplitAfterSeq(text, "\n") {
		if line != "" && (!strings.HasSuffix(line, "\r\n") || len(line) > 1000) {
			t.Errorf("line %q", line)
		}
	}
	got := changing.ReplaceAllString(dates.ReplaceAllString(text, "DATE"), "ID")
	path := filepath.Join("testdata", name+".eml")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%v; got\n%s", err, got)
	}
	parseNotice(t, text, types)
}

func parseNotice(t *testing.T, text, types string) {
	t.Helper()
	e, err := gomessage.Read(strings.NewReader(text))
	if err != nil && !gomessage.IsUnknownCharset(err) {
		t.Fatal(err)
	}
	kind, params, err := e.Header.ContentType()
	parts := strings.Fields(types)
	if err != nil || kind != "multipart/report" || "message/"+params["report-type"] != parts[1] {
		t.Errorf("%s %v, %v", kind, params, err)
	}
	if e.Header.Get("Auto-Submitted") == "" || e.Header.Get("Return-Path") != "" || e.Header.Get("In-Reply-To") != "<1@here.test>" {
		t.Errorf("header: %v", e.Header)
	}
	var got []string
	for r := e.MultipartReader(); ; {
		part, err := r.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := part.Header.ContentType()
		got = append(got, kind)
		body, err := io.ReadAll(part.Body)
		if err != nil {
			t.Fatal(err)
		}
		switch len(got) {
		case 2:
			parseStatus(t, body)
		case 3:
			inner, err := textproto.ReadHeader(bufio.NewReader(io.MultiReader(bytes.NewReader(body), strings.NewReader("\r\n"))))
			if err != nil || inner.Get("Message-ID") != "<1@here.test>" || inner.Get("Return-Path") != "" {
				t.Errorf("returned: %v\n%s", err, body)
			}
		}
	}
	if strings.Join(got, " ") != types {
		t.Errorf("parts %v, want %s", got, types)
	}
}

// parseStatus reads the blocks of a delivery-status: RFC 3464 section 2.1.
func parseStatus(t *testing.T, body []byte) {
	t.Helper()
	r := bufio.NewReader(io.MultiReader(bytes.NewReader(body), strings.NewReader("\r\n\r\n")))
	message, err := textproto.ReadHeader(r)
	if err != nil || message.Get("Reporting-MTA") != "dns; mx.here.test" || message.Get("Arrival-Date") == "" {
		t.Errorf("per message: %v, %v", message, err)
	}
	recipients := 0
	for {
		one, err := textproto.ReadHeader(r)
		if err != nil || one.Len() == 0 {
			break
		}
		recipients++
		if one.Get("Final-Recipient") == "" || !validStatus(one.Get("Status")) ||
			!regexp.MustCompile("^(failed|delayed|relayed|delivered)$").MatchString(one.Get("Action")) {
			t.Errorf("per recipient: %v", one)
		}
	}
	if recipients == 0 {
		t.Errorf("no recipients in\n%s", body)
	}
}

// What others say never ends a field or a part of a notice, however hostile.
func TestHostileReply(t *testing.T) {
	bubble(t, nil, func(h *house) {
		h.world.answer = func(string, *Outgoing, Recipient) Outcome {
			return Outcome{Verdict: Failed, Code: 550, Status: "5.1.1\r\nX: y", Remote: "mx\r\nAction: delivered [1]", Text: "no\r\n\r\n--boundary\r\nX-Evil: \xff\x00" +
				strings.Repeat("word ", 1000) + strings.Repeat("x", 3000)}
		}
		h.send(sender, far)
		synctest.Wait()
		boxes := h.people.inbox(sender)
		if len(boxes) != 1 {
			t.Fatal(boxes)
		}
		parseNotice(t, boxes[0], "text/plain message/delivery-status text/rfc822-headers")
		if regexp.MustCompile(`(?m)^(X-Evil|X:|Action: delivered|--boundary)`).MatchString(boxes[0]) {
			t.Error(boxes[0])
		}
		for line := range strings.SplitSeq(boxes[0], "\r\n") {
			if len(line) > 998 || !isASCII(line) {
				t.Errorf("line of %d: %q", len(line), line)
			}
		}
	})
}
