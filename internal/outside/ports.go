package outside

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// maxLine bounds what a server is listened to.
const maxLine = 4 << 10

// maxPortAddresses bounds the addresses whose ports are tried.
const maxPortAddresses = 4

// ports tries the services at the hostname's addresses, and looks at the certificates they show.
func (l *looker) ports() []Finding {
	if len(l.s.Services) == 0 {
		return []Finding{note("port", "no service listens but for this machine itself: nothing to try")}
	}
	var found []Finding
	if port, ok := l.s.offers("smtp"); ok && port != usualPort["smtp"] {
		found = append(found, note("port", "smtp listens on %d; the world comes to 25, which has to lead there", port))
	}
	addresses := l.public()
	if len(addresses) == 0 {
		return found
	}
	var looks []*look
	for _, s := range l.s.Services {
		for _, a := range addresses[:min(len(addresses), maxPortAddresses)] {
			looks = append(looks, &look{run: func() []Finding { return []Finding{l.port(s, a)} }})
		}
	}
	l.runAll(looks)
	for _, k := range looks {
		found = append(found, k.found...)
	}
	return found
}

// port tries one service at one address.
func (l *looker) port(s Service, a netip.Addr) Finding {
	at := netip.AddrPortFrom(a, s.Port).String()
	ctx, cancel := context.WithTimeout(l.ctx, 2*dialTimeout)
	defer cancel()
	conn, err := l.o.Dial(ctx, "tcp", at)
	if err != nil {
		return problem("port", "%s %s does not answer: %v (a firewall, a router; or one that does not let this machine come back to itself)",
			s.Name, at, short(err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	cert, err := l.handshake(conn, s)
	if err != nil {
		return problem("port", "%s %s answers, but not as it should: %v", s.Name, at, short(err))
	}
	return l.judgeCertificate(s, at, cert)
}

func short(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}

// handshake comes to TLS, by the service's own way, and returns what certificates were shown. It is a stranger's look: what
// is wrong with them is judged afterwards.
func (l *looker) handshake(conn net.Conn, s Service) ([]*x509.Certificate, error) {
	if !s.Implicit() {
		if err := startTLS(conn, s); err != nil {
			return nil, err
		}
	}
	c := tls.Client(conn, &tls.Config{ServerName: l.s.Hostname, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := c.HandshakeContext(l.ctx); err != nil {
		return nil, err
	}
	if s.Implicit() {
		if _, err := readReply(bufio.NewReader(io.LimitReader(c, maxLine)), s); err != nil {
			return nil, err
		}
	}
	return c.ConnectionState().PeerCertificates, nil
}

// startTLS asks for TLS in SMTP (RFC 3207) or IMAP.
func startTLS(conn net.Conn, s Service) error {
	r := bufio.NewReader(io.LimitReader(conn, maxLine))
	if _, err := readReply(r, s); err != nil {
		return err
	}
	steps := []string{"EHLO mailsrv-check.invalid\r\n", "STARTTLS\r\n"}
	if s.Name == "imap" {
		steps = []string{"a STARTTLS\r\n"}
	}
	for _, step := range steps {
		if _, err := io.WriteString(conn, step); err != nil {
			return err
		}
		if _, err := readReply(r, s); err != nil {
			return err
		}
	}
	return nil
}

// readReply reads one reply, which has to be a good one.
func readReply(r *bufio.Reader, s Service) (string, error) {
	for {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		imap := strings.HasPrefix(s.Name, "imap")
		switch {
		case err != nil:
			return "", err
		case imap && strings.HasPrefix(line, "* ") && !strings.HasPrefix(line, "* OK"):
			continue // a capability, before the answer
		case imap && (strings.HasPrefix(line, "* OK") || strings.HasPrefix(line, "a OK")):
			return line, nil
		case !imap && len(line) > 3 && line[3] == '-':
			continue
		case !imap && strings.HasPrefix(line, "2"):
			return line, nil
		}
		return "", fmt.Errorf("it says %.100q", line)
	}
}

// soonEnds is how long before its end a certificate is spoken of.
const soonEnds = 21 * 24 * time.Hour

// judgeCertificate says what a stranger thinks of the certificate.
func (l *looker) judgeCertificate(s Service, at string, certs []*x509.Certificate) Finding {
	leaf, now := certs[0], l.o.Now()
	pool := x509.NewCertPool()
	for _, c := range certs[1:] {
		pool.AddCert(c)
	}
	_, trust := leaf.Verify(x509.VerifyOptions{Roots: l.o.Roots, Intermediates: pool, CurrentTime: now})
	switch name := leaf.VerifyHostname(l.s.Hostname); {
	case now.After(leaf.NotAfter):
		return problem("port", "%s %s: its certificate ended on %s", s.Name, at, leaf.NotAfter.UTC().Format(time.DateOnly))
	case name != nil:
		return problem("port", "%s %s: its certificate is not for %s but %s", s.Name, at, l.s.Hostname, strings.Join(leaf.DNSNames, ", "))
	case trust != nil && s.Name == "smtp":
		// Other servers take any certificate, unless MTA-STS asks for more.
		return note("port", "%s %s answers; its certificate is of no known authority, which MTA-STS does not take", s.Name, at)
	case trust != nil:
		return problem("port", "%s %s: its certificate is of no known authority, so mail programs warn of it", s.Name, at)
	case now.Add(soonEnds).After(leaf.NotAfter):
		return problem("port", "%s %s: its certificate ends soon, on %s: renew it", s.Name, at, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return good("port", "%s %s answers, certificate until %s", s.Name, at, leaf.NotAfter.UTC().Format(time.DateOnly))
}
