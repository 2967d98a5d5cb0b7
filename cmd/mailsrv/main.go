// Mailsrv is a mail server: SMTP in, IMAP out, one binary, one store.
//
//	mailsrv -config FILE              serve, in the foreground, until SIGTERM or SIGINT
//	mailsrv -config FILE COMMAND …    administer: over the running server's control socket, else straight on the data
//
// This package knows everybody and does nothing itself. serve.go is the table of contents of the server, in boot order;
// commands.go that of the commands.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // what was asked for could not be done
	exitMistake = 2 // what was asked for, or the configuration, is wrong: nothing was tried
)

// streams are the process's, or a test's.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// run is the program: arguments to exit code.
func run(args []string, io streams) int {
	flags := flag.NewFlagSet("mailsrv", flag.ContinueOnError)
	flags.SetOutput(io.err)
	flags.Usage = func() { usage(io.err) }
	path := flags.String("config", "", "the configuration `file`")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitMistake
	}
	c := &cli{streams: io, path: *path}
	if flags.NArg() == 0 {
		return c.exit("", serve(c))
	}
	return c.command(flags.Args())
}

// mistake is an error in how we were called, or in the configuration: exit code 2.
type mistake struct{ error }

func (m mistake) Unwrap() error { return m.error }

// errReported ends the program with a failure that has been told already.
var errReported = errors.New("reported")

// exit tells of an error in one line (a configuration's many problems, in one each) and makes an exit code of it.
func (c *cli) exit(command string, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if !errors.Is(err, errReported) {
		prefix := strings.TrimSpace("mailsrv "+command) + ": "
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(c.err, prefix+line)
		}
	}
	if errors.As(err, &mistake{}) {
		return exitMistake
	}
	return exitFailed
}
