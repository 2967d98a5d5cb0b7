package main

import (
	"slices"
	"time"
)

// Result is one scenario's outcome against one target.
type Result struct {
	Scenario  string        `json:"scenario"`
	Target    string        `json:"target"`
	Ops       int           `json:"ops"`       // answered and verified
	Elapsed   time.Duration `json:"elapsed"`   // of the whole scenario
	PerSecond float64       `json:"perSecond"` // Ops over Elapsed
	Bytes     int64         `json:"bytes"`
	P50       time.Duration `json:"p50"`
	P99       time.Duration `json:"p99"`
	// PerConnection is idle-hold's memory a connection, bytes; 0 if the server's processes are not known.
	PerConnection int64 `json:"perConnection,omitempty"`
	Cost          Cost  `json:"cost,omitzero"` // of the server's processes, in a comparison
}

// median of values, which it sorts; 0 for none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// percentile of sorted durations by the nearest-rank rule; 0 for none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(p/100*float64(len(sorted)) + 0.9999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func summarize(scenario, target string, took []time.Duration, elapsed time.Duration, bytes int64) Result {
	slices.Sort(took)
	return Result{
		Scenario: scenario, Target: target, Ops: len(took), Elapsed: elapsed, Bytes: bytes,
		PerSecond: float64(len(took)) / max(elapsed.Seconds(), 1e-9),
		P50:       percentile(took, 50), P99: percentile(took, 99),
	}
}
