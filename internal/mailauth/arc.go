package mailauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"mailsrv/internal/message"
	"mailsrv/internal/resolve"
)

// Bounds of what of others' DKIM signatures is verified: go-msgauth looks through all fields for each name of an h= list.
const (
	maxSignatures     = 5
	maxSignatureField = 8 << 10
	maxFields         = 1000
)

// seal makes the ARC set of a message that an address here sends on (RFC 8617 section 5.1): nothing without a key, or if a
// hop before found the chain broken.
func (s *Signer) seal(ctx context.Context, m Mail, h header, body int64) ([]byte, error) {
	key, err := s.sealingKey(m)
	if err != nil || key == nil {
		return nil, err
	}
	bodies := bodyHashes(m.Message, body, m.Size)
	chain, err := validate(ctx, s.o.Resolver, h, bodies, s.o.Now())
	if err != nil {
		return nil, err
	}
	if chain.Closed || chain.Instances >= maxInstance {
		return nil, nil
	}
	results, err := s.results(ctx, m, h, body, chain)
	if err != nil {
		return nil, err
	}
	set := arcSet{aar: field{aarName, fold(aarName, fmt.Sprintf("i=%d", chain.Instances+1), s.o.Hostname, results...)}}
	bodyHash, err := bodies(true)
	if err != nil {
		return nil, err
	}
	if set.ams, err = s.messageSignature(key, chain.Instances+1, h, bodyHash); err != nil {
		return nil, err
	}
	if set.as, err = s.sealField(key, chain, set); err != nil {
		return nil, err
	}
	return slices.Concat(set.as.raw, set.ams.raw, set.aar.raw), nil
}

// sealingKey is the key of the domain that sends the message on, else the server's: RSA if there is one, as it is what
// everybody can verify.
func (s *Signer) sealingKey(m Mail) (*Key, error) {
	for _, domain := range []string{domainOf(m.For), s.o.Hostname} {
		keys, err := s.o.Keys.Signing(domain)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(keys, func(k Key) bool { return k.Algorithm == RSA }); i >= 0 {
			return &keys[i], nil
		}
		if len(keys) > 0 {
			return &keys[0], nil
		}
	}
	return nil, nil
}

// results are what this server found of the message: what its Authentication-Results say, else what can be found out now.
func (s *Signer) results(ctx context.Context, m Mail, h header, body int64, chain Chain) ([]string, error) {
	arc := "arc=" + chain.State
	if m.Peer.IsValid() {
		arc += " smtp.remote-ip=" + remoteIP(m.Peer)
	}
	if found := s.trusted(h); found != nil {
		if slices.ContainsFunc(found, func(r string) bool { return strings.HasPrefix(r, "arc=") }) {
			return found, nil
		}
		return append(found, arc), nil
	}
	signatures, err := s.verifyDKIM(ctx, m, h, body)
	return append(signatures, arc), err
}

// remoteIP is RFC 8617 section 10.2's; an IPv6 address has to be quoted for its colons (RFC 8601 section 2.2).
func remoteIP(a netip.Addr) string {
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	return `"` + a.String() + `"`
}

// trusted returns the results of Authentication-Results fields that this server has written: only what stands above its own
// Received is its own, anybody can write its name into one further down (RFC 8601 section 5).
func (s *Signer) trusted(h header) (results []string) {
	for _, f := range h {
		if strings.EqualFold(f.name, "Received") {
			break
		}
		if !strings.EqualFold(f.name, "Authentication-Results") {
			continue
		}
		id, rest, _ := strings.Cut(message.FieldValue(f.raw), ";")
		id, _, _ = strings.Cut(strings.TrimSpace(id), " ") // a version may follow
		if !strings.EqualFold(id, s.o.Hostname) {
			continue
		}
		for part := range strings.SplitSeq(rest, ";") {
			if part = strings.Join(strings.Fields(part), " "); part != "" && part != "none" {
				results = append(results, part)
			}
		}
	}
	return results
}

// verifyDKIM says what the message's DKIM signatures are worth now.
func (s *Signer) verifyDKIM(ctx context.Context, m Mail, h header, body int64) (results []string, err error) {
	if h.count("DKIM-Signature") == 0 {
		return []string{"dkim=none"}, nil
	}
	var whole bytes.Buffer
	for _, f := range h {
		if len(f.raw) > maxSignatureField && strings.EqualFold(f.name, "DKIM-Signature") || len(h) > maxFields {
			return []string{"dkim=neutral"}, nil
		}
		whole.Write(f.raw)
	}
	whole.WriteString("\r\n")
	r := io.MultiReader(&whole, io.NewSectionReader(m.Message, body, m.Size-body))
	verified, err := dkim.VerifyWithOptions(r, &dkim.VerifyOptions{
		MaxVerifications: maxSignatures,
		LookupTXT: func(name string) ([]string, error) {
			answer, err := s.o.Resolver.TXT(ctx, name)
			if errors.Is(err, resolve.ErrTemporary) || err != nil && ctx.Err() != nil {
				err = temporary{err}
			}
			return answer.Records, err
		},
	})
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		return nil, err
	}
	for _, v := range verified {
		verdict := "pass"
		switch {
		case v.Err == nil:
		case dkim.IsTempFail(v.Err):
			verdict = "temperror"
		case dkim.IsPermFail(v.Err):
			verdict = "permerror"
		default:
			verdict = "fail"
		}
		if checkName("domain", strings.ToLower(v.Domain), 253) == nil { // it goes into our own words
			verdict += " header.d=" + strings.ToLower(v.Domain)
		}
		results = append(results, "dkim="+verdict)
	}
	return results, nil
}

// temporary is what go-msgauth knows a temporary error by: a net.Error.
type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return true }

// fold writes a field, a part a line.
func fold(name, instance, id string, parts ...string) []byte {
	return []byte(name + ": " + instance + "; " + id + ";\r\n\t" + strings.Join(parts, ";\r\n\t") + "\r\n")
}

// messageSignature makes the ARC-Message-Signature (section 4.1.2): a DKIM signature by another name, without v=.
func (s *Signer) messageSignature(key *Key, instance int, h header, bodyHash []byte) (field, error) {
	names := []string{}
	for _, name := range append(signedFields(h), "DKIM-Signature") {
		if h.count(name) > 0 || name == "From" {
			names = append(names, strings.ToLower(name))
		}
	}
	text := fmt.Sprintf("%s: i=%d; a=%s-sha256; c=relaxed/relaxed; d=%s;\r\n\ts=%s; t=%d;\r\n\th=%s;\r\n\tbh=%s;\r\n\tb=",
		amsName, instance, key.Algorithm, key.Domain, key.Selector, s.o.Now().Unix(), foldList(names),
		base64.StdEncoding.EncodeToString(bodyHash))
	sum := messageHash(h, names, []byte(text), true)
	return signField(key, amsName, text, sum[:])
}

// sealField makes the ARC-Seal (section 4.1.3). One over a broken chain covers its own set only (section 5.1.2).
func (s *Signer) sealField(key *Key, chain Chain, set arcSet) (field, error) {
	text := fmt.Sprintf("%s: i=%d; a=%s-sha256; cv=%s; d=%s; s=%s;\r\n\tt=%d; b=",
		asName, chain.Instances+1, key.Algorithm, chain.State, key.Domain, key.Selector, s.o.Now().Unix())
	set.as = field{asName, []byte(text)}
	sets := []arcSet{set}
	if chain.State == ChainPass {
		sets = append(slices.Clone(chain.sets), set)
	}
	sum := sealHash(sets)
	return signField(key, asName, text, sum[:])
}

// signField puts the signature behind a field that ends in "b=".
func signField(key *Key, name, text string, sum []byte) (field, error) {
	signature, err := signHash(key.signer, sum)
	if err != nil {
		return field{}, fmt.Errorf("seal as %s: %w", key.Name(), err)
	}
	const width = 72
	b := base64.StdEncoding.EncodeToString(signature)
	for len(b) > width {
		text, b = text+b[:width]+"\r\n\t ", b[width:]
	}
	return field{name, []byte(text + b + "\r\n")}, nil
}

// foldList joins names with colons in lines of a sane length.
func foldList(names []string) string {
	var b strings.Builder
	column := 0
	for i, name := range names {
		if i > 0 {
			b.WriteByte(':')
		}
		if column += len(name) + 1; column > 70 {
			b.WriteString("\r\n\t ")
			column = len(name)
		}
		b.WriteString(name)
	}
	return b.String()
}
