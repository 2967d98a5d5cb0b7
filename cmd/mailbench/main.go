// Mailbench loads any SMTP, LMTP and IMAP server and says how fast it answers. It knows nothing of mailsrv's own
// packages: a peer is measured exactly as we are. Every answer that is timed is verified; a wrong one ends the run.
//
//	mailbench run -lmtp 127.0.0.1:2424 -imap 127.0.0.1:2143 -users 'u%d@example.test' -n-users 20 -password secret \
//	    -connections 10 -messages 5000 lmtp-in select fetch-envelope
//
//	mailbench compare -config bench/peers.toml -only lmtp
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	commands := map[string]func([]string, io.Writer) error{"run": run, "compare": compare}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: mailbench run [flags] SCENARIO…\n       mailbench compare [flags]\n(each with -h for more)")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:], os.Stdout); err != nil {
		if err != flag.ErrHelp {
			fmt.Fprintln(os.Stderr, "mailbench:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	var b Bench
	var shape Shape
	fs := flag.NewFlagSet("mailbench run", flag.ContinueOnError)
	fs.StringVar(&b.Target, "target", "server", "name of the server in the output")
	fs.StringVar(&b.SMTP, "smtp", "", "SMTP listener, host:port")
	fs.StringVar(&b.LMTP, "lmtp", "", "LMTP listener, host:port")
	fs.StringVar(&b.IMAP, "imap", "", "IMAP listener, host:port")
	fs.BoolVar(&b.IMAPTLS, "imap-tls", false, "the IMAP listener speaks TLS from the first byte")
	fs.StringVar(&b.Users, "users", "u%d@example.test", "account names, %d from 0")
	fs.IntVar(&b.UserCount, "n-users", 1, "accounts to spread over")
	fs.StringVar(&b.Password, "password", "", "their password")
	fs.IntVar(&b.Connections, "connections", 1, "connections at a time")
	fs.IntVar(&b.Messages, "messages", 1000, "messages, or operations, a scenario")
	fs.IntVar(&shape.Fixed, "size", 0, "bytes of every message; 0 is a realistic spread")
	fs.Uint64Var(&shape.Seed, "seed", 1, "of the generated mail")
	asJSON := fs.Bool("json", false, "print JSON, a line a scenario")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: mailbench run [flags] SCENARIO…\nscenarios:", strings.Join(slices.Sorted(maps.Keys(scenarios)), " "))
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return fmt.Errorf("no scenario given; there are %s", strings.Join(slices.Sorted(maps.Keys(scenarios)), " "))
	}
	if b.Connections < 1 || b.Messages < 1 || b.UserCount < 1 {
		return fmt.Errorf("-connections, -messages and -n-users must be at least 1")
	}
	b.Mail = NewGenerator(shape)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !*asJSON {
		fmt.Fprintln(table, "scenario\ttarget\tops\tseconds\tops/s\tp50\tp99\tMB\t")
	}
	for _, name := range fs.Args() {
		scenario, ok := scenarios[name]
		if !ok {
			return fmt.Errorf("no scenario %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(scenarios)), " "))
		}
		r, err := scenario(&b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if *asJSON {
			if err := json.NewEncoder(out).Encode(r); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%.3f\t%.0f\t%v\t%v\t%.1f\t\n", r.Scenario, r.Target, r.Ops, r.Elapsed.Seconds(),
			r.PerSecond, r.P50.Round(time.Microsecond), r.P99.Round(time.Microsecond), float64(r.Bytes)/1e6)
	}
	return table.Flush()
}
