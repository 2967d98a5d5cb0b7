package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// The control socket, <data>/mailsrv.sock: HTTP over a Unix socket that only the server's user may open. One request, POST
// /, a JSON request for a JSON reply. It is as old as the running server: whoever holds system.db's lock may replace it.
const (
	socketName = "mailsrv.sock"
	maxRequest = 1 << 20
	maxReply   = 256 << 20
	askTime    = 2 * time.Minute // purging a large account takes its time

	// A Unix socket's path fits into 108 bytes with its NUL (104 on BSD); longer ones go through the folder's descriptor.
	maxSocketPath = 100
)

// errNoServer means that nobody listens on the control socket.
var errNoServer = errors.New("no server runs on this data")

// shortSocketPath returns a path for the socket that is short enough; release it when the socket is no longer used.
func shortSocketPath(data, name string) (path string, release func(), err error) {
	path = filepath.Join(data, name)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the path of the control socket is too long: %s", path)
	}
	dir, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), func() { dir.Close() }, nil
}

// askServer sends a request to the server that runs on the data folder: errNoServer if none does.
func askServer(data string, r request) ([]string, error) {
	path, release, err := shortSocketPath(data, socketName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoServer
	}
	if err != nil {
		return nil, err
	}
	defer release()
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	client := http.Client{Transport: transport, Timeout: askTime}
	resp, err := client.Post("http://mailsrv/", "application/json", bytes.NewReader(body))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED): // never there, or left by a crash
		return nil, errNoServer
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: permission denied: run this as the server's user", filepath.Join(data, socketName))
	case err != nil:
		return nil, fmt.Errorf("ask the running server: %w", err)
	}
	defer resp.Body.Close()
	var answer reply
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask the running server: %s: %w", resp.Status, err)
	}
	if answer.Error != "" {
		return answer.Lines, errors.New(answer.Error)
	}
	return answer.Lines, nil
}

// control serves the control socket.
type control struct {
	admin   *admin
	log     *slog.Logger
	http    http.Server
	path    string // as it is bound
	release func()
}

// listenControl takes the socket's name over, whatever a crash left there.
func listenControl(data string, a *admin, log *slog.Logger) (*control, error) {
	path, release, err := shortSocketPath(data, socketName)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := bindPrivate(path)
	if err != nil {
		release()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	c := &control{admin: a, log: log, path: path, release: release}
	c.http = http.Server{
		Handler:           http.HandlerFunc(c.serve),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      askTime,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go c.http.Serve(l) // until close
	return c, nil
}

// bindPrivate binds beside the name, closes the socket to others, and only then moves it there: at no moment could anyone else
// have opened it.
func bindPrivate(path string) (net.Listener, error) {
	beside := path + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", beside)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(beside, 0o600), os.Rename(beside, path)); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(beside))
	}
	return l, nil
}

func (c *control) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := c.http.Shutdown(ctx)
	if err != nil {
		err = c.http.Close()
	}
	err = errors.Join(err, os.Remove(c.path))
	c.release()
	return err
}

func (c *control) serve(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusBadRequest)
		answer(w, reply{Error: "not a request"})
		return
	}
	lines, err := c.admin.do(req)
	// Never the request itself: it may have a password.
	c.log.Info("administration", "do", req.Do, "address", req.Address, "ok", err == nil)
	rep := reply{Lines: lines}
	if err != nil {
		rep.Error = err.Error()
	}
	answer(w, rep)
}

func answer(w http.ResponseWriter, r reply) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r) // who asked may be gone: what was done is done
}
