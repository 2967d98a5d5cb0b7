package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/term"

	"mailsrv/internal/config"
	"mailsrv/internal/directory"
)

// limitFlags are a quota's flags; their values are in the request once the command line is parsed.
func limitFlags(f *flag.FlagSet, r *request) {
	f.Func("quota", "at most so many bytes of mail: a `size` such as \"10 GB\" (0: the domain's)", func(s string) error {
		quota, err := config.ParseSize(s)
		r.QuotaBytes = int64(quota)
		return err
	})
	f.Int64Var(&r.QuotaMessages, "quota-messages", 0, "at most so many messages (0: the domain's)")
}

func checkLimits(r request) error {
	if r.QuotaBytes < 0 || r.QuotaMessages < 0 {
		return mistake{errors.New("a quota cannot be negative: 0 is the domain's")}
	}
	return nil
}

func (c *cli) userAdd(args []string) error {
	r := request{Do: "user add"}
	f := c.flags()
	stdin := f.Bool("password-stdin", false, "read the password from standard input (its first line)")
	f.BoolVar(&r.Legacy, "legacy", false, "open the account to the course protocol, which knows no passwords")
	limitFlags(f, &r)
	others, err := c.parse(f, args, 1, 1)
	if err == nil {
		err = checkLimits(r)
	}
	if err != nil {
		return err
	}
	r.Address = others[0]
	if r.Password, err = c.password(*stdin); err != nil {
		return err
	}
	return c.ask(r)
}

func (c *cli) userSet(args []string) error {
	r := request{Do: "user set"}
	f := c.flags()
	f.BoolVar(&r.Disabled, "disabled", false, "take no mail and no login; what the account has stays")
	f.BoolVar(&r.Legacy, "legacy", false, "open the account to the course protocol, which knows no passwords")
	limitFlags(f, &r)
	others, err := c.parse(f, args, 1, 1)
	if err == nil {
		err = checkLimits(r)
	}
	if err != nil {
		return err
	}
	r.Address = others[0]
	f.Visit(func(given *flag.Flag) {
		if given.Name != "config" {
			r.Set = append(r.Set, given.Name)
		}
	})
	if len(r.Set) == 0 {
		return mistake{errors.New("nothing to change: mailsrv user set -h tells what there is")}
	}
	return c.ask(r)
}

func (c *cli) userDel(args []string) error {
	f := c.flags()
	purge := f.Bool("purge", false, "remove the account's mail too, for good")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "user del", Address: others[0], Purge: *purge})
}

func (c *cli) userList(args []string) error {
	if _, err := c.parse(c.flags(), args, 0, 0); err != nil {
		return err
	}
	return c.ask(request{Do: "user list"})
}

func (c *cli) userPasswd(args []string) error {
	f := c.flags()
	stdin := f.Bool("password-stdin", false, "read the password from standard input (its first line)")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	password, err := c.password(*stdin)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "user passwd", Address: others[0], Password: password})
}

func (c *cli) userHash(args []string) error {
	f := c.flags()
	stdin := f.Bool("password-stdin", false, "read the password from standard input (its first line)")
	if _, err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	params := directory.DefaultHashParams
	if c.path != "" { // else the defaults do
		cfg, err := c.load()
		if err != nil {
			return err
		}
		params = cfg.Auth.HashParams()
	}
	password, err := c.password(*stdin)
	if err != nil {
		return err
	}
	hash, err := directory.HashPassword(password, params)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, hash)
	return err
}

func (c *cli) aliasAdd(args []string) error {
	others, err := c.parse(c.flags(), args, 2, -1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "alias add", Address: others[0], Targets: others[1:]})
}

func (c *cli) aliasDel(args []string) error {
	others, err := c.parse(c.flags(), args, 1, 1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "alias del", Address: others[0]})
}

func (c *cli) aliasList(args []string) error {
	if _, err := c.parse(c.flags(), args, 0, 0); err != nil {
		return err
	}
	return c.ask(request{Do: "alias list"})
}

func (c *cli) version(args []string) error {
	f := c.flags()
	if _, err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.out, "mailsrv "+version())
	return err
}

// release is what git describe says, written here by the linker (make build).
var release string

// version is what the build knows of itself: a tag, or the commit and whether it was changed.
func version() string {
	if release != "" {
		return fmt.Sprintf("%s (%s)", release, runtime.Version())
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown version"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value
		}
	}
	return fmt.Sprintf("%s (%s)", v, info.GoVersion)
}

// password reads a new password: from standard input, or twice from the terminal.
func (c *cli) password(stdin bool) (string, error) {
	if stdin {
		line, err := bufio.NewReader(io.LimitReader(c.in, 2*directory.MaxPassword)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return usable(strings.TrimRight(line, "\r\n"))
	}
	file, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return "", mistake{errors.New("no terminal to ask for the password: write -password-stdin and give it on standard input")}
	}
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(c.err, prompt)
		line, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(c.err)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(line)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ: try again")
	}
	return usable(typed[0])
}

// usable refuses what no client could log in with.
func usable(password string) (string, error) {
	switch {
	case password == "":
		return "", mistake{errors.New("the password is empty: give it on standard input's first line")}
	case len(password) > directory.MaxPassword:
		return "", mistake{directory.ErrPasswordTooLong}
	case strings.ContainsRune(password, 0):
		return "", mistake{errors.New("the password has a NUL, which no client can send")}
	}
	return password, nil
}
