package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/google/pprof/profile"

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/samples"
)

// column is one workload.
type column struct {
	workload  string
	perSecond float64
	p50, p99  float64
	// clientCPU is the load generator's, by operation, warm-up included.
	clientCPU time.Duration
	// parts is CPU by operation, of all nodes.
	parts map[samples.Component]time.Duration
	total time.Duration
}

func (s *settings) measure(ctx context.Context, l *cluster.Launcher, c *cluster.Cluster, workload string) (*column, error) {
	var merged *profile.Profile
	var perr error
	o := cluster.Load{Exe: filepath.Join(s.bin, "kvbench"), Warmup: s.warmup, Duration: s.duration, Args: s.kvbench(workload, false),
		Measuring: func(ctx context.Context) {
			merged, perr = samples.Fetch(ctx, c, s.duration)
		},
	}
	out, err := l.Load(ctx, c, o)
	if err := errors.Join(perr, err); err != nil {
		return nil, err
	}
	if merged == nil {
		return nil, errors.New("the run ended before it could be profiled")
	}
	if s.raw != "" {
		if err := samples.Save(merged, filepath.Join(s.raw, workload+".pprof")); err != nil {
			return nil, err
		}
	}
	return newColumn(workload, out, merged, s), nil
}

// kvbench returns the flags of one run.
func (s *settings) kvbench(workload string, preload bool) []string {
	connections := 1 // per node
	if s.mode == "unary" {
		connections = min(16, s.clients) // in all
	}
	return []string{"--workload", workload, "--mode", s.mode, "--clients", fmt.Sprint(s.clients), "--connections", fmt.Sprint(connections),
		"--keys", fmt.Sprint(s.keys), "--value-size", fmt.Sprint(s.valueSize), "--preload=" + fmt.Sprint(preload)}
}

// preload writes every key.
func (s *settings) preload(ctx context.Context, l *cluster.Launcher, c *cluster.Cluster) error {
	_, err := l.Load(ctx, c, cluster.Load{Exe: filepath.Join(s.bin, "kvbench"), Duration: 100 * time.Millisecond, Args: s.kvbench("get", true)})
	return err
}

func newColumn(workload string, out *cluster.Outcome, p *profile.Profile, s *settings) *column {
	res := out.Result
	col := &column{workload: workload, perSecond: res.OpsPerSecond, p50: res.Latency.P50, p99: res.Latency.P99, parts: samples.Parts(p)}
	ops := res.OpsPerSecond * s.duration.Seconds()
	for part, d := range col.parts {
		col.parts[part] = time.Duration(float64(d) / max(ops, 1))
		col.total += col.parts[part]
	}
	col.clientCPU = time.Duration(float64(out.CPU) / max(float64(res.Operations)+res.OpsPerSecond*s.warmup.Seconds(), 1))
	return col
}
