package resolve

import "time"

// Trusts is for tests.
func Trusts(c *Client, server string) bool { return c.trusted(server) }

// Config is for tests.
func Config(c *Client) (servers []string, timeout time.Duration, tries int) { return c.config() }

// SetServers is for tests: a client of several servers.
func SetServers(c *Client, servers ...string) {
	c.config()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = servers
}
