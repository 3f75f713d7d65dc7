package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
)

// quiet is when nodes have done what a load left behind (flushes and
// compactions): within one window, all together used less CPU and wrote less
// than this. Limit bounds the wait.
type quiet struct {
	Window time.Duration `json:"window_ns"`
	// CPUs and Written are per second.
	CPUs    float64       `json:"cpus"`
	Written int64         `json:"written_bytes_per_second"`
	Limit   time.Duration `json:"limit_ns"`
}

// settled is how a wait for quiet ended.
type settled struct {
	// Seconds of the wait, the quiet window included.
	Seconds float64 `json:"seconds"`
	Quiet   bool    `json:"quiet"`
	// CPUs and Written are per second, of the last window.
	CPUs    float64 `json:"cpus"`
	Written float64 `json:"written_bytes_per_second"`
}

func (q *quiet) flags(f *flag.FlagSet) {
	f.DurationVar(&q.Window, "quiet-window", 5*time.Second, "how long nodes must be quiet before they are measured")
	f.Float64Var(&q.CPUs, "quiet-cpus", 0.2, "quiet nodes together use less CPU than this")
	f.Int64Var(&q.Written, "quiet-written", 1<<20, "quiet nodes together write fewer bytes per second than this")
	f.DurationVar(&q.Limit, "quiet-limit", 5*time.Minute, "the longest wait for quiet; then they are measured as they are")
}

func (q *quiet) check() error {
	return errors.Join(
		experiment.Lasting("quiet-window", q.Window, 100*time.Millisecond, time.Minute),
		experiment.Lasting("quiet-limit", q.Limit, q.Window, time.Hour),
	)
}

// wait returns when the nodes are quiet, or the limit is over.
func (q *quiet) wait(ctx context.Context, c *cluster.Cluster) (settled, error) {
	began := time.Now()
	for {
		at := time.Now()
		cpu, written, err := used(c)
		if err == nil {
			err = experiment.Wait(ctx, q.Window)
		}
		if err != nil {
			return settled{}, err
		}
		cpuAfter, writtenAfter, err := used(c)
		if err != nil {
			return settled{}, err
		}
		window := time.Since(at).Seconds()
		s := settled{Seconds: time.Since(began).Seconds(), CPUs: (cpuAfter - cpu).Seconds() / window, Written: float64(writtenAfter-written) / window}
		s.Quiet = s.CPUs < q.CPUs && s.Written < float64(q.Written)
		if s.Quiet || time.Since(began) >= q.Limit {
			return s, nil
		}
	}
}

func used(c *cluster.Cluster) (time.Duration, int64, error) {
	cpu, err := c.CPU()
	if err != nil {
		return 0, 0, err
	}
	written, err := c.Written()
	return cpu, written, err
}
