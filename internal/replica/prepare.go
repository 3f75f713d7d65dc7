package replica

import (
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// prepare judges a transaction of which nothing is known here: slots, then locks,
// then checks and the conditions of both lists, all at one time. h is what was seen
// of the record.
func (c *Core) prepare(r *Request, h *format.Header, b *building) verdict {
	o, t, l := r.Order, r.Txn, c.lead
	limit := max(l.clock, keyspace.RevisionAt(b.now.Physical)) + keyspace.RevisionAt(maxAhead.Milliseconds())
	if o.Key.ID.Created > limit {
		return c.refuse(r, fault.New(fault.OutOfRange, "the transaction was created too far in the future",
			"created", uint64(o.Key.ID.Created), "limit", uint64(limit)))
	}
	if err := c.mayPrepare(r); err != nil {
		return c.refuse(r, err)
	}
	if l.holds.keeps(r, b.now.Mono) {
		return verdictHeld
	}
	judged := max(keyspace.RevisionAt(b.now.Physical), l.clock+1)
	holder, key := l.locks.holderOf(r)
	if holder == nil {
		var known bool
		if holder, key, known = c.expiryHolder(t, judged); !known {
			return verdictRefetch
		}
	}
	if holder != nil {
		if o.Wait {
			return c.parkBehind(r, holder, key, b.now)
		}
		c.tellBlocked(holder)
		return c.conflict(r, h, b)
	}
	exclusive, shared := lockSets(t)
	if err := l.locks.room(c.cfg.Group, exclusive, shared); err != nil {
		return c.refuse(r, err)
	}
	v, seen, known := c.foresee(t, judged)
	if !known {
		return verdictRefetch
	}
	if c.uploadLists(r, v, b.now) {
		return verdictUpload
	}
	v.Stamp = l.stamp(b.now)
	next, answer := twophase.Prepare(twophase.Record{}, false, v)
	rec := format.TxnRecord{Record: next, Participants: o.Participants}
	rec.Then, rec.Otherwise = c.intents(t, v, seen)
	rec.Answer = o.kept()
	c.releaseUploads(r, b)
	c.putRecord(o.named(), h, &rec, v.Stamp, b)
	c.lock(&format.Prepared{Key: o.Key, Stamp: v.Stamp, Participants: o.Participants, Exclusive: exclusive, Shared: shared}, b)
	o.Result = OrderResult{Answer: answer, Participants: o.Participants}
	return verdictWrite
}

// mayPrepare is mayWrite, which also keeps slots free of new locks that a freeze
// waits for.
func (c *Core) mayPrepare(r *Request) error {
	if err := c.mayWrite(r); err != nil {
		return err
	}
	slot := r.Order.Key.Slot
	f := c.lead.freezing
	if f != nil && f.finished {
		f = nil
	}
	if c.slots().Frozen(slot) || f != nil && f.Slots.Change.Slots.Has(slot) {
		return c.moving(slot)
	}
	if f == nil {
		return nil
	}
	for _, ops := range r.Sets() {
		for i := range ops {
			if slot := ops[i].keySlot(); f.Slots.Change.Slots.Has(slot) {
				return c.moving(slot)
			}
		}
	}
	return nil
}

// conflict refuses for good.
func (c *Core) conflict(r *Request, h *format.Header, b *building) verdict {
	o := r.Order
	c.abandon(r)
	next, answer := twophase.Prepare(twophase.Record{}, false, twophase.Verdict{Conflict: true})
	o.Result = OrderResult{Answer: answer, Participants: o.Participants}
	if c.cfg.Bugs.Has(invariant.BugVolatileNo) {
		return verdictRefused
	}
	c.putRecord(o.named(), h, &format.TxnRecord{Record: next, Participants: o.Participants, Answer: o.kept()}, c.lead.stamp(b.now), b)
	return verdictWrite
}

// seenLists is what was seen of the keys of both lists.
type seenLists struct{ then, otherwise []current }

// foresee judges a transaction at a time, and tells the operations of both lists
// what they would come to; known is false when a key or a value must be fetched
// again.
func (c *Core) foresee(t *TxnOp, at keyspace.Revision) (v twophase.Verdict, seen seenLists, known bool) {
	all, ok := c.lookForTxn(t)
	if !ok {
		return v, seen, false
	}
	n := len(t.Checks)
	seen = seenLists{then: all[n : n+len(t.Then)], otherwise: all[n+len(t.Then):]}
	if v.Holds, known = c.judgeChecks(t.Checks, all[:n], at.UnixMilli()); !known {
		return v, seen, false
	}
	t.Succeeded = v.Holds
	if v.ThenPossible, known = c.foreseeList(t.Then, seen.then, at); !known {
		return v, seen, false
	}
	v.OtherwisePossible, known = c.foreseeList(t.Otherwise, seen.otherwise, at)
	return v, seen, known
}

// foreseeAgain tells what a transaction that was prepared at a stamp would come to:
// its locks keep that as it was.
func (c *Core) foreseeAgain(t *TxnOp, at keyspace.Revision) (known bool) {
	_, _, known = c.foresee(t, at)
	return known
}

func (c *Core) foreseeList(ops []Op, curs []current, at keyspace.Revision) (possible, known bool) {
	possible = true
	for i := range ops {
		known, err := c.judge(&ops[i], &curs[i], at.UnixMilli())
		if !known {
			return false, false
		}
		if err == nil {
			err = ops[i].late(at.UnixMilli())
		}
		ops[i].Result = OpResult{Err: err}
		possible = possible && err == nil
	}
	if !possible {
		abortOthers(ops)
		return false, true
	}
	for i := range ops {
		ops[i].Result = foreseen(&ops[i], &curs[i].header, at)
	}
	return true, true
}

// foreseen is what an operation will come to when its list is committed: what a read
// saw, and of a write all but what the revision of the commit decides.
func foreseen(op *Op, old *format.Header, at keyspace.Revision) OpResult {
	exists := old.Exists(at.UnixMilli())
	switch {
	case op.Read:
		return readResult(old, at.UnixMilli())
	case op.Delete && !exists && !endsExpired(op, old):
		return OpResult{}
	}
	out := OpResult{Existed: exists, Version: 1, Checksum: op.Checksum, Detached: op.detaches(old)}
	if op.Touch {
		out.Checksum = old.Checksum
	}
	if exists {
		out.Version, out.Created = old.Version+1, old.Created
	}
	if !op.Delete && op.TTL == 0 {
		out.Expires = op.ExpiresAt
	}
	switch {
	case op.Touch:
		out.Checksum = old.Checksum
	case !op.Delete:
		out.Checksum = op.Checksum
	}
	return out
}

// uploadLists begins to upload the large values of the lists that may be taken, and
// gives up what was uploaded for the others.
func (c *Core) uploadLists(r *Request, v twophase.Verdict, now Now) (started bool) {
	for _, list := range r.Txn.lists(v) {
		if list.wanted {
			started = c.startUpload(r, list.ops, now) || started
		} else {
			c.abandonList(list.ops)
		}
	}
	return started
}

type txnList struct {
	ops    []Op
	wanted bool
}

// lists are both lists, and whether each may be taken in the end.
func (t *TxnOp) lists(v twophase.Verdict) [2]txnList {
	return [2]txnList{{t.Then, v.Holds && v.ThenPossible}, {t.Otherwise, v.OtherwisePossible}}
}

// intents are the writes of both lists.
func (c *Core) intents(t *TxnOp, v twophase.Verdict, seen seenLists) (then, otherwise []format.TxnWrite) {
	lists := t.lists(v)
	var out [2][]format.TxnWrite
	for n, curs := range [...][]current{seen.then, seen.otherwise} {
		if lists[n].wanted {
			out[n] = make([]format.TxnWrite, 0, len(lists[n].ops))
			for i := range lists[n].ops {
				out[n] = c.appendIntent(out[n], &lists[n].ops[i], &curs[i], v.Stamp)
			}
		}
	}
	return out[0], out[1]
}

// appendIntent adds the record that an operation will write, judged at a stamp.
func (c *Core) appendIntent(dst []format.TxnWrite, op *Op, cur *current, at keyspace.Revision) []format.TxnWrite {
	old := &cur.header
	if op.Read || op.Delete && !old.Exists(at.UnixMilli()) && !endsExpired(op, old) {
		return dst
	}
	w := format.TxnWrite{Key: op.DiskKey(), Expires: old.Expires, Touch: op.Touch}
	var rec format.Record
	if op.Touch {
		rec = c.touched(op, cur, at)
	} else {
		rec = newRecord(op, old, at)
	}
	if !op.Delete && op.TTL > 0 {
		rec.Expires, w.TTLMilli = 0, op.TTL.Milliseconds()
	}
	if rec.Version == 1 && !op.Touch {
		rec.Created = 0
	}
	w.Record = format.AppendRecord(make([]byte, 0, format.RecordSize(&rec)), &rec)
	if old.Flags&format.FlagChunked != 0 && old.Flags&format.FlagTombstone == 0 && !op.Touch {
		w.Replaced = old.Chunks
	}
	return append(dst, w)
}
