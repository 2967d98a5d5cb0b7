package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailsrv/internal/config"
	"mailsrv/internal/queue"
)

// The commands on the queue, as they are written.

func (c *cli) queueList(args []string) error {
	f := c.flags()
	asJSON := f.Bool("json", false, "print a JSON array with an object for each recipient")
	others, err := c.parse(f, args, 0, -1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "queue list", Targets: others, JSON: *asJSON})
}

func (c *cli) queueShow(args []string) error {
	f := c.flags()
	asJSON := f.Bool("json", false, "print a JSON object")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "queue show", Targets: others, JSON: *asJSON})
}

// queueChange is retry, hold, release and drop.
func (c *cli) queueChange(args []string) error {
	others, err := c.parse(c.flags(), args, 1, -1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: c.cmd.name, Targets: others})
}

func (c *cli) suppressedList(args []string) error {
	f := c.flags()
	asJSON := f.Bool("json", false, "print a JSON array")
	if _, err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	return c.ask(request{Do: "queue suppressed list", JSON: *asJSON})
}

func (c *cli) suppressedAdd(args []string) error {
	f := c.flags()
	why := f.String("why", "", "the `reason`, which is told to those who write to the address")
	lasting := f.Duration("for", 0, "for how long, such as 720h (default: until it is taken off)")
	others, err := c.parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if *lasting < 0 {
		return mistake{errors.New("-for cannot be negative")}
	}
	return c.ask(request{Do: "queue suppressed add", Address: others[0], Why: *why, Lasting: *lasting})
}

func (c *cli) suppressedDel(args []string) error {
	others, err := c.parse(c.flags(), args, 1, 1)
	if err != nil {
		return err
	}
	return c.ask(request{Do: "queue suppressed del", Address: others[0]})
}

// And as they are carried out, in the server or beside it.

func (a *admin) queueOperations() map[string]func(request) ([]string, error) {
	return map[string]func(request) ([]string, error){
		"queue list":            a.queueList,
		"queue show":            a.queueShow,
		"queue retry":           a.queueDo("to be tried now", (*queue.Queue).Retry),
		"queue hold":            a.queueDo("held", (*queue.Queue).Hold),
		"queue release":         a.queueDo("released", (*queue.Queue).Release),
		"queue drop":            a.queueDo("dropped", (*queue.Queue).Drop),
		"queue suppressed list": a.suppressedList,
		"queue suppressed add":  a.suppressedAdd,
		"queue suppressed del":  a.suppressedDel,
	}
}

func (a *admin) queueList(r request) ([]string, error) {
	selection := queue.Selection(r.Targets)
	if len(selection) == 0 {
		selection = queue.Selection{"all"}
	}
	var lines []string
	now := time.Now()
	err := a.queue.List(selection, func(i queue.Item) bool {
		if r.JSON {
			lines = append(lines, jsonText(i))
		} else {
			lines = append(lines, itemLine(i, now))
		}
		return true
	})
	if r.JSON {
		lines = jsonArray(lines)
	}
	return lines, err
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // a type of ours that cannot be written
	}
	return string(text)
}

// jsonArray makes an array of objects, one on a line.
func jsonArray(lines []string) []string {
	if len(lines) == 0 {
		return []string{"[]"}
	}
	for i := range lines[:len(lines)-1] {
		lines[i] += ","
	}
	return append(append([]string{"["}, lines...), "]")
}

// itemLine is a recipient on a line: what it is, where it stands, what was said last.
func itemLine(i queue.Item, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-7s  %s  from <%s>  %s", i.ID, i.State, i.Recipient, i.Sender, config.Size(i.Size))
	switch {
	case i.Active:
		b.WriteString("  being tried")
	case !i.Next.IsZero() && i.Next.After(now):
		fmt.Fprintf(&b, "  next in %s", roughly(i.Next.Sub(now)))
	case !i.Next.IsZero():
		b.WriteString("  due")
	}
	if i.Attempts > 0 {
		fmt.Fprintf(&b, "  attempts %d: %s", i.Attempts, said(i.Code, i.Status, i.Reply, i.Remote))
	}
	return b.String()
}

func said(code int, status, reply, remote string) string {
	text := reply
	if code > 0 && !strings.HasPrefix(reply, fmt.Sprint(code)) {
		text = fmt.Sprintf("%d %s", code, reply)
	}
	if !strings.Contains(text, status) {
		text = status + " " + text
	}
	if remote != "" {
		text += " (" + remote + ")"
	}
	return text
}

// roughly is a duration without its small units.
func roughly(d time.Duration) string {
	switch {
	case d > 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d > 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d > 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

func (a *admin) queueShow(r request) ([]string, error) {
	if len(r.Targets) != 1 {
		return nil, errors.New("which message: write its queue ID")
	}
	d, err := a.queue.Show(r.Targets[0])
	if err != nil {
		return nil, err
	}
	if r.JSON {
		return []string{jsonText(d)}, nil
	}
	lines := []string{
		fmt.Sprintf("%s  from <%s>, %s, %s old, %s", d.ID, d.Sender, d.Arrived.Format(time.RFC3339), roughly(d.Age), config.Size(d.Size)),
		"  file: " + d.File}
	for _, note := range []struct{ name, value string }{
		{"account", d.Account}, {"peer", d.Peer}, {"hello", d.Hello}, {"envelope id", d.EnvelopeID},
		{"return", d.Return}, {"notice", d.Notice},
	} {
		if note.value != "" {
			lines = append(lines, "  "+note.name+": "+note.value)
		}
	}
	if d.Priority != 0 {
		lines = append(lines, fmt.Sprintf("  priority: %d", d.Priority))
	}
	if d.RequireTLS {
		lines = append(lines, "  requires TLS")
	}
	for _, at := range []struct {
		name string
		when time.Time
	}{{"not before", d.Release}, {"deadline", d.DeliverBy}} {
		if !at.when.IsZero() {
			lines = append(lines, "  "+at.name+": "+at.when.Format(time.RFC3339))
		}
	}
	for _, one := range d.Recipients {
		lines = append(lines, recipientLines(one)...)
	}
	return lines, nil
}

func recipientLines(r queue.DetailRecipient) []string {
	head := "  to " + r.Recipient + ": " + r.State + ", to " + r.Destination
	if r.For != "" {
		head += ", for " + r.For
	}
	if !r.Next.IsZero() {
		head += ", next " + r.Next.Format(time.RFC3339) + ", tried for another " + roughly(r.Expires)
	}
	if len(r.Notify) > 0 {
		head += ", notify " + strings.Join(r.Notify, ",")
	}
	if r.Original != "" {
		head += ", originally " + r.Original
	}
	lines := []string{head}
	if left := r.Attempts - len(r.History); left > 0 {
		lines = append(lines, fmt.Sprintf("    %d attempts, of which %d in the middle are not kept", r.Attempts, left))
	}
	for _, h := range r.History {
		line := fmt.Sprintf("    %s %s: %s", h.When.Format(time.RFC3339), h.Result, said(h.Code, h.Status, h.Reply, h.Remote))
		if h.TLS != "" {
			line += ", TLS " + h.TLS
		}
		lines = append(lines, line+fmt.Sprintf(", %s + %s", h.Connect, h.Transfer))
	}
	return lines
}

// queueDo wraps what changes recipients.
func (a *admin) queueDo(done string, change func(*queue.Queue, queue.Selection) (int, error)) func(request) ([]string, error) {
	return func(r request) ([]string, error) {
		n, err := change(a.queue, queue.Selection(r.Targets))
		if err != nil && n == 0 {
			return nil, err
		}
		return []string{countText(n, "recipient") + " " + done}, err
	}
}

func (a *admin) suppressedList(r request) ([]string, error) {
	var lines []string
	err := a.queue.SuppressedAddresses(func(s queue.Suppressed) bool {
		if r.JSON {
			lines = append(lines, jsonText(s))
			return true
		}
		until := "for ever"
		if !s.Until.IsZero() {
			until = "until " + s.Until.Format(time.RFC3339)
		}
		by := "by hand"
		if s.ID != "" {
			by = "by " + s.ID
		}
		lines = append(lines, fmt.Sprintf("%s  %s  since %s %s: %s", s.Address, until, s.Added.Format(time.RFC3339), by, s.Text))
		return true
	})
	if r.JSON {
		lines = jsonArray(lines)
	}
	return lines, err
}

func (a *admin) suppressedAdd(r request) ([]string, error) {
	if err := a.queue.Suppress(r.Address, r.Why, r.Lasting); err != nil {
		return nil, err
	}
	return []string{"mail to " + r.Address + " is stopped"}, nil
}

func (a *admin) suppressedDel(r request) ([]string, error) {
	if err := a.queue.Unsuppress(r.Address); err != nil {
		return nil, err
	}
	return []string{"mail to " + r.Address + " goes out again"}, nil
}
