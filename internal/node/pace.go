package node

import (
	"context"
	"time"

	"kvstore/internal/env/system"
	"kvstore/internal/mvcc"
)

const (
	// flushBatchBytes is one engine write of a flush.
	flushBatchBytes = 256 << 10
	// flushSyncBytes is how much is made durable at once.
	flushSyncBytes = 4 << 20
	// flushTime is what a flush takes when nothing is written meanwhile.
	flushTime = 20 * time.Second
	// flushBehind is how many deltas may wait behind the one that is flushed
	// before it is hurried; flushLead the part of that room at whose filling the
	// flush is to be over.
	flushBehind = 1.5
	flushLead   = 0.4

	flushPoll = 5 * time.Millisecond
)

// flushPace spreads a flush over the time that the next delta takes to fill: a
// flush costs as much as the writes it takes over, and in one piece it would
// halve the throughput for seconds and put a hundred megabytes in front of the
// raft log's in the disk's queue. It uses half of its time at most, and no
// pauses at all once more than a delta and a half waits.
type flushPace struct {
	store  *mvcc.Store
	engine interface{ Sync() error }
	seal   int64 // size at which a delta is sealed

	delta  mvcc.DeltaID
	began  time.Time
	behind int64 // bytes in later deltas, then
	worked time.Time
	synced int64
}

// between waits until more of the flush is due. It is called by one flush at a
// time.
func (p *flushPace) between(ctx context.Context, at mvcc.FlushProgress) error {
	if at.Delta != p.delta {
		p.delta, p.began, p.behind, p.synced = at.Delta, time.Now(), p.later(at), 0
		p.worked = p.began
	}
	if at.Engine-p.synced >= flushSyncBytes {
		p.synced = at.Engine
		if err := p.engine.Sync(); err != nil {
			return err
		}
	}
	done := float64(at.Written) / float64(max(1, at.Total))
	rest := min(time.Since(p.worked), 4*flushPoll)
	for float64(p.later(at)) < p.most() {
		if err := system.Pause(ctx, rest); err != nil {
			return err
		}
		if p.due(at, time.Now()) >= done {
			break
		}
		rest = flushPoll
	}
	p.worked = time.Now()
	return ctx.Err()
}

// most is the size of what may wait before the flush is hurried.
func (p *flushPace) most() float64 { return flushBehind * float64(p.seal) }

// later is the size of what came after the delta that is being flushed.
func (p *flushPace) later(at mvcc.FlushProgress) int64 { return p.store.Bytes() - at.Total }

// due is the part of the flush that should be over, from 0 on.
func (p *flushPace) due(at mvcc.FlushProgress, now time.Time) float64 {
	byTime := float64(now.Sub(p.began)) / float64(flushTime)
	room := flushLead * max(1, p.most()-float64(p.behind))
	return max(byTime, float64(p.later(at)-p.behind)/room)
}
