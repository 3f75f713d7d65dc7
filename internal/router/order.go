package router

import (
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// Orders are how the coordinator of a transaction over several groups, and whoever
// recovers one, speaks to its participants (DESIGN 9). An order is an operation of
// a frame as a put is: it goes to the leader of the group that owns the
// participant's slot, beside whatever else goes there. An order may be repeated
// for ever, since the participant's record answers what it answered first; so
// unlike a write it is sent again also when its outcome is not known.

// txnKeyOf is the record that an order is about.
func txnKeyOf(o *api.TxnOrder) (keyspace.TxnKey, error) {
	id, ok := txnIDOf(o.GetId())
	if !ok || o.GetSlot() >= keyspace.SlotCount {
		return keyspace.TxnKey{}, fault.New(fault.InvalidArgument, "order of a transaction is malformed", "id_bytes", len(o.GetId()), "slot", o.GetSlot())
	}
	return keyspace.TxnKey{ID: id, Attempt: o.GetAttempt(), Slot: keyspace.SlotID(o.GetSlot())}, nil
}

// txnIDOf reads an id.
func txnIDOf(b []byte) (id keyspace.TxnID, ok bool) {
	if len(b) != keyspace.TxnIDBytes {
		return id, false
	}
	k, err := keyspace.ParseTxnKey(string(b) + "\x00\x00\x00\x00\x00\x00")
	return k.ID, err == nil && !k.ID.Zero()
}

// orderKinds are the steps of the core by those of the wire.
var orderKinds = [...]replica.OrderKind{
	api.TxnOrder_KIND_PREPARE: replica.OrderPrepare,
	api.TxnOrder_KIND_REFUSE:  replica.OrderRefuse,
	api.TxnOrder_KIND_POISON:  replica.OrderPoison,
	api.TxnOrder_KIND_QUERY:   replica.OrderQuery,
	api.TxnOrder_KIND_COMMIT:  replica.OrderCommit,
	api.TxnOrder_KIND_ABORT:   replica.OrderAbort,
}

// orderKind is that of a number on the wire, 0 for one that is not known.
func orderKind(k api.TxnOrder_Kind) replica.OrderKind {
	if k < 0 || int(k) >= len(orderKinds) {
		return 0
	}
	return orderKinds[k]
}

// validateOrder checks what needs no state.
func validateOrder(o *api.TxnOrder) error {
	if _, err := txnKeyOf(o); err != nil {
		return err
	}
	bad := func(what string, actual any) error {
		return fault.New(fault.InvalidArgument, "order of a transaction is malformed", "member", what, "actual", actual)
	}
	set := o.GetParticipants()
	switch {
	case orderKind(o.GetKind()) == 0:
		return bad("kind", int32(o.GetKind()))
	case len(set) < 2 || !slices.IsSorted(set) || !slices.Contains(set, o.GetSlot()) || set[len(set)-1] >= keyspace.SlotCount:
		return bad("participants", len(set))
	case o.GetKind() == api.TxnOrder_KIND_COMMIT && (o.GetAt() == 0 || branchOf(o.GetBranch()) == twophase.NoBranch):
		return bad("at", o.GetAt())
	case o.GetKind() == api.TxnOrder_KIND_PREPARE:
		return validateTransaction(o.GetRequest())
	}
	return nil
}

// refuseOrder refuses an order that does not come from a node.
func (c *Call) refuseOrder() error {
	if c.own || c.Forwarded {
		return nil
	}
	return fault.New(fault.InvalidArgument, "orders of transactions are sent by nodes only; send a transaction")
}

// planOrder is plan for orders.
func (f *frame) planOrder(m *Map, st *callState) (ready bool, err error) {
	o := st.call.Op.GetOrder()
	if o.GetRequest() != nil {
		if ready, err = f.resolveSpaces(m, st, o.GetRequest()); err != nil || !ready {
			return false, err
		}
		if st.spaces.find(keyspace.SystemNamespaceName) >= 0 {
			return false, fault.New(fault.CrossGroup, "the cluster's own namespace takes part in no transaction over several groups",
				"namespace", keyspace.SystemNamespaceName)
		}
	}
	st.prepareResult()
	g, known := st.call.Group, true
	if !st.call.Routed {
		g, known = m.GroupOf(keyspace.SlotID(o.GetSlot()))
	}
	if !known {
		return false, nil
	}
	st.whole(g, m.Epoch)
	return true, nil
}

// regroupOrder gives an order the group of its participant in m. A prepare whose
// keys are not all that group's any more becomes a refusal for good, so that the
// transaction may be tried again with other participants.
func (p *part) regroupOrder(m *Map) {
	o := p.st.call.Op.GetOrder()
	g, ok := m.GroupOf(keyspace.SlotID(o.GetSlot()))
	if !ok {
		return
	}
	p.group = g
	if o.GetKind() != api.TxnOrder_KIND_PREPARE || !p.st.call.own {
		return
	}
	together := true
	eachTxnKey(o.GetRequest(), func(space, key string) bool {
		together = m.groupFor(p.st.space(space), key, g) == g
		return together
	})
	if !together {
		p.st.call.Op = &api.PipelineOp{Op: &api.PipelineOp_Order{Order: &api.TxnOrder{
			Kind: api.TxnOrder_KIND_REFUSE, Id: o.Id, Attempt: o.Attempt, Slot: o.Slot, Participants: o.Participants, Remember: o.Remember, Answer: o.Answer,
		}}, TimeoutMs: p.st.call.Op.TimeoutMs}
	}
}

// orderRequest makes the request of an order on this node's replica.
func (p *part) orderRequest() *replica.Request {
	o := p.st.call.Op.GetOrder()
	key, err := txnKeyOf(o)
	if err != nil {
		panic(err) // validated
	}
	one := &struct {
		replica.Request
		order replica.OrderOp
		txn   replica.TxnOp
	}{}
	q := &one.Request
	q.Group, q.Deadline, q.Done, q.Order = p.group, p.st.deadline, p.written, &one.order
	q.Order.Kind, q.Order.Key, q.Order.Wait, q.Order.Remember = orderKind(o.GetKind()), key, o.GetWait(), o.GetRemember()
	q.Order.At, q.Order.Branch, q.Order.Answer = keyspace.Revision(o.GetAt()), branchOf(o.GetBranch()), o.GetAnswer()
	q.Order.Participants = make([]keyspace.SlotID, len(o.GetParticipants()))
	for i, slot := range o.GetParticipants() {
		q.Order.Participants[i] = keyspace.SlotID(slot)
	}
	if o.GetKind() == api.TxnOrder_KIND_PREPARE {
		q.Txn = &one.txn
		p.st.txnOps(q.Txn, o.GetRequest())
	}
	return q
}

// repeatable reports whether an order that ended with err is sent again: it was
// not executed, or may have been, which is the same for it. What a prepare meets
// when there is no room is told at once.
func repeatable(o *api.TxnOrder, err error) bool {
	switch fault.CodeOf(err) {
	case fault.UnknownOutcome, fault.DeadlineExceeded:
		return true
	case fault.Overloaded:
		return o.GetKind() != api.TxnOrder_KIND_PREPARE
	}
	return notExecuted(err)
}

// ordered answers an order that was executed, mostly on the host's loop; what has
// values to read, or is much, on the frame's goroutine.
func (p *part) ordered(q *replica.Request) {
	if judged(q) && p.takesLong(q.Txn) {
		p.st.frame.push(func(f *frame) { f.answerOrder(p, q) })
		return
	}
	p.st.frame.answerOrder(p, q)
}

// judged reports whether an order was a prepare that was accepted.
func judged(q *replica.Request) bool {
	return q.Txn != nil && q.Order.Result.State == twophase.Prepared
}

// takesLong reports whether the results of what was prepared are no work for the
// host's loop.
func (p *part) takesLong(t *replica.TxnOp) bool {
	request := p.st.call.Op.GetOrder().GetRequest()
	return len(t.Then)+len(t.Otherwise) >= largePart ||
		reads(t.Then, request.GetThen()) || reads(t.Otherwise, request.GetOtherwise())
}

// orderAnswer is what an order is answered with.
type orderAnswer struct {
	result api.PipelineResult_Order
	answer api.TxnAnswer
}

func (f *frame) answerOrder(p *part, q *replica.Request) {
	r := &q.Order.Result
	out := &orderAnswer{}
	a := &out.answer
	out.result.Order = a
	fillAnswer(a, &r.Answer)
	a.Participants = make([]uint32, len(r.Participants))
	for i, slot := range r.Participants {
		a.Participants[i] = uint32(slot)
	}
	a.Answer = r.Remembered
	if a.Judged = judged(q); a.Judged {
		request := p.st.call.Op.GetOrder().GetRequest()
		if r.Holds { // else it is not taken
			a.Then = f.preparedResults(p, q.Txn.Then, request.GetThen())
		}
		a.Otherwise = f.preparedResults(p, q.Txn.Otherwise, request.GetOtherwise())
		a.Detached = appendDetached(appendDetached(nil, q.Txn.Then, false), q.Txn.Otherwise, true)
	}
	p.st.call.Result.Result = &out.result
	p.finish()
}

// preparedResults tells what is known of the operations of a list before it is
// committed: what they read, and of writes all but the revision.
func (f *frame) preparedResults(p *part, ops []replica.Op, list []*api.TransactionOp) []*api.TransactionResult {
	if len(ops) != len(list) {
		return nil
	}
	out := make([]*api.TransactionResult, len(ops))
	slots := slotsFor(ops, list)
	p.st.bytes.Store(0) // the lists exclude each other
	for i := range ops {
		out[i], _ = f.opResult(p, &slots, &ops[i], list[i])
	}
	return out
}

// fillAnswer and participantAnswer convert between the answers of participants and
// their form on the wire.
func fillAnswer(out *api.TxnAnswer, a *twophase.Answer) {
	out.State, out.Cause, out.Expired = api.TxnAnswer_State(a.State), uint32(a.Cause), a.Expired
	out.Stamp, out.Holds, out.ThenPossible, out.OtherwisePossible = uint64(a.Stamp), a.Holds, a.ThenPossible, a.OtherwisePossible
	out.At, out.Branch = uint64(a.At), api.TxnBranch(a.Branch)
}

func participantAnswer(a *api.TxnAnswer) twophase.Answer {
	return twophase.Answer{Expired: a.GetExpired(), Record: twophase.Record{
		State: twophase.State(a.GetState()), Cause: twophase.Cause(a.GetCause()),
		Stamp: keyspace.Revision(a.GetStamp()), Holds: a.GetHolds(), ThenPossible: a.GetThenPossible(), OtherwisePossible: a.GetOtherwisePossible(),
		At: keyspace.Revision(a.GetAt()), Branch: branchOf(a.GetBranch()),
	}}
}

// branchOf is the branch of a number on the wire, NoBranch for one that is not
// known.
func branchOf(b api.TxnBranch) twophase.Branch {
	if b < 0 || b > api.TxnBranch_TXN_BRANCH_NOTHING {
		return twophase.NoBranch
	}
	return twophase.Branch(b)
}
