package main

import (
	"context"
	"errors"
	"fmt"

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
)

// run is one run of a row.
type run struct {
	experiment.Run
	Split split `json:"split"`
}

func (r *run) latency() four { return four{r.P50, r.P95, r.P99, r.P999} }

// split is what the nodes' metrics say about the time of a run, all nodes
// together. A request is one operation, however it came; a turn of the host
// loop and a sync of its log serve many at once.
type split struct {
	// Request is from the decoded operation to its answer.
	Request four `json:"request_ms"`
	// Commit is from proposing an entry to having applied it; zero when the
	// nodes do not count it, or nothing was written.
	Commit four `json:"commit_ms"`
	Turn   four `json:"turn_ms"`
	Sync   four `json:"sync_ms"`
}

func (l *latency) run(ctx context.Context, s *experiment.Session, r *row, round int) error {
	var before cluster.Metrics
	var berr error
	res, err := s.Run(ctx, experiment.Load{
		Workload: r.Workload, Clients: l.Clients, Keys: l.Keys, Warmup: l.Warmup, Duration: l.Duration, Rate: r.Rate, Seed: round + 1, Args: r.args,
		Measuring: func(ctx context.Context) { before, berr = s.Cluster.Metrics(ctx) },
	})
	if err = errors.Join(berr, err); err != nil {
		return fmt.Errorf("%s: %w", r.Title, err)
	}
	after, err := s.Cluster.Metrics(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Title, err)
	}
	m := &run{Run: *res, Split: splitOf(before, after, r.Method)}
	r.Runs = append(r.Runs, m)
	experiment.Say("round %d of %d  %-17s %7.0f/s  p50 %7.3f  p95 %7.3f  p99 %7.3f  p99.9 %7.3f ms  errors %s", round+1, l.Rounds, r.Title, m.PerSecond,
		m.P50, m.P95, m.P99, m.P999, experiment.Codes(m.Errors))
	return nil
}

func splitOf(before, after cluster.Metrics, method string) split {
	since := func(name string, labels ...string) (q four) {
		h := after.Histogram(name, labels...).Sub(before.Histogram(name, labels...))
		for i := range q {
			q[i] = 1000 * h.Quantile(quantiles[i])
		}
		return q
	}
	return split{
		Request: since("kvstore_request_duration_seconds", "method", method, "code", "ok"),
		Commit:  since("kvstore_commit_latency_seconds"),
		Turn:    since("kvstore_host_loop_seconds"),
		Sync:    since("kvstore_fsync_duration_seconds"),
	}
}
