package outside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"mailsrv/internal/resolve"
)

// defaultTimeout bounds everything; together is how many looks are had at a time.
const (
	defaultTimeout = 40 * time.Second
	together       = 16
	dialTimeout    = 10 * time.Second
)

// looker is one Look.
type looker struct {
	o         Options
	s         *Setup
	ctx       context.Context
	addresses resolve.Answer[netip.Addr] // of the hostname
	addrErr   error
}

// look is one thing to look at.
type look struct {
	run   func() []Finding
	found []Finding
}

// Look looks at a server from outside and returns what it found, in a fixed order: the host, its ports, blocklists, then each
// domain. It ends in time: what took too long is a Note that says so.
func Look(ctx context.Context, s *Setup, o Options) []Finding {
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if o.Blocklists == nil {
		o.Blocklists = usualBlocklists
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &looker{o: o, s: s, ctx: ctx}
	if l.o.Policy == nil {
		l.o.Policy = l.fetchPolicy
	}
	l.addresses, l.addrErr = o.Resolver.Addresses(ctx, s.Hostname)

	looks := []*look{{run: l.host}, {run: l.hostSPF}, {run: l.reverse}, {run: l.ports}, {run: l.dane}, {run: l.blocklists}}
	for _, d := range s.Domains {
		looks = append(looks, &look{run: func() []Finding { return l.mx(d) }}, &look{run: func() []Finding { return l.spf(d) }},
			&look{run: func() []Finding { return l.dkim(d) }}, &look{run: func() []Finding { return l.dmarc(d) }},
			&look{run: func() []Finding { return l.mtaSTS(d) }}, &look{run: func() []Finding { return l.tlsRPT(d) }})
	}
	l.runAll(looks)
	var all []Finding
	for _, k := range looks {
		all = append(all, k.found...)
	}
	return all
}

// runAll waits for all looks: each ends with the context.
func (l *looker) runAll(looks []*look) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, together)
	for _, k := range looks {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			k.found = k.run()
		})
	}
	wg.Wait()
}

func good(what, format string, args ...any) Finding {
	return Finding{Level: Good, What: what, Text: fmt.Sprintf(format, args...)}
}

func note(what, format string, args ...any) Finding {
	return Finding{Level: Note, What: what, Text: fmt.Sprintf(format, args...)}
}

func problem(what, format string, args ...any) Finding {
	return Finding{Level: Problem, What: what, Text: fmt.Sprintf(format, args...)}
}

func (f Finding) publish(rs ...Record) Finding {
	f.Publish = rs
	return f
}

// missing says whether a record is not there; an error that says less becomes a finding of its own.
func missing(what, name string, err error) (bool, *Finding) {
	if err == nil || errors.Is(err, resolve.ErrNotFound) {
		return err != nil, nil
	}
	f := note(what, "%s could not be looked up: %v", name, err)
	return false, &f
}
