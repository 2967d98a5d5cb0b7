package observe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"mailsrv/internal/wire"
)

var _ wire.Meter = (*Metrics)(nil)

func TestNewLogger(t *testing.T) {
	var b bytes.Buffer
	l, err := NewLogger(&b, "json", "WARN")
	if err != nil {
		t.Fatal(err)
	}
	l.Info("not shown")
	l.Warn("shown", "k", "v")
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line["msg"] != "shown" || line["k"] != "v" {
		t.Errorf("%s: %v", b.Bytes(), err)
	}
	b.Reset()
	if l, err = NewLogger(&b, "", ""); err != nil {
		t.Fatal(err)
	}
	l.Debug("not shown")
	l.Info("shown")
	if s := b.String(); !strings.Contains(s, "msg=shown") || strings.Contains(s, "not shown") {
		t.Errorf("%q", s)
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"text", "loud"}} {
		if _, err := NewLogger(&b, bad[0], bad[1]); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
}

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestHealth(t *testing.T) {
	var h Health
	mux := Mux(NewMetrics("test"), &h)
	if code, body := get(t, mux, "GET", "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := get(t, mux, "GET", "/readyz"); code != 503 || !strings.Contains(body, "starting") {
		t.Errorf("before SetReady: %d %q", code, body)
	}
	h.SetReady(true)
	var broken error
	h.Check("disk", func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a check without a deadline")
		}
		return broken
	})
	if code, body := get(t, mux, "GET", "/readyz"); code != 200 || body != "ready\n" {
		t.Errorf("%d %q", code, body)
	}
	broken = errors.New("not enough room")
	if code, body := get(t, mux, "GET", "/readyz"); code != 503 || body != "disk: not enough room\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := get(t, mux, "POST", "/healthz"); code != 405 {
		t.Errorf("POST: %d", code)
	}
	if code, _ := get(t, mux, "GET", "/"); code != 404 {
		t.Errorf("/: %d", code)
	}
}

func exercise(m *Metrics) {
	m.ConnectionOpened("imap")
	m.ConnectionOpened("imap")
	m.ConnectionClosed("imap")
	m.ConnectionRefused("smtp", "address")
	m.ConnectionPanicked("imap")
	m.Login("imap", true)
	m.Login("imap", false)
	m.MessageAccepted("smtp", 1000)
	m.MessageRefused("smtp", "5.1.1")
	m.Delivered("filed")
	m.Store(func() (int, int64, int64) { return 7, 2, 2000 })
	m.QueueAttempt("deferred")
	m.QueueNotice("delayed")
	m.RelayConnected("dane")
	m.RelayReused()
	m.RelayFailed("connect")
	m.Queue(func() (int, int, int, int) { return 10, 4, 2, 1 })
}

func TestMetrics(t *testing.T) {
	m := NewMetrics("1.2.3")
	exercise(m)
	_, body := get(t, Mux(m, &Health{}), "GET", "/metrics")
	for _, want := range []string{
		`mailsrv_connections_open{service="imap"} 1`,
		`mailsrv_connections_total{service="imap"} 2`,
		`mailsrv_connections_refused_total{reason="address",service="smtp"} 1`,
		`mailsrv_panics_total{service="imap"} 1`,
		`mailsrv_logins_total{result="ok",service="imap"} 1`,
		`mailsrv_logins_total{result="failed",service="imap"} 1`,
		`mailsrv_messages_accepted_total{service="smtp"} 1`,
		`mailsrv_message_bytes_total{service="smtp"} 1000`,
		`mailsrv_messages_refused_total{service="smtp",status="5.1.1"} 1`,
		`mailsrv_deliveries_total{result="filed"} 1`,
		`mailsrv_store_appends_total 2`,
		`mailsrv_store_append_bytes_total 2000`,
		`mailsrv_store_open_accounts 7`,
		`mailsrv_queue_messages 10`,
		`mailsrv_queue_destinations 4`,
		`mailsrv_queue_active 2`,
		`mailsrv_queue_suppressed 1`,
		`mailsrv_queue_attempts_total{result="deferred"} 1`,
		`mailsrv_queue_notices_total{kind="delayed"} 1`,
		`mailsrv_relay_connections_total{tls="dane"} 1`,
		`mailsrv_relay_reused_total 1`,
		`mailsrv_relay_failed_total{stage="connect"} 1`,
		`version="1.2.3"`,
		`go_goroutines `,
		`process_open_fds `,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("lacks %s", want)
		}
	}
}

// Every metric of ours is in docs/metrics.md, and every one there exists.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics("x")
	exercise(m)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "mailsrv_") {
			known[name] = true
			if !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("%s is not in docs/metrics.md", name)
			}
		}
	}
	for i, part := range strings.Split(string(doc), "`") {
		if i%2 == 1 && strings.HasPrefix(part, "mailsrv_") && !known[part] {
			t.Errorf("docs/metrics.md tells of %s, which does not exist", part)
		}
	}
}

func TestServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &Health{}
	h.SetReady(true)
	s := NewServer(Mux(NewMetrics("x"), h), nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	resp, err := http.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || string(body) != "ready\n" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	// A header without an end gets an answer, not memory.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 1<<20)) }()
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "431") {
		t.Errorf("%q, %v", line, err)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
