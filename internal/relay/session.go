package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// session is one connection that has come as far as EHLO's (and AUTH's) answer.
type session struct {
	r   *Relay
	ctx context.Context // of the attempt that uses it
	raw net.Conn        // TCP, or the proxy's
	c   net.Conn        // the same, or TLS over it
	br  *bufio.Reader
	bw  *bufio.Writer

	hello    string
	ext      map[string]string // EHLO keywords in upper case, with their parameters; nil after HELO
	remote   string            // "mx1.partner.test [192.0.2.7]:25"
	ip       netip.Addr
	tls      string // Outcome.TLS
	connect  time.Duration
	born     time.Time
	messages int  // handed over, or tried to
	dirty    bool // a transaction was begun and not ended: RSET first
	counted  bool // for TLS-RPT
	release  func() bool
	idle     *time.Timer // while in the pool
}

// target is one address of a host, with what the session to it must be.
type target struct {
	hop   *hop
	host  *host
	addrs []netip.Addr // to race; nil with SOCKS by name
	sec   *security
}

// open connects to one of t.addrs and returns the addresses not tried. Without TLS if that failed and need not be.
func (r *Relay) open(ctx context.Context, t target) (*session, []netip.Addr, *failure) {
	start := time.Now()
	d := r.reach(ctx, t)
	if d.err != nil {
		f := tempFailure("connect", "4.4.1", "cannot connect: %s", plainly(d.err))
		f.wait, f.remote = leaveAlone, t.remote(d.to)
		return nil, d.rest, f
	}
	s, f := r.begin(ctx, t, d, start, t.sec)
	if f != nil && f.tlsTried && !t.sec.required {
		// What failed may be the other side's TLS alone: opportunistic means that mail is not worse off than before TLS.
		r.log.Info("TLS failed, going on in clear", "remote", f.remote, "err", f.text)
		plain := *t.sec
		plain.tls, plain.kind = false, "none"
		again := t
		if t.addrs != nil {
			again.addrs = []netip.Addr{d.to.Addr()}
		}
		d2 := r.reach(ctx, again)
		if d2.err != nil {
			return nil, d.rest, f
		}
		s, f = r.begin(ctx, t, d2, start, &plain)
	}
	return s, d.rest, f
}

// reach opens the TCP connection.
func (r *Relay) reach(ctx context.Context, t target) dialled {
	if t.hop.route != nil && t.hop.route.SOCKS != "" {
		name := t.host.name
		c, err := r.throughSOCKS(ctx, t.hop.route, name, t.host.port)
		return dialled{c: c, err: err}
	}
	return r.race(ctx, t.hop.source(), t.addrs, t.host.port)
}

// remote names one end for people.
func (t target) remote(to netip.AddrPort) string {
	switch {
	case !to.IsValid():
		return net.JoinHostPort(t.host.name, strconv.Itoa(int(t.host.port)))
	case t.host.name == "" || t.host.name == to.Addr().String():
		return fmt.Sprintf("[%s]:%d", to.Addr(), to.Port())
	}
	return fmt.Sprintf("%s [%s]:%d", t.host.name, to.Addr(), to.Port())
}

// begin takes a fresh connection from its greeting to where mail can go.
func (r *Relay) begin(ctx context.Context, t target, d dialled, start time.Time, sec *security) (*session, *failure) {
	s := &session{r: r, remote: t.remote(d.to), ip: d.to.Addr(), hello: r.helloName(t.hop), born: start}
	s.raw = d.c
	s.use(ctx)
	s.attach(d.c)
	f := s.start(t, sec)
	s.connect = time.Since(start)
	if f != nil {
		f.remote, f.tls = s.remote, s.tls
		if f.tlsTried || f.status == "4.4.2" {
			s.drop()
		} else {
			r.goodbye(s)
		}
		return nil, f
	}
	r.meter.RelayConnected(sec.kind)
	r.tlsrpt.session(t, s, sec, nil)
	return s, nil
}

func (s *session) start(t target, sec *security) *failure {
	if sec.implicit {
		if f := s.handshake(t, sec); f != nil {
			return f
		}
	}
	greeting, err := s.reply(s.r.o.Timeouts.Greeting)
	if err != nil {
		return broken("greeting", "waiting for the greeting", err)
	}
	if greeting.code != 220 {
		return refusal("greeting", greeting)
	}
	if f := s.ehlo(); f != nil {
		return f
	}
	if sec.tls && !sec.implicit {
		if f := s.startTLS(t, sec); f != nil {
			return f
		}
	}
	if _, offered := s.ext["REQUIRETLS"]; sec.requireTLS && !offered {
		return permFailure("policy", "5.7.30", "the message must not go where REQUIRETLS is not offered")
	}
	if t.hop.route != nil && t.hop.route.Username != "" {
		return s.auth(t.hop.route)
	}
	return nil
}

// attach puts the session on a connection, the first one or TLS over it. Nothing read before is kept.
func (s *session) attach(c net.Conn) {
	s.c, s.br, s.bw = c, bufio.NewReaderSize(c, 4<<10), bufio.NewWriterSize(paced{s}, 32<<10)
	s.deadline(s.r.o.Timeouts.Greeting) // ends the connection if ctx has ended
}

// use gives the session to an attempt, whose end cuts what is being waited for.
func (s *session) use(ctx context.Context) {
	s.ctx = ctx
	s.release = context.AfterFunc(ctx, func() { _ = s.raw.SetDeadline(past) })
}

// past is a deadline that has passed, for every clock.
var past = time.Unix(1, 0)

// deadline gives the other side d, but never longer than the attempt has.
func (s *session) deadline(d time.Duration) {
	at := time.Now().Add(d)
	if end, ok := s.ctx.Deadline(); ok && end.Before(at) {
		at = end
	}
	_ = s.raw.SetDeadline(at) // fails on a closed connection only, which the next read tells
	if s.ctx.Err() != nil {
		_ = s.raw.SetDeadline(past)
	}
}

// paced gives the other side DataBlock for each write.
type paced struct{ s *session }

func (p paced) Write(b []byte) (int, error) {
	p.s.deadline(p.s.r.o.Timeouts.DataBlock)
	return p.s.c.Write(b)
}

// reply sends what is in the buffer and reads one reply within d.
func (s *session) reply(d time.Duration) (*reply, error) {
	if err := s.bw.Flush(); err != nil {
		return nil, err
	}
	s.deadline(d)
	r, err := readReply(s.br)
	if err != nil && s.ctx.Err() != nil {
		err = s.ctx.Err()
	}
	return r, err
}

// say puts a command line into the buffer. Its parts were checked where they came from; a line end among them is our bug, and
// must not become two commands.
func (s *session) say(line string) error {
	if strings.ContainsAny(line, "\r\n\x00") {
		return fmt.Errorf("a command with a line end in it: %.80q", line)
	}
	_, err := s.bw.WriteString(line + "\r\n")
	return err
}

func (s *session) command(d time.Duration, line string) (*reply, error) {
	if err := s.say(line); err != nil {
		return nil, err
	}
	return s.reply(d)
}

// ehlo greets, with HELO where EHLO is not known (RFC 5321 section 3.2).
func (s *session) ehlo() *failure {
	d := s.r.o.Timeouts.Hello
	r, err := s.command(d, "EHLO "+s.hello)
	if err != nil {
		return broken("hello", "waiting for the answer to EHLO", err)
	}
	s.ext = nil
	if r.class() == 5 && r.code != 554 && r.code != 521 {
		if r, err = s.command(d, "HELO "+s.hello); err != nil {
			return broken("hello", "waiting for the answer to HELO", err)
		}
	} else if r.code == 250 {
		s.ext = make(map[string]string)
		for _, line := range r.lines[1:] {
			keyword, params, _ := strings.Cut(line, " ")
			if name, mechs, old := strings.Cut(keyword, "="); old && strings.EqualFold(name, "AUTH") {
				keyword, params = "AUTH", mechs+" "+params // QUIRK: "AUTH=LOGIN", from before the RFC
			}
			keyword = strings.ToUpper(keyword)
			s.ext[keyword] = strings.TrimSpace(s.ext[keyword] + " " + params)
		}
	}
	if r.code != 250 {
		return refusal("hello", r)
	}
	return nil
}

func (s *session) has(keyword string) bool {
	_, ok := s.ext[keyword]
	return ok
}

// startTLS goes over to TLS as sec asks for. f.tlsTried: the connection is of no use any more.
func (s *session) startTLS(t target, sec *security) *failure {
	fail := func(f *failure) *failure {
		s.r.tlsrpt.session(t, s, sec, &tlsProblem{kind: "starttls-not-supported", text: f.text})
		if sec.required {
			f.permanent = sec.requireTLS
			if f.permanent {
				f.status = "5.7.10" // RFC 8689 section 4.2.1: encryption needed
			}
			return f
		}
		return nil // in clear, on this connection
	}
	if !s.has("STARTTLS") {
		return fail(tempFailure("tls", "4.7.4", "TLS is required here (%s) and was not offered", sec.kind))
	}
	r, err := s.command(s.r.o.Timeouts.Hello, "STARTTLS")
	if err != nil {
		f := broken("tls", "waiting for the answer to STARTTLS", err)
		f.tlsTried = true
		return f
	}
	if r.code != 220 {
		if r.code == 421 {
			return refusal("tls", r)
		}
		return fail(tempFailure("tls", "4.7.4", "TLS was offered and then refused: %d %s", r.code, r.text()))
	}
	if s.br.Buffered() > 0 { // RFC 3207 section 5: words from before TLS, put there by who knows whom
		f := tempFailure("tls", "4.7.5", "more came in clear behind the answer to STARTTLS")
		f.tlsTried = true
		return f
	}
	if f := s.handshake(t, sec); f != nil {
		return f
	}
	return s.ehlo()
}

func (s *session) handshake(t target, sec *security) *failure {
	var problem *tlsProblem
	conf := &tls.Config{
		ServerName: sec.sni,
		// Our own rules decide below, DANE's are not those of the library.
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS12,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if problem = s.r.verify(cs.PeerCertificates, sec); problem != nil && sec.enforce {
				return problem
			}
			return nil
		},
	}
	if !sec.enforce {
		conf.MinVersion = tls.VersionTLS10 // old TLS, with old ciphers, is better than none
		for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
			conf.CipherSuites = append(conf.CipherSuites, suite.ID)
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.r.o.Timeouts.TLS)
	defer cancel()
	s.deadline(s.r.o.Timeouts.TLS)
	tc := tls.Client(s.c, conf)
	err := tc.HandshakeContext(ctx)
	if err != nil {
		return s.tlsFailed(t, sec, problem, err)
	}
	if problem != nil { // MTA-STS in testing mode
		s.r.tlsrpt.session(t, s, sec, problem)
		s.r.log.Info("certificate would not do", "remote", s.remote, "policy", sec.kind, "err", problem.text)
	}
	cs := tc.ConnectionState()
	verified := sec.kind
	if problem != nil {
		verified = "unverified"
	}
	s.tls = fmt.Sprintf("%s %s %s", tls.VersionName(cs.Version), tls.CipherSuiteName(cs.CipherSuite), verified)
	s.attach(tc)
	return nil
}

func (s *session) tlsFailed(t target, sec *security, problem *tlsProblem, err error) *failure {
	f := tempFailure("tls", "4.7.5", "TLS handshake failed: %s", plainly(err))
	f.tlsTried = true
	report := &tlsProblem{kind: "validation-failure", text: f.text}
	if problem != nil {
		f.text = "certificate refused (" + sec.kind + "): " + problem.text
		f.permanent = sec.requireTLS
		if f.permanent {
			f.status = "5.7.10"
		}
		report = problem
	}
	if s.ctx.Err() == nil {
		s.r.tlsrpt.session(t, s, sec, report)
	}
	return f
}

// drop closes without a word.
func (s *session) drop() {
	s.release()
	s.c.Close()
}

// goodbye says QUIT and closes, without the attempt waiting for it.
func (r *Relay) goodbye(s *session) {
	s.release()
	aside := r.aside(func() { // bounded by Timeouts.Quit, or Close
		ctx, cancel := context.WithTimeout(r.ctx, r.o.Timeouts.Quit)
		defer cancel()
		s.use(ctx)
		defer s.drop()
		_, _ = s.command(r.o.Timeouts.Quit, "QUIT") // whatever the answer is
	})
	if !aside {
		s.c.Close()
	}
}
