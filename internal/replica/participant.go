package replica

import (
	"slices"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// A participant of a transaction over several groups (DESIGN 9).
//
// What it knows of an attempt is a record: an ordinary one of TxnNamespace, in the
// participant's slot, that evaluation looks up like any key. internal/twophase says
// what becomes of it; here is what that means for keys. A step is judged in log
// order like any evaluation, and answered when it is applied, or, where it changes
// nothing, as refusals are.
//
//   - Prepare that is accepted writes the record with what each list would write,
//     claims the chunks of large values, and locks the keys, in one entry (prepare.go).
//   - Prepare that is refused, Refuse and Poison write a record too, so that a late
//     duplicate cannot prepare what others were told has failed.
//   - Commit writes the records of the list that is taken, at the revision of the
//     commit, and the final record at one of its own; Abort only that one. Both delete the
//     chunks that nobody needs, and unlock.
//
// A commit's revision may lie below stamps that the group has given meanwhile. So
// nothing is closed at or above the stamp of what is prepared (nextClosed, CloseIdle,
// Settled), and whoever reads the keys waits for the lock.

// maxAhead is how far beyond the group's clock a transaction may have been created.
const maxAhead = time.Minute

// evaluateOrder judges a step of a participant.
func (c *Core) evaluateOrder(r *Request, b *building) verdict {
	o := r.Order
	o.Result = OrderResult{}
	if err := o.check(r.Txn); err != nil {
		return c.refuse(r, err)
	}
	if err := c.ownsSlot(c.slots(), o.Key.Slot); err != nil {
		return c.refuse(r, err)
	}
	rec, h, known := c.lookRecord(o.named())
	if !known {
		return verdictRefetch
	}
	expired := o.Key.ID.Created <= c.lead.low
	if rec.Alone() && o.Kind != OrderQuery {
		rec.Record = twophase.Record{State: twophase.Aborted, Cause: twophase.Elsewhere}
	}
	cur := rec.Record
	next, answer := cur, twophase.Answer{Record: cur}
	switch o.Kind {
	case OrderPrepare:
		if cur.State == twophase.Unknown && !expired {
			return c.prepare(r, &h, b)
		}
		if cur.State == twophase.Prepared && !c.foreseeAgain(r.Txn, cur.Stamp) {
			return verdictRefetch
		}
		next, answer = twophase.Prepare(cur, expired, twophase.Verdict{})
	case OrderRefuse:
		next, answer = twophase.Prepare(cur, expired, twophase.Verdict{Conflict: true})
	case OrderPoison:
		next, answer = twophase.Poison(cur, expired)
	case OrderQuery:
		answer.Expired = cur.State == twophase.Unknown && expired
	case OrderCommit:
		if err := o.mayCommit(&cur, expired); err != nil {
			return c.deny(r, err)
		}
		next, answer = twophase.Commit(cur, expired, o.At, o.Branch)
	default: // OrderAbort
		next, answer = twophase.Abort(cur, expired)
	}
	o.Result = OrderResult{Answer: answer, Participants: rec.Participants, Remembered: slices.Clone(rec.Answer)}
	if next == cur {
		c.abandon(r)
		return verdictRefused
	}
	if c.slots().Frozen(o.Key.Slot) {
		return c.refuse(r, c.moving(o.Key.Slot))
	}
	return c.takeStep(r, &rec, &h, next, b)
}

// check refuses an order that no coordinator gives.
func (o *OrderOp) check(t *TxnOp) error {
	what := ""
	switch {
	case o.Kind < OrderPrepare || o.Kind > OrderAbort:
		what = "unknown kind of order"
	case o.Key.ID.Zero() || o.Key.Slot >= keyspace.SlotCount:
		what = "the order names no participant"
	case o.Kind != OrderQuery && (len(o.Participants) < 2 || !slices.Contains(o.Participants, o.Key.Slot)):
		what = "the order does not name several participants, this one among them"
	case o.Kind == OrderPrepare && (t == nil || len(t.Checks)+len(t.Then)+len(t.Otherwise) == 0):
		what = "the order has no operations"
	case o.Kind == OrderCommit && (o.At == 0 || o.Branch == twophase.NoBranch || o.Branch > twophase.Nothing):
		what = "the commit has no revision or no branch"
	default:
		return nil
	}
	return fault.New(fault.InvalidArgument, what, "kind", o.Kind, "transaction", o.Key.ID, "slot", o.Key.Slot)
}

// mayCommit refuses a commit that contradicts what the participant said; whoever
// orders it is wrong, or the group has lost records with its quorum.
func (o *OrderOp) mayCommit(cur *twophase.Record, expired bool) error {
	switch cur.State {
	case twophase.Unknown:
		if expired {
			return nil
		}
	case twophase.Prepared:
		if cur.Allows(o.Branch) && o.At >= cur.Stamp {
			return nil
		}
	case twophase.Committed:
		if cur.At == o.At && cur.Branch == o.Branch {
			return nil
		}
	case twophase.Aborted:
	}
	return fault.New(fault.FailedPrecondition, "the commit contradicts what the participant knows", "transaction", o.Key.ID,
		"slot", o.Key.Slot, "state", cur.State, "stamp", uint64(cur.Stamp), "at", uint64(o.At), "branch", o.Branch)
}

// kept is what the record keeps for those who ask.
func (o *OrderOp) kept() []byte {
	if !o.Remember {
		return nil
	}
	return o.Answer
}

// named is the operation that fetches the record.
func (o *OrderOp) named() *Op {
	o.record.nameRecord(o.Key)
	return &o.record
}

func (op *Op) nameRecord(k keyspace.TxnKey) {
	if op.Key == "" {
		*op = Op{Namespace: keyspace.TxnNamespace, Key: k.Key()}
	}
}

// Records yields the records of transactions that the request is judged by; they
// are fetched with their values.
func (r *Request) Records(yield func(*Op) bool) {
	switch {
	case r.Order != nil:
		yield(r.Order.named())
	case r.Forget != nil:
		for i := range r.Forget.named() {
			if !yield(&r.Forget.records[i]) {
				return
			}
		}
	case !r.ID.Zero():
		yield(r.named())
	}
}

// lookRecord finds a record in log order; known is false when it must be fetched
// again.
func (c *Core) lookRecord(op *Op) (rec format.TxnRecord, h format.Header, known bool) {
	cur, known := c.look(op.DiskKey(), &op.fetch)
	if !known || cur.header.Version == 0 {
		return rec, h, known
	}
	if cur.value == nil {
		return rec, h, false
	}
	stored, err := format.DecodeRecord(cur.value, cur.header.Revision)
	if err == nil {
		rec, err = format.DecodeTxnRecord(stored.Value)
	}
	invariant.Assert(err == nil, "group %d: own record of a transaction at %v does not decode: %v", c.cfg.Group, cur.header.Revision, err)
	return rec, cur.header, true
}

// maxKeptRecord bounds the scratch of putRecord.
const maxKeptRecord = 16 << 10

// putRecord adds a record of a transaction at a stamp.
func (c *Core) putRecord(op *Op, old *format.Header, rec *format.TxnRecord, stamp keyspace.Revision, b *building) {
	value := format.AppendTxnRecord(c.record[:0], rec)
	if c.record = nil; cap(value) <= maxKeptRecord {
		c.record = value
	}
	stored := nextVersion(old, stamp)
	stored.Value, stored.Size, stored.Checksum = value, uint64(len(value)), format.CRC32C(value)
	encoded := format.AppendRecord(make([]byte, 0, format.RecordSize(&stored)), &stored)
	b.add(format.Write{Key: op.DiskKey(), Revision: stamp, Value: encoded})
	c.remember(pending{key: string(op.DiskKey()), value: encoded, rev: stamp}, b.p)
	b.p.first = min(b.p.first, stamp)
}

// takeStep writes what an order other than an accepted Prepare makes of a record.
func (c *Core) takeStep(r *Request, rec *format.TxnRecord, h *format.Header, next twophase.Record, b *building) verdict {
	o, l := r.Order, c.lead
	c.abandon(r)
	if next.State == twophase.Aborted && c.cfg.Bugs.Has(invariant.BugVolatileNo) && rec.State == twophase.Unknown {
		return verdictRefused
	}
	if next.State == twophase.Committed {
		l.clock = max(l.clock, next.At)
		b.p.first = min(b.p.first, next.At)
	}
	stamp := l.stamp(b.now)
	if rec.State == twophase.Prepared {
		c.carryOut(rec, next, stamp, b)
		c.unlock(o.Key, b)
	} else {
		rec.Participants = o.Participants
	}
	final := format.TxnRecord{Record: next, Participants: rec.Participants, Answer: o.kept()}
	c.putRecord(o.named(), h, &final, stamp, b)
	o.Result.Participants, o.Result.Remembered = final.Participants, slices.Clone(final.Answer)
	return verdictWrite
}

// carryOut adds the writes of the list that is taken, and deletes the chunks of what
// is not.
func (c *Core) carryOut(rec *format.TxnRecord, next twophase.Record, stamp keyspace.Revision, b *building) {
	taken := []bool{next.Branch == twophase.Then, next.Branch == twophase.Otherwise}
	for n, list := range [...][]format.TxnWrite{rec.Then, rec.Otherwise} {
		for i := range list {
			w := &list[i]
			if taken[n] {
				c.writeIntent(w, next.At, stamp, b)
				continue
			}
			if w.Touch {
				continue // its chunks are those of the record that stays
			}
			h, err := format.DecodeHeader(w.Record, 0)
			invariant.Assert(err == nil, "group %d: a write of a transaction does not decode: %v", c.cfg.Group, err)
			if h.Chunks != w.Replaced { // what a touch leaves where it is
				b.deleteChunksOf(&h, stamp)
			}
		}
	}
}

// writeIntent adds a write of a prepared transaction at the revision of the commit. The
// index of deadlines changes at a stamp of this entry: its keys may have been written
// above the commit's revision meanwhile.
func (c *Core) writeIntent(w *format.TxnWrite, at, stamp keyspace.Revision, b *building) {
	rec, err := format.DecodeRecord(w.Record, at)
	invariant.Assert(err == nil, "group %d: a write of a transaction does not decode: %v", c.cfg.Group, err)
	if rec.Created == 0 {
		rec.Created = at
	}
	if w.TTLMilli > 0 {
		rec.Expires = at.UnixMilli() + w.TTLMilli
	}
	value := format.AppendRecord(make([]byte, 0, format.RecordSize(&rec)), &rec)
	b.add(format.Write{Key: w.Key, Revision: at, Value: value})
	b.deleteChunks(w.Replaced.Upload, w.Replaced.Count, at)
	b.indexDeadline(w.Key, w.Expires, rec.Expires, stamp)
	c.remember(pending{key: string(w.Key), value: value, rev: at}, b.p)
}

// evaluateLow raises the low-water mark and tells what is prepared.
func (c *Core) evaluateLow(r *Request, b *building) verdict {
	op, l := r.Low, c.lead
	if clock := max(l.clock, keyspace.RevisionAt(b.now.Physical)); op.Raise >= clock {
		return c.refuse(r, fault.New(fault.InvalidArgument, "the low-water mark cannot reach the present",
			"mark", uint64(op.Raise), "limit", uint64(clock)))
	}
	if op.Raise > l.low {
		l.low = op.Raise
		b.entry.LowWater = op.Raise
	}
	op.LowWater, op.Oldest = l.low, l.locks.created()
	return verdictRefused
}

// named are the operations that fetch the records.
func (f *ForgetOp) named() []Op {
	if len(f.records) != len(f.Keys) {
		f.records = make([]Op, len(f.Keys))
		for i := range f.Keys {
			f.records[i].nameRecord(f.Keys[i])
		}
	}
	return f.records
}

// evaluateForget deletes the records that may go: final ones at or below the
// low-water mark, of slots that are the group's and do not move.
func (c *Core) evaluateForget(r *Request, b *building) verdict {
	f, s := r.Forget, c.slots()
	f.Forgotten = 0
	var gone []*Op
	for i := range f.named() {
		key := &f.Keys[i]
		if key.ID.Created > c.lead.low || !s.Owns(key.Slot) || s.Frozen(key.Slot) {
			continue
		}
		rec, _, known := c.lookRecord(&f.records[i])
		if !known {
			return verdictRefetch
		}
		if rec.State.Final() {
			gone = append(gone, &f.records[i])
		}
	}
	if len(gone) == 0 {
		return verdictRefused
	}
	stamp := c.lead.stamp(b.now)
	b.p.first = min(b.p.first, stamp)
	for _, op := range gone {
		b.add(format.Write{Key: op.DiskKey(), Revision: stamp, Delete: true})
		c.remember(pending{key: string(op.DiskKey()), rev: stamp, del: true}, b.p)
	}
	f.Forgotten = len(gone)
	return verdictWrite
}
