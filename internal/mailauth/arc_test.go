package mailauth

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/disk"
	"mailsrv/internal/resolve"
)

// dummyZone has the key of testdata/arc2.eml, which is a case of the ARC test suite that the RFC's authors published.
var dummyZone = zone{"dummy._domainkey.example.org": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id" +
	"Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3" +
	"Ip3G+2kryOTIKT+l/K4w3QIDAQAB"}

func judge(t *testing.T, z zone, text string) Chain {
	t.Helper()
	c, err := ValidateChain(t.Context(), z, strings.NewReader(text), int64(len(text)), time.Unix(1.8e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func published(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/arc2.eml")
	if err != nil {
		t.Fatal(err)
	}
	return crlf(string(data))
}

// A chain that others made, and what must not pass for one.
func TestPublishedChain(t *testing.T) {
	whole := published(t)
	if c := judge(t, dummyZone, whole); c.State != ChainPass || c.Instances != 2 || !slices.Equal(c.Sealers, []string{"example.org", "example.org"}) {
		t.Fatalf("%+v", c)
	}
	_, first, _ := strings.Cut(whole, "(PST)\r\nARC-Seal")
	if c := judge(t, dummyZone, "MIME-Version: 1.0\r\nARC-Seal"+first); c.State != ChainPass || c.Instances != 1 {
		t.Errorf("the first hop: %+v", c)
	}
	once := func(old, now string) string { return strings.Replace(whole, old, now, 1) }
	for what, c := range map[string]struct{ text, reason string }{
		"body":                {once("Hey", "Hay"), "body was changed"},
		"subject":             {once("Subject: Example 1", "Subject: Example 2"), "ARC-Message-Signature 2"},
		"results":             {once("i=2; lists.example.org;\r\n    spf=pass", "i=2; lists.example.org;\r\n    spf=fail"), "ARC-Seal 2"},
		"seal":                {once("IAqZ", "IAqY"), "ARC-Seal 2"},
		"older seal":          {once("dOdF", "dOdG"), "ARC-Seal 2"},
		"older signature":     {once("QsRz", "QsRy"), "ARC-Seal 2"},
		"cv":                  {once("cv=none", "cv=pass"), "seal 1 says"},
		"cv of the second":    {once("cv=pass", "cv=none"), "seal 2 says"},
		"cv missing":          {once("cv=pass; ", ""), "seal 2 says"},
		"gap":                 {strings.NewReplacer("i=2;", "i=3;").Replace(whole), "set 2 is not whole"},
		"no results":          {once("ARC-Authentication-Results: i=2", "X: i=2"), "set 2 is not whole"},
		"two results":         {"ARC-Authentication-Results: i=2; x; spf=pass\r\n" + whole, "two fields"},
		"no instance":         {once("i=2; s=dummy;\r\n    t=12346", "s=dummy;\r\n    t=12346"), "no instance"},
		"instance 0":          {"ARC-Seal: i=0\r\n" + whole, "no instance"},
		"instance 51":         {"ARC-Seal: i=51\r\n" + whole, "no instance"},
		"twice a tag":         {once("cv=pass;", "cv=pass; cv=pass;"), "twice"},
		"h= in the seal":      {once("cv=pass;", "cv=pass; h=from;"), "has h="},
		"From is not signed":  {once("h=from:to", "h=to"), "does not sign From"},
		"a seal is signed":    {once("h=from:to", "h=arc-seal:from:to"), "signs a seal"},
		"partial body":        {once("bh=", "l=3; bh="), "part of the body"},
		"expired":             {once("bh=", "x=3; bh="), "expired"},
		"no such key":         {once("s=dummy", "s=other"), "no such record"},
		"algorithm":           {strings.Replace(whole, "a=rsa-sha256", "a=rsa-sha1", 1), "not the key's"},
		"strange canonical":   {once("c=relaxed/relaxed", "c=relaxed/other"), "canonical form"},
		"the chain was ended": {once("cv=pass", "cv=fail"), "seal 2 says"},
	} {
		got := judge(t, dummyZone, c.text)
		if got.State != ChainFail || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %s %q, want %q", what, got.State, got.Reason, c.reason)
		}
		if got.Closed != (what == "the chain was ended") {
			t.Errorf("%s: closed %v", what, got.Closed)
		}
	}
	down := zone{"dummy._domainkey.example.org": "SERVFAIL"}
	if c, err := ValidateChain(t.Context(), down, strings.NewReader(whole), int64(len(whole)), time.Now()); !errors.Is(err, resolve.ErrTemporary) {
		t.Errorf("the DNS is down: %+v, %v", c, err)
	}
}

// Others sign with other canonical forms, and with Ed25519.
func TestCanonicalFormsOfOthers(t *testing.T) {
	z := zone{}
	keys, err := newKeys(t, z, "one.test").Signing("one.test")
	if err != nil {
		t.Fatal(err)
	}
	const text = "From:  A  <a@b.test>\r\nsubject: x\r\n\r\nHello  there \r\n\r\n"
	for _, key := range keys {
		for c, forms := range map[string][2]bool{"": {}, " c=simple;": {}, " c=relaxed;": {true, false}, " c=simple/relaxed;": {false, true},
			" c=relaxed/simple;": {true, false}, " c=relaxed/relaxed;": {true, true}} {
			h, body, err := readHeader(strings.NewReader(text), int64(len(text)))
			if err != nil {
				t.Fatal(err)
			}
			bodyHash, err := bodyHashes(strings.NewReader(text), body, int64(len(text)))(forms[1])
			if err != nil {
				t.Fatal(err)
			}
			ams := "ARC-Message-Signature: i=1; a=" + key.Algorithm + "-sha256;" + c + " d=one.test; s=" + key.Selector +
				"; h=Subject:from:from; bh=" + base64.StdEncoding.EncodeToString(bodyHash) + "; x=1900000000; b="
			sum := messageHash(h, []string{"Subject", "from", "from"}, []byte(ams), forms[0])
			signed, err := signField(&key, amsName, ams, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			set := arcSet{aar: field{aarName, []byte(aarName + ": i=1; x; none\r\n")}, ams: signed}
			s := NewSigner(Options{})
			if set.as, err = s.sealField(&key, Chain{State: ChainNone}, set); err != nil {
				t.Fatal(err)
			}
			whole := string(set.as.raw) + string(set.ams.raw) + string(set.aar.raw) + text
			if got := judge(t, z, whole); got.State != ChainPass {
				t.Errorf("%s%s: %s", key.Algorithm, c, got.Reason)
			}
			spaced := strings.Replace(whole, "From:  A", "From: A", 1)
			if got := judge(t, z, spaced); (got.State == ChainPass) != forms[0] {
				t.Errorf("%s%s: white space in the header: %s", key.Algorithm, c, got.State)
			}
			spaced = strings.Replace(whole, "Hello  there", "Hello there", 1)
			if got := judge(t, z, spaced); (got.State == ChainPass) != forms[1] {
				t.Errorf("%s%s: white space in the body: %s", key.Algorithm, c, got.State)
			}
		}
	}
}

// hop is a server that sends a message on: it adds its trace and its seal.
type hop struct {
	s    *Signer
	host string
	list string
}

func newHop(t *testing.T, z zone, keys *Keys, host, list string) hop {
	now := func() time.Time { return time.Unix(1.79e9, 0) }
	return hop{NewSigner(Options{Keys: keys, Hostname: host, Resolver: z, Now: now}), host, list}
}

func (h hop) sendOn(t *testing.T, text string) string {
	t.Helper()
	text = "Received: from before by " + h.host + "; Sun, 22 Nov 2026 06:00:00 +0000\r\n" + text
	return fieldsFor(t, h.s, Mail{For: h.list, Sender: "x@y.test", Peer: netip.MustParseAddr("192.0.2.9")}, text) + text
}

// One to three hops of ours, behind the published ones too, by RSA and Ed25519; the first signature is still seen by the last.
func TestSealChain(t *testing.T) {
	z := zone{}
	keys := newKeys(t, z, "ours.test", "one.test", "two.test", "three.test")
	ed := OpenKeys(disk.OS(), t.TempDir())
	if k, err := ed.New("ed.test", "e", Ed25519); err != nil {
		t.Fatal(err)
	} else {
		z[k.Name()] = k.Record()
	}
	author := NewSigner(Options{Keys: keys, Hostname: "mx.ours.test"})
	signed := fieldsFor(t, author, Mail{Ours: true}, crlf(letter)) + crlf(letter)
	z["dummy._domainkey.example.org"] = dummyZone["dummy._domainkey.example.org"]

	for what, text := range map[string]string{"fresh": signed, "published": published(t)} {
		before := judge(t, z, text).Instances
		hops := []hop{newHop(t, z, keys, "mx.one.test", "l@one.test"), newHop(t, z, keys, "mx.two.test", "l@lists.two.test"),
			newHop(t, z, ed, "mx.ed.test", "l@ed.test"), newHop(t, z, keys, "mx.three.test", "l@nokeys.test")}
		for i, h := range hops {
			text = h.sendOn(t, text)
			c := judge(t, z, text)
			if c.State != ChainPass || c.Instances != before+i+1 || !strings.HasSuffix(h.host, c.Sealers[len(c.Sealers)-1]) {
				t.Fatalf("%s: hop %d: %+v\n%s", what, i+1, c, text)
			}
			if !strings.HasPrefix(text, "ARC-Seal: i=") || !strings.Contains(text, "smtp.remote-ip=192.0.2.9") {
				t.Errorf("%s", text[:400])
			}
		}
		if what == "fresh" && (strings.Count(text, "dkim=pass header.d=ours.test") != 8 || strings.Count(text, "arc=none") != 1 ||
			strings.Count(text, "arc=pass") != 3) {
			t.Errorf("results:\n%s", text)
		}
	}
}

// A hop that breaks the chain is told of once, and then nobody seals any more (RFC 8617 sections 5.1 and 5.1.2).
func TestBrokenChain(t *testing.T) {
	z := zone{}
	keys := newKeys(t, z, "one.test", "two.test", "three.test")
	text := newHop(t, z, keys, "mx.one.test", "l@one.test").sendOn(t, crlf(letter))
	text = strings.Replace(text, "Hello", "[advertisement] Hello", 1)
	if c := judge(t, z, text); c.State != ChainFail {
		t.Fatalf("%+v", c)
	}
	text = newHop(t, z, keys, "mx.two.test", "l@two.test").sendOn(t, text)
	c := judge(t, z, text)
	if c.State != ChainFail || !c.Closed || c.Instances != 2 || !strings.Contains(text, "cv=fail; d=two.test") {
		t.Fatalf("%+v\n%s", c, text)
	}
	if err := c.verifyOnlyLast(t.Context(), z); err != nil {
		t.Errorf("the seal on the failure does not cover its own set alone: %v", err)
	}
	before := strings.Count(text, "ARC-Seal:")
	if text = newHop(t, z, keys, "mx.three.test", "l@three.test").sendOn(t, text); strings.Count(text, "ARC-Seal:") != before {
		t.Errorf("sealed again:\n%s", text)
	}
}

// verifyOnlyLast checks the last seal as if its set were the only one.
func (c *Chain) verifyOnlyLast(ctx context.Context, z zone) error {
	set := c.sets[len(c.sets)-1]
	return (&keyring{ctx: ctx, r: z, found: make(map[string]crypto.PublicKey)}).verify(set.asTags, sealHash([]arcSet{set}))
}

// What the DNS cannot say now is not called broken for ever: the message goes without a seal.
func TestSealNotNow(t *testing.T) {
	z := zone{}
	keys := newKeys(t, z, "one.test", "two.test")
	text := newHop(t, z, keys, "mx.one.test", "l@one.test").sendOn(t, crlf(letter))
	z["s-rsa._domainkey.one.test"] = "SERVFAIL"
	s := newHop(t, z, keys, "mx.two.test", "l@two.test").s
	fields, err := s.Fields(t.Context(), Mail{For: "l@two.test", Message: strings.NewReader(text), Size: int64(len(text))})
	if fields != nil || !errors.Is(err, ErrARC) {
		t.Errorf("%q, %v", fields, err)
	}
}

// Only the results above our own Received are ours; a sender may have written others in our name.
func TestTrustedResults(t *testing.T) {
	z := zone{}
	s := newHop(t, z, newKeys(t, z, "one.test"), "mx.one.test", "l@one.test").s
	const forged = "Authentication-Results: mx.one.test; dmarc=pass header.from=bank.test\r\n"
	own := "Return-Path: <x@y.test>\r\nAuthentication-Results: mx.one.test;\r\n\tspf=fail smtp.mailfrom=y.test;\r\n\tdmarc=fail\r\n"
	received := "Received: from a by mx.one.test; Sun, 22 Nov 2026 06:00:00 +0000\r\n"
	for text, want := range map[string]string{
		own + received + forged + crlf(letter):                                  "spf=fail smtp.mailfrom=y.test;\r\n\tdmarc=fail;\r\n\tarc=none\r\n",
		received + forged + crlf(letter):                                        "dkim=none;\r\n\tarc=none\r\n",
		strings.ReplaceAll(own, "mx.one", "mx.other") + received + crlf(letter): "dkim=none;\r\n\tarc=none\r\n",
	} {
		fields := fieldsFor(t, s, Mail{For: "l@one.test"}, text)
		if _, results, _ := strings.Cut(fields, "ARC-Authentication-Results: i=1; mx.one.test;\r\n\t"); results != want {
			t.Errorf("%q, want %q", results, want)
		}
		if c := judge(t, z, fields+text); c.State != ChainPass {
			t.Errorf("%+v", c)
		}
	}
}
