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
