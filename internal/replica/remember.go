package replica

import (
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// A request with an id is carried out at most once: how it ended is a record beside
// what it wrote, in the same entry. The record is that of the request's lowest slot,
// which is a participant whichever groups the slots belong to later: if they are
// several then, that one refuses (twophase.Elsewhere).

// named is the operation that fetches what is remembered of the request.
func (r *Request) named() *Op {
	if r.outcome == nil {
		lowest := keyspace.SlotID(keyspace.SlotCount)
		for _, ops := range r.Sets() {
			for i := range ops {
				lowest = min(lowest, ops[i].keySlot())
			}
		}
		r.outcome = &Op{}
		r.outcome.nameRecord(keyspace.TxnKey{ID: r.ID, Slot: lowest % keyspace.SlotCount})
	}
	return r.outcome
}

// evaluateOnce judges a request with an id by what is remembered of it; over is false
// when it is to be carried out.
func (c *Core) evaluateOnce(r *Request, b *building) (v verdict, over bool) {
	r.Remembered = nil
	rec, _, known := c.lookRecord(r.named())
	limit := max(c.lead.clock, keyspace.RevisionAt(b.now.Physical)) + keyspace.RevisionAt(maxAhead.Milliseconds())
	switch {
	case !known:
		return verdictRefetch, true
	case rec.State == twophase.Committed && (rec.Alone() || len(rec.Answer) > 0):
		c.abandon(r)
		r.Remembered = append([]byte{}, rec.Answer...)
		return verdictRefused, true
	case rec.State != twophase.Unknown:
		r.Remembered = slices.Clone(rec.Answer)
		return c.deny(r, fault.New(fault.UnknownOutcome, "a request of this id was begun over several groups; ask how it ended",
			"request_id", r.ID)), true
	case r.ID.Created <= c.lead.low:
		return c.deny(r, fault.New(fault.OutOfRange, "the request id is older than what is remembered",
			"request_id", r.ID, "created", uint64(r.ID.Created), "limit", uint64(c.lead.low))), true
	case r.ID.Created > limit:
		return c.refuse(r, fault.New(fault.OutOfRange, "the request id was created too far in the future",
			"request_id", r.ID, "created", uint64(r.ID.Created), "limit", uint64(limit))), true
	}
	return 0, false
}

// rememberOutcome adds the record of a request that was evaluated, with the stamp of
// its writes when there are any; also one that writes nothing else becomes an entry.
func (c *Core) rememberOutcome(r *Request, v verdict, b *building) verdict {
	if v != verdictWrite && v != verdictRefused {
		return v
	}
	stamp := c.lead.clock
	if v == verdictRefused {
		stamp = c.lead.stamp(b.now)
	}
	op := r.named()
	rec := format.TxnRecord{Record: twophase.Record{State: twophase.Committed, At: stamp, Branch: r.branch()}}
	key, err := keyspace.ParseTxnKey(op.Key)
	if err == nil {
		rec.Participants = []keyspace.SlotID{key.Slot}
	}
	if r.Encode != nil {
		rec.Answer = r.Encode(r)
	}
	c.putRecord(op, &format.Header{}, &rec, stamp, b)
	return verdictWrite
}

func failed(ops []Op) bool {
	for i := range ops {
		if ops[i].Result.Err != nil {
			return true
		}
	}
	return false
}

// branch is what an evaluated request did.
func (r *Request) branch() twophase.Branch {
	switch {
	case failed(r.Ops):
		return twophase.Nothing
	case r.Txn == nil || r.Txn.Succeeded:
		return twophase.Then
	}
	return twophase.Otherwise
}
