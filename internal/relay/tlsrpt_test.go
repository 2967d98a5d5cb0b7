package relay

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/resolve"
)

type reporter struct {
	mu   sync.Mutex
	got  []Report
	fail error
}

func (p *reporter) failWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// tallied is how many counters there are.
func tallied(r *Relay) int {
	r.tlsrpt.mu.Lock()
	defer r.tlsrpt.mu.Unlock()
	return len(r.tlsrpt.tallies)
}

func (p *reporter) send(_ context.Context, r Report) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	p.got = append(p.got, r)
	return nil
}

// document reads a report mail back.
func document(t *testing.T, r Report) map[string]any {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(r.Message))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, _ := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if kind != "multipart/report" || params["report-type"] != "tlsrpt" || m.Header.Get("TLS-Required") != "No" ||
		m.Header.Get("TLS-Report-Domain") != r.Domain || m.Header.Get("TLS-Report-Submitter") != "us.test" {
		t.Errorf("header %v", m.Header)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if p, err := parts.NextPart(); err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/plain") {
		t.Fatal(err)
	}
	p, err := parts.NextPart()
	if err != nil || p.Header.Get("Content-Type") != "application/tlsrpt+gzip" || p.FileName() != "us.test!p.test!946684800!946771199.json.gz" {
		t.Fatalf("%v %v", p.Header, err)
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.NewDecoder(z).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTLSReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cert := w.ca.issue(year, "mx.p.test")
		w.dns.exchange("p.test", 10, "mx.p.test", "192.0.2.1")
		w.dns.txt["_smtp._tls.p.test"] = []string{"v=TLSRPTv1; rua=mailto:tls%2Breports@p.test,mailto:x@y.test?subject=z"}
		withPolicy(w, enforce)
		to, store := &reporter{}, memory{}
		options := func(o *Options) { o.SendReport, o.Store = to.send, store }
		r := w.relay(options)
		w.serve("192.0.2.1", w.script(&cert, tlsServer))
		for range 2 { // the second goes over the first one's session, and is none
			w.serve("192.0.2.1", w.script(&cert, tlsServer))
			want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
			time.Sleep(time.Minute)
		}
		other := w.ca.issue(year, "other.test")
		w.serve("192.0.2.1", w.script(&other, refusedTLS))
		for range 3 {
			want(t, try(t, r, mail(hi, "b@p.test"))[0], "deferred 0 4.7.5")
		}
		w.serve("192.0.2.1", w.script(nil, "S: 220 hi\nC* EHLO\nS: 250 me\nC: QUIT\nX:"))
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "deferred 0 4.7.4")
		r.Close() // the counters outlive it
		if len(to.got) != 0 {
			t.Fatal("a report before its day is over")
		}

		to.failWith(errors.New("not now"))
		r = w.relay(options)
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		to.failWith(nil)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(to.got) != 1 {
			t.Fatalf("%d reports", len(to.got))
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if len(to.got) != 1 || tallied(r) != 0 {
			t.Error("a day reported twice")
		}
		rep := to.got[0]
		if rep.Domain != "p.test" || rep.From != "postmaster@us.test" || !slices.Equal(rep.To, []string{"tls+reports@p.test", "x@y.test"}) {
			t.Errorf("%+v", rep)
		}
		doc := document(t, rep)
		text, _ := json.Marshal(doc)
		const wanted = `{"contact-info":"postmaster@us.test","date-range":{"end-datetime":"2000-01-01T23:59:59Z","start-datetime":"2000-01-01T00:00:00Z"},` +
			`"organization-name":"us.test","policies":[{"failure-details":[` +
			`{"additional-information":"x509: certificate is valid for other.test, not mx.p.test","failed-session-count":3,"receiving-ip":"192.0.2.1","receiving-mx-hostname":"mx.p.test","result-type":"certificate-host-mismatch","sending-mta-ip":"198.51.100.1"},` +
			`{"additional-information":"TLS is required here (mta-sts) and was not offered","failed-session-count":1,"receiving-ip":"192.0.2.1","receiving-mx-hostname":"mx.p.test","result-type":"starttls-not-supported","sending-mta-ip":"198.51.100.1"}],` +
			`"policy":{"mx-host":["*.p.test"],"policy-domain":"p.test","policy-string":["version: STSv1","mode: enforce","mx: *.p.test","max_age: 604800"],"policy-type":"sts"},` +
			`"summary":{"total-failure-session-count":4,"total-successful-session-count":2}}],"report-id":"2000-01-01_p.test@us.test"}`
		if string(text) != wanted {
			t.Errorf("%s\nwant\n%s", text, wanted)
		}
	})
}

// Who publishes no address gets no report, and nothing is kept for them; without SendReport nothing is counted.
func TestNoReportAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert := newAuthority(t, "x").issue(year, "x.test")
		w := secured(t, &cert, tlsServer)
		to := &reporter{}
		r := w.relay(func(o *Options) { o.SendReport = to.send })
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
		if tallied(r) != 1 {
			t.Fatal("not counted")
		}
		time.Sleep(30 * time.Hour)
		synctest.Wait()
		if len(to.got) != 0 || tallied(r) != 0 {
			t.Errorf("%d reports, %d kept", len(to.got), tallied(r))
		}
		quiet := w.relay(nil)
		want(t, try(t, quiet, mail(hi, "b@p.test"))[0], "delivered")
		if tallied(quiet) != 0 {
			t.Error("counted for nobody")
		}
	})
}

func TestTLSReportDANE(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert := newAuthority(t, "x").issue(year, "x.test")
		w := secured(t, &cert, tlsServer)
		w.dns.secure = true
		w.dns.tlsa["_25._tcp.mx.p.test"] = []resolve.TLSA{{Usage: 3, Selector: 0, Matching: 1, Data: sum256(cert.Leaf.Raw)}}
		w.dns.txt["_smtp._tls.p.test"] = []string{"v=TLSRPTv1;rua=mailto:a@p.test"}
		to := &reporter{}
		r := w.relay(func(o *Options) { o.SendReport = to.send })
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "delivered")
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		if len(to.got) != 1 {
			t.Fatal(len(to.got))
		}
		policy := document(t, to.got[0])["policies"].([]any)[0].(map[string]any)["policy"].(map[string]any)
		if policy["policy-type"] != "tlsa" || !strings.HasPrefix(policy["policy-string"].([]any)[0].(string), "3 0 1 ") {
			t.Errorf("%v", policy)
		}
	})
}

func TestTalliesAreBounded(t *testing.T) {
	r := New(Options{Hostname: "us.test", SendReport: (&reporter{}).send})
	defer r.Close()
	for i := range 100 {
		sec := &security{policy: policyUsed{kind: "sts", domain: "p.test"}}
		r.tlsrpt.session(target{host: &host{name: strings.Repeat("x", i)}}, nil, sec, &tlsProblem{"validation-failure", "x"})
	}
	for _, y := range r.tlsrpt.tallies {
		if len(y.Details) != maxDetails || y.Failure != 100 {
			t.Errorf("%d details of %d", len(y.Details), y.Failure)
		}
	}
}

func TestParseRUA(t *testing.T) {
	for txt, want := range map[string]string{
		"v=TLSRPTv1; rua=mailto:a@b.test":                                        "[a@b.test] []",
		"v=TLSRPTv1;rua= mailto:a@b.test , https://r.test/x?y":                   "[a@b.test] [https://r.test/x?y]",
		"v=TLSRPTv1; x=1; rua=http://r.test/,ftp://x,junk,mailto:,mailto:nobody": "[] []",
		"v=TLSRPTv1; rua=mailto:a%0d%0aBcc:x@b.test":                             "[] []",
		"v=TLSRPTv1; rua=mailto:a,b@b.test":                                      "[] []",
		"v=TLSRPTv2; rua=mailto:a@b.test":                                        "[] []",
		"v=TLSRPTv1; rua=" + strings.Repeat("mailto:a@b.test,", 50):              "[a@b.test a@b.test a@b.test a@b.test a@b.test] []",
	} {
		mailto, web := parseRUA([]string{"v=spf1", txt})
		if got := strings.TrimSpace(join(mailto) + " " + join(web)); got != want {
			t.Errorf("%.60q: %s, want %s", txt, got, want)
		}
	}
}

func join(list []string) string { return "[" + strings.Join(list, " ") + "]" }
