package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/peers/cluster"
)

// comparison is one run over all rows.
type comparison struct {
	*settings
	launcher      *cluster.Launcher
	etcd, kvstore *cluster.Cluster
	report        *report
}

// run preloads both, calibrates every row, then does the rounds: all
// rows in each, and the store that goes first alternates.
func (c *comparison) run(ctx context.Context) error {
	for _, peer := range []*cluster.Cluster{c.etcd, c.kvstore} {
		if err := c.preload(ctx, peer); err != nil {
			return err
		}
	}
	for _, r := range c.report.Rows {
		if err := c.calibrate(ctx, r); err != nil {
			return err
		}
	}
	for round := range c.Rounds {
		for _, r := range c.report.Rows {
			order := []*cluster.Cluster{c.etcd, c.kvstore}
			if round%2 == 1 {
				order[0], order[1] = order[1], order[0]
			}
			for _, peer := range order {
				m, err := c.measure(ctx, r, peer, round)
				if err != nil {
					return err
				}
				say("round %d of %d  %-14s %-8s %9.0f/s  p50 %8.3f ms  p99 %8.3f ms", round+1, c.Rounds, r.Name, peer.Name, m.PerSecond, m.P50, m.P99)
			}
		}
	}
	for _, r := range c.report.Rows {
		r.summarize()
	}
	c.report.compareWithPuts()
	return nil
}

func (c *comparison) load(warmup, duration time.Duration, args []string, measuring func(context.Context)) cluster.Load {
	return cluster.Load{Exe: filepath.Join(c.bin, "kvbench"), Args: args, Warmup: warmup, Duration: duration, Measuring: measuring}
}

func (c *comparison) preload(ctx context.Context, peer *cluster.Cluster) error {
	say("%s: writing %d keys", peer.Name, c.Keys)
	get := row{Workload: bench.WorkGet, Mode: bench.ModePipeline, Clients: 1}
	args := append(get.kvbench(c.settings, 1, 0), "--preload=true")
	_, err := c.launcher.Load(ctx, peer, c.load(0, 100*time.Millisecond, args, nil))
	return err
}

// calibrate finds the number of connections with which each store is at its best in a
// row. The SDK has as many per node as were asked for.
func (c *comparison) calibrate(ctx context.Context, r *rowReport) (err error) {
	if r.EtcdConnections, r.Calibration, err = c.bestConnections(ctx, r, c.etcd); err != nil {
		return err
	}
	if r.Connections = c.SDKConnections; r.Mode == bench.ModeUnary {
		r.Connections, r.KVStoreCalibration, err = c.bestConnections(ctx, r, c.kvstore)
	}
	return err
}

// bestConnections runs a row with 1, 16 and 64 connections.
func (c *comparison) bestConnections(ctx context.Context, r *rowReport, peer *cluster.Cluster) (best int, all []calibration, err error) {
	best, most := 1, 0.0
	for _, n := range []int{1, 16, 64} {
		if n > r.Clients || r.Clients == 1 {
			break // a connection without a client does nothing
		}
		if err := c.settle(ctx); err != nil {
			return 0, nil, err
		}
		out, err := c.launcher.Load(ctx, peer, c.load(c.Warmup, c.Calibrate, r.kvbench(c.settings, n, 0), nil))
		if err != nil {
			return 0, nil, err
		}
		rate := r.perSecond(out.Result)
		say("calibrating   %-14s %-8s %9.0f/s  %d connections", r.Name, peer.Name, rate, n)
		all = append(all, calibration{n, rate})
		if rate > most {
			most, best = rate, n
		}
	}
	return best, all, nil
}

// settle leaves the stores a moment for what the last run left behind.
func (c *comparison) settle(ctx context.Context) error {
	t := time.NewTimer(c.Settle)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// window is the cost of both stores around the measured time.
type window struct {
	begin, end         cluster.Cost
	idleBegin, idleEnd time.Duration
	err                error
}

func (c *comparison) measure(ctx context.Context, r *rowReport, peer *cluster.Cluster, round int) (*measurement, error) {
	if err := c.settle(ctx); err != nil {
		return nil, err
	}
	idle, connections := c.etcd, r.Connections
	into := &r.KVStore
	if peer == c.etcd {
		idle, connections, into = c.kvstore, r.EtcdConnections, &r.Etcd
	}
	var w window
	o := c.load(c.Warmup, c.Duration, r.kvbench(c.settings, connections, round+1), func(ctx context.Context) {
		if w.idleBegin, w.err = idle.CPU(); w.err == nil {
			w.begin, w.err = peer.Cost(ctx)
		}
	})
	out, err := c.launcher.Load(ctx, peer, o)
	if err == nil {
		err = w.err
	}
	if err == nil {
		w.end, err = peer.Cost(ctx)
	}
	if err == nil {
		w.idleEnd, err = idle.CPU()
	}
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", r.Name, peer.Name, err)
	}
	m := r.measured(round, out.Result, &w)
	into.Rounds = append(into.Rounds, m)
	return m, nil
}
