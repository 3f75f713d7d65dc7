package rpc

import (
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/router"
	"kvstore/internal/server/status"
)

// frame is a set of operations handed to the backend at once.
type frame struct {
	p     *pipeline
	start time.Time
	// bytes of the requests, held at the guard until the last is answered;
	// charge is bytes and what the answers are expected to hold.
	bytes, charge int64
	// expect is the size a read's answer was charged with.
	expect int64
	open   int
	closed atomic.Int64
	held   bool
}

// newFrame measures ops.
func (p *pipeline) newFrame(ops []*api.PipelineOp) *frame {
	f := &frame{p: p, start: time.Now(), open: len(ops)}
	p.mu.Lock()
	f.expect = p.recent
	p.mu.Unlock()
	for _, op := range ops {
		request, answer := opBytes(op, f.expect)
		f.bytes += request
		f.charge += request + answer
	}
	return f
}

// calls prepares ops for the backend: three allocations for all of them.
func (f *frame) calls(ops []*api.PipelineOp) []*router.Call {
	calls := make([]router.Call, len(ops))
	results := make([]api.PipelineResult, len(ops))
	all := make([]*router.Call, len(ops))
	for i, op := range ops {
		timeout := f.p.s.o.Guard.Timeout(time.Duration(op.GetTimeoutMs()) * time.Millisecond)
		op.TimeoutMs = timeout.Milliseconds()
		calls[i] = router.Call{Op: op, Result: &results[i], Identity: f.p.identity, Encoded: true, Elsewhere: true}
		all[i] = &calls[i]
	}
	return all
}

// done takes one answer from the backend.
func (f *frame) done(c *router.Call) {
	res := c.Result
	res.Id = c.Op.GetId()
	if c.Err != nil && res.GetStatus() == nil {
		res.Status = status.Item(c.Err)
	}
	f.p.s.o.Guard.Observe(methodOf(c.Op), status.CodeOf(c.Err), time.Since(f.start))
	request, answer := opBytes(c.Op, f.expect)
	f.p.answer(res, request+answer)
	if f.closed.Add(1) == int64(f.open) && f.held {
		f.p.s.o.Guard.Release(f.open, f.bytes)
	}
}

// refuse answers every operation with err; nothing was executed.
func (f *frame) refuse(calls []*router.Call, err error) {
	for _, c := range calls {
		c.Err = err
		c.Result.Status = status.Item(err)
		f.done(c)
	}
}

// perOperation is what an operation costs in memory beside its bytes.
const perOperation = 256

// opBytes estimates what an operation holds: its request, and its answer when
// a read is expected to return expect bytes.
func opBytes(op *api.PipelineOp, expect int64) (request, answer int64) {
	request = perOperation
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		request += putBytes(o.Put)
	case *api.PipelineOp_Get:
		answer = expect
	case *api.PipelineOp_Delete:
		request += int64(len(o.Delete.GetKey()))
	case *api.PipelineOp_Touch:
		request += int64(len(o.Touch.GetKey()) + len(o.Touch.GetCondition().GetValueEquals()))
	case *api.PipelineOp_BatchPut:
		for _, q := range o.BatchPut.GetItems() {
			request += perOperation + putBytes(q)
		}
	case *api.PipelineOp_BatchGet:
		n := int64(len(o.BatchGet.GetKeys()))
		request += n * perOperation
		answer = n * expect
	case *api.PipelineOp_BatchDelete:
		request += int64(len(o.BatchDelete.GetItems())) * perOperation
	case *api.PipelineOp_Transaction:
		return txnBytes(o.Transaction, expect)
	}
	return request, answer
}

// txnBytes is opBytes of a transaction; of its two lists the one with more gets
// may be taken.
func txnBytes(q *api.TransactionRequest, expect int64) (request, answer int64) {
	request = perOperation
	for _, c := range q.GetChecks() {
		request += perOperation + int64(len(c.GetCondition().GetValueEquals()))
	}
	for _, ops := range [...][]*api.TransactionOp{q.GetThen(), q.GetOtherwise()} {
		gets := int64(0)
		for _, op := range ops {
			request += perOperation + putBytes(op.GetPut())
			if op.GetGet() != nil {
				gets += expect
			}
		}
		answer = max(answer, gets)
	}
	return request, answer
}

func putBytes(q *api.PutRequest) int64 {
	return int64(len(q.GetKey()) + len(q.GetValue()) + len(q.GetCondition().GetValueEquals()))
}

// resultBytes estimates what an answer holds.
func resultBytes(res *api.PipelineResult) int64 {
	size := int64(perOperation)
	switch r := res.GetResult().(type) {
	case *api.PipelineResult_Get:
		size += int64(len(r.Get.GetRecord().GetValue()) + len(r.Get.ProtoReflect().GetUnknown())) // see router.Call.Encoded
	case *api.PipelineResult_BatchGet:
		size += int64(len(r.BatchGet.ProtoReflect().GetUnknown()))
		for _, item := range r.BatchGet.GetResults() {
			size += perOperation + int64(len(item.GetRecord().GetValue()))
		}
	case *api.PipelineResult_BatchPut:
		size += int64(len(r.BatchPut.GetResults())) * perOperation
	case *api.PipelineResult_BatchDelete:
		size += int64(len(r.BatchDelete.GetResults())) * perOperation
	case *api.PipelineResult_Transaction:
		size += int64(len(r.Transaction.ProtoReflect().GetUnknown()))
		for _, item := range r.Transaction.GetResults() {
			size += perOperation + int64(len(item.GetGet().GetValue()))
		}
	}
	return size
}

// cut returns how many answers fit a frame of limit bytes, at least one, and
// their size.
func cut(answers []*api.PipelineResult, limit int) (n int, size int64) {
	for n < len(answers) {
		next := resultBytes(answers[n])
		if n > 0 && size+next > int64(limit) {
			break
		}
		size += next
		n++
	}
	return n, size
}

// methodOf names an operation as its unary call is named.
func methodOf(op *api.PipelineOp) string {
	switch op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return "Put"
	case *api.PipelineOp_Get:
		return "Get"
	case *api.PipelineOp_Delete:
		return "Delete"
	case *api.PipelineOp_Touch:
		return "Touch"
	case *api.PipelineOp_BatchPut:
		return "BatchPut"
	case *api.PipelineOp_BatchGet:
		return "BatchGet"
	case *api.PipelineOp_BatchDelete:
		return "BatchDelete"
	case *api.PipelineOp_Transaction:
		return "Transaction"
	}
	return "Unknown"
}
