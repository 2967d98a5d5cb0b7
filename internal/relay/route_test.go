package relay

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsrv/internal/queue"
)

func TestDestination(t *testing.T) {
	r := New(Options{Hostname: "us.test", Routes: []Route{
		{Domain: "Partner.test", Host: "a:1"},
		{Domain: "*", Host: "b:1"},
		{Domain: "*", Sender: "Boss@Us.test", Host: "c:1"},
		{Domain: "*", Sender: "sub.test", Host: "d:1"},
		{Domain: "bücher.test", Sender: "us.test", Host: "e:1"},
	}})
	defer r.Close()
	plain := New(Options{Hostname: "us.test"})
	defer plain.Close()
	for _, test := range []struct{ sender, rcpt, want, without string }{
		{"a@us.test", "b@PARTNER.test", "partner.test", "partner.test"},
		{"boss@us.test", "b@partner.test", "partner.test", "partner.test"},
		{"boss@US.test", "b@else.test", "* from boss@us.test", "else.test"},
		{"x@sub.test", "b@else.test", "* from sub.test", "else.test"},
		{"x@us.test", "b@else.test.", "*", "else.test"},
		{"", "b@else.test", "*", "else.test"},
		{"x@us.test", "b@Bücher.test", "xn--bcher-kva.test from us.test", "xn--bcher-kva.test"},
		{"x@other.test", "b@Bücher.test", "*", "xn--bcher-kva.test"},
		{"x@other.test", "b@[IPv6:2001:DB8::1]", "*", "[ipv6:2001:db8::1]"},
		{"x@other.test", "b@_odd.test", "*", "_odd.test"},
	} {
		if got := r.Destination(test.sender, test.rcpt); got != test.want {
			t.Errorf("%s → %s: %q, want %q", test.sender, test.rcpt, got, test.want)
		}
		if got := plain.Destination(test.sender, test.rcpt); got != test.without {
			t.Errorf("without routes: %s: %q, want %q", test.rcpt, got, test.without)
		}
	}
}

// routed runs a message over one route to smart.test.
func routed(t *testing.T, route Route, names []string, script string, change func(*queue.Outgoing)) ([]queue.Outcome, *world) {
	w := newWorld(t)
	w.dns.host("smart.test", "192.0.2.5")
	if names == nil {
		names = []string{"smart.test"}
	}
	cert := w.ca.issue(year, names...)
	serve := w.script(&cert, script)
	w.serve("192.0.2.5:587", serve)
	w.serve("127.0.0.1:587", serve)
	w.serve("127.0.0.1:9050", serve)
	route.Domain = "*"
	if route.Host == "" {
		route.Host = "smart.test:587"
	}
	m := mail(hi, "b@anywhere.test")
	if change != nil {
		change(m)
	}
	return try(t, w.relay(func(o *Options) { o.Routes = []Route{route} }), m), w
}

const submission = `
	S: 220 hello
	C: EHLO us.test
	S: 250-me
	S: 250 STARTTLS
	C: STARTTLS
	S: 220 go
	T:
	C: EHLO us.test
	S: 250-me
	S: 250 AUTH PLAIN LOGIN
	C: AUTH PLAIN AG1lAHNlY3JldA==
	S: 235 2.7.0 welcome
	C* MAIL
	S: 250 ok
	C* RCPT
	S: 250 ok
	C: DATA
	S: 354 go
	D: *
	S: 250 taken
`

func TestRoutes(t *testing.T) {
	login := func(r Route) Route { r.Username, r.Password = "me", "secret"; return r }
	cut := func(s, at string) string { before, _, _ := strings.Cut(s, at); return before }
	for _, test := range []struct {
		name   string
		route  Route
		names  []string
		script string
		want   string
		tls    string
	}{
		{"plain", Route{TLS: TLSNone}, nil, strings.Replace(plainServer, "S: 250 me", "S: 250-me\nS: 250 STARTTLS", 1), "delivered", ""},
		{"required, PLAIN", login(Route{TLS: TLSRequire}), nil, submission, "delivered", "pkix"},
		{"LOGIN", login(Route{TLS: TLSRequire}), nil, strings.NewReplacer("AUTH PLAIN LOGIN", "AUTH=LOGIN",
			"C: AUTH PLAIN AG1lAHNlY3JldA==", "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: bWU=\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0").Replace(submission), "delivered", "pkix"},
		{"implicit", login(Route{TLS: TLSImplicit}), nil, "T:\nS: 220 hi\n" + submission[strings.LastIndex(submission, "C: EHLO"):], "delivered", "pkix"},
		{"wrong certificate", login(Route{TLS: TLSRequire}), []string{"x.test"}, cut(submission, "T:") + "T:\nX:", "deferred 0 4.7.5 certificate refused (pkix)", ""},
		{"wrong certificate, implicit", login(Route{TLS: TLSImplicit}), []string{"x.test"}, "T:\nX:", "deferred 0 4.7.5 certificate refused (pkix)", ""},
		{"stripped", login(Route{TLS: TLSRequire}), nil, "S: 220 hi\nC* EHLO\nS: 250 AUTH PLAIN\nC: QUIT\nX:", "deferred 0 4.7.4", ""},
		{"wrong password is no bounce", login(Route{TLS: TLSRequire}), nil, cut(submission, "S: 235") + "S: 535 5.7.8 who are you\nC: QUIT\nX:", "deferred 535 4.7.8 login refused: who are you", "pkix"},
		{"a password said back is not kept", login(Route{TLS: TLSRequire}), nil, cut(submission, "S: 235") +
			"S: 535 5.7.8 AG1lAHNlY3JldA== c2VjcmV0 secret: no\nC: QUIT\nX:", "deferred 535 4.7.8 login refused: … … …: no", "pkix"},
		{"no way to log in", login(Route{TLS: TLSRequire}), nil, strings.Replace(cut(submission, "C: AUTH"), "AUTH PLAIN LOGIN", "AUTH GSSAPI", 1) + "C: QUIT\nX:", "deferred 0 4.7.0 the route for * has a login, and the server offers no way", "pkix"},
		{"endless login", login(Route{TLS: TLSRequire}), nil, cut(submission, "S: 235") + "S: 334 eA==\nX:", "deferred 0 4.4.2", "pkix"},
		{"no login in clear", login(Route{TLS: TLSNone}), nil, "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 AUTH PLAIN\nC: QUIT\nX:", "deferred 0 4.7.11 the route for * has a login, and this connection no TLS", ""},
		{"nor where TLS fell away", login(Route{TLS: TLSOpportunistic}), nil, "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 AUTH PLAIN\nC: QUIT\nX:", "deferred 0 4.7.11", ""},
		{"in clear on loopback", login(Route{TLS: TLSNone, Host: "127.0.0.1:587"}), nil,
			"S: 220 hi\n" + submission[strings.LastIndex(submission, "C: EHLO"):], "delivered", ""},
		{"EHLO name", Route{Hello: "other.test"}, nil, strings.Replace(plainServer, "C* EHLO", "C: EHLO other.test", 1), "delivered", ""},
		{"no such host", Route{Host: "nowhere.test:25"}, nil, "", "deferred 0 4.4.4 the route for * leads to nowhere.test", ""},
		{"source of the other family", Route{Source: netip.MustParseAddr("2001:db8::1")}, nil, "", "deferred 0 4.4.4", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out, _ := routed(t, test.route, test.names, test.script, nil)
				want(t, out[0], test.want)
				if !strings.HasSuffix(out[0].TLS, test.tls) {
					t.Error(out[0].TLS)
				}
			})
		})
	}
}

func TestRouteWithREQUIRETLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := strings.Replace(tlsServer, "C* MAIL", "C: MAIL FROM:<a@us.test> REQUIRETLS", 1)
		out, _ := routed(t, Route{TLS: TLSNone}, nil, script, func(m *queue.Outgoing) { m.RequireTLS = true })
		want(t, out[0], "delivered")
	})
}

func TestSourceAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.host("smart.test", "192.0.2.5", "2001:db8::5")
		var from net.Addr
		w.serve("192.0.2.5:25", func(c net.Conn) { from = c.RemoteAddr(); w.script(nil, plainServer)(c) })
		r := w.relay(func(o *Options) {
			o.Routes = []Route{{Domain: "*", Host: "smart.test:25", Source: netip.MustParseAddr("198.51.100.77")}}
		})
		want(t, try(t, r, mail(hi, "b@anywhere.test"))[0], "delivered")
		if from.String() != "198.51.100.77:4711" {
			t.Error(from)
		}
	})
}

// The proxy gets the name, and a login in clear is not sent through it though it is on loopback.
func TestSOCKS(t *testing.T) {
	for _, login := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			asked := ""
			w.serve("127.0.0.1:9050", func(c net.Conn) {
				b := make([]byte, 300)
				_, _ = io.ReadFull(c, b[:3]) // version 5, one method: none
				_, _ = c.Write([]byte{5, 0})
				_, _ = io.ReadFull(c, b[:5]) // connect, by name
				n := int(b[4])
				_, _ = io.ReadFull(c, b[:n+2])
				asked = string(b[:n])
				_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
				if login {
					w.script(nil, "S: 220 hi\nC* EHLO\nS: 250-me\nS: 250 AUTH PLAIN\nC: QUIT\nX:")(c)
					return
				}
				w.script(nil, plainServer)(c)
			})
			route := Route{Domain: "*", Host: "hidden.onion:25", SOCKS: "127.0.0.1:9050", TLS: TLSNone}
			if login {
				route.Username, route.Password = "me", "secret"
			}
			r := w.relay(func(o *Options) { o.Routes = []Route{route} })
			out := try(t, r, mail(hi, "b@anywhere.test"))
			want(t, out[0], map[bool]string{false: "delivered", true: "deferred 0 4.7.11"}[login])
			if asked != "hidden.onion" || out[0].Remote != "hidden.onion:25" {
				t.Errorf("asked for %q, remote %q", asked, out[0].Remote)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // a proxy that says nothing
		w := newWorld(t)
		w.serve("127.0.0.1:9050", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		r := w.relay(func(o *Options) { o.Routes = []Route{{Domain: "*", Host: "h:25", SOCKS: "127.0.0.1:9050"}} })
		start := time.Now()
		want(t, try(t, r, mail(hi, "b@anywhere.test"))[0], "deferred 0 4.4.1 cannot connect")
		if took := time.Since(start); took != 30*time.Second {
			t.Error(took)
		}
	})
}

func TestOwnAddresses(t *testing.T) {
	own := OwnAddresses([]string{"192.0.2.1:25", "[2001:db8::1]:2525", ":26", "junk", "x:y"})
	has := func(s string) bool {
		for _, a := range own {
			if a == netip.MustParseAddrPort(s) {
				return true
			}
		}
		return false
	}
	if !has("192.0.2.1:25") || !has("[2001:db8::1]:2525") || !has("127.0.0.1:26") || has("127.0.0.1:25") {
		t.Error(own)
	}
}
