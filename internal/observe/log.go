// Package observe is how people see what the server does: its log, its metrics and its health.
//
// No daemon imports it. Each declares, beside its Options, the small interface or callback through which it tells what
// happened, and [Metrics] has the methods; cmd/mailsrv puts them together. wire.Meter is an example: a daemon declares
//
//	type Meter interface{ MessageAccepted(service string, bytes int64) }
//
// in its own package, takes one in its Options (nil: nobody listens), and cmd passes the one *Metrics. The methods take plain
// strings and numbers for that reason. What each metric is called and means is in docs/metrics.md.
package observe

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// NewLogger makes the server's logger: format is "text" or "json", level "debug", "info", "warn" or "error" (any case);
// empty strings are "text" and "info".
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("log level %q: write debug, info, warn or error", level)
		}
	}
	o := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format %q: write text or json", format)
}
