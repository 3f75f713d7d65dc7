package node

import (
	"context"
	"time"

	"kvstore/internal/env/system"
	"kvstore/internal/mvcc"
)

const (
	// mergeTime and moveTime are what a merge of small runs and a move of large
	// ones take when nothing is written meanwhile.
	mergeTime = 30 * time.Second
	moveTime  = 5 * time.Minute
	// walkLead is the part of the runs that begin a walk at whose arrival the one
	// before is to be over.
	walkLead = 0.7
)

// walkPace spreads a walk over runs over the time in which those for the next one
// arrive: there is about as much to do then at any moment. A walk uses half of its
// time at most, and makes no pauses once that many arrived.
type walkPace struct {
	store       *mvcc.Store
	engine      interface{ Sync() error }
	merge, move walkState
}

// walkState is one walk, the last one of its kind.
type walkState struct {
	began, worked time.Time
	moved, synced int64
}

// between waits until more of a walk is due. It is called by one walk of each kind
// at a time.
func (p *walkPace) between(ctx context.Context, at mvcc.MoveProgress) error {
	w := &p.move
	if at.Merge {
		w = &p.merge
	}
	if at.Moved <= w.moved {
		w.began, w.synced = time.Now(), 0
		w.worked = w.began
	}
	w.moved = at.Moved
	if at.Engine-w.synced >= flushSyncBytes {
		w.synced = at.Engine
		if err := p.engine.Sync(); err != nil {
			return err
		}
	}
	done := float64(at.Moved) / float64(max(1, at.Total))
	rest := min(time.Since(w.worked), 4*flushPoll)
	for p.arrived(at) < 1 {
		if err := system.Pause(ctx, rest); err != nil {
			return err
		}
		if p.due(at, time.Since(w.began)) >= done {
			break
		}
		rest = flushPoll
	}
	w.worked = time.Now()
	return ctx.Err()
}

// arrived is the part of what the next walk takes that is there.
func (p *walkPace) arrived(at mvcc.MoveProgress) float64 {
	small, large := p.store.RunsBytes()
	if at.Merge {
		return float64(small-at.Total) / float64(at.Total)
	}
	return float64(large-at.Total) / float64(at.Total)
}

// due is the part of a walk that should be over, from 0 on.
func (p *walkPace) due(at mvcc.MoveProgress, since time.Duration) float64 {
	whole := moveTime
	if at.Merge {
		whole = mergeTime
	}
	return max(float64(since)/float64(whole), p.arrived(at)/walkLead)
}
