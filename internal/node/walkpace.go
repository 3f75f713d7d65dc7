package node

import (
	"context"
	"time"

	"kvstore/internal/env/system"
	"kvstore/internal/mvcc"
)

const (
	// mergeTime, largeTime and moveTime are what a merge of small runs, one of larger
	// ones and a move take when nothing is written meanwhile.
	mergeTime = 30 * time.Second
	largeTime = 15 * time.Minute
	moveTime  = 15 * time.Minute
	// walkLead is the part of what a walk takes at whose arrival it is to be over.
	walkLead = 0.8
	// A late walk rests restLong times as long as it worked while less than
	// walkCalm of that arrived, then as long as it worked: what the engine does with
	// the batches goes on beside.
	restLong = 3
	walkCalm = 0.5
)

// walkPace spreads a walk over runs over the time in which those for the next one
// arrive: there is about as much to do then at any moment. A walk uses a quarter of
// its time at first, half of it later, and all of it once as much arrived as it
// takes, or flushes or another walk wait for it: much that comes at once is worked off
// over some time. One that lists wait for rests no longer than that, though there
// would be time.
type walkPace struct {
	store  walkStore
	engine interface{ Sync() error }
	now    func() time.Time
	pause  func(context.Context, time.Duration) error
	walks  [mvcc.WalkMove + 1]walkState
}

func newWalkPace(engine interface{ Sync() error }) *walkPace {
	return &walkPace{engine: engine, now: time.Now, pause: system.Pause}
}

type walkStore interface {
	RunsBytes() mvcc.RunBytes
	Urgent(what mvcc.Walk) bool
	ListsWait() bool
}

// walkState is one walk, the last one of its kind.
type walkState struct {
	walk          uint64
	began, worked time.Time
	runs          int64 // bytes in runs when it began
	synced        int64
}

// between waits until more of a walk is due. It is called by one walk of each kind
// at a time.
func (p *walkPace) between(ctx context.Context, at mvcc.MoveProgress) error {
	w := &p.walks[at.What]
	if at.Walk != w.walk {
		now := p.now()
		*w = walkState{walk: at.Walk, began: now, worked: now, runs: p.runs(at.What)}
	}
	if at.Engine-w.synced >= flushSyncBytes {
		w.synced = at.Engine
		if err := p.engine.Sync(); err != nil {
			return err
		}
	}
	done := float64(at.Moved) / float64(max(1, at.Total))
	lists := at.What == mvcc.WalkMerge && p.store.ListsWait()
	rest := p.rest(w, at)
	for p.arrived(w, at) < 1 && !p.store.Urgent(at.What) {
		if err := p.pause(ctx, rest); err != nil {
			return err
		}
		if lists || p.due(w, at) >= done {
			break
		}
		rest = flushPoll
	}
	w.worked = p.now()
	return ctx.Err()
}

// rest is how long a walk rests at least.
func (p *walkPace) rest(w *walkState, at mvcc.MoveProgress) time.Duration {
	worked := min(p.now().Sub(w.worked), 4*flushPoll)
	if p.arrived(w, at) < walkCalm {
		return restLong * worked
	}
	return worked
}

// runs is the bytes in the runs that wait for the next walk of a kind.
func (p *walkPace) runs(what mvcc.Walk) int64 {
	switch bytes := p.store.RunsBytes(); what {
	case mvcc.WalkMerge:
		return bytes.Small
	case mvcc.WalkMergeLarge:
		return bytes.Middle
	default:
		return bytes.All()
	}
}

// arrived is what came since a walk began, in parts of what the next one waits for.
func (p *walkPace) arrived(w *walkState, at mvcc.MoveProgress) float64 {
	return float64(p.runs(at.What)-w.runs) / float64(max(1, at.Period))
}

// due is the part of a walk that should be over, from 0 on.
func (p *walkPace) due(w *walkState, at mvcc.MoveProgress) float64 {
	whole := [...]time.Duration{mvcc.WalkMerge: mergeTime, mvcc.WalkMergeLarge: largeTime, mvcc.WalkMove: moveTime}[at.What]
	return max(float64(p.now().Sub(w.began))/float64(whole), p.arrived(w, at)/walkLead)
}
