// Package tlsconf holds the server's certificate: made by itself, or read from files. Whoever accepts TLS asks the one
// [Certificates] at each handshake, so that a renewed certificate is used without a restart.
package tlsconf

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"mailsrv/internal/disk"
)

// The modes of [Options].
const (
	SelfSigned = "self-signed"
	Files      = "files"
)

// soon is how long before its end a certificate is spoken of, or, if we signed it ourselves, replaced.
const soon = 30 * 24 * time.Hour

// Options say where the certificate comes from. Zero values: see each field.
type Options struct {
	Mode     string // "" is SelfSigned
	Dir      string // SelfSigned: the folder that keeps it, <data>/tls; made if missing
	Hostname string // the name that clients connect to
	Cert     string // Files: PEM, the server's certificate first, then the intermediate ones
	Key      string // Files: PEM
	FS       disk.FS
	Now      func() time.Time
	Logger   *slog.Logger // nil discards
}

// Certificates is the server's certificate as of now. Safe for use by several goroutines.
type Certificates struct {
	o       Options
	current atomic.Pointer[tls.Certificate]
}

// Load reads the certificate, or makes one: self-signed certificates are made once and kept, so that the fingerprint people
// have accepted stays. A new one is made when the old one has less than 30 days left or lacks the hostname.
func Load(o Options) (*Certificates, error) {
	o.Mode = cmp.Or(o.Mode, SelfSigned)
	if o.FS == nil {
		o.FS = disk.OS()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Certificates{o: o}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads the certificate again. If that fails the one in use stays. Files mode: call it when the files have changed.
func (c *Certificates) Reload() error {
	var cert *tls.Certificate
	var err error
	switch c.o.Mode {
	case SelfSigned:
		cert, err = c.o.selfSigned()
	case Files:
		cert, err = c.o.fromFiles()
	default:
		err = fmt.Errorf("tls: unknown mode %q: write %q or %q", c.o.Mode, SelfSigned, Files)
	}
	if err != nil {
		return err
	}
	c.current.Store(cert)
	for _, w := range c.Warnings() {
		c.o.Logger.Warn("certificate: " + w)
	}
	return nil
}

// fileLimit bounds what is read of a certificate or key file.
const fileLimit = 1 << 20

func (o *Options) fromFiles() (*tls.Certificate, error) {
	chain, err := o.FS.ReadFile(o.Cert, fileLimit)
	if err != nil {
		return nil, fmt.Errorf("tls: certificate: %w", err)
	}
	key, err := o.FS.ReadFile(o.Key, fileLimit)
	if err != nil {
		return nil, fmt.Errorf("tls: key: %w", err)
	}
	cert, err := pair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("tls: %s with %s: %w", o.Cert, o.Key, err)
	}
	return cert, nil
}

func pair(chain, key []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	if cert.Leaf == nil {
		cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0])
	}
	return &cert, err
}

// GetCertificate is for tls.Config: the certificate as of now.
func (c *Certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// Server is the configuration for all our listeners and STARTTLS: TLS 1.2 and 1.3 with Go's choice of ciphers, no client
// certificates, no ALPN (mail protocols need none, and h2 is not offered). Callers may change the returned copy.
func (c *Certificates) Server() *tls.Config {
	return &tls.Config{GetCertificate: c.GetCertificate, MinVersion: tls.VersionTLS12}
}

// Leaf is the certificate that clients see.
func (c *Certificates) Leaf() *x509.Certificate { return c.current.Load().Leaf }

// Fingerprint is the SHA-256 of the certificate as mail clients and openssl show it: "AB:CD:…", 32 bytes.
func (c *Certificates) Fingerprint() string { return Fingerprint(c.Leaf()) }

// Fingerprint is a certificate's SHA-256 in people's spelling.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// Warnings says what a person should know about the certificate, a sentence each; none if all is well.
func (c *Certificates) Warnings() []string {
	var ws []string
	leaf, now := c.Leaf(), c.o.Now()
	day := leaf.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case now.After(leaf.NotAfter):
		ws = append(ws, "expired on "+day+": clients will refuse it, renew it")
	case now.Add(soon).After(leaf.NotAfter):
		ws = append(ws, "expires on "+day+": renew it")
	case now.Before(leaf.NotBefore):
		ws = append(ws, "not valid before "+leaf.NotBefore.UTC().Format(time.RFC3339)+": is the clock right?")
	}
	if c.o.Hostname != "" {
		if leaf.VerifyHostname(c.o.Hostname) != nil {
			ws = append(ws, fmt.Sprintf("not for the hostname %q (it names %s): clients will complain",
				c.o.Hostname, strings.Join(leaf.DNSNames, ", ")))
		}
	}
	if c.o.Mode == Files {
		if fi, err := c.o.FS.Stat(c.o.Key); err == nil && fi.Mode().Perm()&0o004 != 0 {
			ws = append(ws, fmt.Sprintf("everybody on this machine can read the key: chmod o-r %s", c.o.Key))
		}
	}
	return ws
}

// selfSigned reads the kept certificate, or makes and keeps a new one.
func (o *Options) selfSigned() (*tls.Certificate, error) {
	name := o.Dir + "/" + selfSignedFile
	data, err := o.FS.ReadFile(name, fileLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o.Logger.Info("making a self-signed certificate", "file", name)
		return o.makeSelfSigned(name)
	case err != nil:
		return nil, fmt.Errorf("tls: self-signed certificate: %w", err)
	}
	cert, err := pair(data, data)
	if err != nil {
		return nil, fmt.Errorf("tls: %s: %w; remove the file and a new one is made", name, err)
	}
	if why := o.outdated(cert.Leaf); why != "" {
		o.Logger.Warn("making a new self-signed certificate: clients will ask about it", "file", name, "why", why)
		return o.makeSelfSigned(name)
	}
	return cert, nil
}

func (o *Options) outdated(leaf *x509.Certificate) string {
	if o.Now().Add(soon).After(leaf.NotAfter) {
		return "the old one ends on " + leaf.NotAfter.UTC().Format(time.DateOnly)
	}
	if o.Hostname != "" && leaf.VerifyHostname(o.Hostname) != nil {
		return "the old one is not for " + o.Hostname
	}
	return ""
}
