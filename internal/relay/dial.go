package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/proxy"
)

func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// systemDial is Options.Dial's default.
func systemDial(ctx context.Context, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{}
	if local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: local.AsSlice(), Zone: local.Zone()}
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// interleave orders addresses as they are to be raced: IPv6 first, then one of each kind (RFC 8305 section 4), those of a kind
// in random order. Addresses that are no host's are left out, and those that cannot be reached from source.
func (r *Relay) interleave(addrs []netip.Addr, source netip.Addr) (out []netip.Addr) {
	var six, four []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		case source.IsValid() && source.Unmap().Is4() != a.Is4():
		case a.Is4():
			four = append(four, a)
		default:
			six = append(six, a)
		}
	}
	r.shuffle(len(six), func(i, j int) { six[i], six[j] = six[j], six[i] })
	r.shuffle(len(four), func(i, j int) { four[i], four[j] = four[j], four[i] })
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	return out[:min(len(out), maxAddresses)]
}

// maxAddresses of one host are tried.
const maxAddresses = 8

// dialled is a connection that won a race, or why none did.
type dialled struct {
	c    net.Conn
	to   netip.AddrPort
	rest []netip.Addr // not tried, or still under way when another won
	err  error
}

// race connects to the first of the addresses that answers: the next one starts when the one before failed, or has not
// answered for RaceDelay.
func (r *Relay) race(ctx context.Context, source netip.Addr, addrs []netip.Addr, port uint16) dialled {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialled) // unbuffered, and all are received: none is leaked
	next, flying := 0, 0
	failed := map[netip.Addr]error{}
	start := func() {
		to := netip.AddrPortFrom(addrs[next], port)
		next++
		flying++
		go func() { // ends with ctx at the latest, within Connect; race waits for it
			one, cancel := context.WithTimeout(ctx, r.o.Timeouts.Connect)
			defer cancel()
			c, err := r.o.Dial(one, source, to)
			results <- dialled{c: c, to: to, err: err}
		}()
	}
	start()
	timer := time.NewTimer(r.o.Timeouts.RaceDelay)
	defer timer.Stop()
	var won dialled
	for flying > 0 {
		select {
		case <-timer.C:
			if won.c == nil && next < len(addrs) {
				start()
				timer.Reset(r.o.Timeouts.RaceDelay)
			}
		case d := <-results:
			flying--
			switch {
			case d.err == nil && won.c == nil:
				won = d
				cancel()
			case d.err == nil:
				d.c.Close()
			case won.c == nil:
				failed[d.to.Addr()] = d.err
				won.to, won.err = d.to, d.err
				if next < len(addrs) && ctx.Err() == nil {
					start()
					timer.Reset(r.o.Timeouts.RaceDelay)
				}
			}
		}
	}
	if won.c != nil {
		won.err = nil
	}
	for _, a := range addrs {
		if _, gone := failed[a]; !gone && a != won.to.Addr() {
			won.rest = append(won.rest, a)
		}
	}
	return won
}

// forward is how the SOCKS client reaches its proxy.
type forward struct {
	r      *Relay
	source netip.Addr
}

func (f forward) Dial(network, addr string) (net.Conn, error) {
	return f.DialContext(f.r.ctx, network, addr)
}

func (f forward) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := splitHostPort(addr)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else if found, err := f.r.o.Resolver.Addresses(ctx, host); err == nil {
		addrs = found.Records
	} else {
		return nil, err
	}
	addrs = f.r.interleave(addrs, f.source)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("no address of %s can be used", host)
	}
	d := f.r.race(ctx, f.source, addrs, port)
	return d.c, d.err
}

// throughSOCKS connects to host through the route's proxy, which looks the name up itself.
func (r *Relay) throughSOCKS(ctx context.Context, route *Route, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeouts.Connect)
	defer cancel()
	d, err := proxy.SOCKS5("tcp", route.SOCKS, nil, forward{r, route.Source})
	if err != nil {
		return nil, err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("through the SOCKS proxy %s: %w", route.SOCKS, err)
	}
	return c, nil
}

func splitHostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("%q is no name:port", s)
	}
	return strings.TrimSuffix(host, "."), uint16(n), nil
}
