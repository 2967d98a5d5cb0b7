package observe

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics counts. All methods may be called from several goroutines and cost some tens of nanoseconds.
type Metrics struct {
	registry *prometheus.Registry

	connOpen    *prometheus.GaugeVec
	connTotal   *prometheus.CounterVec
	connRefused *prometheus.CounterVec
	panics      *prometheus.CounterVec
	logins      *prometheus.CounterVec
	accepted    *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	refused     *prometheus.CounterVec
	deliveries  *prometheus.CounterVec

	queueAttempts  *prometheus.CounterVec
	queueNotices   *prometheus.CounterVec
	relayConnected *prometheus.CounterVec
	relayReused    *prometheus.CounterVec
	relayFailed    *prometheus.CounterVec
}

// NewMetrics makes a registry of its own, with the Go runtime's and the process's metrics in it.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := m.gauges("mailsrv_build_info", "1; the labels say what runs.", "version", "go")
	info.WithLabelValues(version, runtime.Version()).Set(1)

	m.connOpen = m.gauges("mailsrv_connections_open", "Connections open now.", "service")
	m.connTotal = m.counters("mailsrv_connections_total", "Connections accepted.", "service")
	m.connRefused = m.counters("mailsrv_connections_refused_total",
		"Connections refused: over a limit, or without a TLS handshake.", "service", "reason")
	m.panics = m.counters("mailsrv_panics_total", "Connections that ended in a panic; each is a bug.", "service")
	m.logins = m.counters("mailsrv_logins_total", "Logins.", "service", "result")
	m.accepted = m.counters("mailsrv_messages_accepted_total", "Messages taken in.", "service")
	m.bytes = m.counters("mailsrv_message_bytes_total", "Bytes of the messages taken in.", "service")
	m.refused = m.counters("mailsrv_messages_refused_total", "Messages and recipients refused, by enhanced status code.",
		"service", "status")
	m.deliveries = m.counters("mailsrv_deliveries_total", "Deliveries to one recipient each.", "result")
	m.queueAttempts = m.counters("mailsrv_queue_attempts_total", "Attempts to hand mail over, for one recipient each.", "result")
	m.queueNotices = m.counters("mailsrv_queue_notices_total", "Delivery status notifications written.", "kind")
	m.relayConnected = m.counters("mailsrv_relay_connections_total", "Sessions with other servers, by how TLS was verified.", "tls")
	m.relayReused = m.counters("mailsrv_relay_reused_total", "Messages over a connection that was there already.")
	m.relayFailed = m.counters("mailsrv_relay_failed_total", "Sessions with other servers that came to nothing, by how far they came.",
		"stage")
	return m
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

// ConnectionOpened and the next three are wire.Meter.
func (m *Metrics) ConnectionOpened(service string) {
	m.connOpen.WithLabelValues(service).Inc()
	m.connTotal.WithLabelValues(service).Inc()
}

func (m *Metrics) ConnectionClosed(service string) { m.connOpen.WithLabelValues(service).Dec() }

// ConnectionRefused counts a refusal; reason is "total", "address" or "handshake".
func (m *Metrics) ConnectionRefused(service, reason string) {
	m.connRefused.WithLabelValues(service, reason).Inc()
}

func (m *Metrics) ConnectionPanicked(service string) { m.panics.WithLabelValues(service).Inc() }

// Login counts a login that succeeded or failed.
func (m *Metrics) Login(service string, ok bool) {
	result := "failed"
	if ok {
		result = "ok"
	}
	m.logins.WithLabelValues(service, result).Inc()
}

// MessageAccepted counts a message that was taken in, and its bytes.
func (m *Metrics) MessageAccepted(service string, bytes int64) {
	m.accepted.WithLabelValues(service).Inc()
	m.bytes.WithLabelValues(service).Add(float64(max(bytes, 0)))
}

// MessageRefused counts a message or a recipient that was not taken. status is the enhanced status code ("5.1.1"): of
// our own making, never a client's text, because each value is a time series.
func (m *Metrics) MessageRefused(service, status string) {
	m.refused.WithLabelValues(service, status).Inc()
}

// Delivered counts a delivery to one recipient; result is "filed", "queued", "deferred" or "refused".
func (m *Metrics) Delivered(result string) { m.deliveries.WithLabelValues(result).Inc() }

// Store registers the function that says what the store holds open and has filed since it was opened. Call it once.
func (m *Metrics) Store(stats func() (accounts int, messages, bytes int64)) {
	counter := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mailsrv_store_open_accounts", Help: "Accounts the store holds open.",
	}, func() float64 { n, _, _ := stats(); return float64(n) }))
	counter("mailsrv_store_appends_total", "Messages filed in mailboxes by the store.",
		func() float64 { _, n, _ := stats(); return float64(n) })
	counter("mailsrv_store_append_bytes_total", "Bytes of the messages filed.",
		func() float64 { _, _, n := stats(); return float64(n) })
}

// QueueAttempt and QueueNotice are queue.Meter.
func (m *Metrics) QueueAttempt(result string) { m.queueAttempts.WithLabelValues(result).Inc() }

func (m *Metrics) QueueNotice(kind string) { m.queueNotices.WithLabelValues(kind).Inc() }

// RelayConnected and the next two are relay.Meter.
func (m *Metrics) RelayConnected(tls string) { m.relayConnected.WithLabelValues(tls).Inc() }

func (m *Metrics) RelayReused() { m.relayReused.WithLabelValues().Inc() }

func (m *Metrics) RelayFailed(stage string) { m.relayFailed.WithLabelValues(stage).Inc() }

// Queue registers the function that says what is in the queue now. Call it once.
func (m *Metrics) Queue(stats func() (messages, destinations, active, suppressed int)) {
	gauge := func(name, help string, value func() int) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	gauge("mailsrv_queue_messages", "Messages in the queue.", func() int { n, _, _, _ := stats(); return n })
	gauge("mailsrv_queue_destinations", "Destinations that mail waits for.", func() int { _, n, _, _ := stats(); return n })
	gauge("mailsrv_queue_active", "Attempts under way.", func() int { _, _, n, _ := stats(); return n })
	gauge("mailsrv_queue_suppressed", "Addresses on the suppression list.", func() int { _, _, _, n := stats(); return n })
}

// Register adds a collector of somebody else's, such as the queue's.
func (m *Metrics) Register(c prometheus.Collector) error { return m.registry.Register(c) }
