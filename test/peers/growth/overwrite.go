package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
)

const (
	// readWarmup of the gets of an interval, and startup, what their kvbench
	// may need beside: a reader fits in its interval.
	readWarmup       = 500 * time.Millisecond
	startup          = time.Second
	shortestInterval = 3 * time.Second
)

// overwritten is one run of overwriting.
type overwritten struct {
	Put       *experiment.Run `json:"put"`
	Timeline  []bench.Point   `json:"put_timeline"`
	Intervals []*interval     `json:"intervals"`
	// Stall is the longest that clients saw nothing happen, in milliseconds.
	Stall float64 `json:"longest_stall_ms"`
}

// interval is one stretch of overwriting.
type interval struct {
	// Seconds at which it began.
	Seconds float64         `json:"t"`
	Puts    float64         `json:"puts_per_second"`
	Get     *experiment.Run `json:"get"`
	// Memory is the most that each node had resident, Disk what its data
	// occupied at the end.
	Memory  []cluster.Memory `json:"peak_memory"`
	Disk    []int64          `json:"disk_bytes"`
	Written cluster.Writes   `json:"written_bytes"`
}

// overwrite puts the same keys again and again while an open loop gets them,
// interval by interval.
func (g *growth) overwrite(ctx context.Context, s *experiment.Session, res *results) error {
	o := &overwritten{}
	var ierr error
	puts, err := s.Load(ctx, experiment.Load{
		Workload: bench.WorkPut, Clients: g.OverwriteClients, Keys: g.OverwriteKeys, Warmup: g.Warmup, Duration: g.Overwrite,
		Measuring: func(ctx context.Context) { ierr = g.intervals(ctx, s, o) },
	})
	if err := errors.Join(ierr, err); err != nil {
		return err
	}
	o.Put, o.Timeline = experiment.RunOf(puts), puts.Timeline
	for _, each := range o.Intervals {
		each.Puts = perSecond(o.Timeline, each.Seconds, each.Seconds+g.OverwriteInterval.Seconds())
	}
	o.Stall = o.stall()
	res.Overwrite = o
	return nil
}

// intervals measures one after the other, beginning at whole multiples.
func (g *growth) intervals(ctx context.Context, s *experiment.Session, o *overwritten) error {
	began := time.Now()
	for i := range int(g.Overwrite / g.OverwriteInterval) {
		at := time.Duration(i) * g.OverwriteInterval
		if err := experiment.Wait(ctx, time.Until(began.Add(at))); err != nil {
			return err
		}
		each, err := g.interval(ctx, s, i)
		if err != nil {
			return fmt.Errorf("interval %d: %w", i+1, err)
		}
		each.Seconds = at.Seconds()
		o.Intervals = append(o.Intervals, each)
	}
	return nil
}

func (g *growth) interval(ctx context.Context, s *experiment.Session, i int) (*interval, error) {
	each := &interval{}
	written, err := s.Cluster.Writes()
	if err != nil {
		return nil, err
	}
	each.Memory, err = s.Peaks(memoryEvery, func() (err error) {
		each.Get, err = s.Run(ctx, experiment.Load{
			Workload: bench.WorkGet, Clients: g.OverwriteClients, Keys: g.OverwriteKeys, Rate: g.OverwriteReads, Seed: i + 1,
			Warmup: readWarmup, Duration: g.OverwriteInterval - readWarmup - startup,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	after, err := s.Cluster.Writes()
	if err != nil {
		return nil, err
	}
	each.Written = after.Sub(written)
	each.Disk, err = s.Cluster.Disk()
	experiment.Say("interval %d  get p99 %8.3f ms  max %8.3f ms  errors %s", i+1, each.Get.P99, each.Get.Max, experiment.Codes(each.Get.Errors))
	return each, err
}

// perSecond is the rate between two times of a timeline, in seconds.
func perSecond(timeline []bench.Point, from, to float64) float64 {
	var operations int64
	for _, p := range timeline {
		if p.Seconds > from && p.Seconds <= to {
			operations += p.Operations
		}
	}
	return float64(operations) / (to - from)
}

// stall is the longest of: a put, a get from when it was due, and a row of
// points without an answer. In a closed loop, every operation that is
// outstanding in a gap between answers lasts at least as long as the gap,
// unless it fails.
func (o *overwritten) stall() float64 {
	most, since := o.Put.Max, 0.0
	for i, p := range o.Timeline {
		if i == len(o.Timeline)-1 {
			break // cut off by the end
		}
		if p.Operations > 0 {
			since = p.Seconds
		}
		most = max(most, 1000*(p.Seconds-since)) // 0 where there were answers
	}
	for _, each := range o.Intervals {
		most = max(most, each.Get.Max)
	}
	return most
}
