package relay

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"mailsrv/internal/resolve"
)

// Bounds of what is counted in a day; what is beyond them is not reported.
const (
	maxTallies  = 20_000 // domains and policies
	maxDetails  = 50     // kinds of failure of one
	maxRUA      = 5      // addresses of one domain
	reportEvery = time.Hour
	reportDays  = 3 // a report that cannot be sent is tried for as long
)

// policyUsed is the policy that a session was held to.
type policyUsed struct {
	kind   string // "tlsa", "sts", "no-policy-found"
	domain string
	lines  []string
	mx     []string
}

// tally counts the sessions of one UTC day to one domain under one policy. Its JSON is what the Store keeps.
type tally struct {
	Day     string    `json:"day"` // 2006-01-02
	Domain  string    `json:"domain"`
	Kind    string    `json:"kind"`
	Lines   []string  `json:"lines,omitempty"`
	MX      []string  `json:"mx,omitempty"`
	Success int       `json:"success"`
	Failure int       `json:"failure"`
	Details []*detail `json:"details,omitempty"`
}

// detail is RFC 8460 section 4.4's failure-details.
type detail struct {
	Type     string `json:"result-type"`
	MTA      string `json:"sending-mta-ip,omitempty"`
	Host     string `json:"receiving-mx-hostname,omitempty"`
	IP       string `json:"receiving-ip,omitempty"`
	Sessions int    `json:"failed-session-count"`
	Info     string `json:"additional-information,omitempty"`
}

// tlsReports counts TLS sessions, and makes each day's reports of it (RFC 8460).
type tlsReports struct {
	r  *Relay
	on bool

	mu      sync.Mutex
	tallies map[string]*tally // by day, domain, kind
	dirty   bool
}

// session counts one session: problem nil is a success. A session counts once, for what was seen first.
func (t *tlsReports) session(at target, s *session, sec *security, problem *tlsProblem) {
	if !t.on || sec.policy.domain == "" || problem == nil && s.tls == "" || s != nil && s.counted {
		return
	}
	if s != nil {
		s.counted = true
	}
	now := time.Now().UTC()
	p := sec.policy
	key := now.Format(time.DateOnly) + " " + p.domain + " " + p.kind
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.tallies[key]
	if y == nil {
		if len(t.tallies) >= maxTallies {
			return
		}
		y = &tally{Day: now.Format(time.DateOnly), Domain: p.domain, Kind: p.kind}
		t.tallies[key] = y
	}
	y.Lines, y.MX, t.dirty = p.lines, p.mx, true
	if problem == nil {
		y.Success++
		return
	}
	y.Failure++
	d := detail{Type: problem.kind, Sessions: 1, Info: problem.text}
	if at.host != nil {
		d.Host = at.host.name
	}
	if s != nil {
		d.IP = s.ip.String()
		if a, ok := s.c.LocalAddr().(interface{ String() string }); ok {
			if host, _, err := splitHostPort(a.String()); err == nil {
				d.MTA = host
			}
		}
	}
	y.add(d)
}

func (y *tally) add(d detail) {
	for _, have := range y.Details {
		if have.Type == d.Type && have.MTA == d.MTA && have.Host == d.Host && have.IP == d.IP {
			have.Sessions += d.Sessions
			return
		}
	}
	if len(y.Details) < maxDetails {
		y.Details = append(y.Details, &d)
	}
}

// load takes up what the Store kept.
func (t *tlsReports) load() {
	record, err := t.r.o.Store.Load("tlsrpt")
	if err != nil {
		t.r.log.Warn("TLS counters could not be read", "err", err)
	}
	if record == nil {
		return
	}
	var kept []*tally
	if err := json.Unmarshal(record, &kept); err != nil {
		t.r.log.Warn("TLS counters are damaged", "err", err)
		return
	}
	for _, y := range kept[:min(len(kept), maxTallies)] {
		t.tallies[y.Day+" "+y.Domain+" "+y.Kind] = y
	}
}

func (t *tlsReports) save() {
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = false
	var record []byte
	var err error
	if dirty {
		record, err = json.Marshal(slices.Collect(maps.Values(t.tallies)))
	}
	t.mu.Unlock()
	if dirty && err == nil {
		err = t.r.o.Store.Save("tlsrpt", record)
	}
	if err != nil {
		t.r.log.Warn("TLS counters could not be kept", "err", err)
	}
}

// run sends the reports of days that are over, and saves. Within the hour after midnight, when depends on the start: RFC 8460
// section 4.1 wants senders spread.
func (t *tlsReports) run(ctx context.Context) {
	timer := time.NewTimer(rand.N(reportEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			t.save()
			return
		case <-timer.C:
		}
		t.sendAll(ctx)
		t.save()
		timer.Reset(reportEvery)
	}
}

// sendAll sends what is over. A domain's report that cannot be sent is tried again with the next call.
func (t *tlsReports) sendAll(ctx context.Context) {
	today := time.Now().UTC().Format(time.DateOnly)
	oldest := time.Now().UTC().AddDate(0, 0, -reportDays).Format(time.DateOnly)
	t.mu.Lock()
	over := map[string][]*tally{}
	for key, y := range t.tallies {
		switch {
		case y.Day < oldest:
			delete(t.tallies, key)
			t.dirty = true
		case y.Day < today:
			over[y.Day+" "+y.Domain] = append(over[y.Day+" "+y.Domain], y)
		}
	}
	t.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(over)) {
		if ctx.Err() != nil {
			return
		}
		tallies := over[key] // nobody counts in them any more
		if err := t.send(ctx, tallies); err != nil {
			t.r.log.Warn("a TLS report was not sent", "domain", tallies[0].Domain, "day", tallies[0].Day, "err", err)
			continue
		}
		t.mu.Lock()
		for _, y := range tallies {
			delete(t.tallies, y.Day+" "+y.Domain+" "+y.Kind)
		}
		t.dirty = true
		t.mu.Unlock()
	}
}

// send reports one day of one domain, if the domain wants it.
func (t *tlsReports) send(ctx context.Context, tallies []*tally) error {
	domain := tallies[0].Domain
	txt, err := t.r.o.Resolver.TXT(ctx, "_smtp._tls."+domain)
	if errors.Is(err, resolve.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	mailto, web := parseRUA(txt.Records)
	if len(mailto)+len(web) == 0 {
		return nil
	}
	doc, err := t.document(tallies)
	if err != nil {
		return err
	}
	if len(mailto) > 0 {
		report := Report{Domain: domain, From: t.r.o.ReportFrom, To: mailto, Message: t.message(tallies, mailto, doc)}
		if err := t.r.o.SendReport(ctx, report); err != nil {
			return err
		}
	}
	for _, u := range web {
		if err := t.post(ctx, u, doc); err != nil { // the mail, if any, must not go twice for it
			t.r.log.Warn("a TLS report was not posted", "domain", domain, "url", u, "err", err)
		}
	}
	return nil
}

// parseRUA reads _smtp._tls TXT records (RFC 8460 section 3): the one that is TLSRPTv1.
func parseRUA(records []string) (mailto, web []string) {
	for _, txt := range records {
		version, rest, _ := strings.Cut(txt, ";")
		if strings.TrimSpace(version) != "v=TLSRPTv1" {
			continue
		}
		for field := range strings.SplitSeq(rest, ";") {
			key, uris, _ := strings.Cut(strings.TrimSpace(field), "=")
			if strings.TrimSpace(key) != "rua" {
				continue
			}
			for uri := range strings.SplitSeq(uris, ",") {
				u, err := url.Parse(strings.TrimSpace(uri))
				if err != nil || len(mailto)+len(web) >= maxRUA {
					continue
				}
				address, errAddr := url.PathUnescape(u.Opaque)
				switch {
				case u.Scheme == "mailto" && errAddr == nil && isAddress(address):
					mailto = append(mailto, address)
				case u.Scheme == "https" && u.Host != "":
					web = append(web, u.String())
				}
			}
		}
		break
	}
	return mailto, web
}

// isAddress reports whether a string from the DNS can be a recipient and stand in a header.
func isAddress(s string) bool {
	local, domain, ok := cutAddress(s)
	return ok && local != "" && domain != "" && len(s) <= 254 && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`<>()[],;:\"`, c)
	})
}

// id of a report: unique for the day, the domain and us.
func (t *tlsReports) id(y *tally) string { return y.Day + "_" + y.Domain + "@" + t.r.o.Hostname }

// document is the report as gzipped JSON (RFC 8460 section 4).
func (t *tlsReports) document(tallies []*tally) ([]byte, error) {
	type object = map[string]any
	var policies []object
	for _, y := range tallies {
		policy := object{"policy-type": y.Kind, "policy-domain": y.Domain}
		if len(y.Lines) > 0 {
			policy["policy-string"] = y.Lines
		}
		if len(y.MX) > 0 {
			policy["mx-host"] = y.MX
		}
		p := object{"policy": policy, "summary": object{
			"total-successful-session-count": y.Success, "total-failure-session-count": y.Failure,
		}}
		if len(y.Details) > 0 {
			p["failure-details"] = y.Details
		}
		policies = append(policies, p)
	}
	day := tallies[0].Day
	text, err := json.Marshal(object{
		"organization-name": t.r.o.Hostname,
		"date-range":        object{"start-datetime": day + "T00:00:00Z", "end-datetime": day + "T23:59:59Z"},
		"contact-info":      t.r.o.ReportFrom,
		"report-id":         t.id(tallies[0]),
		"policies":          policies,
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	err = z.Close()
	return out.Bytes(), err
}

// message is the report as mail (RFC 8460 section 5.3). It asks for delivery whatever the TLS (RFC 8689 section 5): the report
// is about what may be broken.
func (t *tlsReports) message(tallies []*tally, to []string, doc []byte) []byte {
	y := tallies[0]
	begin, _ := time.Parse(time.DateOnly, y.Day) // was formatted so
	name := fmt.Sprintf("%s!%s!%d!%d.json.gz", t.r.o.Hostname, y.Domain, begin.Unix(), begin.Unix()+86399)
	boundary := fmt.Sprintf("=_tlsrpt_%016x", rand.Uint64())
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: <%s>", t.r.o.ReportFrom)
	line("To: <%s>", strings.Join(to, ">,\r\n <"))
	line("Date: %s", time.Now().UTC().Format(time.RFC1123Z))
	line("Message-ID: <%016x.tlsrpt@%s>", rand.Uint64(), t.r.o.Hostname)
	line("Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>", y.Domain, t.r.o.Hostname, t.id(y))
	line("TLS-Report-Domain: %s", y.Domain)
	line("TLS-Report-Submitter: %s", t.r.o.Hostname)
	line("TLS-Required: No")
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"%s\"\r\n", boundary)
	line("--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n", boundary)
	line("This is %s's report about TLS on the way to the mail servers of\r\n%s on %s (UTC). RFC 8460 says how to read it.\r\n",
		t.r.o.Hostname, y.Domain, y.Day)
	line("--%s\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64", boundary)
	line("Content-Disposition: attachment;\r\n filename=\"%s\"\r\n", name)
	text := base64.StdEncoding.EncodeToString(doc)
	for len(text) > 0 {
		n := min(76, len(text))
		line("%s", text[:n])
		text = text[n:]
	}
	line("\r\n--%s--", boundary)
	return b.Bytes()
}

// post sends the report by HTTPS (RFC 8460 section 5.4).
func (t *tlsReports) post(ctx context.Context, to string, doc []byte) error {
	ctx, cancel := context.WithTimeout(ctx, t.r.o.Timeouts.Policy)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(doc))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	resp, err := t.r.web().Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("HTTP status %s", resp.Status)
	}
	return nil
}
