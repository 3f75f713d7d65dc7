package host

import (
	"sync/atomic"
	"time"

	"kvstore/internal/keyspace"
)

// copying is a snapshot that is sent: the sender counts, the loop reports.
type copying struct {
	sent  atomic.Int64
	total int64
	began time.Duration
}

// Rate is in bytes per second since the copy began.
func (c CopyProgress) Rate() uint64 {
	if c.For <= 0 {
		return 0
	}
	return uint64(float64(c.Sent) / c.For.Seconds())
}

// beginCopy starts to count a snapshot of g for one of its members.
func (h *Host) beginCopy(g *group, to keyspace.ReplicaID) *copying {
	c := &copying{total: h.opt.Store.EstimateBytes(g.instance.id), began: h.opt.Clock.Mono()}
	if g.copies == nil {
		g.copies = make(map[keyspace.ReplicaID]*copying)
	}
	g.copies[to] = c
	return c
}

// endCopy forgets a copy unless a newer one took its place.
func (g *group) endCopy(to keyspace.ReplicaID, c *copying) {
	if g.copies[to] == c {
		delete(g.copies, to)
	}
}

func (g *group) copyProgress(to keyspace.ReplicaID, now time.Duration) CopyProgress {
	c := g.copies[to]
	if c == nil {
		return CopyProgress{}
	}
	sent := c.sent.Load()
	return CopyProgress{Sent: sent, Total: max(c.total, sent), For: now - c.began}
}
