package experiment

import (
	"kvstore/internal/bench"
	"kvstore/test/peers/cluster"
)

// Run is one run of kvbench. Latencies are in milliseconds.
type Run struct {
	PerSecond float64          `json:"per_second"`
	P50       float64          `json:"p50_ms"`
	P95       float64          `json:"p95_ms"`
	P99       float64          `json:"p99_ms"`
	P999      float64          `json:"p99_9_ms"`
	Max       float64          `json:"max_ms"`
	Errors    map[string]int64 `json:"errors,omitempty"`
	// Memory is the most that each node had resident during the run, where
	// that was watched.
	Memory []cluster.Memory `json:"peak_memory,omitempty"`
}

// RunOf is what kvbench said, in short.
func RunOf(r *bench.Result) *Run {
	l := r.Latency
	return &Run{PerSecond: r.OpsPerSecond, P50: l.P50, P95: l.P95, P99: l.P99, P999: l.P999, Max: l.Max, Errors: r.Errors}
}

func (r *Run) errors() map[string]int64 { return r.Errors }

// ErrorsOf sums the errors of runs, or of what embeds one, by code.
func ErrorsOf[R interface{ errors() map[string]int64 }](runs []R) map[string]int64 {
	all := map[string]int64{}
	for _, r := range runs {
		for code, n := range r.errors() {
			all[code] += n
		}
	}
	return all
}
