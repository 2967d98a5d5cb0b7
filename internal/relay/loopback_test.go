package relay

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"mailsrv/internal/resolve"
	"mailsrv/internal/resolve/resolvetest"
)

// All of it over real sockets: a resolver asking our DNS server, DANE by its AD bit, TCP, TLS.
func TestOverLoopback(t *testing.T) {
	ns := resolvetest.New(t)
	dns, err := resolve.New(resolve.Options{Server: ns.Addr(), Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	w := newWorld(t)
	cert := newAuthority(t, "nobody's").issue(time.Hour, "x.test")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		w.script(&cert, tlsServer)(c)
		_, _ = io.Copy(io.Discard, c)
	}()
	ns.Add("p.test. 60 IN MX 10 mx.p.test.", "mx.p.test. 60 IN A 127.0.0.1",
		"null.test. 60 IN MX 0 .",
		"_"+itoaPort(port)+"._tcp.mx.p.test. 60 IN TLSA 3 0 1 "+hexOf(sum256(cert.Leaf.Raw)))
	ns.Secure("p.test", "mx.p.test", "_"+itoaPort(port)+"._tcp.mx.p.test")
	r := New(Options{Hostname: "us.test", Resolver: dns, Port: port})
	out := try(t, r, mail(hi, "b@p.test"))
	want(t, out[0], "delivered 250 2.0.0 taken")
	if out[0].TLS != "TLS 1.3 TLS_AES_128_GCM_SHA256 dane" || out[0].Connect <= 0 || out[0].Transfer <= 0 {
		t.Errorf("%+v", out[0])
	}
	want(t, try(t, r, mail(hi, "b@null.test"))[0], "failed 556 5.1.10")
	want(t, try(t, r, mail(hi, "b@gone.test"))[0], "failed 0 5.1.2")
	l.Close()
	r.Close()
	<-done
	r = New(Options{Hostname: "us.test", Resolver: dns, Port: port})
	defer r.Close()
	want(t, try(t, r, mail(hi, "b@p.test"))[0], "deferred 0 4.4.1 cannot connect: connect: connection refused")
}
