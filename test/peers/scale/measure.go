package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/google/pprof/profile"

	"kvstore/test/cgroup"
	"kvstore/test/peers/cluster"
	"kvstore/test/peers/samples"
)

// margin is how long before the end of the measured time the last look is
// taken: the generator must still be there.
const margin = 250 * time.Millisecond

// elections counts changes of leaders.
const elections = "kvstore_leader_elections_total"

// measurement is one run.
type measurement struct {
	Round      int              `json:"round"` // from 0
	PerSecond  float64          `json:"per_second"`
	Operations int64            `json:"operations"`
	P50        float64          `json:"p50_ms"`
	P99        float64          `json:"p99_ms"`
	Errors     map[string]int64 `json:"errors,omitempty"`
	// Nodes and Generator are used CPU time by what their limits allowed.
	Nodes     shares  `json:"node_cpu_of_limit"`
	Generator float64 `json:"generator_cpu_of_limit"`
	// Machine is the share of the machine's CPU time that anything used. The
	// kernel counts it by ticks, and too low where work comes in short bursts.
	Machine float64 `json:"machine_busy"`
	// CPU of nodes and generator by operation, in microseconds.
	NodeCPU      float64 `json:"node_cpu_us_per_operation"`
	GeneratorCPU float64 `json:"generator_cpu_us_per_operation"`
	// Throttle is of all nodes, GeneratorThrottle of the generator.
	Throttle          cgroup.Throttle `json:"node_throttle"`
	GeneratorThrottle cgroup.Throttle `json:"generator_throttle"`
	// LogSyncs of all nodes and Elections are of warm-up and run.
	LogSyncs  float64 `json:"log_syncs_per_second"`
	Elections float64 `json:"elections"`
	// Leads are the groups that each node led after the run.
	Leads []int `json:"leads"`
	// Parts are CPU microseconds of nodes by operation and component.
	Parts map[samples.Component]float64 `json:"parts_us_per_operation,omitempty"`
}

// idle measures what the nodes use without load.
func (s *session) idle(ctx context.Context) error {
	if s.Settle == 0 {
		return nil
	}
	if err := pause(ctx, s.Settle); err != nil { // for what the preload left behind
		return err
	}
	w, err := s.look(ctx, s.Settle)
	if err != nil {
		return err
	}
	i := s.report.idle(s.nodes)
	i.Rounds = append(i.Rounds, w.nodes(s.NodeCPUs).Mean)
	return nil
}

func (s *session) measure(ctx context.Context, r *rowReport) (*measurement, error) {
	before, err := s.cluster.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	var w *window
	var p *profile.Profile
	var werr error
	out, err := s.launcher.Load(ctx, s.cluster, cluster.Load{
		Exe: s.kvbench(), Args: r.kvbench(s.settings, s.nodes, s.round+1, false), Warmup: s.Warmup, Duration: s.Duration,
		Under: s.generator.Under(), Env: []string{procs(s.generatorLimit())},
		Measuring: func(ctx context.Context) { w, p, werr = s.watch(ctx) },
	})
	if err := errors.Join(err, werr); err != nil {
		return nil, err
	}
	if w == nil {
		return nil, errors.New("the run ended before it could be measured")
	}
	lasted := time.Since(began)
	after, err := s.cluster.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	res := out.Result
	m := &measurement{
		Round: s.round, PerSecond: res.OpsPerSecond, Operations: res.Operations, P50: res.Latency.P50, P99: res.Latency.P99, Errors: res.Errors,
		LogSyncs:  (after.Histogram(s.cluster.LogSyncs).Count - before.Histogram(s.cluster.LogSyncs).Count) / lasted.Seconds(),
		Elections: after.Counter(elections) - before.Counter(elections),
	}
	m.use(w, s.settings)
	if m.Leads, err = s.leads(ctx); err != nil {
		return nil, err
	}
	return m, s.profiled(r, m, p)
}

// watch looks at the measured time, and profiles it where that is wanted.
func (s *session) watch(ctx context.Context) (w *window, p *profile.Profile, err error) {
	if s.pprof == "" {
		w, err = s.look(ctx, s.Duration-margin)
		return w, nil, err
	}
	w = new(window)
	if w.begin, err = s.usage(); err != nil {
		return nil, nil, err
	}
	if p, err = samples.Fetch(ctx, s.cluster, (s.Duration - time.Second).Truncate(time.Second)); err != nil {
		return nil, nil, err
	}
	w.end, err = s.usage()
	return w, p, err
}

// use fills in what the limits say.
func (m *measurement) use(w *window, s *settings) {
	m.Nodes, m.Generator, m.Machine = w.nodes(s.NodeCPUs), w.generator(s.GeneratorCPUs), w.busy()
	m.Throttle, m.GeneratorThrottle = w.end.throttle.Sub(w.begin.throttle), w.end.waits.Sub(w.begin.waits)
	if m.PerSecond > 0 {
		m.NodeCPU, m.GeneratorCPU = 1e6*w.nodeCPUs()/m.PerSecond, 1e6*w.generator(1)/m.PerSecond
	}
}

// profiled keeps a profile and divides the CPU of an operation by it.
func (s *session) profiled(r *rowReport, m *measurement, p *profile.Profile) error {
	if p == nil {
		return nil
	}
	parts := samples.Parts(p)
	var all time.Duration
	for _, d := range parts {
		all += d
	}
	m.Parts = map[samples.Component]float64{}
	for part, d := range parts {
		m.Parts[part] = m.NodeCPU * float64(d) / float64(max(all, 1))
	}
	return samples.Save(p, filepath.Join(s.pprof, fmt.Sprintf("%s-%d.pprof", r.Name, s.nodes)))
}
