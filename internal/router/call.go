package router

import (
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Call is one operation and its answer.
type Call struct {
	// Op is not changed, and must not change until done was called. One that reads
	// at a time is replaced by one that reads at a revision.
	Op *api.PipelineOp
	// Result is filled before done is called; nil is made when needed.
	Result *api.PipelineResult
	// Identity is the authenticated subject, "" for anonymous.
	Identity string
	// Forwarded marks an operation that came from a peer: it is served here or
	// refused, never forwarded again.
	Forwarded bool
	// Routed marks an operation of a peer that says which Group it is for: it knows
	// a slot map at least as good as this node's, and the group judges.
	Routed bool
	Group  keyspace.GroupID
	// Encoded allows a get, a batch of them, or a transaction, to be answered with the
	// bytes that are sent: they are the unknown fields of its response, and what else they
	// say is not set. For callers who pass the answer on and never look into it.
	Encoded bool
	// Elsewhere says that the caller can ask other nodes: what was certainly not
	// executed is given back after GiveBackAfter instead of at the deadline.
	Elsewhere bool
	// Err is the error behind Result.Status, nil on success.
	Err error

	// own marks an order that this node sends, of share.
	own   bool
	share *share
}

// callState is a call on its way.
type callState struct {
	call  *Call
	frame *frame
	kind  kind
	// deadline is on env.Clock.Mono; nothing is tried again from giveUp on.
	deadline, giveUp time.Duration
	ns               keyspace.NamespaceID
	nsName           string
	// at is the revision that a read asks for, 0 for the newest.
	at keyspace.Revision
	// open counts the parts that were not answered.
	open atomic.Int32
	// bytes of values in the answer of a batch.
	bytes atomic.Int64
	// only is the part of a call on one group; parts are all of them.
	only  part
	parts []*part
	self  [4]*part // parts of a call on few groups
	// guarded is what was asked for where call is the transaction made of it.
	guarded *guarded
	// spaces are the namespaces of a transaction's keys; nil for other calls.
	spaces *txnSpaces
	// id names the request, zero for most; marked is what mark made of it.
	id     keyspace.TxnID
	marked [markBytes]byte
	// answer is what its record keeps as the answer of a transaction, without what was
	// read, when that was written by hand.
	answer []byte
	// waiting counts the parts whose read is not confirmed, and confirmed lists
	// the others; guarded by frame.mu.
	waiting   int
	confirmed *part

	// What a batch's items are answered with, an allocation for all. A part
	// writes its own items only; values is the driver's.
	puts    []putSlot
	gets    []getSlot
	deletes []deleteSlot
	encoded [][]byte // the results of reads as they are sent, instead of gets
	values  []byte   // the rest of the memory for values, or for encoded
	// lent is memory of encoded that goes back when the call is answered.
	lent    []*[]byte
	lentOne [1]*[]byte
}

type putSlot struct {
	result api.BatchPutResult
	answer api.PutResponse
}

// batchPutAnswer is what a batch of puts is answered with, in one piece.
type batchPutAnswer struct {
	result   api.PipelineResult_BatchPut
	response api.BatchPutResponse
}

type getSlot struct {
	result api.BatchGetResult
	record api.Record
}

type deleteSlot struct {
	result api.BatchDeleteResult
	answer api.DeleteResponse
}

type kind uint8

const (
	kindNone kind = iota
	kindPut
	kindGet
	kindDelete
	kindTouch
	kindTransaction
	kindOrder
	kindBatchPut
	kindBatchGet
	kindBatchDelete
)

func (k kind) write() bool { return k != kindGet && k != kindBatchGet }
func (k kind) batch() bool { return k >= kindBatchPut }

func kindOf(op *api.PipelineOp) kind {
	switch op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return kindPut
	case *api.PipelineOp_Get:
		return kindGet
	case *api.PipelineOp_Delete:
		return kindDelete
	case *api.PipelineOp_Touch:
		return kindTouch
	case *api.PipelineOp_Transaction:
		return kindTransaction
	case *api.PipelineOp_Order:
		return kindOrder
	case *api.PipelineOp_BatchPut:
		return kindBatchPut
	case *api.PipelineOp_BatchGet:
		return kindBatchGet
	case *api.PipelineOp_BatchDelete:
		return kindBatchDelete
	}
	return kindNone
}

// changes reports whether the call may change something: what does not may be
// executed again, also when it was executed and its answer lost.
func (st *callState) changes() bool {
	return st.kind.write() && (st.kind != kindTransaction || !readsOnly(st.call.Op.GetTransaction()))
}

// part is the share of a call that one group has. It is owned by one stage at
// a time: the frame's goroutine, the host, or a peer's link.
type part struct {
	st    *callState
	group keyspace.GroupID
	// items are the positions in the batch, nil for the whole call; count is
	// their number in a batch.
	items []int
	count int
	// epoch is that of the map which group is from.
	epoch uint64

	// attempts counts dispatches; asked is the node of the last forward.
	attempts int
	asked    keyspace.NodeID
	// hint is a leader named by the last answer, followed at once.
	hint keyspace.NodeID
	last error
	// unsure: it may have been executed, under its request id.
	unsure bool
	// waits counts the refusals in a row that asked for a short pause.
	waits int
	// read is the confirmation that the part waits for or has, next another part
	// of the same read, or of what the driver is to serve.
	read *groupRead
	next *part
	// due is when a delayed part is dispatched again, on env.Clock.Mono.
	due time.Duration
	// txn coordinates a transaction over several groups, which is dispatched as a
	// part without one; nil for all others.
	txn *coordination
	// snapshot: a transaction over several groups that only reads.
	snapshot bool
	remote   remoteOp
}

// namespaceOf returns the namespace name of an operation.
func namespaceOf(op *api.PipelineOp) string {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return o.Put.GetNamespace()
	case *api.PipelineOp_Get:
		return o.Get.GetNamespace()
	case *api.PipelineOp_Delete:
		return o.Delete.GetNamespace()
	case *api.PipelineOp_Touch:
		return o.Touch.GetNamespace()
	case *api.PipelineOp_Transaction:
		return o.Transaction.GetNamespace()
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.GetNamespace()
	case *api.PipelineOp_BatchGet:
		return o.BatchGet.GetNamespace()
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.GetNamespace()
	}
	return ""
}

// prepareResult gives the call its result and, for a batch, one slot per item.
func (st *callState) prepareResult() {
	c := st.call
	if c.Result == nil {
		c.Result = &api.PipelineResult{}
	}
	c.Result.Id, c.Result.Status, c.Err = c.Op.GetId(), nil, nil
	switch o := c.Op.GetOp().(type) {
	case *api.PipelineOp_BatchPut:
		st.puts = make([]putSlot, len(o.BatchPut.GetItems()))
		answer := new(batchPutAnswer)
		answer.result.BatchPut = &answer.response
		all := make([]*api.BatchPutResult, len(st.puts))
		for i := range all {
			all[i] = &st.puts[i].result
		}
		answer.response.Results = all
		c.Result.Result = &answer.result
	case *api.PipelineOp_BatchGet:
		if c.Encoded {
			st.prepareEncoded(len(o.BatchGet.GetKeys()))
			return
		}
		st.gets = make([]getSlot, len(o.BatchGet.GetKeys()))
		all := make([]*api.BatchGetResult, len(st.gets))
		for i := range all {
			all[i] = &st.gets[i].result
		}
		c.Result.Result = &api.PipelineResult_BatchGet{BatchGet: &api.BatchGetResponse{Results: all, ReadRevision: uint64(st.at)}}
	case *api.PipelineOp_BatchDelete:
		st.deletes = make([]deleteSlot, len(o.BatchDelete.GetItems()))
		all := make([]*api.BatchDeleteResult, len(st.deletes))
		for i := range all {
			all[i] = &st.deletes[i].result
		}
		c.Result.Result = &api.PipelineResult_BatchDelete{BatchDelete: &api.BatchDeleteResponse{Results: all}}
	}
}

// fail answers the whole call with err.
func (c *Call) fail(err error) {
	if c.Result == nil {
		c.Result = &api.PipelineResult{}
	}
	c.Result.Id = c.Op.GetId()
	c.Result.Result = nil
	c.Result.Status = ErrorStatus(err)
	c.Err = err
}

// failItem answers the item at position i of a batch with err.
func (c *Call) failItem(i int, err error) {
	s := ErrorStatus(err)
	switch res := c.Result.GetResult().(type) {
	case *api.PipelineResult_BatchPut:
		res.BatchPut.Results[i].Status = s
	case *api.PipelineResult_BatchGet:
		res.BatchGet.Results[i].Status = s
	case *api.PipelineResult_BatchDelete:
		res.BatchDelete.Results[i].Status = s
	}
}

// fail answers the part: the whole call, or the part's items of a batch.
func (p *part) fail(err error) {
	c := p.st.call
	switch {
	case !p.st.kind.batch():
		c.fail(err)
	case p.st.encoded != nil:
		p.failEncoded(err)
	case p.items == nil:
		for i := range itemCount(c.Op) {
			c.failItem(i, err)
		}
	default:
		for _, i := range p.items {
			c.failItem(i, err)
		}
	}
	p.finish()
}

// finish gives the part back to its call.
func (p *part) finish() {
	if p.st.open.Add(-1) == 0 {
		p.st.assemble()
		p.st.frame.answer(p.st)
	}
}

// size returns how many items the part has.
func (p *part) size() int {
	if p.items != nil {
		return len(p.items)
	}
	if p.st.kind.batch() {
		return itemCount(p.st.call.Op)
	}
	return 1
}

// item returns the position in the batch of the part's n-th item.
func (p *part) item(n int) int {
	if p.items != nil {
		return p.items[n]
	}
	return n
}

func itemCount(op *api.PipelineOp) int {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_BatchPut:
		return len(o.BatchPut.GetItems())
	case *api.PipelineOp_BatchGet:
		return len(o.BatchGet.GetKeys())
	case *api.PipelineOp_BatchDelete:
		return len(o.BatchDelete.GetItems())
	}
	return 1
}

// keyOf returns the key of an operation, or of the item at position i.
func keyOf(op *api.PipelineOp, i int) string {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return o.Put.GetKey()
	case *api.PipelineOp_Get:
		return o.Get.GetKey()
	case *api.PipelineOp_Delete:
		return o.Delete.GetKey()
	case *api.PipelineOp_Touch:
		return o.Touch.GetKey()
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.Items[i].GetKey()
	case *api.PipelineOp_BatchGet:
		return o.BatchGet.Keys[i]
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.Items[i].GetKey()
	}
	return ""
}

func errNoOperation() error {
	return fault.New(fault.InvalidArgument, "frame holds an operation of no known kind")
}
