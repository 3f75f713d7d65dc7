package router

import (
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// split divides a transaction by the groups of its keys in m: one participant for
// each, named by the lowest slot of its keys.
func (r *Router) split(m *Map, st *callState, q *api.TransactionRequest) *txnAttempt {
	a := r.divide(st, q, func(slot keyspace.SlotID) int {
		g, _ := m.GroupOf(slot)
		return int(g)
	})
	if len(a.shares) > 1 {
		return a
	}
	// All slots came to one group meanwhile, or the request is one that was begun
	// before they did: the lowest slot is a participant of its own.
	lowest := a.shares[0].slot
	return r.divide(st, q, func(slot keyspace.SlotID) int {
		if slot == lowest {
			return 0
		}
		return 1
	})
}

// divide makes a participant of all slots that by says the same of.
func (r *Router) divide(st *callState, q *api.TransactionRequest, by func(keyspace.SlotID) int) *txnAttempt {
	a := &txnAttempt{r: r}
	shares := make(map[int]*share)
	of := func(space, key string) *share {
		slot := keyspace.SlotOf(st.space(space), key)
		n := by(slot)
		s := shares[n]
		if s == nil {
			s = &share{a: a, slot: slot, request: &api.TransactionRequest{Namespace: q.GetNamespace()}}
			shares[n] = s
			a.shares = append(a.shares, s)
		}
		s.slot = min(s.slot, slot)
		return s
	}
	for _, c := range q.GetChecks() {
		s := of(spaceName(q, c.GetNamespace()), c.GetKey())
		s.request.Checks = append(s.request.Checks, c)
	}
	for i, op := range q.GetThen() {
		space, key := txnKey(op)
		s := of(spaceName(q, space), key)
		s.request.Then, s.then = append(s.request.Then, op), append(s.then, i)
	}
	for i, op := range q.GetOtherwise() {
		space, key := txnKey(op)
		s := of(spaceName(q, space), key)
		s.request.Otherwise, s.otherwise = append(s.request.Otherwise, op), append(s.otherwise, i)
	}
	slices.SortFunc(a.shares, func(x, y *share) int { return int(x.slot) - int(y.slot) })
	for _, s := range a.shares {
		a.set = append(a.set, uint32(s.slot))
	}
	return a
}

// list is the list of operations that a conclusion takes, by what all checks came
// to.
func (a *txnAttempt) holds() bool {
	for _, s := range a.shares {
		if !s.results.GetHolds() {
			return false
		}
	}
	return true
}

// merge makes the answer of a committed transaction of its participants' results.
func (t *coordination) merge(c twophase.Conclusion) *api.TransactionResponse {
	out := &api.TransactionResponse{Succeeded: t.holds()}
	list := t.q.GetThen()
	if !out.Succeeded {
		list = t.q.GetOtherwise()
	}
	out.Results = make([]*api.TransactionResult, len(list))
	read := 0
	for _, s := range t.shares {
		at, results := s.then, s.results.GetThen()
		if !out.Succeeded {
			at, results = s.otherwise, s.results.GetOtherwise()
		}
		for n, i := range at {
			if n >= len(results) {
				out.Results[i] = &api.TransactionResult{Status: ErrorStatus(fault.New(fault.Internal, "a participant gave too few results"))}
				continue
			}
			out.Results[i] = results[n]
			if read += len(results[n].GetGet().GetValue()); read > MaxBatchBytes {
				out.Results[i] = &api.TransactionResult{Status: ErrorStatus(errReadTooMuch(read))}
			}
		}
	}
	if c.Branch == twophase.Nothing {
		abortResults(out.Results)
		return out
	}
	for i, op := range list {
		if finishResult(op, out.Results[i], c.At) {
			out.Revision = uint64(c.At)
		}
	}
	return out
}

func errReadTooMuch(n int) error {
	return fault.New(fault.MessageTooLarge, "values read by the transaction are too large together", "limit_bytes", MaxBatchBytes, "actual_bytes", n)
}

// abortResults answers operations of which a condition did not hold: that one, and
// all others as those of an atomic batch.
func abortResults(results []*api.TransactionResult) {
	for i, r := range results {
		if !forbids(StatusError(r.GetStatus())) {
			results[i] = &api.TransactionResult{Status: ErrorStatus(errBatchAborted())}
		}
	}
}

// forbids reports whether the failure of an operation keeps its whole set from being
// executed: a condition that does not hold, or a deadline that has passed.
func forbids(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.ConditionFailed || code == fault.InvalidArgument
}

func errBatchAborted() error {
	return fault.New(fault.BatchAborted, "nothing was executed because a condition of another operation does not hold")
}

// finishResult completes the result of a write with what its commit decides, and
// reports whether it wrote something.
func finishResult(op *api.TransactionOp, r *api.TransactionResult, at keyspace.Revision) (wrote bool) {
	switch o := r.GetResult().(type) {
	case *api.TransactionResult_Put:
		p := o.Put
		p.Revision, p.UpdatedAtMs = uint64(at), at.UnixMilli()
		if p.Version == 1 {
			p.CreatedAtMs = at.UnixMilli()
		}
		if ttl := op.GetPut().GetTtlSeconds() + op.GetTouch().GetTtlSeconds(); ttl > 0 {
			p.ExpiresAtMs = at.UnixMilli() + ttl*1000
		}
		return true
	case *api.TransactionResult_Delete:
		if o.Delete.Existed {
			o.Delete.Revision = uint64(at)
		} else {
			o.Delete.Revision = 0
		}
		return o.Delete.Existed
	}
	return false
}
