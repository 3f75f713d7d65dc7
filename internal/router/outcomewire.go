package router

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/replica"
	"kvstore/internal/wirebuf"
)

// What is kept of a request is mostly that everything went well: such an outcome is
// written by hand, without the messages between. Others are encoded by the generated
// code (evaluated, encodeOutcome), to which TestWrittenOutcomes holds this.

const (
	// outcomeHead is room for what stands before the answer of an outcome: the mark,
	// and the fields of RequestOutcome with the answer's tag and length.
	outcomeHead = markBytes + 2 + 11 + 2 + 1 + 5
	// maxWrittenFields bounds all else of an outcome.
	maxWrittenFields = outcomeHead + 2 + 11
	// maxWrittenResult bounds the result of a put or delete in a list: fields of 11
	// bytes, two heads. A length below 128 takes one byte.
	maxWrittenResult = 2 + 2 + 6*11
)

// Fields of the answers of a request.
const (
	fieldOutcomeState protowire.Number = iota + 2
	fieldOutcomeRevision
	fieldOutcomeSucceeded
	_
	fieldOutcomePut
	fieldOutcomeDelete
	fieldOutcomeBatchPut
	fieldOutcomeBatchDelete
	fieldOutcomeTransaction
)

// written is what evaluated says of a request, encoded behind its mark; nil when it is
// not among what is written by hand.
func (st *callState) written(q *replica.Request) []byte {
	room := roomFor(q)
	if room == 0 {
		return nil
	}
	b, number := st.appendAnswer(make([]byte, outcomeHead, room), q)
	if st.kind == kindTransaction {
		st.answer = b[outcomeHead:]
	}
	return st.behindMark(b, number, revisionOf(q), succeeded(q))
}

// roomFor bounds what an outcome takes; 0 when it is not written by hand.
func roomFor(q *replica.Request) int {
	room := maxWrittenFields + maxWrittenResult*len(q.Ops)
	for i := range q.Ops {
		o := &q.Ops[i]
		if o.Result.Err != nil || o.Read && (!o.Result.Existed || !utf8.ValidString(o.Key)) {
			return 0
		}
		if o.Read {
			room += len(o.Key)
		}
	}
	if room > maxKept {
		return 0
	}
	return room
}

// succeeded reports whether the first list of a request was taken.
func succeeded(q *replica.Request) bool { return q.Txn == nil || q.Txn.Succeeded }

// appendAnswer appends the answer to a request, and tells which field it is.
func (st *callState) appendAnswer(dst []byte, q *replica.Request) ([]byte, protowire.Number) {
	switch st.kind { //nolint:exhaustive // the others have no id
	case kindPut:
		var p api.PutResponse
		fillPut(&p, &q.Ops[0])
		return wirebuf.AppendPut(dst, &p), fieldOutcomePut
	case kindDelete:
		var d api.DeleteResponse
		fillDelete(&d, &q.Ops[0])
		return appendDelete(dst, &d), fieldOutcomeDelete
	case kindBatchPut:
		return st.appendResults(dst, 1, q), fieldOutcomeBatchPut
	case kindBatchDelete:
		return st.appendResults(dst, 1, q), fieldOutcomeBatchDelete
	}
	dst = wirebuf.AppendNumber(appendFlag(dst, 1, succeeded(q)), 2, revisionOf(q))
	return st.appendResults(dst, 3, q), fieldOutcomeTransaction
}

// behindMark puts the mark and the outcome's own fields before an answer that begins
// at outcomeHead.
func (st *callState) behindMark(b []byte, answer protowire.Number, rev uint64, succeeded bool) []byte {
	var room [outcomeHead]byte
	head := append(room[:0], st.mark()...)
	head = wirebuf.AppendNumber(head, fieldOutcomeState, uint64(api.RequestOutcome_STATE_COMMITTED))
	head = wirebuf.AppendNumber(head, fieldOutcomeRevision, rev)
	head = appendFlag(head, fieldOutcomeSucceeded, succeeded)
	head = appendHead(head, answer, len(b)-outcomeHead)
	from := outcomeHead - len(head)
	copy(b[from:], head)
	return b[from:]
}

// appendResults appends the results of operations as fields of a number.
func (st *callState) appendResults(dst []byte, number protowire.Number, q *replica.Request) []byte {
	list := st.takenList(q)
	for i := range q.Ops {
		o := &q.Ops[i]
		switch {
		case i < len(list) && list[i].GetCheck() != nil:
			dst = appendHead(dst, number, 0)
		case o.Read:
			dst = appendSeen(dst, number, o.Key, uint64(o.Result.Revision))
		default:
			dst = st.appendWritten(dst, number, o)
		}
	}
	return dst
}

// appendWritten appends the result of a put or delete.
func (st *callState) appendWritten(dst []byte, number protowire.Number, o *replica.Op) []byte {
	if o.Delete {
		var d api.DeleteResponse
		fillDelete(&d, o)
		return appendDeleteResult(dst, number, st.fieldDelete(), &d)
	}
	var p api.PutResponse
	fillPut(&p, o)
	return appendPutResult(dst, number, &p)
}

// fieldDelete is that of a delete in its result.
func (st *callState) fieldDelete() protowire.Number {
	if st.kind == kindBatchDelete {
		return 2
	}
	return 3
}

func appendPutResult(dst []byte, number protowire.Number, p *api.PutResponse) []byte {
	dst = appendHead(dst, number, 0)
	at := len(dst)
	return closeResult(wirebuf.AppendPut(appendHead(dst, 2, 0), p), at)
}

func appendDeleteResult(dst []byte, number, field protowire.Number, d *api.DeleteResponse) []byte {
	dst = appendHead(dst, number, 0)
	at := len(dst)
	return closeResult(appendDelete(appendHead(dst, field, 0), d), at)
}

// closeResult sets the lengths of a result that begins at a position, and of the one
// message in it.
func closeResult(dst []byte, at int) []byte {
	dst[at-1], dst[at+1] = byte(len(dst)-at), byte(len(dst)-at-2)
	return dst
}

// appendSeen appends what seenRecord is.
func appendSeen(dst []byte, number protowire.Number, key string, rev uint64) []byte {
	size := sizeField(len(key)) + wirebuf.SizeNumber(rev)
	dst = appendHead(appendHead(dst, number, 1+protowire.SizeBytes(size)), 4, size)
	return wirebuf.AppendNumber(appendField(dst, fieldRecordKey, key), fieldRecordRevision, rev)
}

// appendDelete appends the fields of a delete's answer.
func appendDelete(dst []byte, d *api.DeleteResponse) []byte {
	return wirebuf.AppendNumber(appendFlag(dst, 1, d.Existed), 2, d.Revision)
}

func appendFlag(dst []byte, number protowire.Number, set bool) []byte {
	if set {
		dst = wirebuf.AppendNumber(dst, number, 1)
	}
	return dst
}
