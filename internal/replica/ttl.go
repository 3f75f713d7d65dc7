package replica

import (
	"math"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// The index of deadlines has a key for every newest record that expires
// (keyspace.AppendTTLKey), so that what is due is found without a look at the
// rest. It is kept by the entries that write the records: each deletes the key of
// the deadline that it replaces and adds that of its own. So replay, snapshots and
// followers have it without more ado. Keys of the index are local: they do not move
// with slots, where the receiver makes its own, and nobody but the sweep reads them.

// SweepOp deletes what has expired of some keys. Evaluation is in log order like
// that of any write: a record that is gone, has another deadline by now, or is not
// due within the applied ceiling, is left alone. A key of the index that names
// a deadline which its record does not have any more is deleted.
type SweepOp struct {
	Keys []SweepKey
	// Index gives records that are not due their key of the index; of records
	// that were written before there was one.
	Index bool
	// Whole notes that all records of the group have their keys of the index.
	Whole bool

	Result SweepResult
}

// SweepKey is a record that should be due.
type SweepKey struct {
	// Key is the record's disk key, without instance.
	Key     []byte
	Expires int64
	fetch   Fetched
}

// SetFetched takes the result of a prefetch.
func (k *SweepKey) SetFetched(f Fetched) { k.fetch = f }

// SweepResult is what became of a sweep; valid once Done was called without
// Request.Err.
type SweepResult struct {
	// Judged are the keys that were looked at, from the first; the entry had no room
	// for the others.
	Judged int
	// Swept of them were deleted, Held may not be deleted now.
	Swept, Held int
	// Detached are those that were attached to leases.
	Detached []DetachedKey
}

// DetachedKey is a key, as a disk key without instance, that was attached to a lease.
type DetachedKey struct {
	Key   []byte
	Lease string
}

func (op *SweepOp) bytes() (n int) {
	for i := range op.Keys {
		n += len(op.Keys[i].Key) + 64
	}
	return n
}

// evaluateSweep adds the deletion of what is due.
func (c *Core) evaluateSweep(r *Request, b *building) verdict {
	op := r.Sweep
	op.Result = SweepResult{}
	curs := make([]current, len(op.Keys))
	for i := range op.Keys {
		cur, ok := c.look(op.Keys[i].Key, &op.Keys[i].fetch)
		if !ok {
			return verdictRefetch
		}
		curs[i] = cur
	}
	before := len(b.entry.Writes)
	if op.Whole {
		b.add(format.Write{Key: WholeIndexKey(), Revision: c.lead.first(b)})
	}
	now := c.sweepTime(b.now).UnixMilli()
	for i := range op.Keys {
		if i > 0 && (b.bytes >= c.cfg.MaxEntryBytes || len(b.entry.Writes) >= c.cfg.MaxEntryOps) {
			break
		}
		c.sweepKey(op, &op.Keys[i], &curs[i].header, now, b)
		op.Result.Judged++
	}
	if len(b.entry.Writes) > before {
		return verdictWrite
	}
	r.finish(nil)
	return verdictEnded
}

// sweepKey deletes a record that is due, or puts the index right.
func (c *Core) sweepKey(op *SweepOp, k *SweepKey, h *format.Header, now int64, b *building) {
	same := h.Expires == k.Expires || c.cfg.Bugs.Has(invariant.BugSweepBlind) && h.Version != 0 && h.Flags&format.FlagTombstone == 0
	switch {
	case !same && op.Index: // written anew, which kept the index
	case !same:
		b.add(format.Write{Key: keyspace.AppendTTLKey(nil, k.Expires, k.Key), Revision: c.lead.first(b), Delete: true})
	case k.Expires <= now && c.maySweep(k.Key):
		c.expire(k.Key, h, b)
		op.Result.Swept++
		if h.Lease != "" {
			op.Result.Detached = append(op.Result.Detached, DetachedKey{k.Key, h.Lease})
		}
	case op.Index:
		b.add(format.Write{Key: keyspace.AppendTTLKey(nil, k.Expires, k.Key), Revision: c.lead.first(b)})
	default:
		op.Result.Held++
	}
}

// expire writes the tombstone of a record whose time is over. Each has a stamp of
// its own: they are not one atomic request.
func (c *Core) expire(key []byte, h *format.Header, b *building) {
	stamp := c.lead.first(b)
	rec := format.Record{Header: format.Header{Flags: format.FlagTombstone | format.FlagExpired,
		Version: h.Version + 1, Revision: stamp, Created: h.Created}}
	value := format.AppendRecord(make([]byte, 0, format.RecordSize(&rec)), &rec)
	b.add(format.Write{Key: key, Revision: stamp, Value: value})
	b.deleteChunksOf(h, stamp)
	b.indexDeadline(key, h.Expires, 0, stamp)
	c.remember(pending{key: string(key), value: value, rev: stamp}, b.p)
	c.lead.recent.expire(stamp, string(key), h.Expires)
}

// first is the next stamp, noted as one of the entry's.
func (l *leadership) first(b *building) keyspace.Revision {
	stamp := l.stamp(b.now)
	b.p.first = min(b.p.first, stamp)
	return stamp
}

// sweepTime is the time of the group by which a sweep judges: as far as readers may
// be told, so that nothing is gone before its deadline on any replica's clock.
func (c *Core) sweepTime(now Now) keyspace.Revision {
	return min(max(keyspace.RevisionAt(now.Physical), c.lead.clock), c.ReadCeiling())
}

// maySweep reports whether an expired record may be deleted now. Slots that are not
// the group's, or move, are left to their owner. A lock on a key, also one in flight,
// holds its expiry (DESIGN 9): what the holder saw stays until it has ended. A lease
// ends by its own way, with what is attached (internal/lease).
func (c *Core) maySweep(key []byte) bool {
	if c.lead.locks.holder(key, true) != nil {
		return false
	}
	ns, name, err := keyspace.DecodeDataKey(key)
	invariant.Assert(err == nil, "group %d: the index of deadlines names no data key: %v", c.cfg.Group, err)
	if LeaseItself(ns, string(name)) {
		return false
	}
	s := c.slots()
	if s == nil || ns == keyspace.SystemNamespace {
		return true
	}
	slot := keyspace.SlotOf(ns, string(name))
	return s.Owns(slot) && !s.Frozen(slot)
}

// LeaseItself reports whether a key is that of a lease, which no sweep deletes.
func LeaseItself(ns keyspace.NamespaceID, key string) bool {
	if ns != keyspace.LeaseNamespace {
		return false
	}
	_, what := keyspace.ParseLeaseKey(key)
	return what == keyspace.LeaseItself
}

// WholeIndexKey is the key of the index that stands for all records having theirs;
// it is below every deadline.
func WholeIndexKey() []byte {
	return keyspace.AppendTTLKey(nil, 0, keyspace.AppendDataKey(nil, keyspace.SystemNamespace, nil))
}

// indexDeadline replaces a key's deadline in the index; 0 is none.
func (b *building) indexDeadline(key []byte, old, expires int64, at keyspace.Revision) {
	if old != 0 && old != expires {
		b.add(format.Write{Key: keyspace.AppendTTLKey(nil, old, key), Revision: at, Delete: true})
	}
	if expires != 0 {
		b.add(format.Write{Key: keyspace.AppendTTLKey(nil, expires, key), Revision: at})
	}
}

// noteDeadline notes the earliest deadline that was applied; 0 is none
// (WholeIndexKey).
func (c *Core) noteDeadline(key []byte) {
	deadline, _, err := keyspace.DecodeTTLKey(nil, key)
	invariant.Assert(err == nil, "group %d: a key of the index of deadlines does not decode: %v", c.cfg.Group, err)
	if deadline > 0 {
		c.earliest = min(c.earliest, deadline)
	}
}

// TakeDeadline returns the earliest deadline, in Unix milliseconds, that was written
// since the last call; math.MaxInt64 for none.
func (c *Core) TakeDeadline() int64 {
	earliest := c.earliest
	c.earliest = math.MaxInt64
	return earliest
}

// deadline is that of a record that the operation writes, 0 for none.
func (op *Op) deadline(stamp keyspace.Revision) int64 {
	if op.TTL > 0 {
		return stamp.UnixMilli() + op.TTL.Milliseconds()
	}
	return op.ExpiresAt
}

// late refuses a deadline that has passed.
func (op *Op) late(nowMilli int64) error {
	if op.ExpiresAt == 0 || op.ExpiresAt > nowMilli {
		return nil
	}
	return fault.New(fault.InvalidArgument, "the key would have expired already: expires_at is not later than the group's time",
		"key", op.Key, "expires_at_ms", op.ExpiresAt, "group_time_ms", nowMilli)
}

// touched is the record with another deadline. Its large value stays where it is.
func (c *Core) touched(op *Op, cur *current, stamp keyspace.Revision) format.Record {
	rec, err := format.DecodeRecord(cur.value, cur.header.Revision)
	invariant.Assert(err == nil, "group %d: own record at %v does not decode: %v", c.cfg.Group, cur.header.Revision, err)
	rec.Version, rec.Revision, rec.Expires = rec.Version+1, stamp, op.deadline(stamp)
	return rec
}
