package router

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// A request that the client named is executed once, however often it is sent, and
// its outcome is remembered (DESIGN 9). What a record keeps for it begins with a
// mark, which tells the request from others that should not have its id; behind it
// is, once the request has ended, an encoded RequestOutcome. Values that it read are
// left out of it: whoever asks again reads them at the revisions that were seen.

const (
	markVersion = 1
	markBytes   = 1 + 8
	// maxKept bounds an answer that is kept.
	maxKept = 1 << 20
	// RememberFor is how long outcomes of requests are kept.
	RememberFor = 10 * time.Minute
	// maxIDAhead is how far in the future an id may be created: its record is kept so
	// much longer.
	maxIDAhead = time.Minute
)

// requestID is the id that the client gave an operation, "" for none.
func requestID(op *api.PipelineOp) string {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return o.Put.GetRequestId()
	case *api.PipelineOp_Delete:
		return o.Delete.GetRequestId()
	case *api.PipelineOp_Transaction:
		return o.Transaction.GetRequestId()
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.GetRequestId()
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.GetRequestId()
	}
	return ""
}

// name reads the id of a call.
func (f *frame) name(st *callState) error {
	text := requestID(st.call.Op)
	if text == "" {
		return nil
	}
	id, err := f.r.parseRequestID(text)
	switch {
	case err != nil:
		return err
	case f.r.tooOld(id):
		return errExpired(id)
	}
	if st.kind.batch() && !indivisible(st.call.Op) {
		return fault.New(fault.InvalidArgument, "a request id needs an atomic batch: the items of another one end apart", "request_id", text)
	}
	if q := st.call.Op.GetTransaction(); q == nil || !readsOnly(q) {
		st.id = id // what only reads may be executed again
	}
	return nil
}

func (r *Router) parseRequestID(text string) (keyspace.TxnID, error) {
	id, err := keyspace.ParseTxnID(text)
	if err != nil {
		return id, err
	}
	if ahead := time.Duration(id.Created.UnixMilli()-r.o.Clock.Wall()) * time.Millisecond; ahead > maxIDAhead {
		return id, fault.New(fault.InvalidArgument, "the request id was created in the future; the clock that made it is wrong",
			"request_id", text, "ahead", ahead, "limit", maxIDAhead)
	}
	return id, nil
}

// unnamed refuses ids where they have no meaning.
func unnamed(where, id string) error {
	if id == "" {
		return nil
	}
	return fault.New(fault.InvalidArgument, "an item has no request id of its own; give one to the "+where, "request_id", id)
}

// mark tells the request of a call from others.
func (st *callState) mark() []byte {
	if st.id.Zero() {
		return nil
	}
	if st.marked[0] == 0 {
		binary.BigEndian.PutUint64(st.marked[1:], st.contentHash())
		st.marked[0] = markVersion
	}
	return st.marked[:]
}

// markOf is the mark of what a record keeps, nil when it keeps nothing.
func markOf(kept []byte) (named bool, mark []byte) {
	if len(kept) < markBytes {
		return false, nil
	}
	return true, kept[:markBytes]
}

// encodeOutcome encodes an outcome for the call's record.
func (st *callState) encodeOutcome(o *api.RequestOutcome) []byte {
	mark := st.mark()
	b, err := proto.MarshalOptions{}.MarshalAppend(mark[:len(mark):len(mark)], o)
	if err == nil && len(b)-len(mark) > maxKept {
		o.Answer = nil
		b, err = proto.MarshalOptions{}.MarshalAppend(mark[:len(mark):len(mark)], o)
	}
	if err != nil {
		return mark
	}
	return b
}

// outcomeKept decodes what a record keeps; nil while the request has not ended.
func outcomeKept(kept []byte) (*api.RequestOutcome, error) {
	if len(kept) <= markBytes {
		return nil, nil
	}
	o := new(api.RequestOutcome)
	if kept[0] != markVersion {
		return nil, fault.New(fault.Unsupported, "unknown version of a remembered outcome", "actual", kept[0])
	}
	if err := proto.Unmarshal(kept[markBytes:], o); err != nil {
		return nil, fault.Wrap(fault.Corruption, err, "a remembered outcome cannot be decoded")
	}
	return o, nil
}

// remember makes the request of a named call on this node's replica one whose
// outcome is kept.
func (p *part) remember(q *replica.Request) {
	if p.st.id.Zero() {
		return
	}
	q.ID = p.st.id
	q.Encode = p.st.kept
}

// kept is what the record of a request keeps after its evaluation.
func (st *callState) kept(q *replica.Request) []byte {
	st.answer = nil
	if b := st.written(q); b != nil {
		return b
	}
	return st.encodeOutcome(st.evaluated(q))
}

// evaluated is the outcome of a request as its evaluation sees it: values that it
// reads are not part of it.
func (st *callState) evaluated(q *replica.Request) *api.RequestOutcome {
	o := &api.RequestOutcome{State: api.RequestOutcome_STATE_COMMITTED, Succeeded: true, Revision: revisionOf(q)}
	for i := range q.Ops {
		if err := q.Ops[i].Result.Err; forbids(err) {
			o.Error = ErrorStatus(err)
			break
		}
	}
	switch st.kind {
	case kindPut:
		if o.Error == nil {
			o.Answer = &api.RequestOutcome_Put{Put: answerPut(&q.Ops[0]).Put}
		}
	case kindDelete:
		if o.Error == nil {
			d := new(api.DeleteResponse)
			fillDelete(d, &q.Ops[0])
			o.Answer = &api.RequestOutcome_Delete{Delete: d}
		}
	default:
		list := st.takenList(q)
		txn := &api.TransactionResponse{Succeeded: q.Txn == nil || q.Txn.Succeeded, Revision: o.Revision, Results: make([]*api.TransactionResult, len(q.Ops))}
		for i := range q.Ops {
			txn.Results[i] = evaluatedResult(&q.Ops[i], i < len(list) && list[i].GetCheck() != nil)
		}
		o.Succeeded = txn.Succeeded
		st.outcomeInto(o, txn)
	}
	return o
}

// takenList is the list of a transaction that was executed; nil of a batch.
func (st *callState) takenList(q *replica.Request) []*api.TransactionOp {
	t := st.call.Op.GetTransaction()
	if q.Txn != nil && !q.Txn.Succeeded {
		return t.GetOtherwise()
	}
	return t.GetThen()
}

// outcomeOf is what is kept of a transaction's answer, which may be that of a batch.
func (st *callState) outcomeOf(txn *api.TransactionResponse) *api.RequestOutcome {
	o := &api.RequestOutcome{State: api.RequestOutcome_STATE_COMMITTED, Succeeded: txn.GetSucceeded(), Revision: txn.GetRevision()}
	for _, r := range txn.GetResults() {
		if forbids(StatusError(r.GetStatus())) {
			o.Error = r.GetStatus()
			break
		}
	}
	st.outcomeInto(o, withoutValues(txn))
	return o
}

func (st *callState) outcomeInto(o *api.RequestOutcome, txn *api.TransactionResponse) {
	var res api.PipelineResult
	st.setResult(&res, txn)
	switch res := res.Result.(type) {
	case *api.PipelineResult_BatchPut:
		o.Answer = &api.RequestOutcome_BatchPut{BatchPut: res.BatchPut}
	case *api.PipelineResult_BatchDelete:
		o.Answer = &api.RequestOutcome_BatchDelete{BatchDelete: res.BatchDelete}
	case *api.PipelineResult_Transaction:
		o.Answer = &api.RequestOutcome_Transaction{Transaction: res.Transaction}
	}
}

func errReused(id keyspace.TxnID) error {
	return fault.New(fault.InvalidArgument, "the request id was used for another request", "request_id", id.String())
}

func errExpired(id keyspace.TxnID) error {
	return fault.New(fault.OutOfRange, "the request id is too old: nothing is executed under it any more, and what became of it is not known",
		"request_id", id.String(), "limit", RememberFor)
}

func errAborted(id keyspace.TxnID) error {
	return fault.New(fault.FailedPrecondition, "the request was given up before it was executed, and never will be; use a new request id", "request_id", id.String(), "state", "aborted")
}
