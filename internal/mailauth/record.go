package mailauth

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of RSA keys we verify with: RFC 8301 section 3.2, and what costs too much to check.
const (
	minRSA = 1024
	maxRSA = 8192
)

// record is a key record's text (RFC 6376 section 3.6.1, RFC 8463 section 4).
func record(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return "", err
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), nil
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(k), nil
	}
	return "", fmt.Errorf("a key of type %T cannot be published", public)
}

// ParseRecord reads a key record: an *rsa.PublicKey or an ed25519.PublicKey. A revoked key is an error.
func ParseRecord(text string) (crypto.PublicKey, error) {
	t, err := parseTags(text)
	if err != nil {
		return nil, fmt.Errorf("key record: %w", err)
	}
	if v, ok := t["v"]; ok && v != "DKIM1" {
		return nil, fmt.Errorf("key record: version %.20q", v)
	}
	if hashes := t.list("h"); hashes != nil && !slices.Contains(hashes, "sha256") {
		return nil, errors.New("key record: not for SHA-256")
	}
	if services := t.list("s"); services != nil && !slices.Contains(services, "email") && !slices.Contains(services, "*") {
		return nil, errors.New("key record: not for mail")
	}
	if t.compact("p") == "" {
		return nil, errors.New("key record: no key, or a revoked one")
	}
	data, err := t.base64("p")
	if err != nil {
		return nil, fmt.Errorf("key record: %w", err)
	}
	switch k := t["k"]; k {
	case "rsa", "":
		return parseRSA(data)
	case "ed25519":
		if len(data) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("key record: an Ed25519 key of %d bytes", len(data))
		}
		return ed25519.PublicKey(data), nil
	default:
		return nil, fmt.Errorf("key record: key type %.20q", k)
	}
}

// parseRSA takes both forms that RFC 6376's erratum 3017 speaks of.
func parseRSA(data []byte) (*rsa.PublicKey, error) {
	var key *rsa.PublicKey
	if any, err := x509.ParsePKIXPublicKey(data); err == nil {
		key, _ = any.(*rsa.PublicKey)
	} else {
		key, _ = x509.ParsePKCS1PublicKey(data)
	}
	switch {
	case key == nil:
		return nil, errors.New("key record: no RSA key")
	case key.N.BitLen() < minRSA || key.N.BitLen() > maxRSA:
		return nil, fmt.Errorf("key record: an RSA key of %d bits", key.N.BitLen())
	}
	return key, nil
}

// signHash signs a SHA-256 hash; algorithm is what a= says of it.
func signHash(key crypto.Signer, sum []byte) (signature []byte, err error) {
	if _, ok := key.(ed25519.PrivateKey); ok {
		return key.Sign(nil, sum, crypto.Hash(0)) // RFC 8463 section 3: PureEdDSA over the hash
	}
	return key.Sign(nil, sum, crypto.SHA256)
}

// verifyHash checks a signature over a SHA-256 hash made with the algorithm that a= names.
func verifyHash(public crypto.PublicKey, algorithm string, sum [sha256.Size]byte, signature []byte) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if algorithm == "rsa-sha256" {
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature)
		}
	case ed25519.PublicKey:
		if algorithm == "ed25519-sha256" {
			if !ed25519.Verify(k, sum[:], signature) {
				return errors.New("the signature is not this key's")
			}
			return nil
		}
	}
	return fmt.Errorf("algorithm %.20q is not the key's", algorithm)
}

// ZoneText writes a TXT record's data for a zone file: quoted strings of at most 255 octets (RFC 1035 section 3.3.14).
func ZoneText(text string) string {
	var parts []string
	for len(text) > 255 {
		parts, text = append(parts, text[:255]), text[255:]
	}
	parts = append(parts, text)
	for i, p := range parts {
		parts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p) + `"`
	}
	return strings.Join(parts, " ")
}
