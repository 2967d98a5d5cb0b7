// Coursemail is the course lab's mail client: what docs/course-protocol.md describes, from the other end. It speaks to legacyd and to
// any server written from the lab's text, and has nothing of mailsrv's own packages.
//
//	coursemail [-lang ru|en] [-tls [-insecure]] [-password] [-timeout 30s] HOST PORT
//
// On a terminal it prompts, edits lines and keeps a history. With anything else as standard input it prompts for nothing: answers go
// to standard output, refusals to standard error.
//
//	printf '%s\n' 'entry alice@example.test' 'send bob@example.test' 'the header' 'the text' quit | coursemail 127.0.0.1 2345
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

// Exit codes. A person at a terminal has seen the refusals: there refused is never used.
const (
	exitOK      = 0
	exitRefused = 1 // a command was refused by the server, or was none, or its answer could not be written
	exitUsage   = 2
	exitLost    = 3 // the server is away, cut the connection, or does not speak the protocol
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// options are what the command line says.
type options struct {
	host, port string
	tls        *tls.Config // nil: plain TCP
	timeout    time.Duration
	password   bool
	texts      *texts
}

// parse returns the options, or done with an exit code when there is nothing left to do.
func parse(args []string, errs io.Writer) (o options, code int, done bool) {
	fs := flag.NewFlagSet("coursemail", flag.ContinueOnError)
	fs.SetOutput(errs)
	lang := fs.String("lang", "ru", "language of prompts and messages: ru or en")
	useTLS := fs.Bool("tls", false, "speak TLS from the first byte (SSL_CERT_FILE names authorities other than the system's)")
	insecure := fs.Bool("insecure", false, "with -tls: take any certificate, as a self-signed one; who is in the middle reads along")
	fs.BoolVar(&o.password, "password", false, "entry asks for a password too, an extension of mailsrv's; in the clear without -tls")
	fs.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait for the connection and for each answer")
	fs.Usage = func() {
		fmt.Fprintln(errs, "usage: coursemail [flags] HOST PORT")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err == flag.ErrHelp {
		return o, exitOK, true
	} else if err != nil {
		return o, exitUsage, true
	}
	wrong := ""
	switch o.texts = languages[*lang]; {
	case fs.NArg() != 2:
		wrong = "want HOST and PORT"
	case o.texts == nil:
		wrong = fmt.Sprintf("-lang %s: want ru or en", *lang)
	case *insecure && !*useTLS:
		wrong = "-insecure means nothing without -tls"
	case o.timeout <= 0:
		wrong = "-timeout must be above 0"
	}
	if wrong != "" {
		fmt.Fprintln(errs, "coursemail:", wrong)
		fs.Usage()
		return o, exitUsage, true
	}
	o.host, o.port = fs.Arg(0), fs.Arg(1)
	if *useTLS {
		o.tls = &tls.Config{ServerName: o.host, InsecureSkipVerify: *insecure, MinVersion: tls.VersionTLS12}
	}
	return o, exitOK, false
}

func run(args []string, in, out, errs *os.File) int {
	o, code, done := parse(args, errs)
	if done {
		return code
	}
	s := &session{texts: o.texts, askPassword: o.password, out: &sink{w: out}, errs: visible{errs}}
	if term.IsTerminal(int(out.Fd())) {
		s.out.w = visible{out}
	}
	server, err := connect(o)
	if err != nil {
		fmt.Fprintln(s.errs, o.texts.explain(err))
		return exitLost
	}
	defer server.close()
	s.server = server
	if !term.IsTerminal(int(in.Fd())) {
		s.lines = newPipe(in)
		return s.run()
	}
	screen := out
	if !term.IsTerminal(int(out.Fd())) {
		screen = errs // prompts are not part of what goes to a file
	}
	console := newConsole(in, screen)
	defer console.restoreOnSignal()()
	s.lines, s.person = console, true
	fmt.Fprint(screen, o.texts.welcome)
	return s.run()
}

// restoreOnSignal keeps a kill from leaving the person's terminal raw. The function it returns ends the watch.
func (c *console) restoreOnSignal() (stop func()) {
	signals, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case s := <-signals:
			c.restore()
			os.Exit(128 + int(s.(syscall.Signal)))
		case <-ended:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(ended)
	}
}
