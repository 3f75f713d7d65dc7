package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/cgroup"
	"kvstore/test/peers/cluster"
)

// benchmark is one run over all sizes and rows.
type benchmark struct {
	*settings
	dir       string
	tree      *cgroup.Tree
	generator *cgroup.Group
	report    *report
}

// run does the rounds: all sizes in each, the smallest and the largest first
// in turn, so that what changes with time does not count for a size.
func (b *benchmark) run(ctx context.Context) error {
	for round := range b.Rounds {
		order := slices.Clone(b.Sizes)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, nodes := range order {
			if err := b.session(ctx, round, nodes); err != nil {
				return fmt.Errorf("round %d, %d nodes: %w", round+1, nodes, err)
			}
		}
	}
	b.report.summarize()
	return nil
}

// session is the life of one cluster: it starts and gets its data without
// limits, is measured with them, and stops without.
type session struct {
	*benchmark
	round, nodes int
	launcher     *cluster.Launcher
	cluster      *cluster.Cluster
	groups       []*cgroup.Group // of the nodes, in order
}

func (b *benchmark) session(ctx context.Context, round, nodes int) (err error) {
	s := &session{benchmark: b, round: round, nodes: nodes, launcher: cluster.NewLauncher()}
	dir := filepath.Join(b.dir, fmt.Sprintf("%d-%d", round, nodes))
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(dir)) }()
	if err := s.start(ctx, dir); err != nil {
		return err
	}
	if err := s.restrict(); err != nil {
		return err
	}
	if err := s.idle(ctx); err != nil {
		return err
	}
	for _, r := range b.report.Rows {
		m, err := s.measure(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		r.size(nodes).Rounds = append(r.size(nodes).Rounds, m)
		if s.Smoke {
			say("%d nodes  %s: %d operations", nodes, r.Name, m.Operations)
			continue
		}
		say("round %d of %d  %d nodes  %-10s %9.0f/s  p50 %8.3f ms  p99 %8.3f ms  CPU of nodes %3.0f %%, generator %3.0f %%: %s",
			round+1, b.Rounds, nodes, r.Name, m.PerSecond, m.P50, m.P99, 100*m.Nodes.Mean, 100*m.Generator, m.limit())
	}
	return nil
}

func (s *session) start(ctx context.Context, dir string) (err error) {
	env := []string{
		"KVSTORE_CLUSTER_GROUPS=" + fmt.Sprint(s.Groups), "KVSTORE_CLUSTER_REPLICATION_FACTOR=" + fmt.Sprint(factor),
		procs(s.nodeLimit()),
	}
	if s.pprof != "" {
		env = append(env, "KVSTORE_PPROF=true")
	}
	s.cluster, err = s.launcher.KVStore(ctx, cluster.KVStore{
		Exe: filepath.Join(s.bin, "kvstore"), Dir: dir, Nodes: s.nodes, Profile: s.Profile, Env: env,
	})
	if err != nil {
		return err
	}
	preload := row{Workload: bench.WorkGet}
	_, err = s.launcher.Load(ctx, s.cluster, cluster.Load{
		Exe: s.kvbench(), Duration: 100 * time.Millisecond, Args: preload.kvbench(s.settings, s.nodes, 0, true),
	})
	if err != nil {
		return fmt.Errorf("write all keys: %w", err)
	}
	return s.waitEven(ctx)
}

// restrict moves the nodes, which are one process each, into groups.
func (s *session) restrict() error {
	for i, n := range s.cluster.Nodes {
		g, err := s.tree.Group(fmt.Sprintf("n%d", i+1), s.nodeLimit())
		if err != nil {
			return err
		}
		s.groups = append(s.groups, g)
		if err := g.Add(n.PID); err != nil {
			return err
		}
	}
	return nil
}

// stop lifts the limits first: a node may have much to write at its end.
func (s *session) stop() error {
	var errs []error
	for _, g := range s.groups {
		errs = append(errs, g.Lift())
	}
	errs = append(errs, s.launcher.Close(), s.tree.Remove(s.groups...))
	return errors.Join(errs...)
}
