package relay

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/queue"
	"mailsrv/internal/resolve"
)

// tlsServer does STARTTLS with its certificate, and takes a message after it.
const tlsServer = `
	S: 220 hello
	C: EHLO us.test
	S: 250-me
	S: 250 STARTTLS
	C: STARTTLS
	S: 220 go
	T:
	C: EHLO us.test
	S: 250-me
	S: 250 REQUIRETLS
	C* MAIL
	S: 250 ok
	C* RCPT
	S: 250 ok
	C: DATA
	S: 354 go
	D: *
	S: 250 taken
`

// refusedTLS is the same for a client that will not like the certificate.
const refusedTLS = `
	S: 220 hello
	C: EHLO us.test
	S: 250-me
	S: 250 STARTTLS
	C: STARTTLS
	S: 220 go
	T:
	X:
`

const year = 365 * 24 * time.Hour

// secured is a world with mx.p.test, the MX of p.test.
func secured(t *testing.T, cert *tls.Certificate, scripts ...string) *world {
	w := newWorld(t)
	w.dns.exchange("p.test", 10, "mx.p.test", "192.0.2.1")
	next := 0
	w.serve("192.0.2.1", func(c net.Conn) {
		w.mu.Lock()
		script := scripts[min(next, len(scripts)-1)]
		next++
		w.mu.Unlock()
		w.script(cert, script)(c)
	})
	return w
}

func TestOpportunisticTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert := newAuthority(t, "unknown CA").issue(-time.Hour, "some.other.test") // expired, for another, by nobody
		w := secured(t, &cert, tlsServer)
		out := try(t, w.relay(nil), mail(hi, "b@p.test"))
		want(t, out[0], "delivered 250 2.0.0 taken")
		if out[0].TLS != "TLS 1.3 TLS_AES_128_GCM_SHA256 unverified" {
			t.Error(out[0].TLS)
		}
	})
}

// A server that has not been touched for twenty years still gets TLS, where nothing has to be verified.
func TestOldTLS(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(year)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		old := strings.Replace(tlsServer, "T:", "T: old", 1)
		w := secured(t, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, old)
		out := try(t, w.relay(nil), mail(hi, "b@p.test"))
		want(t, out[0], "delivered")
		if out[0].TLS != "TLS 1.0 TLS_RSA_WITH_AES_128_CBC_SHA unverified" {
			t.Error(out[0].TLS)
		}
	})
}

// STARTTLS that does not work is no reason to keep mail that may go in clear.
func TestTLSFallsBack(t *testing.T) {
	for name, first := range map[string]string{
		"handshake":      "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nS: I speak no TLS\nX:",
		"cut":            "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 STARTTLS\nC: STARTTLS\nX:",
		"words in clear": "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 STARTTLS\nC: STARTTLS\nS+ 220 go\\r\\n250 evil\\r\\n\nX:",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := secured(t, nil, first, plainServer)
				out := try(t, w.relay(nil), mail(hi, "b@p.test"))
				want(t, out[0], "delivered 250 2.0.0 taken")
				if out[0].TLS != "" || len(w.dialled) != 2 {
					t.Errorf("%+v, %v", out[0], w.dialled)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // refused politely: on the same connection
		w := secured(t, nil, "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\n"+
			plainServer[strings.Index(plainServer, "C* MAIL"):])
		want(t, try(t, w.relay(nil), mail(hi, "b@p.test"))[0], "delivered")
		if len(w.dialled) != 1 {
			t.Error(w.dialled)
		}
	})
}

func sum256(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
func sum512(b []byte) []byte { s := sha512.Sum512(b); return s[:] }

func TestDANE(t *testing.T) {
	// The records are made of the leaf and its CA; ok: what the attempt comes to.
	type made struct{ leaf, ca *x509.Certificate }
	junk := make([]byte, 32)
	for _, test := range []struct {
		name    string
		records func(m made) []resolve.TLSA
		names   []string // of the certificate
		expired bool
		want    string
		tls     string
	}{
		{"3 1 1", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: sum256(m.leaf.RawSubjectPublicKeyInfo)}}
		}, []string{"whoever.test"}, true, "delivered", "dane"},
		{"3 0 2", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 3, Selector: 0, Matching: 2, Data: sum512(m.leaf.Raw)}}
		}, []string{"whoever.test"}, false, "delivered", "dane"},
		{"3 1 0", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 0, Data: m.leaf.RawSubjectPublicKeyInfo}}
		}, []string{"whoever.test"}, false, "delivered", "dane"},
		{"one of two", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: junk}, {Usage: 3, Selector: 1, Matching: 1, Data: sum256(m.leaf.RawSubjectPublicKeyInfo)}}
		}, []string{"whoever.test"}, false, "delivered", "dane"},
		{"the weaker digest does not count", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 2, Data: make([]byte, 64)}, {Usage: 3, Selector: 1, Matching: 1, Data: sum256(m.leaf.RawSubjectPublicKeyInfo)}}
		}, []string{"mx.p.test"}, false, "deferred 0 4.7.5 certificate refused (dane): the certificate matches none", ""},
		{"2 0 1", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 2, Selector: 0, Matching: 1, Data: sum256(m.ca.Raw)}}
		}, []string{"mx.p.test"}, false, "delivered", "dane"},
		{"2 1 2, for the domain's name", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 2, Selector: 1, Matching: 2, Data: sum512(m.ca.RawSubjectPublicKeyInfo)}}
		}, []string{"p.test"}, false, "delivered", "dane"},
		{"2 0 0", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 2, Selector: 0, Matching: 0, Data: m.ca.Raw}}
		}, []string{"mx.p.test"}, false, "delivered", "dane"},
		{"2 0 1, another name", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 2, Selector: 0, Matching: 1, Data: sum256(m.ca.Raw)}}
		}, []string{"whoever.test"}, false, "deferred 0 4.7.5 certificate refused (dane): x509: certificate is valid for whoever.test", ""},
		{"2 0 1, expired", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 2, Selector: 0, Matching: 1, Data: sum256(m.ca.Raw)}}
		}, []string{"mx.p.test"}, true, "deferred 0 4.7.5 certificate refused (dane): x509: certificate has expired", ""},
		{"mismatch", func(m made) []resolve.TLSA { return []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: junk}} },
			[]string{"mx.p.test"}, false, "deferred 0 4.7.5 certificate refused (dane): the certificate matches none", ""},
		{"only unusable: TLS with whomever", func(m made) []resolve.TLSA {
			return []resolve.TLSA{{Usage: 1, Selector: 1, Matching: 1, Data: junk}, {Usage: 3, Selector: 1, Matching: 9, Data: junk}, {Usage: 3, Selector: 1, Matching: 1, Data: junk[:5]},
				{Usage: 3, Selector: 0, Matching: 0, Data: junk}, {Usage: 3, Selector: 1, Matching: 0, Data: nil}}
		}, []string{"whoever.test"}, false, "delivered", "unverified"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newAuthority(t, "DANE CA")
				until := year
				if test.expired {
					until = -time.Hour
				}
				cert := ca.issue(until, test.names...)
				script := tlsServer
				if test.tls == "" {
					script = refusedTLS
				}
				w := secured(t, &cert, script)
				w.dns.secure = true
				w.dns.tlsa["_25._tcp.mx.p.test"] = test.records(made{cert.Leaf, ca.cert})
				out := try(t, w.relay(nil), mail(hi, "b@p.test"))
				want(t, out[0], test.want)
				if !strings.HasSuffix(out[0].TLS, test.tls) || len(w.dialled) != 1 {
					t.Errorf("TLS %q, dialled %v", out[0].TLS, w.dialled)
				}
			})
		})
	}
}

func TestDANEMeansTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stripped := "S: 220 hi\nC* EHLO\nS: 250 me\nC: QUIT\nS: 221 bye\nX:"
		w := secured(t, nil, stripped)
		w.dns.secure = true
		w.dns.tlsa["_25._tcp.mx.p.test"] = []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}
		r := w.relay(nil)
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "deferred 0 4.7.4 TLS is required here (dane) and was not offered")

		w.dns.fail["TLSA _25._tcp.mx.p.test"] = true // maybe there, maybe not: not in clear
		want(t, try(t, r, mail(hi, "b@p.test"))[0], "deferred 0 4.7.0 mx.p.test may have DANE")
	})
	synctest.Test(t, func(t *testing.T) { // without DNSSEC the records are anybody's
		w := secured(t, nil, plainServer)
		w.dns.tlsa["_25._tcp.mx.p.test"] = []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}
		want(t, try(t, w.relay(nil), mail(hi, "b@p.test"))[0], "delivered")
	})
	synctest.Test(t, func(t *testing.T) { // the sender asks for delivery whatever the TLS
		w := secured(t, nil, plainServer)
		w.dns.secure = true
		w.dns.tlsa["_25._tcp.mx.p.test"] = []resolve.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}
		want(t, try(t, w.relay(nil), mail("tls-required: no\r\n"+hi, "b@p.test"))[0], "delivered")
	})
	synctest.Test(t, func(t *testing.T) { // an MX that is an alias: the TLSA records of the end of it
		ca := newAuthority(t, "DANE CA")
		cert := ca.issue(year, "whoever.test")
		w := secured(t, &cert, tlsServer)
		w.dns.secure = true
		w.dns.mx["p.test"][0].Host = "alias.p.test"
		w.dns.alias["alias.p.test"] = "mx.p.test"
		w.dns.tlsa["_25._tcp.mx.p.test"] = []resolve.TLSA{{Usage: 3, Selector: 0, Matching: 1, Data: sum256(cert.Leaf.Raw)}}
		out := try(t, w.relay(nil), mail(hi, "b@p.test"))
		want(t, out[0], "delivered")
		if !strings.HasSuffix(out[0].TLS, "dane") {
			t.Error(out[0].TLS)
		}
	})
}

// policyServer answers HTTPS at mta-sts.p.test, and counts.
type policyServer struct {
	status  string
	header  string
	body    string
	fetched int
}

func (p *policyServer) handle(w *world, cert *tls.Certificate) func(net.Conn) {
	return func(c net.Conn) {
		tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
		req, err := http.ReadRequest(bufio.NewReader(tc))
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		p.fetched++
		if req.URL.Path != "/.well-known/mta-sts.txt" || req.Host != "mta-sts.p.test" {
			w.t.Errorf("asked for %s at %s", req.URL, req.Host)
		}
		header := p.header
		if header == "" {
			header = "Content-Type: text/plain; charset=utf-8"
		}
		status := p.status
		if status == "" {
			status = "200 OK"
		}
		_, _ = fmt.Fprintf(tc, "HTTP/1.1 %s\r\n%s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, header, len(p.body), p.body)
		_ = tc.CloseWrite()
	}
}

// withPolicy adds an MTA-STS policy to the world of secured.
func withPolicy(w *world, body string) *policyServer {
	p := &policyServer{body: body}
	cert := w.ca.issue(year, "mta-sts.p.test")
	w.dns.txt["_mta-sts.p.test"] = []string{"v=STSv1; id=1;"}
	w.dns.host("mta-sts.p.test", "192.0.2.9")
	w.serve("192.0.2.9:443", p.handle(w, &cert))
	return p
}

const enforce = "version: STSv1\r\nmode: enforce\r\nmx: *.p.test\r\nmax_age: 604800\r\n"

func TestMTASTS(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy string
		names  []string
		script string
		want   string
		tls    string
	}{
		{"enforced, good", enforce, []string{"mx.p.test"}, tlsServer, "delivered", "mta-sts"},
		{"enforced, wrong name", enforce, []string{"other.p.test"}, refusedTLS, "deferred 0 4.7.5 certificate refused (mta-sts): x509: certificate is valid for other.p.test", ""},
		{"enforced, stripped", enforce, []string{"mx.p.test"}, "S: 220 hi\nC* EHLO\nS: 250 me\nC: QUIT\nX:", "deferred 0 4.7.4", ""},
		{"enforced, not one of its hosts", strings.Replace(enforce, "*.p.test", "*.mx.p.test", 1), []string{"mx.p.test"}, "", "deferred 0 4.7.0 mx.p.test is no server of p.test by its MTA-STS policy", ""},
		{"testing, wrong name", strings.Replace(enforce, "enforce", "testing", 1), []string{"other.p.test"}, tlsServer, "delivered", "unverified"},
		{"testing, good", strings.Replace(enforce, "enforce", "testing", 1), []string{"mx.p.test"}, tlsServer, "delivered", "mta-sts"},
		{"testing, not one of its hosts", "version: STSv1\nmode: testing\nmx: x.test\nmax_age: 1\n", []string{"mx.p.test"}, plainServer, "delivered", ""},
		{"none", "version: STSv1\nmode: none\nmax_age: 604800\n", []string{"other.p.test"}, tlsServer, "delivered", "unverified"},
		{"no policy", "<html>", []string{"other.p.test"}, tlsServer, "delivered", "unverified"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				cert := w.ca.issue(year, test.names...)
				w.dns.exchange("p.test", 10, "mx.p.test", "192.0.2.1")
				w.serve("192.0.2.1", w.script(&cert, test.script))
				withPolicy(w, test.policy)
				out := try(t, w.relay(nil), mail(hi, "b@p.test"))
				want(t, out[0], test.want)
				if !strings.HasSuffix(out[0].TLS, test.tls) {
					t.Error(out[0].TLS)
				}
			})
		})
	}
}

// memory is a Store.
type memory map[string][]byte

func (m memory) Load(key string) ([]byte, error) { return m[key], nil }
func (m memory) Save(key string, v []byte) error { m[key] = v; return nil }
func (m memory) Delete(key string) error         { delete(m, key); return nil }

func TestPolicyLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := withPolicy(w, enforce)
		store := memory{}
		r := w.relay(func(o *Options) { o.Store = store })
		look := func(r *Relay, mode string, fetched int, problem string) {
			t.Helper()
			got, why := r.sts.policy(t.Context(), "p.test")
			kind := ""
			if why != nil {
				kind = why.kind
			}
			have := ""
			if got != nil {
				have = got.Mode
			}
			if have != mode || p.fetched != fetched || kind != problem {
				t.Errorf("policy %q, fetched %d, problem %q; want %q, %d, %q", have, p.fetched, kind, mode, fetched, problem)
			}
		}
		look(r, "enforce", 1, "")
		look(r, "enforce", 1, "")
		look(w.relay(func(o *Options) { o.Store = store }), "enforce", 1, "") // over a restart

		p.body = strings.Replace(enforce, "enforce", "testing", 1)
		look(r, "enforce", 1, "")
		w.dns.txt["_mta-sts.p.test"] = []string{"v=STSv1; id=2;"}
		look(r, "testing", 2, "")

		p.status = "301 Moved\r\nLocation: https://mta-sts.p.test/other"
		time.Sleep(25 * time.Hour) // to be refreshed; it cannot be: the old one holds
		look(r, "testing", 3, "sts-policy-fetch-error")
		look(r, "testing", 3, "") // five minutes' peace
		time.Sleep(6 * time.Minute)
		p.status = ""
		look(r, "testing", 4, "")

		delete(w.dns.txt, "_mta-sts.p.test") // the record gone, or kept from us: the policy holds until its age
		time.Sleep(6 * 24 * time.Hour)
		look(r, "testing", 4, "")
		time.Sleep(2 * 24 * time.Hour)
		look(r, "", 4, "")
		if len(store) != 0 {
			t.Error("an old policy is kept")
		}

		w.dns.txt["_mta-sts.p.test"] = []string{"v=STSv1; id=3;"}
		p.header = "Content-Type: text/html"
		look(r, "", 5, "sts-policy-invalid")
		time.Sleep(6 * time.Minute)
		p.header, p.body = "", enforce+strings.Repeat("x: y\n", 20000)
		look(r, "", 6, "sts-policy-invalid")
		time.Sleep(6 * time.Minute)
		other := newAuthority(t, "other").issue(year, "mta-sts.p.test")
		w.serve("192.0.2.9:443", p.handle(w, &other))
		look(r, "", 6, "sts-webpki-invalid")
		time.Sleep(6 * time.Minute)
		w.serve("192.0.2.9:443", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // says nothing
		start := time.Now()
		look(r, "", 6, "sts-policy-fetch-error")
		if took := time.Since(start); took != time.Minute {
			t.Errorf("waited %v for a policy", took)
		}
	})
}

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]string{
		enforce: "enforce [*.p.test] 168h0m0s",
		"mode:testing\nversion:  STSv1\n\nmax_age: 1\nmx:A.Bücher.test\nmx: b\nfoo: bar": "testing [a.xn--bcher-kva.test b] 1s",
		"version: STSv1\nmode: none\nmax_age: 99999999999":                               "",
		"version: STSv1\nmode: none\nmax_age: 9999999999":                                "none [] 8766h0m0s",
		"version: STSv1\nmode: enforce\nmode: none\nmax_age: 1\nmx: a":                   "enforce [a] 1s",
		"version: STSv2\nmode: none\nmax_age: 1":                                         "",
		"version: STSv1\nmode: enforce\nmax_age: 1":                                      "",
		"version: STSv1\nmode: strict\nmax_age: 1\nmx: a":                                "",
		"version: STSv1\nmode: none\nmax_age: -1":                                        "",
		"version: STSv1\nmode: none\nmax_age: 1\njunk":                                   "",
		"": "",
	} {
		p, err := parseSTSPolicy(text)
		got := ""
		if err == nil {
			got = fmt.Sprint(p.Mode, " ", p.MX, " ", p.MaxAge)
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	p := &stsPolicy{MX: []string{"*.a.test", "b.test"}}
	for mx, want := range map[string]bool{"x.a.test": true, "a.test": false, "x.y.a.test": false, ".a.test": false, "B.test": true, "x.b.test": false, "": false} {
		if p.allows(mx) != want {
			t.Errorf("%s: %v", mx, !want)
		}
	}
	for txt, want := range map[string]string{
		"v=STSv1; id=20160831085700Z;": "20160831085700Z", "v=STSv1;id=1": "1", "v=STSv1 ; x=y; id=2": "2", "v=STSv2; id=1": "",
		"id=1; v=STSv1": "", "v=STSv1; id=": "", "v=STSv1": "", "spf": "",
	} {
		if got := stsID([]string{"other", txt}); got != want {
			t.Errorf("%q: %q", txt, got)
		}
	}
	if stsID([]string{"v=STSv1; id=1", "v=STSv1; id=2"}) != "" {
		t.Error("two records are none")
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(enforce)
	f.Add("version: STSv1\nmode: none\nmax_age: 9999999999\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseSTSPolicy(text)
		if err != nil {
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxPolicyAge*time.Second || len(p.MX) > maxPolicyMX || p.Mode != stsNone && len(p.MX) == 0 {
			t.Errorf("%+v", p)
		}
		p.allows("mx.p.test")
		stsID([]string{text})
		parseRUA([]string{text})
	})
}

func FuzzTLSA(f *testing.F) {
	f.Add(byte(3), byte(1), byte(1), make([]byte, 32))
	f.Add(byte(2), byte(0), byte(0), []byte{0x30, 0x82})
	f.Add(byte(3), byte(1), byte(0), []byte{0x30, 0x59})
	cert := newAuthority(f, "fuzz").cert
	f.Fuzz(func(t *testing.T, usage, selector, matching byte, data []byte) {
		records := usable([]resolve.TLSA{{Usage: usage, Selector: selector, Matching: matching, Data: data}})
		if len(records) == 1 && (usage < 2 || usage > 3 || selector > 1 || matching > 2) {
			t.Errorf("usable: %+v", records[0])
		}
		if verifyDANE([]*x509.Certificate{cert}, records, []string{"a.test"}, time.Now()) == nil && !strings.Contains(hex.EncodeToString(data), "30") && len(data) < 32 {
			t.Errorf("matches: %+v", records)
		}
	})
}

func TestREQUIRETLS(t *testing.T) {
	need := func(m *queue.Outgoing) { m.RequireTLS = true }
	run := func(name, want_ string, setup func(w *world) (script string, cert tls.Certificate)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dns.exchange("p.test", 10, "mx.p.test", "192.0.2.1")
				script, cert := setup(w)
				w.serve("192.0.2.1", w.script(&cert, script))
				want(t, try(t, w.relay(nil), with(mail(hi, "b@p.test"), need))[0], want_)
			})
		})
	}
	good := strings.Replace(tlsServer, "C* MAIL", "C: MAIL FROM:<a@us.test> REQUIRETLS", 1)
	run("MTA-STS", "delivered", func(w *world) (string, tls.Certificate) {
		withPolicy(w, enforce)
		return good, w.ca.issue(year, "mx.p.test")
	})
	run("DNSSEC and a certificate", "delivered", func(w *world) (string, tls.Certificate) {
		w.dns.secure = true
		return good, w.ca.issue(year, "mx.p.test")
	})
	run("DANE", "delivered", func(w *world) (string, tls.Certificate) {
		cert := newAuthority(t, "x").issue(year, "x.test")
		w.dns.secure = true
		w.dns.tlsa["_25._tcp.mx.p.test"] = []resolve.TLSA{{Usage: 3, Selector: 0, Matching: 1, Data: sum256(cert.Leaf.Raw)}}
		return good, cert
	})
	run("nobody vouches", "failed 0 5.7.30 the message requires TLS", func(w *world) (string, tls.Certificate) {
		return "", w.ca.issue(year, "mx.p.test")
	})
	run("wrong certificate", "failed 0 5.7.10 certificate refused", func(w *world) (string, tls.Certificate) {
		w.dns.secure = true
		return refusedTLS, w.ca.issue(year, "x.test")
	})
	run("stripped", "failed 0 5.7.10 TLS is required here", func(w *world) (string, tls.Certificate) {
		w.dns.secure = true
		return "S: 220 hi\nC* EHLO\nS: 250 me\nC: QUIT\nX:", w.ca.issue(year, "mx.p.test")
	})
	run("not offered", "failed 0 5.7.30 the message must not go where REQUIRETLS is not offered", func(w *world) (string, tls.Certificate) {
		w.dns.secure = true
		script, _, _ := strings.Cut(tlsServer, "S: 250 REQUIRETLS")
		return script[:strings.LastIndex(script, "S: 250-me")] + "S: 250 me\nC: QUIT\nX:", w.ca.issue(year, "mx.p.test")
	})
}

// RFC 8689 section 5: a bounce of a message with REQUIRETLS asks for it where it can, and is not lost where it cannot.
func TestREQUIRETLSBounce(t *testing.T) {
	bounce := func(m *queue.Outgoing) { m.RequireTLS, m.Sender = true, "" }
	for script, offered := range map[string]bool{
		strings.Replace(tlsServer, "C* MAIL", "C: MAIL FROM:<> REQUIRETLS", 1):                                  true,
		ehlo + "S: 250 me\nC: MAIL FROM:<>\nS: 250 ok\nC* RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nD: *\nS: 250 ok": false,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.dns.exchange("p.test", 10, "mx.p.test", "192.0.2.1")
			cert := w.ca.issue(year, "mx.p.test")
			w.serve("192.0.2.1", w.script(&cert, script))
			out := try(t, w.relay(nil), with(mail(hi, "b@p.test"), bounce))[0]
			want(t, out, "delivered")
			if (out.TLS != "") != offered {
				t.Error(out.TLS)
			}
		})
	}
}

// A server whose TLS will not do makes place for the next one; the mail waits only if there is none.
func TestNextHostAfterTLSFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bad, good := w.ca.issue(-time.Hour, "mx1.p.test"), w.ca.issue(year, "mx2.p.test")
		w.dns.exchange("p.test", 10, "mx1.p.test", "192.0.2.1")
		w.dns.exchange("p.test", 20, "mx2.p.test", "192.0.2.2")
		w.serve("192.0.2.1", w.script(&bad, refusedTLS))
		w.serve("192.0.2.2", w.script(&good, tlsServer))
		withPolicy(w, enforce)
		out := try(t, w.relay(nil), mail(hi, "b@p.test"))
		want(t, out[0], "delivered")
		if out[0].Remote != "mx2.p.test [192.0.2.2]:25" {
			t.Error(out[0].Remote)
		}
	})
}
