package router

import (
	api "kvstore/api/kvstore/v1"
	"kvstore/internal/replica"
)

// txnSlots are what the operations of a list are answered with that were not used
// yet: an allocation for all of a kind, of as many as there are.
type txnSlots struct {
	puts     []txnPut
	deletes  []txnDelete
	gets     []txnGet
	statuses []api.TransactionResult
}

type txnPut struct {
	api.TransactionResult
	put    api.TransactionResult_Put
	answer api.PutResponse
}

type txnDelete struct {
	api.TransactionResult
	del    api.TransactionResult_Delete
	answer api.DeleteResponse
}

type txnGet struct {
	api.TransactionResult
	get    api.TransactionResult_Get
	record api.Record
}

// resultKind is what the result of an operation has.
type resultKind uint8

const (
	resultStatus resultKind = iota // or nothing
	resultPut
	resultDelete
	resultGet
	resultKinds
)

func resultKindOf(o *replica.Op, op *api.TransactionOp) resultKind {
	switch {
	case o.Result.Err != nil, op.GetCheck() != nil, o.Read && !o.Result.Existed:
		return resultStatus
	case o.Read:
		return resultGet
	case o.Delete:
		return resultDelete
	}
	return resultPut
}

// slotsFor returns what the operations of a list need.
func slotsFor(ops []replica.Op, list []*api.TransactionOp) (s txnSlots) {
	var n [resultKinds]int
	for i := range ops {
		n[resultKindOf(&ops[i], list[i])]++
	}
	s.puts, s.deletes = make([]txnPut, n[resultPut]), make([]txnDelete, n[resultDelete])
	s.gets, s.statuses = make([]txnGet, n[resultGet]), make([]api.TransactionResult, n[resultStatus])
	return s
}

// take returns the next of some slots.
func take[T any](slots *[]T) *T {
	one := &(*slots)[0]
	*slots = (*slots)[1:]
	return one
}

func fillPutSlot(slot *txnPut, o *replica.Op) *api.TransactionResult {
	fillPut(&slot.answer, o)
	slot.put.Put = &slot.answer
	slot.Result = &slot.put
	return &slot.TransactionResult
}

func fillDeleteSlot(slot *txnDelete, o *replica.Op) *api.TransactionResult {
	fillDelete(&slot.answer, o)
	slot.del.Delete = &slot.answer
	slot.Result = &slot.del
	return &slot.TransactionResult
}

// txnAnswer is what a transaction is answered with.
type txnAnswer struct {
	result   api.PipelineResult_Transaction
	response api.TransactionResponse
}

// newTxnAnswer has room for n results.
func newTxnAnswer(n int) *txnAnswer {
	a := &txnAnswer{response: api.TransactionResponse{Results: make([]*api.TransactionResult, n)}}
	a.result.Transaction = &a.response
	return a
}
