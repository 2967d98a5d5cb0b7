package mailauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"mailsrv/internal/disk"
	"mailsrv/internal/resolve"
)

// zone is a DNS of TXT records; a record "SERVFAIL" is a server that fails.
type zone map[string]string

func (z zone) TXT(_ context.Context, name string) (a resolve.Answer[string], err error) {
	switch text, ok := z[name]; {
	case !ok:
		return a, resolve.ErrNotFound
	case text == "SERVFAIL":
		return a, resolve.ErrTemporary
	default:
		a.Records = []string{text}
		return a, nil
	}
}

func (zone) MX(context.Context, string) (a resolve.Answer[resolve.MX], err error) {
	return a, resolve.ErrNotFound
}
func (zone) Addresses(context.Context, string) (a resolve.Answer[netip.Addr], err error) {
	return a, resolve.ErrNotFound
}
func (zone) TLSA(context.Context, string) (a resolve.Answer[resolve.TLSA], err error) {
	return a, resolve.ErrNotFound
}
func (zone) PTR(context.Context, netip.Addr) (a resolve.Answer[string], err error) {
	return a, resolve.ErrNotFound
}

// lookup is the zone for go-msgauth's verifier.
func (z zone) lookup(name string) ([]string, error) {
	a, err := z.TXT(context.Background(), name)
	return a.Records, err
}

// newKeys makes keys for domains, RSA and Ed25519 each, and publishes them.
func newKeys(t *testing.T, z zone, domains ...string) *Keys {
	t.Helper()
	keys := OpenKeys(disk.OS(), t.TempDir())
	for _, d := range domains {
		for _, algorithm := range []string{RSA, Ed25519} {
			k, err := keys.New(d, "s-"+algorithm, algorithm)
			if err != nil {
				t.Fatal(err)
			}
			z[k.Name()] = k.Record()
		}
	}
	return keys
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

const letter = `Received: from x ([192.0.2.1])
	by mx.ours.test with ESMTPSA id 1; Sun, 22 Nov 2026 06:00:00 +0000
From: Alice  Ä <alice@ours.test>
To: Bob <bob@there.test>,
	carol@there.test
Subject: A  folded
 subject
Date: Sun, 22 Nov 2026 06:00:00 +0000
Message-ID: <1@ours.test>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
List-Unsubscribe: <https://ours.test/u>

Hello  Bob 	
 
.dot
at the end: blank lines


`

func fieldsFor(t *testing.T, s *Signer, m Mail, text string) string {
	t.Helper()
	m.Message, m.Size = strings.NewReader(text), int64(len(text))
	fields, err := s.Fields(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(fields), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("a line of %d: %q", len(line), line)
		}
	}
	if len(fields) > 0 && !strings.HasSuffix(string(fields), "\r\n") {
		t.Errorf("does not end a line: %q", fields)
	}
	return string(fields)
}

// verdicts has go-msgauth's verifier judge a message: for each signature its domain, and what is wrong.
func verdicts(t *testing.T, z zone, text string) (all []string) {
	t.Helper()
	found, err := dkim.VerifyWithOptions(strings.NewReader(text), &dkim.VerifyOptions{LookupTXT: z.lookup})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		all = append(all, fmt.Sprint(v.Domain, " ", v.Err))
	}
	return all
}

func TestSign(t *testing.T) {
	z := zone{}
	s := NewSigner(Options{Keys: newKeys(t, z, "ours.test"), Hostname: "mx.ours.test"})
	text := crlf(letter)
	signed := fieldsFor(t, s, Mail{Ours: true, Sender: "alice@ours.test"}, text) + text
	good := []string{"ours.test <nil>", "ours.test <nil>"}
	if got := verdicts(t, z, signed); !slices.Equal(got, good) {
		t.Fatalf("%q\n%s", got, signed)
	}
	for what, change := range map[string]func(string) string{
		"white space":       func(m string) string { return strings.Replace(m, "Hello  Bob \t\r\n", "Hello Bob\r\n", 1) },
		"trace added":       func(m string) string { return "Received: from y\r\n" + m },
		"blank lines fewer": func(m string) string { return strings.TrimRight(m, "\r\n") + "\r\n" },
	} {
		if got := verdicts(t, z, change(signed)); !slices.Equal(got, good) {
			t.Errorf("%s: %q", what, got)
		}
	}
	// The last ones add fields that the message has not, or has once: the seal on what is not there.
	for what, change := range map[string]func(string) string{
		"body":           func(m string) string { return strings.Replace(m, "Hello", "Hallo", 1) },
		"subject":        func(m string) string { return strings.Replace(m, "A  folded", "Another", 1) },
		"second From":    func(m string) string { return strings.Replace(m, "\r\nFrom:", "\r\nFrom: b@bad.test\r\nFrom:", 1) },
		"second Subject": func(m string) string { return "Subject: other\r\n" + m },
		"Reply-To":       func(m string) string { return "Reply-To: b@bad.test\r\n" + m },
		"Cc":             func(m string) string { return "Cc: b@bad.test\r\n" + m },
		"transfer":       func(m string) string { return "Content-Transfer-Encoding: base64\r\n" + m },
		"unsubscribe":    func(m string) string { return strings.Replace(m, "https://ours", "https://bad", 1) },
	} {
		for _, got := range verdicts(t, z, change(signed)) {
			if strings.HasSuffix(got, "<nil>") {
				t.Errorf("%s: still verifies", what)
			}
		}
	}
}

func TestOddMessagesAreSigned(t *testing.T) {
	z := zone{}
	s := NewSigner(Options{Keys: newKeys(t, z, "ours.test"), Hostname: "mx.ours.test"})
	const from = "From: a@ours.test\r\n"
	for what, text := range map[string]string{
		"empty body":      from + "\r\n",
		"blank body":      from + "\r\n \t\r\n\r\n",
		"no last end":     from + "\r\ntext",
		"long line":       from + "\r\n" + strings.Repeat("x ", 100<<10),
		"many recipients": from + "To: a@b.test" + strings.Repeat(",\r\n\ta@b.test", 5000) + "\r\n\r\nx\r\n",
		"many fields":     from + strings.Repeat("List-Id: x\r\nReferences: y\r\nSender: a@ours.test\r\nTo: a@b.test\r\n", 40) + "\r\n",
	} {
		if got := verdicts(t, z, fieldsFor(t, s, Mail{Ours: true}, text)+text); !slices.Equal(got, []string{"ours.test <nil>", "ours.test <nil>"}) {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// Whose key it is: the author's domain's, by DMARC's alignment; never for what others wrote.
func TestWhoSigns(t *testing.T) {
	z := zone{}
	s := NewSigner(Options{Keys: newKeys(t, z, "ours.test", "host.test", "xn--bcher-kva.test"), Hostname: "mx.host.test", Resolver: z})
	for _, c := range []struct{ from, sender, want string }{
		{"a@ours.test", "a@ours.test", "ours.test"},
		{"a@Ours.TEST", "", "ours.test"},
		{`"x@evil.test" <a@ours.test>`, "", "ours.test"},
		{"a@sub.ours.test", "b@host.test", "ours.test"},
		{"a@other.test", "b@ours.test", "ours.test"},
		{"MAILER-DAEMON@mx.host.test", "", "host.test"},
		{"a@other.test", "b@other.test", "host.test"},
		{"ä@bücher.test", "", "xn--bcher-kva.test"},
		{"b@c.test (Sales) via C <a@ours.test>", "", "ours.test"},
		{"a@ours.test\r\nFrom: b@host.test", "", "host.test"}, // two readings: nobody's
	} {
		text := "From: " + c.from + "\r\n\r\nx\r\n"
		fields := fieldsFor(t, s, Mail{Ours: true, Sender: c.sender}, text)
		if got := verdicts(t, z, fields+text); strings.Contains(c.from, "\nFrom") {
			if strings.Contains(fields, "d=ours.test") {
				t.Errorf("%q: signed as ours.test", c.from)
			}
		} else if !slices.Equal(got, []string{c.want + " <nil>", c.want + " <nil>"}) {
			t.Errorf("%q from %q: %q, want %s", c.from, c.sender, got, c.want)
		}
		if fields := fieldsFor(t, s, Mail{Sender: c.sender}, text); fields != "" {
			t.Errorf("%q: what is not ours was signed: %s", c.from, fields)
		}
		if fields := fieldsFor(t, s, Mail{Sender: c.sender, For: "list@ours.test"}, text); strings.Contains(fields, "DKIM-Signature") {
			t.Errorf("%q: what was sent on was signed: %s", c.from, fields)
		}
	}
	bare := NewSigner(Options{Keys: OpenKeys(disk.OS(), t.TempDir()), Hostname: "mx.host.test"})
	if fields := fieldsFor(t, bare, Mail{Ours: true}, crlf(letter)); fields != "" {
		t.Errorf("signed without keys: %s", fields)
	}
}

// RFC 8463 appendix A: the key, its record and the message signed with it.
func TestRFC8463(t *testing.T) {
	seed, _ := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	private := ed25519.NewKeyFromSeed(seed)
	const published = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	if text, err := record(private.Public()); err != nil || text != published {
		t.Fatalf("%s, %v", text, err)
	}
	data, err := os.ReadFile("testdata/rfc8463.eml")
	if err != nil {
		t.Fatal(err)
	}
	text := crlf(string(data))
	h, body, err := readHeader(strings.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	tags, err := parseTags(strings.SplitN(string(h[0].raw), ":", 2)[1])
	if err != nil {
		t.Fatal(err)
	}
	sum, err := bodyHashes(strings.NewReader(text), body, int64(len(text)))(true)
	if got := base64.StdEncoding.EncodeToString(sum); err != nil || got != tags["bh"] {
		t.Errorf("bh=%s, %v", got, err)
	}
	hash := messageHash(h[1:], tags.list("h"), h[0].raw, true)
	made, err := signHash(private, hash[:])
	if got := base64.StdEncoding.EncodeToString(made); err != nil || got != tags.compact("b") {
		t.Errorf("b=%s, %v", got, err)
	}
	public, err := ParseRecord(published)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifyHash(public, tags.compact("a"), hash, made); err != nil {
		t.Error(err)
	}
	if err := verifyHash(public, "rsa-sha256", hash, made); err == nil {
		t.Error("verifies under another algorithm")
	}
}

func TestRecords(t *testing.T) {
	for text, want := range map[string]string{
		"p=": "revoked", "v=DKIM1": "no key", "v=DKIM2; p=AA==": "version", "v=DKIM1; p=%%": "base64", "p=AAAA": "no RSA",
		"k=dsa; p=AAAA": "key type", "k=ed25519; p=AAAA": "3 bytes", "p=AA==; p=AA==": "twice", "h=sha1; p=AAAA": "SHA-256",
		"s=tlsrpt; p=AAAA": "not for mail", "nonsense": "no tag",
		// 512 bits
		"p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL1OB2gVMsSnFZ1AO2WNuhdC7JnO7wFrbIBXjZfrTAwNBnQuMBbYGgqDAGQ6HmtpPYcZXbvNxFKAdJHvRcnfGs0CAwEAAQ==": "512 bits",
	} {
		if _, err := ParseRecord(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	long := strings.Repeat("x", 600)
	if got := ZoneText(long); strings.Count(got, `"`) != 6 || strings.NewReplacer(`"`, "", " ", "").Replace(got) != long {
		t.Error(got)
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	keys := OpenKeys(disk.OS(), filepath.Join(dir, "dkim"))
	other := OpenKeys(disk.OS(), filepath.Join(dir, "dkim")) // the running server
	signing := func() (selectors []string) {
		t.Helper()
		for _, ks := range []*Keys{keys, other} {
			found, err := ks.Signing("sub.d.test")
			if err != nil {
				t.Fatal(err)
			}
			selectors = append(selectors[:0], selectorsThatSign(found)...)
			slices.Sort(selectors)
		}
		return selectors
	}
	expect := func(want ...string) {
		t.Helper()
		if got := signing(); !slices.Equal(got, want) {
			t.Fatalf("%q sign, want %q", got, want)
		}
	}
	expect()
	for _, s := range []string{"r1", "e1", "r2"} {
		algorithm := map[byte]string{'r': RSA, 'e': Ed25519}[s[0]]
		k, err := keys.New("d.test", s, algorithm)
		if err != nil || k.Algorithm != algorithm || !k.Matches(k.Record()) {
			t.Fatal(k, err)
		}
		for _, ext := range []string{".key", ".txt"} {
			info, err := os.Stat(filepath.Join(dir, "dkim", "d.test", s+ext))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info.Mode(), err)
			}
		}
	}
	expect("e1", "r1") // r2 waits until its record is published
	if err := keys.Remove("d.test", "r1"); !errors.Is(err, ErrLastKey) {
		t.Error(err)
	}
	if err := keys.Use("d.test", "r2"); err != nil {
		t.Fatal(err)
	}
	expect("e1", "r2")
	if err := keys.Remove("d.test", "r1"); err != nil {
		t.Error(err)
	}
	if list, err := other.List("d.test"); err != nil || len(list) != 2 {
		t.Error(list, err)
	}
	for _, err := range []error{keys.Use("d.test", "r1"), keys.Remove("d.test", "r1")} {
		if !errors.Is(err, ErrNoKey) {
			t.Error(err)
		}
	}
	if _, err := keys.New("d.test", "r2", RSA); !errors.Is(err, ErrKeyExists) {
		t.Error(err)
	}
	for _, bad := range [][2]string{{"../x", "s"}, {"d.test", "../s"}, {"d.test", ""}, {"D.test", "s"}, {".", "s"}, {"d.test", "a..b"}} {
		if _, err := keys.New(bad[0], bad[1], Ed25519); err == nil {
			t.Errorf("%q was made", bad)
		}
	}
	if domains, err := keys.Domains(); err != nil || !slices.Equal(domains, []string{"d.test"}) {
		t.Error(domains, err)
	}
}

// A crash between any two steps leaves no key that signs without a record to publish.
func TestNewKeyFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "d.test", "s.key"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeys(disk.OS(), dir).New("d.test", "s", Ed25519); err == nil {
		t.Fatal("made")
	}
	if err := os.WriteFile(filepath.Join(dir, "d.test", "bad.key"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewSigner(Options{Keys: OpenKeys(disk.OS(), dir), Hostname: "mx.d.test"})
	text := "From: a@d.test\r\n\r\n"
	if fields, err := s.Fields(t.Context(), Mail{Message: strings.NewReader(text), Size: int64(len(text)), Ours: true}); err == nil {
		t.Errorf("a key that cannot be read was passed over: %q", fields)
	}
}

// However hostile a header is, judging it takes no more than a moment's work: fields and names by the ten thousand.
func TestHostileHeader(t *testing.T) {
	var names, fields strings.Builder
	for i := range 30000 {
		fmt.Fprintf(&names, "x%d:", i)
		fmt.Fprintf(&fields, "y%d:\r\n", i)
	}
	z := zone{}
	keys := newKeys(t, z, "one.test")
	text := "DKIM-Signature: v=1; a=rsa-sha256; d=one.test; s=s-rsa; bh=AA==; b=AA==; h=from:" + names.String() + "from\r\n" +
		"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=one.test; s=s-rsa; b=AA==\r\nARC-Authentication-Results: i=1; x; none\r\n" +
		"ARC-Message-Signature: i=1; a=rsa-sha256; d=one.test; s=s-rsa; b=AA==; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;" +
		" c=/relaxed; h=from:" + names.String() + "from\r\nFrom: a@b.test\r\n" + fields.String() + "\r\n"
	if c := judge(t, z, text); c.State != ChainFail || !strings.Contains(c.Reason, "ARC-Message-Signature 1: crypto/rsa") {
		t.Errorf("%+v", c)
	}
	if sealed := newHop(t, z, keys, "mx.one.test", "l@one.test").sendOn(t, text); !strings.Contains(sealed, "dkim=neutral;\r\n\tarc=fail") {
		t.Errorf("%.1000s", sealed)
	}
}

func TestCanonicalBody(t *testing.T) {
	for in, want := range map[string][2]string{ // simple, relaxed
		"":                             {"\r\n", ""},
		"\r\n\r\n":                     {"\r\n", ""},
		" \r\n":                        {" \r\n", ""},
		"a":                            {"a\r\n", "a\r\n"},
		"a\r\n\r\n\r\n":                {"a\r\n", "a\r\n"},
		" C \r\nD \t E\r\n\r\n\r\n":    {" C \r\nD \t E\r\n", " C\r\nD E\r\n"}, // RFC 6376 section 3.4.6
		"a\r\n\r\nb":                   {"a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n"},
		"a\rb\nc \r":                   {"a\rb\r\nc \r\r\n", "a\rb\r\nc \r\r\n"},
		"a \r \r\n":                    {"a \r \r\n", "a \r\r\n"},
		strings.Repeat("xy \r\n", 9e3): {strings.Repeat("xy \r\n", 9e3), strings.Repeat("xy\r\n", 9e3)},
	} {
		for i, relaxed := range []bool{false, true} {
			for _, step := range []int{1, 2, 3, 1 << 20} {
				var out bytes.Buffer
				b := newCanonicalBody(&out, relaxed)
				for part := range slices.Chunk([]byte(in), step) {
					_, _ = b.Write(part)
				}
				if err := b.Close(); err != nil || out.String() != want[i] {
					t.Errorf("%.40q relaxed %v by %d: %.60q, want %.60q", in, relaxed, step, out.String(), want[i])
				}
			}
		}
	}
}

// FuzzChain: no message makes the validator or the signer panic, hang, or pass what has no seal.
func FuzzChain(f *testing.F) {
	data, _ := os.ReadFile("testdata/arc2.eml")
	f.Add([]byte(crlf(string(data))))
	f.Add([]byte("ARC-Seal: i=1; cv=none\r\nARC-Message-Signature: i=1; h=From\r\nARC-Authentication-Results: i=1;\r\n\r\n"))
	f.Add([]byte(crlf(letter)))
	f.Fuzz(func(t *testing.T, text []byte) {
		z := maps.Clone(dummyZone)
		c, err := ValidateChain(t.Context(), z, bytes.NewReader(text), int64(len(text)), time.Unix(12350, 0))
		if err == nil && c.State == ChainPass && !bytes.Contains(bytes.ToLower(text), []byte("arc-seal")) {
			t.Error("passes without a seal")
		}
	})
}
