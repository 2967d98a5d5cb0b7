package delivery

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"mailsrv/internal/directory"
	"mailsrv/internal/message"
	"mailsrv/storage"
)

// Deliver files the sealed message for every recipient and returns one result per recipient, in order: nil after the
// message is durably filed for it, else *Error. An account reached through several recipients gets one copy.
//
// A recipient that stands for several accounts has failed if one of them has. So that the sender's next try gives nobody
// a second copy, the accounts that have the message are remembered for a day (see filed).
func (d *Deliverer) Deliver(ctx context.Context, env *Envelope, in *storage.Incoming) []error {
	results := make([]error, len(env.Recipients))
	if err := d.checkHops(in, in.Summary().HeaderSize); err != nil {
		for i := range results {
			results[i] = err
			d.count(err, false)
		}
		return results
	}
	p := d.plan(env, results)
	d.fileAll(ctx, env, in, p.local)
	onwardErr := d.enqueue(ctx, env, in, p.onward)
	for i, need := range p.needs {
		if results[i] != nil {
			continue
		}
		if err := need.failed(onwardErr); err != nil {
			results[i] = refusal(env.Recipients[i].Address, err)
		}
	}
	for i, err := range results {
		d.count(err, p.needs[i].onward)
	}
	d.settle(env, in, p, onwardErr, results)
	d.tellDelivered(ctx, env, in, p, results)
	return results
}

// tellDelivered has the sender told of recipients who have the message in a mailbox here, where that was asked for. That it
// could not be told takes nothing from the delivery. What goes on elsewhere is told of by the queue, or from there.
func (d *Deliverer) tellDelivered(ctx context.Context, env *Envelope, in *storage.Incoming, p plan, results []error) {
	if d.queue == nil || env.Sender == "" {
		return
	}
	var to []Recipient
	for i, r := range env.Recipients {
		if results[i] == nil && len(p.needs[i].local) > 0 && !p.needs[i].onward && slices.Contains(r.Notify, "SUCCESS") {
			to = append(to, r)
		}
	}
	if len(to) == 0 {
		return
	}
	if err := d.queue.Delivered(ctx, env, in, to); err != nil {
		d.log.Error("the sender cannot be told of a delivery", "id", env.ID, "err", err)
	}
}

// count tells the meter of one recipient's result.
func (d *Deliverer) count(err error, onward bool) {
	switch e, refused := err.(*Error); {
	case refused && e.Temporary():
		d.meter.Delivered("deferred")
	case err != nil:
		d.meter.Delivered("refused")
	case onward:
		d.meter.Delivered("queued")
	default:
		d.meter.Delivered("filed")
	}
}

// plan is who gets the message: each account and each address elsewhere once.
type plan struct {
	local  []*filing
	onward []Onward
	needs  []need // by recipient
}

// need is what has to succeed for one recipient.
type need struct {
	local  []*filing
	onward bool
}

func (n need) failed(onward error) error {
	var worst error
	for _, f := range n.local {
		// A temporary failure is the better answer: it is tried again.
		if f.err != nil && (worst == nil || Refusal(f.err).Temporary()) {
			worst = f.err
		}
	}
	if worst == nil && n.onward {
		return onward
	}
	return worst
}

func (d *Deliverer) plan(env *Envelope, results []error) plan {
	p := plan{needs: make([]need, len(env.Recipients))}
	accounts := make(map[string]*filing)
	addresses := make(map[string]bool)
	later := d.queue != nil && env.ReleaseAt.After(d.now())
	for i, r := range env.Recipients {
		to, refused := d.expand(env, r)
		if refused != nil {
			results[i] = refused
			continue
		}
		if later { // what the address stands for is asked when the time has come
			to = directory.Resolution{Remote: []string{r.Address}}
		}
		for _, dest := range to.Local {
			f := accounts[dest.Account.Address]
			if f == nil {
				f = &filing{dest: dest}
				accounts[dest.Account.Address] = f
				p.local = append(p.local, f)
			}
			p.needs[i].local = append(p.needs[i].local, f)
		}
		for _, a := range to.Remote {
			p.needs[i].onward = true
			if !addresses[a] {
				addresses[a] = true
				p.onward = append(p.onward, Onward{Address: a, For: r})
			}
		}
	}
	return p
}

// enqueue hands over what goes elsewhere, but for addresses that have the message from an earlier try.
func (d *Deliverer) enqueue(ctx context.Context, env *Envelope, in *storage.Incoming, to []Onward) error {
	if !d.filed.empty() && len(to) > 0 {
		key := messageKey(env, in)
		to = slices.DeleteFunc(slices.Clone(to), func(o Onward) bool { return d.filed.has(key, onwardKey(o), d.now()) })
	}
	if len(to) == 0 {
		return nil
	}
	if err := d.queue.Enqueue(ctx, env, in, to); err != nil {
		return fmt.Errorf("enqueue %s: %w", env.ID, err)
	}
	return nil
}

// fileAll runs the filings, a bounded number at a time, and returns when all are done.
func (d *Deliverer) fileAll(ctx context.Context, env *Envelope, in *storage.Incoming, all []*filing) {
	key := ""
	if !d.filed.empty() {
		key = messageKey(env, in)
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, f := range all {
		f.env, f.in, f.key = env, in, key
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f.err = d.fileOne(ctx, f)
		})
	}
	wg.Wait()
}

// filing is one message on its way into one account.
type filing struct {
	env     *Envelope
	in      *storage.Incoming
	key     string // see messageKey; "" if nothing is remembered
	dest    directory.Destination
	mailbox string // where to, as the steps have decided so far
	done    bool   // no further step
	err     error
}

// steps are what happens for one account, in order; one that sets done is the last. The account's filter (Sieve), the
// subaddress's folder and the junk decision come between mailbox and file.
func (d *Deliverer) steps() []func(context.Context, *filing) error {
	return []func(context.Context, *filing) error{
		d.skipFiled,
		d.chooseMailbox,
		d.file,
	}
}

// fileOne keeps a panic to its account: it runs in a goroutine that no server watches over.
func (d *Deliverer) fileOne(ctx context.Context, f *filing) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while filing %s for %s: %v", f.env.ID, f.dest.Account.Address, p)
			d.log.Error("panic", "err", err)
		}
	}()
	for _, step := range d.steps() {
		if err := step(ctx, f); err != nil {
			return fmt.Errorf("file %s for %s: %w", f.env.ID, f.dest.Account.Address, err)
		}
		if f.done {
			return nil
		}
	}
	return nil
}

func (d *Deliverer) skipFiled(_ context.Context, f *filing) error {
	f.done = d.filed.has(f.key, f.dest.Account.Address, d.now())
	if f.done {
		d.log.Info("account already has this message", "id", f.env.ID, "account", f.dest.Account.Address)
	}
	return nil
}

func (d *Deliverer) chooseMailbox(_ context.Context, f *filing) error {
	f.mailbox = cmp.Or(f.mailbox, "INBOX")
	return nil
}

func (d *Deliverer) file(_ context.Context, f *filing) error {
	return d.mail.File(f.dest.Account.Address, f.mailbox, f.in)
}

// settle remembers who has the message if the sender is going to send it again, and logs what went wrong here.
func (d *Deliverer) settle(env *Envelope, in *storage.Incoming, p plan, onward error, results []error) {
	again := false
	for i, err := range results {
		if e, ok := err.(*Error); ok {
			again = again || e.Temporary()
			d.log.Warn("not delivered", "id", env.ID, "recipient", env.Recipients[i].Address,
				"code", e.Code, "status", e.Status, "cause", e.Cause)
		}
	}
	if !again {
		return
	}
	key := messageKey(env, in)
	for _, f := range p.local {
		if f.err == nil {
			d.filed.add(key, f.dest.Account.Address, d.now())
		}
	}
	if onward == nil {
		for _, o := range p.onward {
			d.filed.add(key, onwardKey(o), d.now())
		}
	}
}

// onwardKey is what filed knows an address elsewhere by; no account is called so.
func onwardKey(o Onward) string { return ">" + o.Address }

// checkHops counts Received fields: RFC 5321 section 6.3.
func (d *Deliverer) checkHops(r io.ReaderAt, headerSize int64) error {
	header := make([]byte, headerSize)
	if _, err := r.ReadAt(header, 0); err != nil && err != io.EOF {
		return Refusal(fmt.Errorf("read header: %w", err))
	}
	return d.CheckHops(header)
}

// CheckHops says whether a header block has been through too many servers (554 5.4.6). Deliver asks; a protocol may ask
// earlier.
func (d *Deliverer) CheckHops(header []byte) error {
	hops := 0
	message.Fields(header, func(name string, _ []byte) bool {
		if strings.EqualFold(name, "Received") {
			hops++
		}
		return hops <= d.maxHops
	})
	if hops > d.maxHops {
		return &Error{Code: 554, Status: "5.4.6", Text: "too many hops, this message is going in circles"}
	}
	return nil
}
