package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/peers/experiment"
)

const (
	// memoryEvery is how often the memory of nodes is looked at.
	memoryEvery = 50 * time.Millisecond
	// starting is what a second kvbench may need until it measures.
	starting = 2 * time.Second
)

// step is one run of a workload at a number of clients.
func (d *depth) step(ctx context.Context, s *experiment.Session, step *step, round int) error {
	var r *experiment.Run
	memory, err := s.Peaks(memoryEvery, func() (err error) {
		r, err = s.Run(ctx, d.load(step.Workload, step.Clients, round))
		return err
	})
	if err != nil {
		return fmt.Errorf("%s, %d clients: %w", step.Workload, step.Clients, err)
	}
	r.Memory = memory
	step.Runs = append(step.Runs, r)
	experiment.Say("round %d of %d  %-4s %5d clients %9.0f/s  p50 %8.3f ms  p99 %8.3f ms  errors %s", round+1, d.Rounds, step.Workload, step.Clients,
		r.PerSecond, r.P50, r.P99, experiment.Codes(r.Errors))
	return nil
}

func (d *depth) load(workload string, clients, round int) experiment.Load {
	return experiment.Load{Workload: workload, Clients: clients, Keys: d.Keys, Warmup: d.Warmup, Duration: d.Duration, Seed: round + 1}
}

// mix puts small values alone and beside large ones.
func (d *depth) mix(ctx context.Context, s *experiment.Session, res *results, round int) error {
	halves := []func() error{
		func() error { return d.alone(ctx, s, res, round) },
		func() error { return d.beside(ctx, s, res, round) },
	}
	if round%2 == 1 {
		halves[0], halves[1] = halves[1], halves[0]
	}
	for _, half := range halves {
		if err := half(); err != nil {
			return fmt.Errorf("mix: %w", err)
		}
	}
	return nil
}

func (d *depth) alone(ctx context.Context, s *experiment.Session, res *results, round int) error {
	small, err := s.Run(ctx, d.load(bench.WorkPut, d.MixClients, round))
	if err != nil {
		return err
	}
	res.Mix.Alone = append(res.Mix.Alone, small)
	d.sayMix(round, "small puts alone", small)
	return nil
}

// beside runs the small puts within the measured time of the large ones.
func (d *depth) beside(ctx context.Context, s *experiment.Session, res *results, round int) error {
	var small, stream *experiment.Run
	var serr error
	large := d.load(bench.WorkPut, d.LargeClients, round)
	large.Keys = d.LargeKeys
	large.Duration = d.Warmup + d.Duration + starting
	large.Args = []string{"--prefix", "big", "--value-size", fmt.Sprint(d.LargeBytes)}
	large.Measuring = func(ctx context.Context) {
		small, serr = s.Run(ctx, d.load(bench.WorkPut, d.MixClients, round))
	}
	memory, err := s.Peaks(memoryEvery, func() (err error) {
		stream, err = s.Run(ctx, large)
		return err
	})
	if err := errors.Join(serr, err); err != nil {
		return err
	}
	if small == nil {
		return errors.New("the large puts ended before the small ones began")
	}
	stream.Memory = memory
	res.Mix.Beside, res.Mix.Large = append(res.Mix.Beside, small), append(res.Mix.Large, stream)
	d.sayMix(round, "small puts beside large ones", small)
	d.sayMix(round, "large puts", stream)
	return nil
}

func (d *depth) sayMix(round int, what string, r *experiment.Run) {
	experiment.Say("round %d of %d  %-28s %9.1f/s  p50 %8.3f ms  p99 %8.3f ms  errors %s", round+1, d.Rounds, what,
		r.PerSecond, r.P50, r.P99, experiment.Codes(r.Errors))
}
