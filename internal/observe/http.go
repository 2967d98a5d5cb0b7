package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health answers whether the server works. The zero Health is alive but not ready.
type Health struct {
	mu     sync.Mutex
	ready  bool
	checks []check
}

type check struct {
	name string
	ask  func(context.Context) error
}

// Check adds something that must hold for the server to be ready, such as room on the disk. ask gets two seconds and is
// called at every /readyz; its error is shown to whoever asks, so it must not tell secrets.
func (h *Health) Check(name string, ask func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, check{name, ask})
}

// SetReady says that all listeners are up, or that shutdown has begun.
func (h *Health) SetReady(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = on
}

// Problems lists what stands against being ready, a line each.
func (h *Health) Problems(ctx context.Context) []string {
	h.mu.Lock()
	ready, checks := h.ready, h.checks
	h.mu.Unlock()
	var out []string
	if !ready {
		out = append(out, "server: starting or stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, c := range checks {
		if err := c.ask(ctx); err != nil {
			out = append(out, c.name+": "+err.Error())
		}
	}
	return out
}

// Mux serves /healthz (200 while the process answers), /readyz (200, or 503 with a line per problem) and /metrics
// (Prometheus). Later rooms add their own paths to it.
func Mux(m *Metrics, h *Health) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if problems := h.Problems(r.Context()); len(problems) > 0 {
			plain(w, http.StatusServiceUnavailable, strings.Join(problems, "\n"))
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second, Registry: m.registry,
	}))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a client that is gone needs no answer
}

// Server serves HTTP with bounds on everything a client can draw out.
type Server struct{ http http.Server }

// NewServer makes a server for handler.
func NewServer(handler http.Handler, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Server{http: http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(logger.With("service", "http").Handler(), slog.LevelWarn),
	}}
}

// Serve accepts on l until Shutdown or Close; then it returns http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// Shutdown stops accepting and waits for the requests that run until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close cuts everything.
func (s *Server) Close() error { return s.http.Close() }
