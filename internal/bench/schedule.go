package bench

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// lateAfter is how long after it was due an operation starts late.
const lateAfter = 10 * time.Millisecond

// schedule is an open loop: operation n is due n/rate after the begin, whoever
// runs it. A client takes the next one, waits until it is due, and runs it at
// once when that has passed; latency counts from then, so waiting for a free
// client counts.
//
// Warm-up and measurement are two schedules: what a warm-up could not start in
// its time is dropped with it. What the measurement could not start before its
// end never starts either, so that an overloaded loop ends in time; it is
// counted as missed. Latencies are of operations that started: a run with
// missed ones says how slow the store was made, not how slow it is at that
// rate.
type schedule struct {
	rate                float64 // operations per second
	begin, measure, end time.Time

	warm, measured atomic.Int64 // operations taken
	started, late  atomic.Int64 // of the measured ones
}

// next returns the next operation that may start now. claim is asked once for
// each measured one.
func (s *schedule) next(ctx context.Context, timer *time.Timer, claim func() bool) (due time.Time, counts, ok bool) {
	if time.Now().Before(s.measure) {
		due = s.due(s.begin, s.warm.Add(1)-1)
		if due.Before(s.measure) {
			if !until(ctx, timer, due) {
				return due, false, false
			}
			if time.Now().Before(s.measure) {
				return due, false, true
			}
		}
	}
	due = s.due(s.measure, s.measured.Add(1)-1)
	if !due.Before(s.end) || !claim() || !until(ctx, timer, due) {
		return due, false, false
	}
	now := time.Now()
	if !now.Before(s.end) {
		return due, false, false
	}
	s.started.Add(1)
	if now.Sub(due) > lateAfter {
		s.late.Add(1)
	}
	return due, true, true
}

func (s *schedule) due(from time.Time, n int64) time.Time {
	return from.Add(time.Duration(float64(n) / s.rate * float64(time.Second)))
}

// missed is how many operations were due by stop, up to most (0: all), and
// never started.
func (s *schedule) missed(stop time.Time, most int64) int64 {
	if stop.After(s.end) {
		stop = s.end
	}
	due := int64(math.Ceil(stop.Sub(s.measure).Seconds() * s.rate))
	if most > 0 {
		due = min(due, most)
	}
	return max(due-s.started.Load(), 0)
}

// until waits for a moment that may have passed; false means that ctx ended.
func until(ctx context.Context, timer *time.Timer, t time.Time) bool {
	d := time.Until(t)
	return d <= 0 || wait(ctx, timer, d)
}
