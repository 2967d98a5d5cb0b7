package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsrv/internal/auth"
	"mailsrv/internal/delivery"
	"mailsrv/internal/directory"
	"mailsrv/internal/wire"
	"mailsrv/legacyd"
	"mailsrv/storage"
)

const beClient = "COURSEMAIL_TEST_IS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beClient) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func program(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Cancel = func() error { cancel(); return cmd.Process.Kill() }
	cmd.Env = append(os.Environ(), beClient+"=1", "GORACE=atexit_sleep_ms=0") // else each run takes a second more
	return cmd
}

// outcome is what a run of the program came to.
type outcome struct {
	out, errs string
	code      int
}

func piped(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	return finish(t, program(args...), stdin)
}

func finish(t *testing.T, cmd *exec.Cmd, stdin string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (o outcome) want(t *testing.T, out, errs string, code int) {
	t.Helper()
	if o.out != out || o.errs != errs || o.code != code {
		t.Errorf("got exit %d, output\n%s---\n%s---\nwant exit %d, output\n%s---\n%s---", o.code, o.out, o.errs, code, out, errs)
	}
}

// legacy is our server over a real store and real delivery. secure: behind TLS, which legacyd does not have of its own.
func legacy(t *testing.T, secure *tls.Config, trusted bool) (host, port string) {
	t.Helper()
	dir, err := directory.Open(nil, directory.Seed{
		Domains: []directory.Domain{{Name: "example.test"}, {Name: "пример.test", Legacy: true}},
		Accounts: []directory.SeedAccount{
			{Account: directory.Account{Address: "alice@example.test", Legacy: true}, Password: "secret"},
			{Account: directory.Account{Address: "bob@example.test", Legacy: true}, Password: "secret"},
			{Account: directory.Account{Address: "юра@пример.test"}, Password: "secret"},
		},
	}, directory.WithHashParams(directory.HashParams{Memory: 64, Time: 1, Lanes: 1}))
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Hostname: "mx.example.test"})
	if err != nil {
		t.Fatal(err)
	}
	o := legacyd.Options{
		Store: store, Directory: dir, Hostname: "mx.example.test",
		Auth:      auth.New(dir, auth.Options{Sleep: func(context.Context, time.Duration) error { return nil }}),
		Deliverer: delivery.New(delivery.Options{Directory: dir, Store: store, Hostname: "mx.example.test"}),
	}
	if trusted {
		o.Trusted = wire.Networks{netip.MustParsePrefix("127.0.0.0/8")}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ = net.SplitHostPort(l.Addr().String())
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	s := legacyd.New(o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("sessions do not end: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return host, port
}

func TestWholeSessions(t *testing.T) {
	host, port := legacy(t, nil, true)
	piped(t, "entry alice@example.test\nsend bob@example.test\nПривет\nмир, 🕊 <&>\n"+
		"send юра@пример.test\nhello\nworld\nsend nobody@example.test\nh\nt\nmailbox\nquit\nmailbox\n", host, port).want(t,
		"Success.\nSuccess.\nSuccess.\nMailbox\nПодключение разорвано\n", "Ошибка: Invalid destination address\n", exitRefused)
	mail := "id : 1\nsource : alice@example.test\ndestination : bob@example.test\nheader : Привет\ntext : мир, 🕊 <&>\n\n"
	piped(t, "entry \"bob@example.test\"\r\n\n  mailbox \nopen \"1\"\nopen 2\nopen one\ndel 1\ndel 1\nmailbox", "-lang", "en", host, port).want(t,
		"Success.\nMailbox\n"+mail+mail+"Success.\nMailbox\n", strings.Repeat("Error: Mail with such index does not exist\n", 3), exitRefused)
	piped(t, "entry юра@пример.test\nopen 1\n", host, port).want(t,
		"Success.\nid : 1\nsource : alice@example.test\ndestination : юра@пример.test\nheader : hello\ntext : world\n\n", "", exitOK)
}

func TestWhatIsNoCommand(t *testing.T) {
	host, port := legacy(t, nil, true)
	long := strings.Repeat("x", maxLine+1)
	for _, c := range []struct{ name, stdin, out, errs string }{
		{"nothing", "", "", ""},
		{"unknown", "help\n", "", "Unknown command \"help\". There are entry, send, mailbox, open, del and quit\n"},
		// The quits are the lines of the mail.
		{"before entry", "mailbox\nsend bob@example.test\nquit\nquit\n", "", strings.Repeat("Enter a mailbox first, with the command entry\n", 2)},
		{"no argument", "entry\nentry alice@example.test\nopen\nsend\nh\nt\n", "Success.\n",
			"Usage: entry \"username\"\nUsage: open \"id\"\nUsage: send something@something.something\n"},
		{"too much", "mailbox all\nquit now\n", "", "Usage: mailbox \nUsage: quit \n"},
		{"no address", "entry alice\nentry a@b\nentry a b@c.d\n", "", "\"alice\" is not an address like something@something.something\n" +
			"\"a@b\" is not an address like something@something.something\n\"a b@c.d\" is not an address like something@something.something\n"},
		{"a mail's lines are no commands", "entry alice@example.test\nsend bob\nquit\nquit\nmailbox\n", "Success.\nMailbox\n",
			"\"bob\" is not an address like something@something.something\n"},
		{"cut short", "entry alice@example.test\nsend bob@example.test\nheader\n", "Success.\n",
			"The input ended in the middle of the command send, which was not sent\n"},
		{"cut shorter", "entry alice@example.test\nsend bob@example.test", "Success.\n",
			"The input ended in the middle of the command send, which was not sent\n"},
		{"empty header and text", "entry alice@example.test\nsend alice@example.test\n\n\nmailbox\ndel 1\n", "Success.\nSuccess.\nMailbox\nid : 1\n" +
			"source : alice@example.test\ndestination : alice@example.test\nheader : \ntext : \n\nSuccess.\n", ""},
		{"long lines", "entry alice@example.test\nsend bob@example.test\n" + long + "\nquit\nmailbox\n" + long, "Success.\nMailbox\n",
			strings.Repeat("A line of more than 1048576 bytes was not sent\n", 2)},
		{"not UTF-8", "entry alice@example.test\nsend bob@example.test\nh\n\xff\nmailbox\n", "Success.\nMailbox\n", "A line that is not UTF-8 was not sent\n"},
		{"denied", "entry mallory@example.test\nmailbox\n", "", "Error: Access denied\nEnter a mailbox first, with the command entry\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code := exitOK
			if c.errs != "" {
				code = exitRefused
			}
			piped(t, c.stdin, "-lang", "en", host, port).want(t, c.out, c.errs, code)
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"127.0.0.1"}, {"127.0.0.1", "1", "2"}, {"-lang", "fr", "127.0.0.1", "1"}, {"-insecure", "127.0.0.1", "1"},
		{"-timeout", "0", "127.0.0.1", "1"}, {"-nothing", "127.0.0.1", "1"}} {
		got := piped(t, "", args...)
		if got.code != exitUsage || !strings.Contains(got.errs, "usage: coursemail [flags] HOST PORT") || got.out != "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if got := piped(t, "", "-h"); got.code != exitOK || !strings.Contains(got.errs, "usage:") {
		t.Errorf("-h: %+v", got)
	}
}

// Who sends answers to a full disk must not go on as if he had read them.
func TestOutputThatFails(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	server := newLab(t, frame(0, `"OK"`), frame(2, "[]"))
	cmd := program("-lang", "en", server.host, server.port)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("entry a@b.c\nmailbox\n"), full, &errs
	_ = cmd.Run()
	if !strings.Contains(errs.String(), "no space left") || cmd.ProcessState.ExitCode() != exitRefused {
		t.Errorf("exit %d, %q", cmd.ProcessState.ExitCode(), errs.String())
	}
	if got := server.heard(); len(got) != 2 || got[1] != "5 null" {
		t.Errorf("the server got %q", got)
	}
}

func TestPassword(t *testing.T) {
	host, port := legacy(t, nil, false)
	piped(t, "entry alice@example.test\n", "-lang", "en", host, port).want(t, "", "Error: Access denied\n", exitRefused)
	piped(t, "entry alice@example.test\n", "-lang", "en", "-password", host, port).want(t,
		"", "The input ended in the middle of the command entry, which was not sent\n", exitRefused)
	piped(t, "entry alice\nmailbox\nentry alice@example.test\nwrong\nentry alice@example.test\nsecret\nmailbox\n", "-lang", "en", "-password", host, port).
		want(t, "Success.\nMailbox\n", "\"alice\" is not an address like something@something.something\nError: Access denied\n", exitRefused)
}

// selfSigned is a certificate for 127.0.0.1, and a file that says it is an authority.
func selfSigned(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

func TestTLS(t *testing.T) {
	config, authority := selfSigned(t)
	host, port := legacy(t, config, true)
	const commands = "entry alice@example.test\nmailbox\nquit\n"
	const answers = "Success.\nMailbox\nDisconnected\n"
	piped(t, commands, "-lang", "en", "-tls", "-insecure", host, port).want(t, answers, "", exitOK)

	trusting := program("-lang", "en", "-tls", host, port)
	trusting.Env = append(trusting.Env, "SSL_CERT_FILE="+authority)
	finish(t, trusting, commands).want(t, answers, "", exitOK)

	got := piped(t, commands, "-lang", "en", "-tls", host, port)
	if got.code != exitLost || got.out != "" || !strings.Contains(got.errs, "cannot be trusted") || !strings.Contains(got.errs, "-insecure") {
		t.Errorf("an unknown authority: %+v", got)
	}
	if got = piped(t, commands, "-lang", "en", host, port); got.code != exitLost || got.out != "" {
		t.Errorf("no TLS where the server wants it: %+v", got)
	}
}
