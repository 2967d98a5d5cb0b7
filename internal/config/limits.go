package config

import (
	"fmt"
	"time"

	"mailsrv/internal/directory"
)

// limits checks the ranges of all numbers.
func (x *checker) limits() {
	l, a, g := &x.c.Limits, &x.c.Auth, &x.c.Legacy
	const unlimited = true
	x.number(l, "limits", "recipients", l.Recipients, 100, !unlimited) // RFC 5321 section 4.5.3.1.8: no less than 100
	x.number(l, "limits", "hops", l.Hops, 10, !unlimited)
	x.number(l, "limits", "connections", l.Connections, 1, unlimited)
	x.number(l, "limits", "connections_per_address", l.ConnectionsPerAddress, 1, unlimited)
	x.number(l, "limits", "connections_per_minute", l.ConnectionsPerMinute, 1, unlimited)
	x.number(l, "limits", "messages_per_minute", l.MessagesPerMinute, 1, unlimited)
	x.number(l, "limits", "errors", l.Errors, 1, unlimited)
	x.number(l, "limits", "logins", l.Logins, 1, !unlimited)
	x.number(l, "limits", "accounts_open", l.AccountsOpen, 1, !unlimited)
	x.size(l, "limits", "message_size", l.MessageSize, 64*KiB, 2*GiB-1)
	x.size(l, "limits", "disk_reserve", l.DiskReserve, MiB, 1<<50)
	x.duration(l, "limits", "login_timeout", l.LoginTimeout, time.Second, time.Hour)
	x.duration(l, "limits", "smtp_idle", l.SMTPIdle, 10*time.Second, 24*time.Hour)
	x.duration(l, "limits", "imap_idle", l.IMAPIdle, 30*time.Minute, 24*time.Hour) // RFC 9051 section 5.4: at least 30 minutes
	x.duration(l, "limits", "shutdown_timeout", l.ShutdownTimeout, time.Second, time.Hour)

	x.duration(a, "auth", "remember", a.Remember, 0, time.Hour)
	if a.Parallel < 0 || a.Parallel > 1024 {
		x.bad(a, "auth", "parallel", "has to be from 0 (one per CPU) to 1024")
	}
	x.size(a, "auth", "argon2_memory", a.Argon2Memory, 8*KiB, GiB)
	if a.Argon2Passes < 1 || a.Argon2Passes > 64 {
		x.bad(a, "auth", "argon2_passes", "has to be from 1 to 64")
	}

	x.size(g, "legacy", "max_frame", g.MaxFrame, KiB, 256*MiB)
	x.size(g, "legacy", "max_reply", g.MaxReply, KiB, 256*MiB)
	x.duration(g, "legacy", "idle_timeout", g.IdleTimeout, time.Second, 24*time.Hour)

	x.queue()
	for i := range x.c.Domains {
		d := &x.c.Domains[i]
		x.quota(d, "domain", d.Quota, d.QuotaMessages)
	}
	for i := range x.c.Accounts {
		a := &x.c.Accounts[i]
		x.quota(a, "account", a.Quota, a.QuotaMessages)
	}
}

func (x *checker) queue() {
	const day = 24 * time.Hour
	q := &x.c.Queue
	x.duration(q, "queue", "lifetime", q.Lifetime, time.Minute, 30*day)
	x.duration(q, "queue", "notice_lifetime", q.NoticeLifetime, time.Minute, 30*day)
	x.duration(q, "queue", "delay_notice", q.DelayNotice, 0, 30*day)
	x.duration(q, "queue", "retry_first", q.RetryFirst, time.Second, day)
	x.duration(q, "queue", "retry_max", q.RetryMax, time.Second, day)
	if q.RetryMax < q.RetryFirst {
		x.bad(q, "queue", "retry_max", "is less than retry_first, %s", durationText(q.RetryFirst))
	}
	x.number(q, "queue", "attempts", q.Attempts, 1, false)
	x.number(q, "queue", "attempts_per_destination", q.AttemptsPerDestination, 1, false)
	x.duration(q, "queue", "suppress", q.Suppress, 0, 365*day)
	x.size(q, "queue", "return_size", q.ReturnSize, 0, 100*MiB)
	seen := make(map[string]*Retry)
	for i := range x.c.Retries {
		r := &x.c.Retries[i]
		if domain, err := directory.CanonicalDomain(r.Domain); err != nil {
			x.bad(r, "retry", "domain", "%.80q is no domain: write the domain that the mail is for", r.Domain)
		} else {
			r.Domain = domain
		}
		if other := seen[r.Domain]; other != nil {
			x.bad(r, "retry", "domain", "there is another for %s on line %d: remove one of the two", r.Domain, x.places[other][""])
		}
		seen[r.Domain] = r
		x.duration(r, "retry", "lifetime", r.Lifetime, 0, 30*day)
		x.duration(r, "retry", "delay_notice", r.DelayNotice, 0, 30*day)
	}
}

func (x *checker) number(of any, section, key string, n, least int, unlimited bool) {
	switch {
	case n >= least, unlimited && n == -1:
	case unlimited:
		x.bad(of, section, key, "has to be at least %d, or -1 for no limit", least)
	default:
		x.bad(of, section, key, "has to be at least %d", least)
	}
}

func (x *checker) size(of any, section, key string, n, least, most Size) {
	if n < least || n > most {
		x.bad(of, section, key, "has to be from %q to %q", least.String(), most.String())
	}
}

func (x *checker) duration(of any, section, key string, d, least, most time.Duration) {
	if d < least || d > most {
		x.bad(of, section, key, "has to be from %q to %q", durationText(least), durationText(most))
	}
}

func (x *checker) quota(of any, section string, bytes Size, messages int) {
	if bytes < 0 {
		x.bad(of, section, "quota", "has to be 0 (none) or more")
	}
	if messages < 0 {
		x.bad(of, section, "quota_messages", "has to be 0 (none) or more")
	}
}

// String is the size as it can be written in the file: in the largest unit that needs no fraction, binary ones first.
func (s Size) String() string {
	for _, u := range []struct {
		name  string
		bytes Size
	}{{"TiB", 1 << 40}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}} {
		if s != 0 && s%u.bytes == 0 {
			return fmt.Sprintf("%d %s", s/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%d B", int64(s))
}

// durationText is the duration without the zeros of its smaller units: 5m, not 5m0s.
func durationText(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
