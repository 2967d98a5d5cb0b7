package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailsrv/internal/config"
	"mailsrv/internal/directory"
	"mailsrv/internal/disk"
	"mailsrv/internal/tlsconf"
	"mailsrv/storage/kv"
)

// checkup gathers what check finds.
type checkup struct {
	*cli
	cfg     *config.Config
	running bool // a server runs on the data folder
	people  []string
	leaf    *x509.Certificate // the certificate that is shown, if there is one
	bad     int
}

// note is of what could be better, or is not looked at.
func (x *checkup) note(what, format string, args ...any) {
	fmt.Fprintf(x.out, "--  %-12s %s\n", what, fmt.Sprintf(format, args...))
}

// check looks at everything a start needs, then at the server from outside, and changes nothing.
func (c *cli) check(args []string) error {
	f := c.flags()
	effective := f.Bool("print", false, "print the configuration in effect: the file over the defaults, without secrets")
	local := f.Bool("local", false, "look at this machine only, not at the DNS and the ports as the world sees them")
	timeout := f.Duration("timeout", time.Minute, "for all looks from outside")
	if _, err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	cfg, err := c.load()
	if err != nil {
		return err
	}
	if *effective {
		return cfg.Write(c.out)
	}
	x := &checkup{cli: c, cfg: cfg}
	x.ok("config", "%s: %s", c.path, countText(len(cfg.Domains), "domain")+", "+countText(len(cfg.Accounts), "declared account"))
	x.server()
	x.data()
	x.certificate()
	x.listeners()
	x.directory()
	if !*local {
		x.outside(*timeout)
	}
	if x.bad > 0 {
		return fmt.Errorf("%s to look at", countText(x.bad, "thing"))
	}
	return nil
}

func countText(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (x *checkup) ok(what, format string, args ...any) {
	fmt.Fprintf(x.out, "ok  %-12s %s\n", what, fmt.Sprintf(format, args...))
}

func (x *checkup) wrong(what, format string, args ...any) {
	x.bad++
	fmt.Fprintf(x.out, "!!  %-12s %s\n", what, fmt.Sprintf(format, args...))
}

// server asks the running server what it has to say of the directory; the data is its own then.
func (x *checkup) server() {
	problems, err := askServer(x.cfg.Data, request{Do: "problems"})
	switch {
	case err == nil:
		x.running, x.people = true, problems
		x.ok("server", "running")
	case errors.Is(err, errNoServer):
		x.ok("server", "not running")
	default:
		x.wrong("server", "%v", err)
	}
}

func (x *checkup) data() {
	dir := x.cfg.Data
	for ; dir != "." && dir != "/"; dir = filepath.Dir(dir) { // the nearest folder there is; Load has seen that one can be written
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	free, err := disk.OS().Free(dir)
	switch {
	case err != nil:
		x.wrong("data", "%s: %v", x.cfg.Data, err)
	case free < int64(x.cfg.Limits.DiskReserve):
		x.wrong("data", "%s: only %s free, no mail is taken in below disk_reserve: make room", x.cfg.Data, megabytes(free))
	default:
		x.ok("data", "%s: %s free", x.cfg.Data, megabytes(free))
	}
	if info, err := os.Stat(x.cfg.Data); err == nil && info.Mode().Perm()&0o077 != 0 {
		x.wrong("data", "%s can be read by others: chmod 700 %s", x.cfg.Data, x.cfg.Data)
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", n/1e6) }

func (x *checkup) certificate() {
	o := tlsOptions(x.cfg, nil)
	if o.Mode == tlsconf.SelfSigned {
		kept := filepath.Join(o.Dir, "self-signed.pem")
		if _, err := os.Stat(kept); errors.Is(err, fs.ErrNotExist) {
			x.ok("certificate", "self-signed, made at the first start")
			return
		}
		o.Mode, o.Cert, o.Key = tlsconf.Files, kept, kept // only looked at: as self-signed it could be made anew
	}
	certs, err := tlsconf.Load(o)
	if err != nil {
		x.wrong("certificate", "%v", err)
		return
	}
	leaf := certs.Leaf()
	x.leaf = leaf
	x.ok("certificate", "%s, until %s, SHA-256 %s", strings.Join(leaf.DNSNames, ", "),
		leaf.NotAfter.UTC().Format("2006-01-02"), certs.Fingerprint())
	for _, w := range certs.Warnings() {
		x.wrong("certificate", "%s", w)
	}
}

// listeners tries every port, unless the server has them.
func (x *checkup) listeners() {
	for _, service := range x.cfg.Listen.Services() {
		for _, address := range service.Addresses {
			if x.running {
				x.ok("listen", "%s %s (the server's)", service.Name, address)
				continue
			}
			l, err := listen(service.Name, address)
			if err != nil {
				x.wrong("listen", "%s", strings.TrimPrefix(err.Error(), "listen: "))
				continue
			}
			x.ok("listen", "%s %s", service.Name, address)
			_ = l.Close() // nothing was accepted
		}
	}
}

func (x *checkup) directory() {
	if !x.running {
		problems, err := x.storedPeople()
		if err != nil {
			x.wrong("directory", "%v", err)
			return
		}
		x.people = problems
	}
	for _, p := range x.people {
		x.wrong("directory", "%s", p)
	}
	if len(x.people) == 0 {
		x.ok("directory", "all accounts, aliases and groups lead somewhere")
	}
}

// storedPeople reads the directory without making a system.db where there is none.
func (x *checkup) storedPeople() (problems []string, err error) {
	var db kv.DB
	if _, err := os.Stat(filepath.Join(x.cfg.Data, "system.db")); err == nil {
		if db, err = openSystemDB(x.cfg.Data); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	people, err := directory.Open(db, x.cfg.Seed())
	if err != nil {
		return nil, err
	}
	return people.Problems(), nil
}
