package router

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/wirebuf"
)

// writtenOf is what outcomeOf says of a transaction over several groups, encoded
// behind the mark as written does it; nil when it is not among what is written by hand.
func (st *callState) writtenOf(txn *api.TransactionResponse) []byte {
	st.answer = nil
	room := maxWrittenFields
	for _, r := range txn.Results {
		if !plainResult(r) {
			return nil
		}
		room += maxWrittenResult + len(r.GetGet().GetKey())
	}
	if room > maxKept {
		return nil
	}
	b := make([]byte, outcomeHead, room)
	list, answer := protowire.Number(1), fieldOutcomeBatchPut
	switch st.kind {
	case kindBatchPut:
	case kindBatchDelete:
		answer = fieldOutcomeBatchDelete
	default:
		list, answer = 3, fieldOutcomeTransaction
		b = wirebuf.AppendNumber(appendFlag(b, 1, txn.Succeeded), 2, txn.Revision)
	}
	for _, r := range txn.Results {
		b = st.appendResult(b, list, r)
	}
	if st.kind == kindTransaction {
		st.answer = b[outcomeHead:]
	}
	return st.behindMark(b, answer, txn.Revision, txn.Succeeded)
}

// plainResult reports whether a result has no error, and nothing that is not known
// here.
func plainResult(r *api.TransactionResult) bool {
	if r == nil || r.Status != nil || len(r.ProtoReflect().GetUnknown()) > 0 {
		return false
	}
	switch r := r.Result.(type) {
	case *api.TransactionResult_Put:
		return r.Put != nil && len(r.Put.ProtoReflect().GetUnknown()) == 0
	case *api.TransactionResult_Delete:
		return r.Delete != nil && len(r.Delete.ProtoReflect().GetUnknown()) == 0
	case *api.TransactionResult_Get:
		return r.Get != nil && utf8.ValidString(r.Get.Key)
	}
	return true
}

// appendResult appends a result as a field of a number, without a value that was read.
func (st *callState) appendResult(dst []byte, number protowire.Number, r *api.TransactionResult) []byte {
	switch r := r.Result.(type) {
	case *api.TransactionResult_Put:
		return appendPutResult(dst, number, r.Put)
	case *api.TransactionResult_Delete:
		return appendDeleteResult(dst, number, st.fieldDelete(), r.Delete)
	case *api.TransactionResult_Get:
		return appendSeen(dst, number, r.Get.Key, r.Get.Revision)
	}
	return appendHead(dst, number, 0)
}
