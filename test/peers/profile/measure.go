package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"kvstore/test/peers/cluster"
)

// column is one workload.
type column struct {
	workload  string
	perSecond float64
	p50, p99  float64
	// clientCPU is the load generator's, by operation, warm-up included.
	clientCPU time.Duration
	// parts is CPU by operation, of all nodes.
	parts map[component]time.Duration
	total time.Duration
}

func (s *settings) measure(ctx context.Context, l *cluster.Launcher, c *cluster.Cluster, workload string) (*column, error) {
	profiles := make([]*profile.Profile, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	o := cluster.Load{Exe: filepath.Join(s.bin, "kvbench"), Warmup: s.warmup, Duration: s.duration, Args: s.kvbench(workload, false),
		Measuring: func(ctx context.Context) {
			var all sync.WaitGroup
			for i, n := range c.Nodes {
				all.Go(func() { profiles[i], errs[i] = fetch(ctx, n.Metrics, s.duration) })
			}
			all.Wait()
		},
	}
	out, err := l.Load(ctx, c, o)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	if profiles[0] == nil {
		return nil, errors.New("the run ended before it could be profiled")
	}
	merged, err := profile.Merge(profiles)
	if err != nil {
		return nil, err
	}
	if s.raw != "" {
		if err := save(merged, filepath.Join(s.raw, workload+".pprof")); err != nil {
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
	col := &column{workload: workload, perSecond: res.OpsPerSecond, p50: res.Latency.P50, p99: res.Latency.P99, parts: map[component]time.Duration{}}
	ops := res.OpsPerSecond * s.duration.Seconds()
	value := len(p.SampleType) - 1 // samples/count, cpu/nanoseconds
	for _, sample := range p.Sample {
		col.parts[classify(stack(sample))] += time.Duration(sample.Value[value])
	}
	for part, d := range col.parts {
		col.parts[part] = time.Duration(float64(d) / max(ops, 1))
		col.total += col.parts[part]
	}
	col.clientCPU = time.Duration(float64(out.CPU) / max(float64(res.Operations)+res.OpsPerSecond*s.warmup.Seconds(), 1))
	return col
}

func fetch(ctx context.Context, address string, d time.Duration) (p *profile.Profile, err error) {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return profile.Parse(res.Body)
}

func save(p *profile.Profile, name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return p.Write(f)
}

// stack is the functions of a sample, innermost first, inlined ones included.
func stack(s *profile.Sample) (names []string) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil {
				names = append(names, line.Function.Name)
			}
		}
	}
	return names
}
