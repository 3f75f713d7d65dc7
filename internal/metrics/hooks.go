package metrics

import (
	"strconv"
	"time"
)

// Hooks are the functions a node hands to its host and its log. They may be
// called by any goroutine and take well under a microsecond.
type Hooks struct {
	// Election: this node began to lead group; planned means by a transfer.
	Election func(group uint32, planned bool)
	// Commit: an entry took d from its proposal until it was applied.
	Commit func(d time.Duration)
	// Fsync: the shared log was synced in d.
	Fsync func(d time.Duration)
	// Batch: one log entry carries so many operations.
	Batch func(operations int)
	// ReadBatch: one read index confirmed so many reads.
	ReadBatch func(reads int)
	// Flush: a delta went to a run, history, and engine.
	Flush func(d time.Duration, bytes int64)
	// Merge: small runs became a larger one; Move: large ones went to the engine.
	Merge, Move func(d time.Duration, bytes int64)
	// Snapshot: one was sent or received whole.
	Snapshot func(sent bool, bytes int64)
	// Overloaded: a proposal was refused because a queue was full.
	Overloaded func()
	// LoopLatency: one turn of the host loop.
	LoopLatency func(d time.Duration)
	// Stall: the disk hung for so long that leaderships are lost.
	Stall func()
}

// Hooks returns the functions that feed r.
func (r *Registry) Hooks() Hooks {
	return Hooks{
		Election: func(group uint32, planned bool) {
			r.elections.WithLabelValues(strconv.FormatUint(uint64(group), 10), strconv.FormatBool(planned)).Inc()
		},
		Commit:    func(d time.Duration) { r.commit.Observe(d.Seconds()) },
		Fsync:     func(d time.Duration) { r.fsync.Observe(d.Seconds()) },
		Batch:     func(n int) { r.batch.Observe(float64(n)) },
		ReadBatch: func(n int) { r.readBatch.Observe(float64(n)) },
		Flush: func(d time.Duration, bytes int64) {
			r.flush.Observe(d.Seconds())
			r.flushed.Add(float64(bytes))
		},
		Merge: func(d time.Duration, bytes int64) {
			r.merge.Observe(d.Seconds())
			r.merged.Add(float64(bytes))
		},
		Move: func(d time.Duration, bytes int64) {
			r.move.Observe(d.Seconds())
			r.moved.Add(float64(bytes))
		},
		Snapshot: func(sent bool, bytes int64) {
			direction := "received"
			if sent {
				direction = "sent"
			}
			r.snapshots.WithLabelValues(direction).Inc()
			r.snapBytes.WithLabelValues(direction).Add(float64(bytes))
		},
		Overloaded:  r.refused.Inc,
		LoopLatency: func(d time.Duration) { r.loop.Observe(d.Seconds()) },
		Stall:       r.stalls.Inc,
	}
}
