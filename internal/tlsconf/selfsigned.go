package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// selfSignedFile holds certificate and key in one file, so that one Replace keeps them together through a crash.
const selfSignedFile = "self-signed.pem"

// makeSelfSigned makes a certificate for ten years (ECDSA P-256: every client since 2015 takes it) and keeps it under name,
// readable for the server's user only.
func (o *Options) makeSelfSigned(name string) (*tls.Certificate, error) {
	data, err := generate(o.Hostname, o.Now())
	if err != nil {
		return nil, fmt.Errorf("tls: making a certificate: %w", err)
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if err := o.FS.Replace(name, data, 0o600); err != nil {
		return nil, fmt.Errorf("tls: keeping the certificate: %w", err)
	}
	return pair(data, data)
}

func generate(hostname string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "localhost", Organization: []string{"mailsrv self-signed"}},
		NotBefore:             now.Add(-time.Hour), // clients' clocks differ
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(hostname); ip != nil {
		tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
	} else if hostname != "" && hostname != "localhost" {
		tmpl.DNSNames = append([]string{hostname}, tmpl.DNSNames...)
	}
	if len(hostname) > 0 && len(hostname) <= 64 { // RFC 5280 appendix A.1: ub-common-name
		tmpl.Subject.CommonName = hostname
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), nil
}
