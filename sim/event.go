// Package sim runs whole clusters of real hosts on one thread over simulated
// clocks, networks and disks. One seed is one history: everything random comes
// from the seed, and time is a queue of events.
package sim

import (
	"container/heap"
	"time"
)

// event is something that happens at a moment of simulated time.
type event struct {
	at  time.Duration
	seq uint64 // order among events of one moment
	run func()
}

type events []*event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}

// after schedules run.
func (w *World) after(d time.Duration, run func()) {
	w.seq++
	heap.Push(&w.queue, &event{at: w.now + d, seq: w.seq, run: run})
}

// between draws a duration.
func (w *World) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)))
}

// chance is true with probability p.
func (w *World) chance(p float64) bool { return w.rng.Float64() < p }
