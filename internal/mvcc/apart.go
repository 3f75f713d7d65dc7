package mvcc

import (
	"maps"
	"sync"
	"sync/atomic"

	"kvstore/internal/keyspace"
)

// apart knows up to which revision the engine may have versions that are newer
// than one in a run or in the history: large values go to it directly. What a
// file has above that needs no look at the engine.
//
// Of an instance that nothing was flushed of since the start it knows nothing:
// then the engine is always asked. The same holds, from the first flush on, for
// versions at or below that flush's newest and what Flushed told; if that told
// nothing, for all. The first flush alone says little: what slots that move here
// bring is older than what is there.
type apart struct {
	mu   sync.Mutex
	tops atomic.Pointer[map[keyspace.InstanceID]keyspace.Revision]
}

func (a *apart) top(inst keyspace.InstanceID) keyspace.Revision {
	if tops := a.tops.Load(); tops != nil {
		if rev, known := (*tops)[inst]; known {
			return rev
		}
	}
	return keyspace.MaxRevision
}

// begin notes the newest version that there can be at an instance's first flush.
func (a *apart) begin(inst keyspace.InstanceID, newest keyspace.Revision) {
	if a.top(inst) == keyspace.MaxRevision {
		a.set(inst, newest)
	}
}

// raise notes a version before it goes to the engine.
func (a *apart) raise(inst keyspace.InstanceID, rev keyspace.Revision) {
	if rev > a.top(inst) {
		a.set(inst, rev)
	}
}

func (a *apart) set(inst keyspace.InstanceID, rev keyspace.Revision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := make(map[keyspace.InstanceID]keyspace.Revision)
	if tops := a.tops.Load(); tops != nil {
		next = maps.Clone(*tops)
	}
	next[inst] = rev
	a.tops.Store(&next)
}
