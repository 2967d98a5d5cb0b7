package mailauth

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsrv/internal/resolve"
)

// States of a chain, as cv= and arc= say them (RFC 8617 section 4.4).
const (
	ChainNone = "none"
	ChainPass = "pass"
	ChainFail = "fail"
)

// maxInstance is RFC 8617 section 4.2.1's.
const maxInstance = 50

// The three fields of an ARC set (RFC 8617 section 4.1).
const (
	aarName = "ARC-Authentication-Results"
	amsName = "ARC-Message-Signature"
	asName  = "ARC-Seal"
)

// Chain is what a message's ARC sets come to.
type Chain struct {
	State     string // ChainNone, ChainPass, ChainFail
	Instances int    // the highest instance there is
	Reason    string // of ChainFail
	// Sealers are the domains of the seals, first hop first; only with ChainPass.
	Sealers []string
	// Closed says that the last sealer found the chain broken already: no more sets are added (section 5.1 step 2).
	Closed bool

	sets []arcSet
}

// arcSet is one hop's fields, with the tags of the two that are signatures.
type arcSet struct {
	aar, ams, as field
	amsTags      tags
	asTags       tags
}

// ValidateChain judges a message's ARC chain (RFC 8617 section 5.2). The error is resolve.ErrTemporary: a key could not be
// had now. The look-ups end with ctx.
func ValidateChain(ctx context.Context, r resolve.Resolver, message io.ReaderAt, size int64, now time.Time) (Chain, error) {
	h, body, err := readHeader(message, size)
	if err != nil {
		return Chain{}, err
	}
	return validate(ctx, r, h, bodyHashes(message, body, size), now)
}

func validate(ctx context.Context, r resolve.Resolver, h header, bodies bodyHasher, now time.Time) (Chain, error) {
	c, err := gather(h)
	if err != nil {
		c.State, c.Reason = ChainFail, err.Error()
	}
	if c.State != "" {
		return c, nil
	}
	k := &keyring{ctx: ctx, r: r, found: make(map[string]crypto.PublicKey)}
	err = c.verify(k, h, bodies, now)
	switch {
	case errors.Is(err, errUnreadable):
		return c, err
	case errors.Is(err, resolve.ErrTemporary), err != nil && ctx.Err() != nil:
		return c, fmt.Errorf("%w: %w", resolve.ErrTemporary, err)
	case err != nil:
		c.State, c.Reason = ChainFail, err.Error()
	default:
		c.State = ChainPass
		for _, set := range c.sets {
			c.Sealers = append(c.Sealers, strings.ToLower(set.asTags.compact("d")))
		}
	}
	return c, nil
}

// gather puts the sets together: steps 1 to 3 of section 5.2. An error is of their form, which ends a chain.
func gather(h header) (c Chain, err error) {
	found := make(map[int]*arcSet)
	for _, f := range h {
		name := arcName(f.name)
		if name == "" {
			continue
		}
		i, t, ferr := arcInstance(name, f)
		if ferr != nil {
			err = ferr
			continue
		}
		c.Instances = max(c.Instances, i)
		if found[i] == nil {
			found[i] = new(arcSet)
		}
		if !found[i].put(name, f, t) {
			err = fmt.Errorf("set %d has two fields %s", i, name)
		}
	}
	if err != nil {
		return c, err
	}
	if len(found) == 0 {
		c.State = ChainNone
		return c, nil
	}
	for i := 1; i <= c.Instances; i++ {
		set := found[i]
		if set == nil || set.aar.raw == nil || set.ams.raw == nil || set.as.raw == nil {
			return c, fmt.Errorf("set %d is not whole", i)
		}
		c.sets = append(c.sets, *set)
	}
	c.Closed = c.sets[c.Instances-1].asTags.compact("cv") == ChainFail
	return c, c.checkStates()
}

func arcName(name string) string {
	for _, known := range []string{aarName, amsName, asName} {
		if strings.EqualFold(name, known) {
			return known
		}
	}
	return ""
}

// arcInstance reads a field's i=, and the tags of a signature. ARC-Authentication-Results begins with i= and goes on as
// Authentication-Results does (section 4.1.1).
func arcInstance(name string, f field) (int, tags, error) {
	_, value, _ := strings.Cut(string(f.raw), ":")
	if name == aarName {
		value, _, _ = strings.Cut(value, ";")
	}
	t, err := parseTags(value)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", name, err)
	}
	i, err := strconv.Atoi(t.compact("i"))
	if err != nil || i < 1 || i > maxInstance {
		return 0, nil, fmt.Errorf("%s: no instance from 1 to %d", name, maxInstance)
	}
	return i, t, nil
}

// put takes a field into the set; false if there is one of the name.
func (s *arcSet) put(name string, f field, t tags) bool {
	place := &s.aar
	switch name {
	case amsName:
		place, s.amsTags = &s.ams, t
	case asName:
		place, s.asTags = &s.as, t
	}
	if place.raw != nil {
		return false
	}
	*place = f
	return true
}

// checkStates holds the cv= of the seals against section 5.2 step 3.
func (c *Chain) checkStates() error {
	for i, set := range c.sets {
		want := ChainPass
		if i == 0 {
			want = ChainNone
		}
		if cv := strings.ToLower(set.asTags.compact("cv")); cv != want {
			return fmt.Errorf("seal %d says cv=%.10s", i+1, cv)
		}
	}
	return nil
}

// verify checks the newest message signature, then all seals from the newest down (steps 4 and 6). Older message signatures
// may be broken by what later hops did.
func (c *Chain) verify(k *keyring, h header, bodies bodyHasher, now time.Time) error {
	if err := c.sets[len(c.sets)-1].verifyMessage(k, h, bodies, now); err != nil {
		return fmt.Errorf("%s %d: %w", amsName, len(c.sets), err)
	}
	for n := len(c.sets); n > 0; n-- {
		if err := c.verifySeal(k, n); err != nil {
			return fmt.Errorf("%s %d: %w", asName, n, err)
		}
	}
	return nil
}

func (s *arcSet) verifyMessage(k *keyring, h header, bodies bodyHasher, now time.Time) error {
	t := s.amsTags
	headerForm, bodyForm, err := canonicalForms(t.compact("c"))
	if err != nil {
		return err
	}
	names := t.list("h")
	switch has := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}; {
	case !has("From"):
		return errors.New("does not sign From") // RFC 6376 section 5.4
	case has(asName):
		return errors.New("signs a seal") // section 4.1.2
	case t["l"] != "":
		return errors.New("signs a part of the body only")
	}
	if end, err := strconv.ParseInt(t.compact("x"), 10, 64); t["x"] != "" && (err != nil || now.Unix() > end) {
		return errors.New("has expired")
	}
	want, err := t.base64("bh")
	if err != nil {
		return err
	}
	got, err := bodies(bodyForm)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, got) != 1 {
		return errors.New("the body was changed")
	}
	return k.verify(t, messageHash(h, names, s.ams.raw, headerForm))
}

// messageHash is what a message signature signs (RFC 6376 section 3.7): the fields, then its own without b= and CRLF.
func messageHash(h header, names []string, own []byte, relaxed bool) [sha256.Size]byte {
	sum := sha256.New()
	for _, f := range h.pick(names) {
		_, _ = io.WriteString(sum, canonicalField(f.raw, relaxed))
	}
	_, _ = io.WriteString(sum, strings.TrimRight(canonicalField(withoutSignature(own), relaxed), "\r\n"))
	return [sha256.Size]byte(sum.Sum(nil))
}

func (c *Chain) verifySeal(k *keyring, n int) error {
	set := c.sets[n-1]
	if _, ok := set.asTags["h"]; ok {
		return errors.New("has h=") // section 4.1.3
	}
	return k.verify(set.asTags, sealHash(c.sets[:n]))
}

// sealHash is what the last set's seal signs (section 5.1.1): all sets in the order of their instances, each as results,
// message signature, seal; its own seal without b= and CRLF. Always in relaxed form.
func sealHash(sets []arcSet) [sha256.Size]byte {
	sum := sha256.New()
	for i, set := range sets {
		_, _ = io.WriteString(sum, relaxedField(set.aar.raw)+relaxedField(set.ams.raw))
		seal := relaxedField(set.as.raw)
		if i == len(sets)-1 {
			seal = strings.TrimRight(relaxedField(withoutSignature(set.as.raw)), "\r\n")
		}
		_, _ = io.WriteString(sum, seal)
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// canonicalForms reads c= (RFC 6376 section 3.5): whether each form is the relaxed one.
func canonicalForms(c string) (header, body bool, err error) {
	forms := strings.SplitN(c+"/", "/", 3)
	form := func(s string) bool {
		if s != "" && s != "simple" && s != "relaxed" {
			err = fmt.Errorf("canonical form %.20q", c)
		}
		return s == "relaxed"
	}
	header, body = form(forms[0]), form(forms[1])
	return header, body, err
}

// errUnreadable says nothing of the chain.
var errUnreadable = errors.New("the message cannot be read")

// bodyHasher returns the SHA-256 of a body in one of the two forms.
type bodyHasher func(relaxed bool) ([]byte, error)

// bodyHashes makes each hash once, when it is asked for.
func bodyHashes(r io.ReaderAt, body, size int64) bodyHasher {
	var known [2][]byte
	return func(relaxed bool) ([]byte, error) {
		i := 0
		if relaxed {
			i = 1
		}
		if known[i] != nil {
			return known[i], nil
		}
		sum := sha256.New()
		form := newCanonicalBody(sum, relaxed)
		if _, err := io.CopyBuffer(form, io.NewSectionReader(r, body, size-body), make([]byte, 32<<10)); err != nil {
			return nil, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		if err := form.Close(); err != nil {
			return nil, err
		}
		known[i] = sum.Sum(nil)
		return known[i], nil
	}
}

// keyring gets keys from the DNS, each once.
type keyring struct {
	ctx   context.Context
	r     resolve.Resolver
	found map[string]crypto.PublicKey
}

func (k *keyring) verify(t tags, sum [sha256.Size]byte) error {
	signature, err := t.base64("b")
	if err != nil {
		return err
	}
	public, err := k.key(t.compact("s"), t.compact("d"))
	if err != nil {
		return err
	}
	return verifyHash(public, t.compact("a"), sum, signature)
}

func (k *keyring) key(selector, domain string) (crypto.PublicKey, error) {
	if selector == "" || domain == "" {
		return nil, errors.New("names no key")
	}
	name := strings.ToLower(selector + "._domainkey." + domain)
	if public, ok := k.found[name]; ok {
		return public, nil
	}
	answer, err := k.r.TXT(k.ctx, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case len(answer.Records) != 1:
		return nil, fmt.Errorf("%s: %d records", name, len(answer.Records)) // RFC 6376 section 3.6.2.2: undefined
	}
	public, err := ParseRecord(answer.Records[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	k.found[name] = public
	return public, nil
}
