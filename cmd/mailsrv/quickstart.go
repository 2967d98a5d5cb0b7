package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/term"

	"mailsrv/internal/config"
	"mailsrv/internal/directory"
	"mailsrv/internal/disk"
	"mailsrv/internal/mailauth"
	"mailsrv/internal/outside"
	"mailsrv/internal/tlsconf"
)

// start is what quickstart makes.
type start struct {
	Address, Domain, Hostname string
	File, Data                string
	password                  string
	made                      string // the password, if it was made here
}

// configText is the configuration that quickstart writes: what a server for the world needs, and nothing else.
var configText = template.Must(template.New("").Parse(`# mailsrv for {{.Domain}}, as quickstart wrote it. All keys: docs/config.md.

hostname = "{{.Hostname}}"           # the server's name; MX and the reverse name of its address lead to it
data = "{{.Data}}"
postmaster = "{{.Address}}"

[listen]
smtp = [":25"]                       # mail from the world
submissions = [":465"]               # mail from your people's programs
submission = [":587"]
imaps = [":993"]                     # reading it
http = ["127.0.0.1:2080"]            # health and metrics, for this machine

[tls]
mode = "self-signed"                 # until you have a certificate; then:
# mode = "files"
# cert = "/etc/letsencrypt/live/{{.Hostname}}/fullchain.pem"
# key = "/etc/letsencrypt/live/{{.Hostname}}/privkey.pem"

[[domain]]
name = "{{.Domain}}"
`))

func (c *cli) quickstart(args []string) error {
	f := c.flags()
	dir := f.String("dir", ".", "the `folder` for mailsrv.toml and data")
	hostname := f.String("hostname", "", "the server's `name` (default: mail.DOMAIN)")
	stdin := f.Bool("password-stdin", false, "read the password from standard input (its first line)")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	s, err := newStart(others[0], *hostname, *dir)
	if err != nil {
		return mistake{err}
	}
	if s.password, s.made, err = c.firstPassword(*stdin); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return errors.Join(err, s.takeBack())
	}
	return c.tellStart(s)
}

// newStart works out names, and refuses what would overwrite something.
func newStart(address, hostname, dir string) (*start, error) {
	canonical, err := directory.Canonical(address)
	if err != nil {
		return nil, err
	}
	_, domain := directory.SplitAddress(canonical)
	if domain == "" {
		return nil, fmt.Errorf("%q has no domain: write your address as it is going to be, such as you@example.org", address)
	}
	if hostname == "" {
		hostname = "mail." + domain
	}
	if hostname, err = directory.CanonicalDomain(hostname); err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	s := &start{Address: canonical, Domain: domain, Hostname: hostname,
		File: filepath.Join(dir, "mailsrv.toml"), Data: filepath.Join(dir, "data")}
	for _, path := range []string{s.File, s.Data} {
		_, err := os.Lstat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			return nil, fmt.Errorf("%s is there already, and nothing is overwritten: write another -dir", path)
		}
	}
	if strings.ContainsAny(s.Data, "\"\\\n") {
		return nil, fmt.Errorf("%q: write a -dir without quotes and backslashes", dir)
	}
	return s, nil
}

// firstPassword is asked for, read, or made: without a terminal there is nobody to ask.
func (c *cli) firstPassword(stdin bool) (password, made string, err error) {
	file, ok := c.in.(*os.File)
	if stdin || ok && term.IsTerminal(int(file.Fd())) {
		password, err = c.password(stdin)
		return password, "", err
	}
	made = rand.Text()
	return made, made, nil
}

// write makes everything; the configuration last, since with it the rest is in use.
func (s *start) write() error {
	var text strings.Builder
	if err := configText.Execute(&text, s); err != nil {
		return err
	}
	fsys := disk.OS()
	if err := fsys.MkdirAll(s.Data, 0o700); err != nil {
		return err
	}
	beside := filepath.Join(s.Data, "mailsrv.toml") // not yet where it counts
	if err := fsys.Replace(beside, []byte(text.String()), 0o600); err != nil {
		return err
	}
	cfg, problems := config.Load(beside)
	if problems != nil {
		return problems
	}
	for _, step := range []func(*config.Config) error{s.makeKeys, s.makeCertificate, s.makeAccount} {
		if err := step(cfg); err != nil {
			return err
		}
	}
	if err := fsys.Link(beside, s.File); err != nil { // not a rename: that would overwrite
		return err
	}
	return errors.Join(fsys.Remove(beside), fsys.SyncDir(filepath.Dir(s.File)))
}

func (s *start) makeKeys(cfg *config.Config) error {
	_, err := makeKeys(dkimKeys(cfg), s.Domain, "", []string{mailauth.RSA, mailauth.Ed25519})
	return err
}

func (s *start) makeCertificate(cfg *config.Config) error {
	_, err := tlsconf.Load(tlsOptions(cfg, nil))
	return err
}

func (s *start) makeAccount(cfg *config.Config) error {
	a, closeData, err := openData(cfg)
	if err != nil {
		return err
	}
	_, err = a.do(request{Do: "user add", Address: s.Address, Password: s.password})
	return errors.Join(err, closeData())
}

// takeBack leaves nothing of a start that failed: all of it was made here.
func (s *start) takeBack() error {
	return disk.OS().RemoveAll(s.Data)
}

// tellStart prints what there is now, the records, and what to do next.
func (c *cli) tellStart(s *start) error {
	cfg, problems := config.Load(s.File)
	if problems != nil {
		return problems
	}
	setup, err := setupOf(cfg)
	if err != nil {
		return err
	}
	certs, err := tlsconf.Load(tlsOptions(cfg, nil))
	if err != nil {
		return err
	}
	setup.Certificate, setup.Addresses = certs.Leaf(), publicAddresses()
	fmt.Fprintf(c.out, "; Wrote %s, and below %s: the account %s,\n; two DKIM keys and a self-signed certificate.\n", s.File, s.Data, s.Address)
	if s.made != "" {
		fmt.Fprintf(c.out, ";\n; The password of %s, shown only now: %s\n", s.Address, s.made)
	}
	fmt.Fprintf(c.out, ";\n; The DNS records (docs/dns.md says why):\n;\n")
	if err := setup.WriteZone(c.out, time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, ";\n; Next, when they are published:\n;\n;   mailsrv -config %s check\n;   mailsrv -config %s\n", s.File, s.File)
	return err
}

// publicAddresses are this machine's that the world can reach, at most one of each kind; none behind a router.
func publicAddresses() (all []netip.Addr) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var four, six bool
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := prefix.Addr().Unmap()
		if !outside.Reachable(ip) || ip.Is4() && four || ip.Is6() && six {
			continue
		}
		four, six = four || ip.Is4(), six || ip.Is6()
		all = append(all, ip)
	}
	return all
}
