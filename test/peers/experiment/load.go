package experiment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/peers/cluster"
)

// unaryConnections is how many connections kvbench opens in all when it does
// not use the SDK, which opens one to each node.
const unaryConnections = 16

// Load is one run of kvbench.
type Load struct {
	Workload string
	Clients  int
	// Keys is how many different ones there are.
	Keys int
	// Warmup is not measured, Duration is.
	Warmup, Duration time.Duration
	// Rate is in operations per second; 0 is a closed loop.
	Rate int
	Seed int
	// Args are further flags; the last of one name counts.
	Args []string
	// Measuring is called when the warm-up ended; Load waits for it.
	Measuring func(ctx context.Context)
}

// Load runs kvbench to its end and returns all that it says.
func (s *Session) Load(ctx context.Context, o Load) (*bench.Result, error) {
	connections := 1
	if s.Mode == bench.ModeUnary {
		connections = min(unaryConnections, o.Clients)
	}
	args := append([]string{"--workload", o.Workload, "--mode", s.Mode, "--clients", fmt.Sprint(o.Clients), "--connections", fmt.Sprint(connections),
		"--keys", fmt.Sprint(o.Keys), "--key-size", fmt.Sprint(s.KeySize), "--value-size", fmt.Sprint(s.ValueSize),
		"--rate", fmt.Sprint(o.Rate), "--seed", fmt.Sprint(o.Seed), "--preload=false"}, o.Args...)
	out, err := s.launcher.Load(ctx, s.Cluster, cluster.Load{
		Exe: filepath.Join(s.bin, "kvbench"), Args: args, Warmup: o.Warmup, Duration: o.Duration, Measuring: o.Measuring})
	if err != nil {
		return nil, err
	}
	return out.Result, nil
}

// Run is Load without the details.
func (s *Session) Run(ctx context.Context, o Load) (*Run, error) {
	res, err := s.Load(ctx, o)
	if err != nil {
		return nil, err
	}
	return RunOf(res), nil
}

// Preload writes keys number from to to-1, each once.
func (s *Session) Preload(ctx context.Context, from, to int) error {
	return s.launcher.Preload(ctx, s.Cluster, filepath.Join(s.bin, "kvbench"), []string{
		"--keys-from", fmt.Sprint(from), "--keys", fmt.Sprint(to),
		"--key-size", fmt.Sprint(s.KeySize), "--value-size", fmt.Sprint(s.ValueSize)})
}

// Peaks runs f and returns the most that each node had resident meanwhile,
// looking every so often. f must not restart the nodes.
func (s *Session) Peaks(every time.Duration, f func() error) ([]cluster.Memory, error) {
	stop := s.Cluster.WatchMemory(every)
	err := f()
	peaks, werr := stop()
	return peaks, errors.Join(err, werr)
}

// Wait returns after d.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
