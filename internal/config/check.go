package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mailsrv/internal/directory"
)

// checker looks for what types cannot say. It fills in what is read from elsewhere (secrets).
type checker struct {
	c      *Config
	places map[any]place
	report func(line int, key, text string)
}

func check(c *Config, places map[any]place, report func(line int, key, text string)) {
	x := &checker{c, places, report}
	x.server()
	x.listen()
	x.tls()
	x.people()
	x.outgoing()
	x.limits()
}

// bad reports a problem with a key of a struct of the Config, at the key's line, or the struct's if the key is not there.
func (x *checker) bad(of any, section, key, format string, args ...any) {
	at := x.places[of]
	line, ok := at[key]
	if !ok {
		line = max(at[""], 1)
	}
	key, _, _ = strings.Cut(key, ".") // the item's number
	if section != "" && key != "" {
		key = section + "." + key
	}
	if key == "" {
		key = section
	}
	x.report(line, key, fmt.Sprintf(format, args...))
}

// missing reports that a top-level key is not there. One that is there and could not be used has been reported.
func (x *checker) missing(key, text string) {
	if l := &x.c.Listen; !x.has(x.c, key) || key == "listen" && len(x.places[l]) == 1 {
		x.bad(x.c, "", key, "%s", text)
	}
}

// has reports whether the file sets the key.
func (x *checker) has(of any, key string) bool {
	_, ok := x.places[of][key]
	return ok
}

func (x *checker) server() {
	c := x.c
	if c.Hostname == "" {
		x.missing("hostname", `missing: write the name that the world knows this server by, such as "mx.example.org"`)
	} else if _, err := directory.CanonicalDomain(c.Hostname); err != nil || !ascii(c.Hostname) {
		x.bad(c, "", "hostname", `%.80q is not a host name: write letters, digits, hyphens and dots, such as "mx.example.org"`, c.Hostname)
	}
	if c.Data == "" {
		x.missing("data", `missing: write the folder for all mail, such as "/var/lib/mailsrv"`)
	} else if err := writable(c.Data); err != nil {
		x.bad(c, "", "data", "%v: write a folder that this user may write, or make it so", err)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		x.bad(&c.Log, "log", "level", `%.40q is no level: write "debug", "info", "warn" or "error"`, c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		x.bad(&c.Log, "log", "format", `%.40q is no format: write "text" or "json"`, c.Log.Format)
	}
}

// writable asks the system whether the folder, or the nearest one above it that exists, can be written.
func writable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(dir)
		if parent == dir {
			return fmt.Errorf("%s does not exist", dir)
		}
		return writable(parent)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s is below a file", dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	}
	if unix.Access(dir, unix.W_OK|unix.X_OK) != nil {
		return fmt.Errorf("%s cannot be written", dir)
	}
	return nil
}

// endpoint is one address to listen on.
type endpoint struct {
	service string
	index   int
	host    netip.Addr // unspecified: all
	port    int
}

func (x *checker) listen() {
	var ends []endpoint
	for _, s := range x.c.Listen.Services() {
		for i, text := range s.Addresses {
			key := fmt.Sprintf("%s.%d", s.Name, i)
			e, why := parseEndpoint(text)
			if why != "" {
				x.bad(&x.c.Listen, "listen", key, "%s", why)
				continue
			}
			e.service, e.index = s.Name, i
			for _, other := range ends {
				if e.clashes(other) {
					x.bad(&x.c.Listen, "listen", key, "%s is taken by listen.%s: give each its own port", text, other.service)
					break
				}
			}
			ends = append(ends, e)
			if x.c.Demo && !e.host.IsLoopback() {
				x.bad(&x.c.Listen, "listen", key,
					"%s can be reached by others, and everybody knows the demo's passwords: listen on 127.0.0.1 or ::1, or set demo = false", text)
			}
		}
	}
	if !slices.ContainsFunc(x.c.Listen.Services(), func(s Service) bool { return len(s.Addresses) > 0 }) {
		x.missing("listen", `nothing to listen on: write at least one service, such as imaps = ["0.0.0.0:993"]`)
	}
}

func parseEndpoint(text string) (e endpoint, why string) {
	const usage = `: write "ip:port", such as "127.0.0.1:143", "[::]:143", or ":143" for all addresses`
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return e, fmt.Sprintf("%.80q is no address to listen on", text) + usage
	}
	if e.port, err = strconv.Atoi(port); err != nil || e.port < 0 || e.port > 65535 {
		return e, fmt.Sprintf("%.80q has no port from 0 to 65535", text) + usage
	}
	switch host {
	case "":
		e.host = netip.IPv6Unspecified()
	case "localhost":
		e.host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if e.host, err = netip.ParseAddr(host); err != nil {
			return e, fmt.Sprintf("%.80q is no IP address", host) + usage
		}
		e.host = e.host.Unmap()
	}
	return e, ""
}

// clashes reports whether the second of two could not be opened. [::] takes IPv4 as well.
func (e endpoint) clashes(o endpoint) bool {
	if e.port != o.port || e.port == 0 {
		return false
	}
	all := func(a netip.Addr) bool { return a == netip.IPv6Unspecified() }
	sameFamily := e.host.Is4() == o.host.Is4()
	return e.host == o.host || all(e.host) || all(o.host) ||
		sameFamily && (e.host.IsUnspecified() || o.host.IsUnspecified())
}

func (x *checker) tls() {
	t := &x.c.TLS
	switch t.Mode {
	case "self-signed":
		for _, key := range []string{"cert", "key"} {
			if x.has(t, key) {
				x.bad(t, "tls", key, `is used with mode = "files" only: change the mode, or remove it`)
			}
		}
	case "files":
		x.certificate(t)
	case "acme":
		x.bad(t, "tls", "mode", `"acme" is not available yet: write "files" with cert and key (certbot or lego get them), or "self-signed"`)
	default:
		x.bad(t, "tls", "mode", `%.40q is no mode: write "self-signed", "files" or "acme"`, t.Mode)
	}
	if t.Mode != "acme" {
		for _, key := range []string{"email", "directory"} {
			if x.has(t, key) {
				x.bad(t, "tls", key, `is used with mode = "acme" only: remove it`)
			}
		}
	}
}

func (x *checker) certificate(t *TLS) {
	missing := false
	for _, f := range []struct{ key, path string }{{"cert", t.Cert}, {"key", t.Key}} {
		if f.path == "" {
			x.bad(t, "tls", f.key, `missing: mode = "files" needs cert and key, two PEM files`)
			missing = true
		} else if _, err := readBounded(f.path, 1<<20); err != nil {
			x.bad(t, "tls", f.key, "cannot be read: %v", err)
			missing = true
		}
	}
	if missing {
		return
	}
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		x.bad(t, "tls", "cert", "%s and %s are no certificate with its key: %v", t.Cert, t.Key, err)
	}
}

func (x *checker) outgoing() {
	c := x.c
	if c.DNS.Server != "" {
		if _, err := netip.ParseAddrPort(c.DNS.Server); err != nil {
			x.bad(&c.DNS, "dns", "server", `%.80q is no server: write "ip:port", such as "127.0.0.1:53"`, c.DNS.Server)
		}
	}
	seen := make(map[string]*Route)
	for i := range c.Routes {
		x.route(&c.Routes[i], seen)
	}
}

func (x *checker) route(r *Route, seen map[string]*Route) {
	if domain, err := directory.CanonicalDomain(r.Domain); err == nil {
		r.Domain = domain
	} else if r.Domain != "*" {
		x.bad(r, "route", "domain", `%.80q is no domain: write the domain that the mail is for, or "*" for all others`, r.Domain)
	}
	key := r.Domain + " " + x.routeSender(r)
	if other := seen[key]; other != nil {
		x.bad(r, "route", "domain", "there is another route for %s on line %d: remove one of the two",
			strings.TrimSuffix(strings.Replace(key, " ", " from ", 1), " from "), x.places[other][""])
	}
	seen[key] = r
	if !hostPort(r.Host) {
		x.bad(r, "route", "host", `%.80q is no server: write "name:port" or "ip:port", such as "mail.example.org:587"`, r.Host)
	}
	if r.SOCKS != "" && !hostPort(r.SOCKS) {
		x.bad(r, "route", "socks", `%.80q is no proxy: write "name:port" or "ip:port", such as "127.0.0.1:9050"`, r.SOCKS)
	}
	if _, err := netip.ParseAddr(r.Source); r.Source != "" && err != nil {
		x.bad(r, "route", "source", `%.80q is no IP address: write one that this machine has, such as "192.0.2.25"`, r.Source)
	}
	if _, err := directory.CanonicalDomain(r.Hello); r.Hello != "" && (err != nil || !ascii(r.Hello)) {
		x.bad(r, "route", "hello", `%.80q is no host name: write letters, digits, hyphens and dots, such as "mx.example.org"`, r.Hello)
	}
	if !slices.Contains([]string{"none", "opportunistic", "require", "implicit"}, r.TLS) {
		x.bad(r, "route", "tls", `%.40q is no choice: write "none", "opportunistic", "require" or "implicit"`, r.TLS)
	}
	secret := x.secret(r, "route", &r.Password, r.PasswordFile, r.PasswordCredential)
	switch {
	case r.Username != "" && !secret:
		x.bad(r, "route", "username", "has no password: write password, password_file or password_credential too")
	case r.Username == "" && secret:
		x.bad(r, "route", "", "has a password and no username: write both, or neither")
	case secret && (r.TLS == "none" || r.TLS == "opportunistic") && (r.SOCKS != "" || !loopback(r.Host)):
		x.bad(r, "route", "tls", `would send the password where it can be read: write "require" or "implicit"`)
	}
}

// routeSender makes a route's sender canonical.
func (x *checker) routeSender(r *Route) string {
	if r.Sender == "" {
		return ""
	}
	canonical, err := directory.CanonicalDomain(r.Sender)
	if strings.Contains(r.Sender, "@") {
		canonical, err = directory.Canonical(r.Sender)
	}
	if err != nil {
		x.bad(r, "route", "sender", `%.80q is no sender: write an address, or a domain for all of its addresses`, r.Sender)
		return r.Sender
	}
	r.Sender = canonical
	return canonical
}

func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, errPort := strconv.Atoi(port)
	return err == nil && host != "" && errPort == nil && n >= 1 && n <= 65535
}

// loopback: what goes there nobody can read on the way.
func loopback(hostport string) bool {
	host, _, _ := net.SplitHostPort(hostport)
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// secret reads a password from the one place that is named for it; false if there is none or a problem was reported.
func (x *checker) secret(of any, section string, password *string, file, credential string) bool {
	sources := 0
	for _, key := range []string{"password", "password_hash", "password_file", "password_credential"} {
		if x.has(of, key) {
			if sources++; sources > 1 {
				x.bad(of, section, key, "there is another password above: keep one of the two")
			}
		}
	}
	key := "password_file"
	if credential != "" {
		key = "password_credential"
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		switch {
		case dir == "":
			x.bad(of, section, key, "there are no credentials: start mailsrv by systemd with LoadCredential=%s:…, or write password_file", credential)
			return false
		case credential != filepath.Base(credential) || credential == "." || credential == "..":
			x.bad(of, section, key, "%.80q is no name of a credential: write the name given to LoadCredential=", credential)
			return false
		}
		file = filepath.Join(dir, credential)
	}
	if file == "" {
		return *password != ""
	}
	data, err := readBounded(file, 4<<10)
	if err != nil {
		x.bad(of, section, key, "cannot be read: %v", err)
		return false
	}
	*password = strings.TrimRight(string(data), "\r\n")
	if *password == "" || strings.ContainsAny(*password, "\r\n\x00") {
		x.bad(of, section, key, "%s has to hold the password, or its hash, on its one line", file)
		return false
	}
	return true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
