package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/directory"
)

var update = flag.Bool("update", false, "write what is said about bad configurations into their .want files")

// inCopy works in a copy of testdata, as data folders and certificates are looked for below the working directory.
func inCopy(t *testing.T) (testdata string) {
	t.Helper()
	testdata, err := filepath.Abs("../../testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(testdata)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	return testdata
}

// Every bad configuration fails well: all of its problems at once, each with its line and what to write instead.
func TestBad(t *testing.T) {
	testdata := inCopy(t)
	files, err := filepath.Glob("config/bad/*.toml")
	if err != nil || len(files) < 30 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, problems := Load(file)
			if c != nil || len(problems) == 0 {
				t.Fatalf("it was accepted: %+v", c)
			}
			got := strings.ReplaceAll(problems.Error(), file, filepath.Base(file)) + "\n"
			name := filepath.Join(testdata, strings.TrimSuffix(file, "toml")+"want")
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil || got != string(want) {
				t.Errorf("%v; got\n%swant\n%s", err, got, want)
			}
		})
	}
}

func TestFileItself(t *testing.T) {
	inCopy(t)
	if err := os.WriteFile("big.toml", make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"none.toml": "none.toml: cannot be read", "config": "is a folder", "/dev/zero": "not a regular file", "big.toml": "longer than",
	} {
		if _, problems := Load(path); len(problems) != 1 || !strings.Contains(problems.Error(), want) {
			t.Errorf("%s: %v", path, problems)
		}
	}
}

// However much is wrong, what is said stays readable; and a hostile file neither hangs nor panics.
func TestHostileFiles(t *testing.T) {
	inCopy(t)
	for name, data := range map[string]string{
		"many problems": strings.Repeat("x.y = 1\n", 100000),
		"deep":          "a = " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
		"too deep":      "a = " + strings.Repeat("[", 100000),
		"long key":      strings.Repeat("k", 1<<20) + " = 1",
		"dotted":        strings.Repeat("a.", 50000) + "b = 1",
		"NUL":           "hostname = \"a\x00b\"",
		"not UTF-8":     "hostname = \"a\xff\"",
	} {
		if err := os.WriteFile("x.toml", []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, problems := Load("x.toml"); len(problems) == 0 || len(problems) > 100 {
			t.Errorf("%s: %d problems", name, len(problems))
		}
	}
}

func good(t *testing.T, file string) *Config {
	t.Helper()
	c, problems := Load(file)
	if problems != nil {
		t.Fatalf("%v", problems)
	}
	return c
}

func TestDemo(t *testing.T) {
	inCopy(t)
	c := good(t, "demo.toml")
	if !c.Demo || c.Data != "./demo-data" || len(c.Accounts) != 3 || !c.Domains[0].AutoCreate || !c.Accounts[2].Legacy ||
		c.TLS.Mode != "self-signed" || !slices.Equal(c.Listen.IMAP, []string{"127.0.0.1:2143"}) {
		t.Errorf("%+v", c)
	}
	for _, s := range c.Listen.Services() {
		if len(s.Addresses) != 1 {
			t.Errorf("%s listens on %v", s.Name, s.Addresses)
		}
	}
	d, err := directory.Open(nil, c.Seed(), directory.WithHashParams(directory.HashParams{Memory: 8, Time: 1, Lanes: 1}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		if a, ok := d.CheckPassword(name+"@example.test", "secret"); !ok || !a.Legacy {
			t.Errorf("%s: %+v, %v", name, a, ok)
		}
	}
}

func TestGood(t *testing.T) {
	inCopy(t)
	makeCertificate(t, "config/good/cert.pem", "config/good/key.pem")
	if err := os.MkdirAll("credentials", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("credentials/leser", []byte("geheim\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "credentials")

	minimal, inline := good(t, "config/good/minimal.toml"), good(t, "config/good/inline.toml")
	if !reflect.DeepEqual(minimal, inline) {
		t.Errorf("two ways of writing one thing differ:\n%+v\n%+v", minimal, inline)
	}
	if minimal.Limits != Default().Limits || !reflect.DeepEqual(minimal.TrustedNetworks, Default().TrustedNetworks) {
		t.Errorf("defaults are lost: %+v", minimal)
	}

	c := good(t, "config/good/full.toml")
	if c.Limits.MessageSize != 25_000_000 || c.Limits.SMTPIdle != 90*time.Second || c.Auth.HashParams().Memory != 65536 ||
		c.Domains[0].QuotaMessages != 1e6 || c.Legacy.MaxReply != 100_000 || c.Routes[1].Password != "hunter2" {
		t.Errorf("%+v", c)
	}
	if a := c.Accounts; !strings.HasPrefix(a[1].PasswordHash, "$argon2id$") || a[1].Password != "" || a[2].Password != "geheim" {
		t.Errorf("secrets from elsewhere: %+v", a)
	}
	if c.Routes[2].Password == "" || c.Routes[3].Password != "geheim" {
		t.Errorf("secrets of routes: %+v", c.Routes)
	}
	d, err := directory.Open(nil, c.Seed())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := d.Resolve("abuse@bücher.example"); err != nil || r.Local[0].Account.Address != "alice@example.org" {
		t.Errorf("the postmaster: %+v, %v", r, err)
	}
}

// full.toml has every key there is, but those of modes that are not available yet.
func TestFullIsFull(t *testing.T) {
	data, err := os.ReadFile("../../testdata/config/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range allKeys() {
		key := name[strings.LastIndexByte(name, '.')+1:]
		if name != "account.password" && !strings.HasPrefix(name, "tls.") &&
			!regexp.MustCompile(`(?m)^\[*`+regexp.QuoteMeta(key)+`(\]| = )`).Match(data) {
			t.Errorf("%s is missing", name)
		}
	}
}

// What check prints can be loaded again, and says the same but for the secrets.
func TestWrite(t *testing.T) {
	inCopy(t)
	for _, file := range []string{"demo.toml", "config/good/minimal.toml"} {
		c := good(t, file)
		c.Hostname = `mx.example.test`
		c.TrustedNetworks = nil
		var b strings.Builder
		if err := c.Write(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "secret") {
			t.Errorf("a secret is printed:\n%s", b.String())
		}
		if err := os.WriteFile("again.toml", []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		again := good(t, "again.toml")
		for i := range c.Accounts {
			c.Accounts[i].Password = ""
		}
		if len(again.TrustedNetworks) != 0 {
			t.Error("an empty list became the default")
		}
		again.TrustedNetworks = nil
		if !reflect.DeepEqual(c, again) {
			t.Errorf("%s became\n%+v\nfrom\n%+v\nby\n%s", file, again, c, b.String())
		}
	}
	if got := tomlString("a\"\\\n\x7fé"); got != `"a\"\\\u000A\u007Fé"` {
		t.Error(got)
	}
}

// allKeys lists every key of the Config as "section.key".
func allKeys() []string {
	var names []string
	var walk func(t reflect.Type, section string)
	walk = func(t reflect.Type, section string) {
		for i := range t.NumField() {
			f := t.Field(i)
			name := f.Tag.Get("toml")
			switch {
			case f.Type.Kind() == reflect.Struct:
				walk(f.Type, name+".")
			case isTables(f.Type):
				walk(f.Type.Elem(), name+".")
			default:
				names = append(names, section+name)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	slices.Sort(names)
	return names
}

// docs/config.md tells every key, no other, and the default that holds.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile("^## .*`\\[+(\\w+)\\]+`")
	row := regexp.MustCompile("^\\| `(\\w+)` \\| (.*?) \\| (.*?) \\| (.+) \\|$")
	section := ""
	var told []string
	defaults := make(map[string]string)
	for line := range strings.SplitSeq(string(page), "\n") {
		if strings.HasPrefix(line, "## ") {
			section = ""
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			section = m[1] + "."
		}
		if m := row.FindStringSubmatch(line); m != nil {
			told = append(told, section+m[1])
			defaults[section+m[1]] = strings.Trim(m[3], "`")
		}
	}
	slices.Sort(told)
	if want := allKeys(); !slices.Equal(told, want) {
		t.Errorf("docs/config.md tells\n%v\nthere are\n%v", told, want)
	}
	checkDefaults(t, defaults)
}

func checkDefaults(t *testing.T, told map[string]string) {
	c := Default()
	c.Domains, c.Routes = []Domain{defaultDomain()}, []Route{defaultRoute()}
	c.Accounts, c.Aliases, c.Groups = make([]Account, 1), make([]Alias, 1), make([]Group, 1)
	c.Retries = make([]Retry, 1)
	v := reflect.ValueOf(c)
	for _, name := range allKeys() {
		section, key, nested := strings.Cut(name, ".")
		from := v
		if nested {
			for i := range v.NumField() {
				if v.Type().Field(i).Tag.Get("toml") == section {
					from = v.Field(i)
				}
			}
			if from.Kind() == reflect.Slice {
				from = from.Index(0)
			}
		} else {
			key = name
		}
		f, _ := fieldOf(from.Type(), key)
		want := tomlText(from.FieldByIndex(f.Index).Interface())
		if got := told[name]; got != want && (want != "" || !strings.HasPrefix(got, "none") && got != "required") {
			t.Errorf("docs/config.md has %s = %s as default; it is %q", name, got, want)
		}
	}
}

func TestSizesAndDurations(t *testing.T) {
	for text, want := range map[string]Size{
		`"25 MB"`: 25e6, `"1.5KiB"`: 1536, `"64 kib"`: 65536, `1_000`: 1000, `"7"`: 7, `"7 B"`: 7, `"1 TB"`: 1e12, `0x10`: 16,
	} {
		root, _ := parseTree([]byte("x = "+text), func(_ int, _, text string) { t.Error(text) })
		if got, why := size(root.entries["x"], 0); got != want || why != "" {
			t.Errorf("%s = %d, %s", text, got, why)
		}
	}
}

func makeCertificate(t *testing.T, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// No file makes the reader panic; what it takes, it can print.
func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("../../testdata/config/*/*.toml")
	for _, name := range append(files, "../../testdata/demo.toml") {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		report := func(line int, key, text string) {
			if line < 1 || text == "" {
				t.Fatalf("%d %q %q", line, key, text)
			}
		}
		root, _ := parseTree(data, report)
		c := Default()
		d := &decoder{report: report, places: make(map[any]place)}
		d.table(root, "", reflect.ValueOf(&c).Elem())
		if err := c.Write(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}
