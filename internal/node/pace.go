package node

import (
	"context"
	"time"

	"kvstore/internal/env/system"
)

const (
	// flushBatchBytes is one engine write of a flush, flushSyncBatches how many
	// of them are made durable at once.
	flushBatchBytes  = 1 << 20
	flushSyncBatches = 4
	longestPause     = 20 * time.Millisecond
)

// flushPace lets a flush of recent writes use half of its time at most, and
// hands the disk a few megabytes at a time: the raft log shares it, and a
// hundred megabytes in the disk's queue would be in front of every write. A
// flush that others wait for does not pause.
type flushPace struct {
	node    *storage
	began   time.Time
	batches int
}

func (p *flushPace) between(ctx context.Context) error {
	if p.batches++; p.batches%flushSyncBatches == 0 {
		if err := p.node.engine.Sync(); err != nil {
			return err
		}
	}
	if p.node.store.Sealed() > 1 {
		return ctx.Err()
	}
	err := system.Pause(ctx, min(time.Since(p.began), longestPause))
	p.began = time.Now()
	return err
}
