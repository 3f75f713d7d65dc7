package client

import (
	api "kvstore/api/kvstore/v1"
)

// transaction executes one as the server does. mu must be held.
func (f *fakeCluster) transaction(q *api.TransactionRequest) *api.TransactionResponse {
	out := &api.TransactionResponse{Succeeded: true}
	for _, c := range q.GetChecks() {
		r, _ := f.find(c.GetNamespace(), c.GetKey())
		out.Succeeded = out.Succeeded && checkCondition(c.GetCondition(), r) == nil
	}
	ops := q.GetThen()
	if !out.Succeeded {
		ops = q.GetOtherwise()
	}
	failed := false
	for _, op := range ops {
		res := &api.TransactionResult{}
		switch o := op.GetOp().(type) {
		case *api.TransactionOp_Put:
			r, _ := f.find(o.Put.GetNamespace(), o.Put.GetKey())
			res.Status = checkCondition(o.Put.GetCondition(), r)
			failed = failed || res.Status != nil
		case *api.TransactionOp_Delete:
			r, _ := f.find(o.Delete.GetNamespace(), o.Delete.GetKey())
			res.Status = checkCondition(o.Delete.GetCondition(), r)
			failed = failed || res.Status != nil
		case *api.TransactionOp_Touch:
			r, _ := f.find(o.Touch.GetNamespace(), o.Touch.GetKey())
			res.Status = checkTouch(o.Touch, r)
			failed = failed || res.Status != nil
		case *api.TransactionOp_Get: // sees what was there before
			var r *api.Record
			r, res.Status = f.get(o.Get.GetNamespace(), o.Get.GetKey(), o.Get.GetKeysOnly())
			res.Result = &api.TransactionResult_Get{Get: r}
		}
		out.Results = append(out.Results, res)
	}
	for i, op := range ops {
		f.writeTxn(op, out, out.Results[i], failed)
	}
	return out
}

func (f *fakeCluster) writeTxn(op *api.TransactionOp, out *api.TransactionResponse, res *api.TransactionResult, failed bool) {
	if failed {
		if res.Status == nil {
			res.Status, res.Result = statusOf(CodeBatchAborted), nil
		}
		return
	}
	switch o := op.GetOp().(type) {
	case *api.TransactionOp_Put:
		put, _ := f.put(o.Put.GetNamespace(), o.Put)
		res.Result = &api.TransactionResult_Put{Put: put}
		out.Revision = put.GetRevision()
	case *api.TransactionOp_Touch:
		put, _ := f.touch(o.Touch.GetNamespace(), o.Touch)
		res.Result = &api.TransactionResult_Put{Put: put}
		out.Revision = put.GetRevision()
	case *api.TransactionOp_Delete:
		del, _ := f.delete(o.Delete.GetNamespace(), o.Delete)
		res.Result = &api.TransactionResult_Delete{Delete: del}
		out.Revision = max(out.Revision, del.GetRevision())
	}
}
