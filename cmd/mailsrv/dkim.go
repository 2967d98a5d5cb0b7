package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"mailsrv/internal/config"
	"mailsrv/internal/directory"
	"mailsrv/internal/disk"
	"mailsrv/internal/mailauth"
)

// The keys are files that a running server looks at for each message: these commands need not ask it.

func dkimKeys(cfg *config.Config) *mailauth.Keys {
	return mailauth.OpenKeys(disk.OS(), filepath.Join(cfg.Data, "dkim"))
}

// dkim reads the configuration and the arguments: a domain of the server's, unless none is needed and none was written.
func (c *cli) dkim(others []string) (keys *mailauth.Keys, cfg *config.Config, domain string, err error) {
	if cfg, err = c.load(); err != nil {
		return nil, nil, "", err
	}
	if len(others) == 0 {
		return dkimKeys(cfg), cfg, "", nil
	}
	if domain, err = directory.CanonicalDomain(others[0]); err != nil {
		return nil, nil, "", mistake{err}
	}
	for _, d := range cfg.Domains {
		if d.Name == domain || domain == cfg.Hostname {
			return dkimKeys(cfg), cfg, domain, nil
		}
	}
	return nil, nil, "", mistake{fmt.Errorf("%s is no [[domain]] of the configuration, nor the hostname", domain)}
}

func (c *cli) dkimNew(args []string) error {
	f := c.flags()
	selector := f.String("selector", "", "the key's `name` in the DNS (default: the date, with -rsa or -ed25519 behind it)")
	algorithm := f.String("algorithm", "both", "\"rsa\", \"ed25519\" or \"both\", which makes two keys")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	algorithms := []string{*algorithm}
	if *algorithm == "both" {
		algorithms = []string{mailauth.RSA, mailauth.Ed25519}
	} else if *algorithm != mailauth.RSA && *algorithm != mailauth.Ed25519 {
		return mistake{fmt.Errorf("no such algorithm as %.20q: write rsa, ed25519 or both", *algorithm)}
	}
	keys, _, domain, err := c.dkim(others)
	if err != nil {
		return err
	}
	made, err := makeKeys(keys, domain, *selector, algorithms)
	for _, k := range made {
		c.printKey(k)
	}
	if err == nil && slices.ContainsFunc(made, func(k mailauth.Key) bool { return !k.Signs }) {
		fmt.Fprintf(c.out, "; publish this, wait until everybody can see it (a day), then: mailsrv dkim use %s -selector …\n", domain)
	}
	return err
}

// makeKeys makes a key of each algorithm, with names that differ.
func makeKeys(keys *mailauth.Keys, domain, selector string, algorithms []string) (made []mailauth.Key, err error) {
	for _, a := range algorithms {
		name := selector
		if name == "" {
			name = time.Now().UTC().Format("20060102")
		}
		if selector == "" || len(algorithms) > 1 {
			name += "-" + a
		}
		k, err := keys.New(domain, name, a)
		if errors.Is(err, mailauth.ErrKeyExists) {
			err = fmt.Errorf("%w: write another -selector", err)
		}
		if err != nil {
			return made, err
		}
		made = append(made, k)
	}
	return made, nil
}

// printKey prints what is to be published, with a comment in front.
func (c *cli) printKey(k mailauth.Key) {
	state := "signs"
	if !k.Signs {
		state = "does not sign"
	}
	fmt.Fprintf(c.out, "; %s, %s\n%s. IN TXT %s\n", k.Algorithm, state, k.Name(), mailauth.ZoneText(k.Record()))
}

func (c *cli) dkimUse(args []string) error {
	return c.dkimChange(args, "uses", (*mailauth.Keys).Use)
}

func (c *cli) dkimDel(args []string) error {
	return c.dkimChange(args, "removed", (*mailauth.Keys).Remove)
}

// dkimChange does something with one key.
func (c *cli) dkimChange(args []string, done string, change func(k *mailauth.Keys, domain, selector string) error) error {
	f := c.flags()
	selector := f.String("selector", "", "the key's `name`; mailsrv dkim list shows them")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if *selector == "" {
		return mistake{errors.New("which key: write -selector NAME; mailsrv dkim list shows them")}
	}
	keys, _, domain, err := c.dkim(others)
	if err != nil {
		return err
	}
	switch err := change(keys, domain, *selector); {
	case errors.Is(err, mailauth.ErrNoKey):
		return fmt.Errorf("%w: mailsrv dkim list shows them all", err)
	case errors.Is(err, mailauth.ErrLastKey):
		return fmt.Errorf("%w: mailsrv dkim use another one first", err)
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s %s._domainkey.%s\n", done, *selector, domain)
	return err
}

func (c *cli) dkimList(args []string) error {
	others, err := c.parse(c.flags(), args, 0, 1)
	if err != nil {
		return err
	}
	keys, _, domain, err := c.dkim(others)
	if err != nil {
		return err
	}
	domains := []string{domain}
	if domain == "" {
		if domains, err = keys.Domains(); err != nil {
			return err
		}
	}
	for _, d := range domains {
		list, err := keys.List(d)
		if err != nil {
			return err
		}
		for _, k := range list {
			state := "signs"
			if !k.Signs {
				state = "does not sign"
			}
			fmt.Fprintf(c.out, "%s  %s  %s, %s, made %s\n", d, k.Selector, k.Algorithm, state, k.Created.UTC().Format("2006-01-02"))
		}
	}
	return nil
}

func (c *cli) dkimShow(args []string) error {
	f := c.flags()
	selector := f.String("selector", "", "only the key of this `name`")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	keys, _, domain, err := c.dkim(others)
	if err != nil {
		return err
	}
	list, err := keys.List(domain)
	if err != nil {
		return err
	}
	shown := 0
	for _, k := range list {
		if *selector == "" || k.Selector == *selector {
			c.printKey(k)
			shown++
		}
	}
	if shown == 0 {
		return fmt.Errorf("%s has no such key: mailsrv dkim new %s makes one", domain, domain)
	}
	return nil
}
