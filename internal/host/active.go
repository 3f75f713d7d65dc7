package host

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"kvstore/internal/keyspace"
)

// noteActive remembers when this leader last knew its members to be alive.
// raft's own mark is taken back from all of them once per election timeout, to
// see who answers until the next one: at that moment nobody looks alive.
func (g *group) noteActive(mono time.Duration) {
	if _, leading := g.core.Leading(); !leading {
		g.activeAt = nil
		return
	}
	if g.activeAt == nil {
		g.activeAt = make(map[keyspace.ReplicaID]time.Duration)
	}
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if p.RecentActive {
			g.activeAt[keyspace.ReplicaID(id)] = mono
		}
	})
}

// active reports whether a member answered this leader lately.
func (h *Host) active(g *group, id keyspace.ReplicaID) bool {
	at, ok := g.activeAt[id]
	return ok && h.opt.Clock.Mono()-at <= h.opt.electionTimeout()
}
