package watchtest

import (
	"context"
	"slices"
	"sync/atomic"

	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// txns numbers transactions.
var txns atomic.Uint64

// Transact executes operations as one transaction, also on keys of several groups,
// and returns its revision, 0 when it met another one. Between is called when all
// groups are prepared.
func (n *Node) Transact(between func(), ops ...replica.Op) keyspace.Revision {
	n.t.Helper()
	id := keyspace.TxnID{Created: keyspace.RevisionAt(system.Clock().Wall()), Random: txns.Add(1)}
	parts := make(map[keyspace.GroupID]*replica.TxnOp)
	slots := make(map[keyspace.GroupID]keyspace.SlotID)
	for _, op := range ops {
		slot := keyspace.SlotOf(op.Namespace, op.Key)
		g, _ := n.GroupOf(slot)
		if parts[g] == nil {
			parts[g], slots[g] = &replica.TxnOp{}, slot
		}
		slots[g] = min(slots[g], slot)
		parts[g].Then = append(parts[g].Then, op)
	}
	if len(parts) == 1 {
		return n.Write(ops...)[0].Result.Revision
	}
	var all []keyspace.SlotID
	for _, slot := range slots {
		all = append(all, slot)
	}
	slices.Sort(all)
	order := func(g keyspace.GroupID, o replica.OrderOp, t *replica.TxnOp) twophase.Record {
		o.Key, o.Participants = keyspace.TxnKey{ID: id, Attempt: 1, Slot: slots[g]}, all
		return n.order(g, o, t)
	}
	var at keyspace.Revision
	for g, t := range parts {
		r := order(g, replica.OrderOp{Kind: replica.OrderPrepare}, t)
		if r.State != twophase.Prepared {
			for g := range parts {
				order(g, replica.OrderOp{Kind: replica.OrderAbort}, nil)
			}
			return 0
		}
		at = max(at, r.Stamp)
	}
	between()
	for g := range parts {
		order(g, replica.OrderOp{Kind: replica.OrderCommit, At: at, Branch: twophase.Then}, nil)
	}
	return at
}

func (n *Node) order(g keyspace.GroupID, o replica.OrderOp, t *replica.TxnOp) twophase.Record {
	n.t.Helper()
	for {
		done := make(chan struct{})
		one := o
		r := &replica.Request{Group: g, Order: &one, Txn: t, Done: func(*replica.Request) { close(done) }}
		n.Host.Submit(context.Background(), r)
		<-done
		switch fault.CodeOf(r.Err) {
		case "":
			return one.Result.Record
		case fault.WrongLeader, fault.WrongGroup, fault.Unavailable, fault.Overloaded, fault.UnknownOutcome:
			n.pause()
		default:
			n.t.Fatal(r.Err)
		}
	}
}
