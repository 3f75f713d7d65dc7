package router

import (
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// fakeRecord is what a fake participant knows of an attempt.
type fakeRecord struct {
	twophase.Record
	set []keyspace.SlotID
	txn *replica.TxnOp
}

// order is a step of a participant without locks: internal/twophase judges.
func (h *fakeHost) order(q *replica.Request) {
	h.mu.Lock()
	o := q.Order
	cur := h.records[o.Key]
	next, a := cur.Record, twophase.Answer{Record: cur.Record}
	switch o.Kind {
	case replica.OrderPrepare:
		h.choose(q.Txn)
		h.rev++
		v := twophase.Verdict{Stamp: h.rev, Holds: q.Txn.Succeeded, ThenPossible: true, OtherwisePossible: true}
		if next, a = twophase.Prepare(cur.Record, false, v); cur.State == twophase.Unknown {
			cur.txn = q.Txn
		}
		h.foresee(q.Txn)
	case replica.OrderRefuse:
		next, a = twophase.Prepare(cur.Record, false, twophase.Verdict{Conflict: true})
	case replica.OrderPoison:
		next, a = twophase.Poison(cur.Record, false)
	case replica.OrderCommit:
		next, a = twophase.Commit(cur.Record, false, o.At, o.Branch)
	case replica.OrderAbort:
		next, a = twophase.Abort(cur.Record, false)
	case replica.OrderQuery:
	}
	if cur.State == twophase.Unknown {
		cur.set = o.Participants
	}
	commits := cur.State == twophase.Prepared && next.State == twophase.Committed && next.Branch != twophase.Nothing
	cur.Record = next
	h.records[o.Key] = cur
	o.Result = replica.OrderResult{Answer: a, Participants: cur.set}
	h.mu.Unlock()
	if commits {
		ops := cur.txn.Then
		if next.Branch == twophase.Otherwise {
			ops = cur.txn.Otherwise
		}
		h.apply(&replica.Request{Group: q.Group, Ops: ops})
	}
}

// foresee fills the results of both lists; mu must be held.
func (h *fakeHost) foresee(t *replica.TxnOp) {
	for _, ops := range [][]replica.Op{t.Then, t.Otherwise} {
		for i := range ops {
			o := &ops[i]
			old := h.data[dataKey(o.Namespace, o.Key)]
			o.Result = replica.OpResult{Existed: old != nil, Version: 1}
			if old != nil {
				o.Result.Version, o.Result.Revision, o.Result.Created = old.Version+1, old.Revision, old.Created
			}
		}
	}
}
