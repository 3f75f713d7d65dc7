package replica

import (
	"slices"

	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// applyTxns applies blindly what an entry says of transactions, and tells who holds
// locks from now on and who does not any more.
func (c *Core) applyTxns(e *format.Entry, index keyspace.Index) (locked, unlocked []*format.Prepared) {
	s := &c.state
	s.LowWater = max(s.LowWater, e.LowWater)
	if len(e.Prepared)+len(e.Ended) == 0 {
		return nil, nil
	}
	forgets := c.cfg.Bugs.Has(invariant.BugLockForgotten)
	next := append(make([]*format.Prepared, 0, len(s.Prepared)+len(e.Prepared)), s.Prepared...)
	for _, p := range e.Prepared {
		if forgets {
			continue
		}
		at, found := place(next, p.Key)
		invariant.Assert(!found, "group %d entry %d: transaction %s is prepared twice", c.cfg.Group, index, p.Key.ID)
		next = slices.Insert(next, at, p)
		locked = append(locked, p)
	}
	for _, key := range e.Ended {
		at, found := place(next, key)
		if !found && forgets {
			continue
		}
		invariant.Assert(found, "group %d entry %d: transaction %s ends and is not prepared", c.cfg.Group, index, key.ID)
		if n := slices.Index(locked, next[at]); n >= 0 {
			locked = slices.Delete(locked, n, n+1) // it came and went
		} else {
			unlocked = append(unlocked, next[at])
		}
		next = slices.Delete(next, at, at+1)
	}
	if len(next) == 0 {
		next = nil
	}
	s.Prepared = next
	return locked, unlocked
}

func place(prepared []*format.Prepared, key keyspace.TxnKey) (int, bool) {
	return slices.BinarySearchFunc(prepared, key, func(p *format.Prepared, key keyspace.TxnKey) int { return p.Key.Compare(key) })
}

// OldestPrepared is the lowest stamp of what is prepared in the applied state,
// MaxRevision without any: at or above it a commit may still write.
func (c *Core) OldestPrepared() keyspace.Revision {
	oldest := keyspace.MaxRevision
	for _, p := range c.state.Prepared {
		oldest = min(oldest, p.Stamp)
	}
	return oldest
}
