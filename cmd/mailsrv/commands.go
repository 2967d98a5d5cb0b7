package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"mailsrv/internal/config"
)

// A command is one thing an administrator can ask for.
type command struct {
	name  string // "user add"
	args  string // after the name, for people
	about string
	run   func(c *cli, args []string) error
}

// commands are all there are.
func commands() []command {
	return []command{
		{"user add", "ADDRESS -password-stdin [-legacy] [-quota SIZE] [-quota-messages N]", "make an account", (*cli).userAdd},
		{"user del", "ADDRESS [-purge]", "remove an account; with -purge its mail too", (*cli).userDel},
		{"user list", "", "list the accounts", (*cli).userList},
		{"user set", "ADDRESS [-disabled=BOOL] [-legacy=BOOL] [-quota SIZE] [-quota-messages N]", "change an account", (*cli).userSet},
		{"user passwd", "ADDRESS -password-stdin", "change a password", (*cli).userPasswd},
		{"user hash", "-password-stdin", "print a password_hash for the configuration file", (*cli).userHash},
		{"alias add", "ADDRESS TARGET…", "send mail for one address to others", (*cli).aliasAdd},
		{"alias del", "ADDRESS", "remove an alias", (*cli).aliasDel},
		{"alias list", "", "list the aliases", (*cli).aliasList},
		{"queue list", "[SELECTION…] [-json]", "list the mail that waits, a line for each recipient", (*cli).queueList},
		{"queue show", "ID [-json]", "tell all about a message, with the history of its attempts", (*cli).queueShow},
		{"queue retry", "SELECTION…", "try now", (*cli).queueChange},
		{"queue hold", "SELECTION…", "keep back until released", (*cli).queueChange},
		{"queue release", "SELECTION…", "let go of what is held", (*cli).queueChange},
		{"queue drop", "SELECTION…", "remove, and tell nobody", (*cli).queueChange},
		{"queue suppressed list", "[-json]", "list the addresses that get no mail", (*cli).suppressedList},
		{"queue suppressed add", "ADDRESS [-why REASON] [-for TIME]", "stop mail to an address", (*cli).suppressedAdd},
		{"queue suppressed del", "ADDRESS", "let mail to an address go out again", (*cli).suppressedDel},
		{"dkim new", "DOMAIN [-selector NAME] [-algorithm rsa|ed25519|both]", "make keys that sign a domain's mail", (*cli).dkimNew},
		{"dkim list", "[DOMAIN]", "list the keys", (*cli).dkimList},
		{"dkim show", "DOMAIN [-selector NAME]", "print the DNS records of a domain's keys", (*cli).dkimShow},
		{"dkim use", "DOMAIN -selector NAME", "sign with this key from now on", (*cli).dkimUse},
		{"dkim del", "DOMAIN -selector NAME", "remove a key that does not sign", (*cli).dkimDel},
		{"check", "[-print] [-local] [-timeout 1m]", "check the configuration, this machine, and the server as the world sees it", (*cli).check},
		{"quickstart", "YOU@DOMAIN [-dir DIR] [-hostname NAME] [-password-stdin]", "write a configuration, keys and the first account, and print the DNS records", (*cli).quickstart},
		{"version", "", "print what this is", (*cli).version},
	}
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: mailsrv -config FILE            serve until SIGTERM\n       mailsrv -config FILE COMMAND …\n\ncommands:\n")
	for _, cmd := range commands() {
		fmt.Fprintf(w, "  %-14s %s\n", cmd.name, cmd.about)
	}
	fmt.Fprint(w, "\nmailsrv COMMAND -h tells about one. The configuration file: docs/config.md.\n")
}

// cli is one call of the program.
type cli struct {
	streams
	path string // -config
	cmd  command
}

// command finds and runs what the arguments name.
func (c *cli) command(args []string) int {
	for _, cmd := range commands() {
		words := strings.Fields(cmd.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			c.cmd = cmd
			return c.exit(cmd.name, cmd.run(c, args[len(words):]))
		}
	}
	var family []string
	for _, cmd := range commands() {
		if first, _, several := strings.Cut(cmd.name, " "); several && first == args[0] {
			family = append(family, cmd.name)
		}
	}
	switch {
	case len(family) > 0 && len(args) > 1 && (args[1] == "-h" || args[1] == "-help" || args[1] == "--help"):
		usage(c.err)
		return exitOK
	case len(family) > 0:
		return c.exit("", mistake{fmt.Errorf("there are: %s", strings.Join(family, ", "))})
	}
	return c.exit("", mistake{fmt.Errorf("no such command as %.40q: mailsrv -h lists them", args[0])})
}

// flags makes the flag set of the command.
func (c *cli) flags() *flag.FlagSet {
	f := flag.NewFlagSet(c.cmd.name, flag.ContinueOnError)
	f.SetOutput(c.err)
	f.StringVar(&c.path, "config", c.path, "the configuration `file`")
	f.Usage = func() {
		fmt.Fprintf(c.err, "usage: mailsrv -config FILE %s %s\n%s\n\n", c.cmd.name, c.cmd.args, c.cmd.about)
		if strings.Contains(c.cmd.args, "SELECTION") {
			fmt.Fprint(c.err, "SELECTION: queue IDs, recipients' addresses, @domain, from:ADDRESS, or all\n\n")
		}
		f.PrintDefaults()
	}
	return f
}

// parse reads flags wherever they stand among the arguments and returns the others: between least and most of them, -1 for
// any number.
func (c *cli) parse(f *flag.FlagSet, args []string, least, most int) ([]string, error) {
	var others []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, mistake{errReported} // by package flag, with the usage
		}
		if f.NArg() == 0 {
			break
		}
		others = append(others, f.Arg(0))
		args = f.Args()[1:]
	}
	if len(others) < least || most >= 0 && len(others) > most {
		return nil, mistake{fmt.Errorf("usage: mailsrv -config FILE %s %s", c.cmd.name, c.cmd.args)}
	}
	return others, nil
}

// load reads the configuration.
func (c *cli) load() (*config.Config, error) {
	if c.path == "" {
		return nil, mistake{errors.New("-config FILE is missing: say where the configuration is, such as -config testdata/demo.toml")}
	}
	cfg, problems := config.Load(c.path)
	if problems != nil {
		fmt.Fprintln(c.err, problems)
		return nil, mistake{errReported}
	}
	return cfg, nil
}

// ask does something for the administrator: by the running server, else here.
func (c *cli) ask(r request) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	lines, err := administer(cfg, r)
	for _, line := range lines {
		fmt.Fprintln(c.out, line)
	}
	return err
}
