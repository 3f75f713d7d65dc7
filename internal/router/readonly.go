package router

import (
	"bytes"

	api "kvstore/api/kvstore/v1"
)

// A transaction over several groups that writes nothing locks nothing: all its keys
// are read at one moment (ReadTogether), so that it neither aborts nor delays
// others. Its checks are judged here, by what was read.

// readsOnly reports whether a transaction has nothing to write.
func readsOnly(q *api.TransactionRequest) bool {
	for _, ops := range [...][]*api.TransactionOp{q.GetThen(), q.GetOtherwise()} {
		for _, op := range ops {
			if op.GetGet() == nil {
				return false
			}
		}
	}
	return true
}

// snapshotKeys are the keys of a transaction, each once for each form in which it is
// read.
type snapshotKeys struct {
	st   *callState
	keys []KeyRead
	at   map[KeyRead]int
}

func (s *snapshotKeys) add(k KeyRead) {
	if _, ok := s.at[k]; !ok {
		s.at[k] = len(s.keys)
		s.keys = append(s.keys, k)
	}
}

// ofCheck and ofGet are what is read for a check and for a get of q.
func (s *snapshotKeys) ofCheck(q *api.TransactionRequest, c *api.TransactionCheck) KeyRead {
	return KeyRead{Namespace: s.st.space(spaceName(q, c.GetNamespace())), Key: c.GetKey(), KeysOnly: c.GetCondition().ValueEquals == nil}
}

func (s *snapshotKeys) ofGet(q *api.TransactionRequest, g *api.GetRequest) KeyRead {
	return KeyRead{Namespace: s.st.space(spaceName(q, g.GetNamespace())), Key: g.GetKey(), KeysOnly: g.GetKeysOnly()}
}

// readSnapshot answers a transaction that only reads; it may wait for others, so the
// frame does not wait for it.
func (f *frame) readSnapshot(p *part, q *api.TransactionRequest) {
	s := snapshotKeys{st: p.st, at: make(map[KeyRead]int)}
	for _, c := range q.GetChecks() {
		s.add(s.ofCheck(q, c))
	}
	for _, ops := range [...][]*api.TransactionOp{q.GetThen(), q.GetOtherwise()} {
		for _, op := range ops {
			s.add(s.ofGet(q, op.GetGet()))
		}
	}
	f.r.wg.Add(1) // the frame is open
	go func() {
		defer f.r.wg.Done()
		ctx, cancel := f.within(p.st.deadline)
		defer cancel()
		records, _, err := f.r.ReadTogether(ctx, s.keys)
		f.push(func(*frame) {
			if err != nil {
				p.fail(err)
				return
			}
			p.st.call.Result.Result = &api.PipelineResult_Transaction{Transaction: s.answer(q, records)}
			p.finish()
		})
	}()
}

// answer judges the checks by what was read, and takes a list.
func (s *snapshotKeys) answer(q *api.TransactionRequest, records []*api.Record) *api.TransactionResponse {
	out := &api.TransactionResponse{Succeeded: true}
	for _, c := range q.GetChecks() {
		out.Succeeded = out.Succeeded && conditionHolds(c.GetCondition(), records[s.at[s.ofCheck(q, c)]])
	}
	list := q.GetThen()
	if !out.Succeeded {
		list = q.GetOtherwise()
	}
	for _, op := range list {
		res := &api.TransactionResult{Status: ErrorStatus(errNoKey(op.GetGet().GetKey()))}
		if rec := records[s.at[s.ofGet(q, op.GetGet())]]; rec != nil {
			res = &api.TransactionResult{Result: &api.TransactionResult_Get{Get: rec}}
		}
		out.Results = append(out.Results, res)
	}
	return out
}

// conditionHolds judges a condition by a record, nil for none, as replicas do.
func conditionHolds(c *api.Condition, rec *api.Record) bool {
	switch {
	case c.VersionMatch != nil && *c.VersionMatch != rec.GetVersion(),
		c.RevisionMatch != nil && *c.RevisionMatch != rec.GetRevision(),
		c.CreatedMatch != nil && *c.CreatedMatch != rec.GetCreatedRevision(),
		c.LeaseMatch != nil && *c.LeaseMatch != rec.GetLease(),
		c.GetMustExist() && rec == nil, c.GetMustNotExist() && rec != nil,
		c.ValueEquals != nil && (rec == nil || !bytes.Equal(c.ValueEquals, rec.GetValue())):
		return false
	}
	return true
}
