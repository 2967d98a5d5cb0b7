package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/disk"
)

func mustLoad(t *testing.T, o Options) *Certificates {
	t.Helper()
	c, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "tls")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := Options{Dir: dir, Hostname: "mx.example.test", Now: func() time.Time { return now }}
	c := mustLoad(t, o)

	leaf := c.Leaf()
	for _, name := range []string{"mx.example.test", "localhost", "127.0.0.1", "::1"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d := leaf.NotAfter.Sub(now); d < 3650*24*time.Hour {
		t.Errorf("valid for %v", d)
	}
	fi, err := os.Stat(filepath.Join(dir, selfSignedFile))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if !regexp.MustCompile(`^([0-9A-F]{2}:){31}[0-9A-F]{2}$`).MatchString(c.Fingerprint()) {
		t.Errorf("fingerprint %q", c.Fingerprint())
	}
	if ws := c.Warnings(); len(ws) != 0 {
		t.Errorf("warnings: %q", ws)
	}

	first := c.Fingerprint()
	if again := mustLoad(t, o).Fingerprint(); again != first {
		t.Error("the second start made another certificate")
	}
	now = now.AddDate(10, 0, -31)
	if again := mustLoad(t, o).Fingerprint(); again != first {
		t.Error("renewed more than 30 days before its end")
	}
	now = now.AddDate(0, 0, 2)
	renewed := mustLoad(t, o).Fingerprint()
	if renewed == first {
		t.Error("not renewed before its end")
	}
	o.Hostname = "other.example.test"
	c = mustLoad(t, o)
	if c.Fingerprint() == renewed || c.Leaf().VerifyHostname("other.example.test") != nil {
		t.Error("not made anew for another hostname")
	}
}

func TestSelfSignedTrouble(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, selfSignedFile)
	if err := os.WriteFile(name, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The fingerprint people have accepted must not change because of a damaged file without anybody noticing.
	if _, err := Load(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("damaged file: %v", err)
	}
	full := disk.NewFaulty(disk.OS(), func(op, path string) error {
		if op == "sync" {
			return &fs.PathError{Op: op, Path: path, Err: errors.New("disk full")}
		}
		return nil
	})
	empty := t.TempDir()
	if _, err := Load(Options{Dir: empty, FS: full}); err == nil {
		t.Error("a certificate that was not kept is used")
	}
	if _, err := Load(Options{Mode: "acme2"}); err == nil || !strings.Contains(err.Error(), "acme2") {
		t.Errorf("unknown mode: %v", err)
	}
}

// files writes a certificate and its key for hostname and returns their names.
func files(t *testing.T, dir, hostname string, now time.Time) (cert, key string) {
	t.Helper()
	data, err := generate(hostname, now)
	if err != nil {
		t.Fatal(err)
	}
	first, rest := pem.Decode(data)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(cert, pem.EncodeToMemory(first), 0o644), os.WriteFile(key, rest, 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := files(t, dir, "mx.example.test", time.Now())
	o := Options{Mode: Files, Cert: cert, Key: key, Hostname: "mx.example.test"}
	c := mustLoad(t, o)
	first := c.Fingerprint()
	if ws := c.Warnings(); len(ws) != 0 {
		t.Errorf("warnings: %q", ws)
	}
	files(t, dir, "mx.example.test", time.Now())
	if err := c.Reload(); err != nil || c.Fingerprint() == first {
		t.Errorf("reload: %v", err)
	}
	second := c.Fingerprint()
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(); !errors.Is(err, fs.ErrNotExist) || c.Fingerprint() != second {
		t.Errorf("reload without a key: %v", err)
	}
}

func TestFilesMismatchAndWarnings(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	cert, key := files(t, one, "a.test", time.Now())
	_, otherKey := files(t, two, "a.test", time.Now())
	if _, err := Load(Options{Mode: Files, Cert: cert, Key: otherKey}); err == nil || !strings.Contains(err.Error(), otherKey) {
		t.Errorf("another certificate's key: %v", err)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in   time.Duration
		want string
	}{{0, "not for the hostname"}, {0, "chmod"}, {3645 * 24 * time.Hour, "expires on"}, {4000 * 24 * time.Hour, "expired on"},
		{-48 * time.Hour, "clock"}} {
		certs := mustLoad(t, Options{Mode: Files, Cert: cert, Key: key, Hostname: "b.test",
			Now: func() time.Time { return time.Now().Add(c.in) }})
		if ws := strings.Join(certs.Warnings(), "\n"); !strings.Contains(ws, c.want) {
			t.Errorf("after %v: %q lacks %q", c.in, ws, c.want)
		}
	}
}

func TestHandshakes(t *testing.T) {
	c := mustLoad(t, Options{Dir: t.TempDir(), Hostname: "mx.example.test"})
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.Server())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) { defer conn.Close(); _, _ = io.Copy(conn, conn) }(conn)
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(c.Leaf())
	for _, v := range []struct {
		version uint16
		ok      bool
	}{{tls.VersionTLS13, true}, {tls.VersionTLS12, true}, {tls.VersionTLS11, false}, {tls.VersionTLS10, false}} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "mx.example.test",
			MinVersion: tls.VersionTLS10, MaxVersion: v.version, NextProtos: []string{"h2"}})
		if (err == nil) != v.ok {
			t.Errorf("%s: %v", tls.VersionName(v.version), err)
		}
		if err == nil {
			if p := conn.ConnectionState().NegotiatedProtocol; p != "" {
				t.Errorf("negotiated %q", p)
			}
			conn.Close()
		}
	}
}
