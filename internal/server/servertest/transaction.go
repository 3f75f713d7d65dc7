package servertest

import (
	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/router"
)

// transaction knows one group and what tests ask for; mu must be held.
func (b *Backend) transaction(q *api.TransactionRequest) *api.TransactionResponse {
	out := &api.TransactionResponse{Succeeded: true}
	for _, c := range q.Checks {
		if judge(c.Key, c.Condition, b.record(q, c.Namespace, c.Key)) != nil {
			out.Succeeded = false
		}
	}
	list := q.Then
	if !out.Succeeded {
		list = q.Otherwise
	}
	if b.refuses(q, list, out) {
		return out
	}
	for _, op := range list { // reads see the state before the writes
		res := &api.TransactionResult{}
		if g := op.GetGet(); g != nil {
			if rec := b.record(q, g.Namespace, g.Key); rec != nil {
				res.Result = &api.TransactionResult_Get{Get: view(rec, g.KeysOnly)}
			} else {
				res.Status = router.ErrorStatus(fault.New(fault.NotFound, "key does not exist", "key", g.Key))
			}
		}
		out.Results = append(out.Results, res)
	}
	for i, op := range list {
		b.write(q, op, out.Results[i])
	}
	for _, res := range out.Results {
		out.Revision = max(out.Revision, res.GetPut().GetRevision(), res.GetDelete().GetRevision())
	}
	return out
}

func (b *Backend) write(q *api.TransactionRequest, op *api.TransactionOp, res *api.TransactionResult) {
	var err error
	switch o := op.Op.(type) {
	case *api.TransactionOp_Put:
		var put *api.PutResponse
		put, err = b.put(spaceOf(q, o.Put.Namespace), o.Put)
		res.Result = &api.TransactionResult_Put{Put: put}
	case *api.TransactionOp_Touch:
		var touched *api.PutResponse
		touched, err = b.touch(spaceOf(q, o.Touch.Namespace), o.Touch)
		res.Result = &api.TransactionResult_Put{Put: touched}
	case *api.TransactionOp_Delete:
		var del *api.DeleteResponse
		del, err = b.delete(spaceOf(q, o.Delete.Namespace), o.Delete)
		res.Result = &api.TransactionResult_Delete{Delete: del}
	}
	if err != nil {
		res.Status = router.ErrorStatus(err)
	}
}

// refuses fills the results when a condition of the list does not hold.
func (b *Backend) refuses(q *api.TransactionRequest, list []*api.TransactionOp, out *api.TransactionResponse) (refused bool) {
	for _, op := range list {
		var err error
		switch o := op.Op.(type) {
		case *api.TransactionOp_Put:
			err = judge(o.Put.Key, o.Put.Condition, b.record(q, o.Put.Namespace, o.Put.Key))
		case *api.TransactionOp_Delete:
			err = judge(o.Delete.Key, o.Delete.Condition, b.record(q, o.Delete.Namespace, o.Delete.Key))
		case *api.TransactionOp_Check:
			err = judge(o.Check.Key, o.Check.Condition, b.record(q, o.Check.Namespace, o.Check.Key))
		}
		refused = refused || err != nil
		out.Results = append(out.Results, &api.TransactionResult{Status: router.ErrorStatus(err)})
	}
	if !refused {
		out.Results = nil
		return false
	}
	for _, res := range out.Results {
		if res.Status == nil {
			res.Status = router.ErrorStatus(fault.New(fault.BatchAborted, "another operation of the same atomic set failed"))
		}
	}
	return true
}

func spaceOf(q *api.TransactionRequest, item string) string {
	if item == "" {
		return q.Namespace
	}
	return item
}

func (b *Backend) record(q *api.TransactionRequest, item, key string) *api.Record {
	all, err := b.space(spaceOf(q, item))
	if err != nil {
		return nil
	}
	return all[key]
}
