// Package config turns the configuration file into a validated [Config], or into all that is wrong with it, each with its
// line. Every key is told in docs/config.md, and a test holds the two together.
//
// Where things are: config.go what can be written, and its defaults; tree.go TOML into a tree with lines; decode.go the
// tree into the Config; check.go what must hold beyond types; seed.go what the directory gets; print.go the effective
// result. Only cmd/mailsrv imports it.
package config

import (
	"net/netip"
	"time"
)

// Config is a valid configuration: the defaults with what the file says over them. Field names follow the keys; what a key
// means in full is in docs/config.md.
type Config struct {
	Hostname        string         `toml:"hostname"`
	Data            string         `toml:"data"` // relative to the working directory
	Demo            bool           `toml:"demo"`
	Postmaster      string         `toml:"postmaster"`
	TrustedNetworks []netip.Prefix `toml:"trusted_networks"`
	Listen          Listen         `toml:"listen"`
	TLS             TLS            `toml:"tls"`
	Domains         []Domain       `toml:"domain"`
	Accounts        []Account      `toml:"account"`
	Aliases         []Alias        `toml:"alias"`
	Groups          []Group        `toml:"group"`
	DNS             DNS            `toml:"dns"`
	Routes          []Route        `toml:"route"`
	Queue           Queue          `toml:"queue"`
	Retries         []Retry        `toml:"retry"`
	Limits          Limits         `toml:"limits"`
	Auth            Auth           `toml:"auth"`
	Legacy          Legacy         `toml:"legacy"`
	Log             Log            `toml:"log"`
}

// Listen has the addresses of each service, "ip:port"; none is off. Port 0 is any free one.
type Listen struct {
	SMTP        []string `toml:"smtp"`
	Submission  []string `toml:"submission"`
	Submissions []string `toml:"submissions"`
	LMTP        []string `toml:"lmtp"`
	IMAP        []string `toml:"imap"`
	IMAPS       []string `toml:"imaps"`
	Legacy      []string `toml:"legacy"`
	HTTP        []string `toml:"http"`
}

// TLS says where the certificate comes from.
type TLS struct {
	Mode      string `toml:"mode"` // "self-signed", "files", "acme" (not yet)
	Cert      string `toml:"cert"`
	Key       string `toml:"key"`
	Email     string `toml:"email"`
	Directory string `toml:"directory"`
}

// Domain is a [[domain]].
type Domain struct {
	Name          string `toml:"name"`
	Legacy        bool   `toml:"legacy"`
	AutoCreate    bool   `toml:"auto_create"`
	CatchAll      string `toml:"catch_all"`
	Subaddress    string `toml:"subaddress"`
	Quota         Size   `toml:"quota"`
	QuotaMessages int    `toml:"quota_messages"`
}

// Account is an [[account]]. At most one of the password keys is set; after Load, what a file or credential held is in
// Password or PasswordHash.
type Account struct {
	Address            string `toml:"address"`
	Password           string `toml:"password" secret:"yes"`
	PasswordHash       string `toml:"password_hash" secret:"yes"`
	PasswordFile       string `toml:"password_file"`
	PasswordCredential string `toml:"password_credential"`
	Legacy             bool   `toml:"legacy"`
	Disabled           bool   `toml:"disabled"`
	Quota              Size   `toml:"quota"`
	QuotaMessages      int    `toml:"quota_messages"`
}

// Alias is an [[alias]].
type Alias struct {
	Address string   `toml:"address"`
	To      []string `toml:"to"`
}

// Group is a [[group]].
type Group struct {
	Address string   `toml:"address"`
	Members []string `toml:"members"`
	Private bool     `toml:"private"`
}

// DNS is [dns].
type DNS struct {
	Server  string `toml:"server"` // "" is the system's resolver
	Trusted bool   `toml:"trusted"`
}

// Route is a [[route]].
type Route struct {
	Domain             string `toml:"domain"`
	Sender             string `toml:"sender"` // an address, or a domain; "" is everybody
	Host               string `toml:"host"`
	TLS                string `toml:"tls"`
	Username           string `toml:"username"`
	Password           string `toml:"password" secret:"yes"`
	PasswordFile       string `toml:"password_file"`
	PasswordCredential string `toml:"password_credential"`
	Source             string `toml:"source"` // an IP address of this machine
	Hello              string `toml:"hello"`
	SOCKS              string `toml:"socks"`
}

// Queue is [queue].
type Queue struct {
	Lifetime               time.Duration `toml:"lifetime"`
	NoticeLifetime         time.Duration `toml:"notice_lifetime"`
	DelayNotice            time.Duration `toml:"delay_notice"`
	RetryFirst             time.Duration `toml:"retry_first"`
	RetryMax               time.Duration `toml:"retry_max"`
	Attempts               int           `toml:"attempts"`
	AttemptsPerDestination int           `toml:"attempts_per_destination"`
	Suppress               time.Duration `toml:"suppress"`
	ReturnSize             Size          `toml:"return_size"`
}

// Retry is a [[retry]]: what differs from [queue] for a recipients' domain.
type Retry struct {
	Domain      string        `toml:"domain"`
	Lifetime    time.Duration `toml:"lifetime"`     // 0: [queue]'s
	DelayNotice time.Duration `toml:"delay_notice"` // 0: [queue]'s
}

// Limits is [limits]. No limit is written -1 where a limit can be done without.
type Limits struct {
	MessageSize           Size          `toml:"message_size"`
	Recipients            int           `toml:"recipients"`
	Hops                  int           `toml:"hops"`
	Connections           int           `toml:"connections"`
	ConnectionsPerAddress int           `toml:"connections_per_address"`
	ConnectionsPerMinute  int           `toml:"connections_per_minute"`
	MessagesPerMinute     int           `toml:"messages_per_minute"`
	Errors                int           `toml:"errors"`
	Logins                int           `toml:"logins"`
	LoginTimeout          time.Duration `toml:"login_timeout"`
	SMTPIdle              time.Duration `toml:"smtp_idle"`
	IMAPIdle              time.Duration `toml:"imap_idle"`
	AccountsOpen          int           `toml:"accounts_open"`
	DiskReserve           Size          `toml:"disk_reserve"`
	ShutdownTimeout       time.Duration `toml:"shutdown_timeout"`
}

// Auth is [auth].
type Auth struct {
	PlaintextLoopback bool          `toml:"plaintext_loopback"`
	Remember          time.Duration `toml:"remember"`
	Parallel          int           `toml:"parallel"`
	Argon2Memory      Size          `toml:"argon2_memory"`
	Argon2Passes      int           `toml:"argon2_passes"`
}

// Legacy is [legacy].
type Legacy struct {
	MaxFrame    Size          `toml:"max_frame"`
	MaxReply    Size          `toml:"max_reply"`
	IdleTimeout time.Duration `toml:"idle_timeout"`
}

// Log is [log].
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// Size is a number of bytes: in the file an integer, or a string such as "25 MB" (MB is 1,000,000; MiB is 1,048,576).
type Size int64

// Units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// Default is what holds where the file says nothing.
func Default() Config {
	return Config{
		TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		TLS:             TLS{Mode: "self-signed"},
		Queue: Queue{
			Lifetime:               5 * 24 * time.Hour,
			NoticeLifetime:         2 * 24 * time.Hour,
			DelayNotice:            4 * time.Hour,
			RetryFirst:             5 * time.Minute,
			RetryMax:               4 * time.Hour,
			Attempts:               64,
			AttemptsPerDestination: 20,
			Suppress:               3 * 24 * time.Hour,
			ReturnSize:             MiB,
		},
		Limits: Limits{
			MessageSize:           50 * MiB,
			Recipients:            1000,
			Hops:                  50,
			Connections:           1000,
			ConnectionsPerAddress: 50,
			ConnectionsPerMinute:  300,
			MessagesPerMinute:     600,
			Errors:                20,
			Logins:                3,
			LoginTimeout:          2 * time.Minute,
			SMTPIdle:              5 * time.Minute,
			IMAPIdle:              35 * time.Minute,
			AccountsOpen:          256,
			DiskReserve:           64 * MiB,
			ShutdownTimeout:       20 * time.Second,
		},
		Auth: Auth{
			PlaintextLoopback: true,
			Remember:          5 * time.Minute,
			Argon2Memory:      19 * MiB,
			Argon2Passes:      2,
		},
		Legacy: Legacy{MaxFrame: MiB, MaxReply: 64 * KiB, IdleTimeout: 30 * time.Minute},
		Log:    Log{Level: "info", Format: "text"},
	}
}

// defaultDomain, defaultRoute and the like are what an entry of a list begins with.
func defaultDomain() Domain { return Domain{Subaddress: "+"} }
func defaultRoute() Route   { return Route{TLS: "opportunistic"} }

// Services pairs each service's name with its addresses, in the order of the documentation.
func (l *Listen) Services() []Service {
	return []Service{
		{"smtp", l.SMTP}, {"submission", l.Submission}, {"submissions", l.Submissions}, {"lmtp", l.LMTP},
		{"imap", l.IMAP}, {"imaps", l.IMAPS}, {"legacy", l.Legacy}, {"http", l.HTTP},
	}
}

// Service is one of the services and where it listens.
type Service struct {
	Name      string
	Addresses []string
}
