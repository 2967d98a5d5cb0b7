package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds of RFC 8461: section 3.2 (max_age), 3.3 (fetching; waiting after a failure), 10.2 (refreshing).
const (
	maxPolicy      = 64 << 10
	maxPolicyMX    = 200
	maxPolicyAge   = 31557600 // seconds
	policyRetry    = 5 * time.Minute
	policyRefresh  = 24 * time.Hour
	maxPoliciesMem = 10_000 // domains kept in memory
)

// Modes of an MTA-STS policy.
const (
	stsEnforce = "enforce"
	stsTesting = "testing"
	stsNone    = "none"
)

// stsPolicy is a domain's MTA-STS policy. Its JSON is what the Store keeps.
type stsPolicy struct {
	ID      string        `json:"id"` // of the TXT record that led to it
	Fetched time.Time     `json:"fetched"`
	Mode    string        `json:"mode"`
	MaxAge  time.Duration `json:"max_age"`
	MX      []string      `json:"mx"`
}

func (p *stsPolicy) valid(now time.Time) bool { return p != nil && now.Before(p.Fetched.Add(p.MaxAge)) }

// parseSTSPolicy reads a policy (RFC 8461 section 3.2). Unknown keys are passed over; of a key that is there twice, but for
// mx, the first counts.
func parseSTSPolicy(text string) (*stsPolicy, error) {
	fields := map[string]string{}
	p := &stsPolicy{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%.60q is no line of a policy", line)
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "mx" {
			if len(p.MX) < maxPolicyMX && value != "" {
				p.MX = append(p.MX, asciiPattern(value))
			}
		} else if _, twice := fields[key]; !twice {
			fields[key] = value
		}
	}
	if fields["version"] != "STSv1" {
		return nil, fmt.Errorf("the policy's version is %.20q", fields["version"])
	}
	seconds, err := strconv.ParseUint(fields["max_age"], 10, 40)
	if err != nil || len(fields["max_age"]) > 10 {
		return nil, fmt.Errorf("the policy's max_age is %.20q", fields["max_age"])
	}
	p.MaxAge = time.Duration(min(seconds, maxPolicyAge)) * time.Second
	p.Mode = fields["mode"]
	switch {
	case p.Mode != stsEnforce && p.Mode != stsTesting && p.Mode != stsNone:
		return nil, fmt.Errorf("the policy's mode is %.20q", p.Mode)
	case p.Mode != stsNone && len(p.MX) == 0:
		return nil, errors.New("the policy has no mx")
	}
	return p, nil
}

func asciiPattern(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "*."); ok {
		return "*." + asciiDomain(rest)
	}
	return asciiDomain(pattern)
}

// allows reports whether an MX host is one of the policy's (section 4.1: "*." stands for one label).
func (p *stsPolicy) allows(mx string) bool {
	return slices.ContainsFunc(p.MX, func(pattern string) bool {
		if suffix, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasPrefix(suffix, ".") {
			label, rest, found := strings.Cut(mx, ".")
			return found && label != "" && strings.EqualFold("."+rest, suffix)
		}
		return strings.EqualFold(mx, pattern)
	})
}

// lines is the policy as RFC 8460 section 4.2 reports it.
func (p *stsPolicy) lines() []string {
	out := []string{"version: STSv1", "mode: " + p.Mode}
	for _, mx := range p.MX {
		out = append(out, "mx: "+mx)
	}
	return append(out, fmt.Sprintf("max_age: %d", p.MaxAge/time.Second))
}

// stsID reads the _mta-sts TXT records (section 3.1): the id of the one policy record, "" if there is none or more than one.
func stsID(records []string) (id string) {
	n := 0
	for _, txt := range records {
		version, rest, _ := strings.Cut(txt, ";")
		if strings.TrimRight(version, " \t") != "v=STSv1" {
			continue
		}
		n++
		for field := range strings.SplitSeq(rest, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			if key == "id" && id == "" && len(value) <= 32 {
				id = value
			}
		}
	}
	if n != 1 {
		return ""
	}
	return id
}

// stsCache finds policies, and keeps them.
type stsCache struct {
	r *Relay

	mu      sync.Mutex
	known   map[string]*stsPolicy
	failed  map[string]time.Time
	flights map[string]chan struct{}
}

func newSTSCache(r *Relay) *stsCache {
	return &stsCache{r: r, known: map[string]*stsPolicy{}, failed: map[string]time.Time{}, flights: map[string]chan struct{}{}}
}

// policy returns the policy that counts for a domain now, nil if there is none. The problem, if any, is one to report; the
// policy then is the one known from before.
func (c *stsCache) policy(ctx context.Context, domain string) (*stsPolicy, *tlsProblem) {
	for {
		old := c.kept(domain)
		id := ""
		if txt, err := c.r.o.Resolver.TXT(ctx, "_mta-sts."+domain); err == nil {
			id = stsID(txt.Records)
		}
		now := time.Now()
		fresh := old != nil && old.ID == id && now.Sub(old.Fetched) < policyRefresh
		if id == "" || fresh || ctx.Err() != nil {
			return old, nil // section 3.1: no record does not end a policy that still holds
		}
		c.mu.Lock()
		if now.Sub(c.failed[domain]) < policyRetry {
			c.mu.Unlock()
			return old, nil
		}
		if wait := c.flights[domain]; wait != nil {
			c.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
			}
			continue
		}
		done := make(chan struct{})
		c.flights[domain] = done
		c.mu.Unlock()
		p, problem := c.refresh(ctx, domain, id, old)
		c.mu.Lock()
		delete(c.flights, domain)
		c.mu.Unlock()
		close(done)
		return p, problem
	}
}

// kept is the policy from before, if it still holds.
func (c *stsCache) kept(domain string) *stsPolicy {
	c.mu.Lock()
	p := c.known[domain]
	c.mu.Unlock()
	if p == nil {
		record, err := c.r.o.Store.Load("sts/" + domain)
		if err != nil {
			c.r.log.Warn("an MTA-STS policy could not be read", "domain", domain, "err", err)
		}
		stored := new(stsPolicy)
		if record != nil && json.Unmarshal(record, stored) == nil {
			p = stored
			c.remember(domain, p)
		}
	}
	if p != nil && !p.valid(time.Now()) {
		c.forget(domain)
		return nil
	}
	return p
}

// forget drops a policy whose time is over.
func (c *stsCache) forget(domain string) {
	c.mu.Lock()
	delete(c.known, domain)
	c.mu.Unlock()
	if err := c.r.o.Store.Delete("sts/" + domain); err != nil {
		c.r.log.Warn("an old MTA-STS policy could not be dropped", "domain", domain, "err", err)
	}
}

func (c *stsCache) remember(domain string, p *stsPolicy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d := range c.known {
		if len(c.known) < maxPoliciesMem {
			break
		}
		delete(c.known, d) // any one: the Store has them all
	}
	c.known[domain] = p
}

func (c *stsCache) refresh(ctx context.Context, domain, id string, old *stsPolicy) (*stsPolicy, *tlsProblem) {
	p, problem := c.r.fetchPolicy(ctx, domain)
	if problem != nil {
		c.r.log.Info("MTA-STS policy not to be had", "domain", domain, "err", problem.text)
		c.mu.Lock()
		if len(c.failed) >= maxPoliciesMem {
			clear(c.failed)
		}
		if ctx.Err() == nil {
			c.failed[domain] = time.Now()
		}
		c.mu.Unlock()
		return old, problem
	}
	p.ID, p.Fetched = id, time.Now()
	c.remember(domain, p)
	record, err := json.Marshal(p)
	if err == nil {
		err = c.r.o.Store.Save("sts/"+domain, record)
	}
	if err != nil {
		c.r.log.Warn("an MTA-STS policy could not be kept", "domain", domain, "err", err)
	}
	return p, nil
}

// fetchPolicy gets a domain's policy by HTTPS (section 3.3): with the web's certificate rules, no redirects, bounded.
func (r *Relay) fetchPolicy(ctx context.Context, domain string) (*stsPolicy, *tlsProblem) {
	fail := func(err error) *tlsProblem {
		var unknown x509.UnknownAuthorityError
		var name x509.HostnameError
		var invalid x509.CertificateInvalidError
		kind := "sts-policy-fetch-error"
		if errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) {
			kind = "sts-webpki-invalid"
		}
		return &tlsProblem{kind, printable(err.Error())}
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeouts.Policy)
	defer cancel()
	at := "mta-sts." + domain
	if r.o.PolicyPort != 443 {
		at = net.JoinHostPort(at, strconv.Itoa(int(r.o.PolicyPort)))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return nil, fail(err)
	}
	resp, err := r.web().Do(req)
	if err != nil {
		return nil, fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fail(fmt.Errorf("HTTP status %s", resp.Status))
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return nil, &tlsProblem{"sts-policy-invalid", fmt.Sprintf("content type %.60q", resp.Header.Get("Content-Type"))}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
	if err != nil {
		return nil, fail(err)
	}
	if len(body) > maxPolicy {
		return nil, &tlsProblem{"sts-policy-invalid", "the policy is longer than 64 KiB"}
	}
	p, err := parseSTSPolicy(string(body))
	if err != nil {
		return nil, &tlsProblem{"sts-policy-invalid", err.Error()}
	}
	return p, nil
}

// web is an HTTPS client that finds names as we do, follows nothing and keeps nothing.
func (r *Relay) web() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			// The library lets a handshake go on when the request has been given up: the connection has its own end.
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := forward{r: r}.DialContext(ctx, network, addr)
				if err == nil {
					err = c.SetDeadline(time.Now().Add(r.o.Timeouts.Policy))
				}
				return c, err
			},
			TLSClientConfig:        &tls.Config{RootCAs: r.o.Roots},
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
		},
	}
}

// stsSecurity applies a policy to a host.
func stsSecurity(p *stsPolicy, h *hop, one *host, sec *security) *failure {
	if p == nil || p.Mode == stsNone {
		return nil
	}
	sec.policy = policyUsed{kind: "sts", domain: h.domain, lines: p.lines(), mx: p.MX}
	if !p.allows(one.name) {
		if p.Mode == stsEnforce {
			return tempFailure("policy", "4.7.0", "%s is no server of %s by its MTA-STS policy", one.name, h.domain)
		}
		return nil
	}
	sec.kind, sec.names = "mta-sts", []string{one.name}
	sec.required = p.Mode == stsEnforce
	sec.enforce = sec.required
	return nil
}
