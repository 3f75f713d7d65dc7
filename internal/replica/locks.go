package replica

import (
	"bytes"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// lockTable is what a leader knows of transactions that are prepared, in log order:
// those of the applied state with what is in flight. It belongs to the term, and a
// proposal that raft refuses takes back what it changed, as with the overlay of
// keys.
//
// A transaction locks the keys that it writes in one of its lists exclusively, and
// those that it only reads or checks against writes. Nothing else is locked, and
// nobody waits while it holds locks here: another Prepare that meets a lock is
// refused for good, or waits (parking), as writes and transactions of one group do.
type lockTable struct {
	prepared map[keyspace.TxnKey]*format.Prepared
	keys     map[string]*keyLock
	bytes    int // of keys
}

// lockChange is a transaction whose locks came or went.
type lockChange struct {
	p     *format.Prepared
	added bool
}

// keyLock is who locks a key: one exclusively, or any number of others.
type keyLock struct {
	exclusive *format.Prepared
	shared    []*format.Prepared
}

// Bounds of what is prepared in a group; the state carries it into every checkpoint.
const (
	maxPrepared    = 1024
	maxLockedBytes = 4 << 20
)

func newLockTable(prepared []*format.Prepared) lockTable {
	t := lockTable{prepared: make(map[keyspace.TxnKey]*format.Prepared), keys: make(map[string]*keyLock)}
	for _, p := range prepared {
		t.add(p)
	}
	return t
}

func (t *lockTable) add(p *format.Prepared) {
	t.prepared[p.Key] = p
	for _, key := range p.Exclusive {
		t.keys[string(key)] = &keyLock{exclusive: p}
		t.bytes += len(key)
	}
	for _, key := range p.Shared {
		l := t.keys[string(key)]
		if l == nil {
			l = &keyLock{}
			t.keys[string(key)] = l
		}
		l.shared = append(l.shared, p)
		t.bytes += len(key)
	}
}

func (t *lockTable) remove(p *format.Prepared) {
	delete(t.prepared, p.Key)
	for _, key := range p.Exclusive {
		delete(t.keys, string(key))
		t.bytes -= len(key)
	}
	for _, key := range p.Shared {
		l := t.keys[string(key)]
		if l.shared = slices.DeleteFunc(l.shared, func(o *format.Prepared) bool { return o == p }); len(l.shared) == 0 {
			delete(t.keys, string(key))
		}
		t.bytes -= len(key)
	}
}

// holder is who keeps a key from being written, or from being read; nil for nobody.
func (t *lockTable) holder(key []byte, write bool) *format.Prepared {
	switch l := t.keys[string(key)]; {
	case l == nil:
	case l.exclusive != nil:
		return l.exclusive
	case write && len(l.shared) > 0:
		return l.shared[0]
	}
	return nil
}

// holderOf is who stands in the way of a request, and at which key; nil for nobody.
// Both lists of a transaction count: which one it takes is known only once its checks
// may be read.
func (t *lockTable) holderOf(r *Request) (*format.Prepared, []byte) {
	for n, ops := range r.Sets() {
		checks := r.Txn != nil && n == 0
		for i := range ops {
			if p := t.holder(ops[i].DiskKey(), !checks && !ops[i].Read); p != nil {
				return p, ops[i].diskKey
			}
		}
	}
	return nil, nil
}

// expiryHolder is who keeps a key from expiring that a transaction looks at after its
// deadline, and that key; nil for nobody. Whoever locked it before holds that the deadline had not
// passed, and may be committed at a later revision. known is false when a key must be
// fetched again.
func (c *Core) expiryHolder(t *TxnOp, now keyspace.Revision) (holder *format.Prepared, key []byte, known bool) {
	locks := &c.lead.locks
	if len(locks.keys) == 0 {
		return nil, nil, true
	}
	for _, ops := range [...][]Op{t.Checks, t.Then, t.Otherwise} {
		for i := range ops {
			holder := locks.holder(ops[i].DiskKey(), true)
			if holder == nil {
				continue
			}
			cur, ok := c.look(ops[i].diskKey, &ops[i].fetch)
			if !ok {
				return nil, nil, false
			}
			if h := &cur.header; h.Expires != 0 && !h.Exists(now.UnixMilli()) {
				return holder, ops[i].diskKey, true
			}
		}
	}
	return nil, nil, true
}

// holderIn is the first transaction that has keys, or its record, in slots; nil for
// none.
func (t *lockTable) holderIn(slots *format.SlotSet) (first *format.Prepared) {
	for _, p := range t.prepared {
		if (first == nil || p.Key.Compare(first.Key) < 0) && inAny(p, slots) {
			first = p
		}
	}
	return first
}

func inAny(p *format.Prepared, slots *format.SlotSet) bool {
	if slots.Has(p.Key.Slot) {
		return true
	}
	for _, keys := range [...][][]byte{p.Exclusive, p.Shared} {
		for _, key := range keys {
			if inSlots(key, slots) == nil {
				return true
			}
		}
	}
	return false
}

// oldest is the lowest stamp of what is prepared, MaxRevision without any.
func (t *lockTable) oldest() keyspace.Revision {
	oldest := keyspace.MaxRevision
	for _, p := range t.prepared {
		oldest = min(oldest, p.Stamp)
	}
	return oldest
}

// created is the earliest creation of what is prepared, MaxRevision without any.
func (t *lockTable) created() keyspace.Revision {
	oldest := keyspace.MaxRevision
	for key := range t.prepared {
		oldest = min(oldest, key.ID.Created)
	}
	return oldest
}

// room refuses more locks than the group's state should carry.
func (t *lockTable) room(g keyspace.GroupID, keys ...[][]byte) error {
	n := 0
	for _, set := range keys {
		for _, key := range set {
			n += len(key)
		}
	}
	if len(t.prepared) < maxPrepared && (len(t.prepared) == 0 || t.bytes+n <= maxLockedBytes) {
		return nil
	}
	return fault.New(fault.Overloaded, "too many transactions are prepared in this group", "group", g,
		"prepared", len(t.prepared), "limit", maxPrepared, "locked_bytes", t.bytes, "limit_bytes", maxLockedBytes).WithRetry(retryHint)
}

// lockSets are the keys that a transaction locks, sorted.
func lockSets(t *TxnOp) (exclusive, shared [][]byte) {
	for _, ops := range [...][]Op{t.Then, t.Otherwise} {
		for i := range ops {
			if !ops[i].Read {
				exclusive = append(exclusive, ops[i].DiskKey())
			}
		}
	}
	exclusive = sortedKeys(exclusive)
	for n, ops := range [...][]Op{t.Checks, t.Then, t.Otherwise} {
		for i := range ops {
			if n > 0 && !ops[i].Read {
				continue
			}
			if _, also := slices.BinarySearchFunc(exclusive, ops[i].DiskKey(), bytes.Compare); !also {
				shared = append(shared, ops[i].DiskKey())
			}
		}
	}
	return exclusive, sortedKeys(shared)
}

func sortedKeys(keys [][]byte) [][]byte {
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal)
}

// lock makes a transaction prepared from here on in log order. Reads over groups
// learn of that as of writes: of the commit, which may come at any revision at or
// above the stamp, they need not, since they wait for locks first.
func (c *Core) lock(p *format.Prepared, b *building) {
	b.entry.Prepared = append(b.entry.Prepared, p)
	for _, key := range p.Exclusive {
		c.lead.recent.add(p.Stamp, string(key))
	}
	if c.cfg.Bugs.Has(invariant.BugLockForgotten) {
		return
	}
	c.lead.locks.add(p)
	b.p.locks = append(b.p.locks, lockChange{p, true})
}

// unlock ends one, and lets those go on that wait behind it.
func (c *Core) unlock(key keyspace.TxnKey, b *building) {
	b.entry.Ended = append(b.entry.Ended, key)
	p := c.lead.locks.prepared[key]
	if p == nil && c.cfg.Bugs.Has(invariant.BugLockForgotten) {
		return
	}
	invariant.Assert(p != nil, "group %d: transaction %s is prepared and holds no locks", c.cfg.Group, key.ID)
	c.lead.locks.remove(p)
	b.p.locks = append(b.p.locks, lockChange{p, false})
	c.lead.parking.wake(p)
}

// undoLocks takes back what a dropped proposal changed. Whoever met its locks is
// evaluated anew.
func (c *Core) undoLocks(p *proposal) {
	l := c.lead
	for _, change := range slices.Backward(p.locks) {
		if change.added {
			l.locks.remove(change.p)
			l.parking.wake(change.p)
		} else {
			l.locks.add(change.p)
		}
	}
	l.low = p.low
	c.queue.insert(0, l.parking.takeWoken())
}
