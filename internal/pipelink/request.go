package pipelink

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// Frames of requests are decoded by hand: what is common in them, with few pieces of
// memory for many operations. Where an operation, or a message in one, has what is
// not read here (maps, unknown fields, a field twice that would be merged, text that
// is no UTF-8), the generated code decodes that message whole; what is not even a
// list of operations it decodes from the start. So it is the generated code that
// says what is an error, and which. TestRequests and FuzzRequest hold one to the
// other.

// Fields of a PipelineRequest and a PipelineOp as they begin on the wire: the number
// and the type, of which any other is left to the generated code.
const (
	tagOps = 1<<3 | uint64(protowire.BytesType)

	tagOpID          = 1<<3 | uint64(protowire.VarintType)
	tagOpPut         = 2<<3 | uint64(protowire.BytesType)
	tagOpGet         = 3<<3 | uint64(protowire.BytesType)
	tagOpDelete      = 4<<3 | uint64(protowire.BytesType)
	tagOpBatchPut    = 5<<3 | uint64(protowire.BytesType)
	tagOpBatchGet    = 6<<3 | uint64(protowire.BytesType)
	tagOpTimeout     = 8<<3 | uint64(protowire.VarintType)
	tagOpTransaction = 9<<3 | uint64(protowire.BytesType)
)

// unmarshal is proto.Unmarshal; msg keeps nothing of body.
func unmarshal(body []byte, msg proto.Message) error {
	if q, ok := msg.(*api.PipelineRequest); ok && readRequest(body, q) {
		return nil
	}
	return proto.Unmarshal(body, msg)
}

// readRequest decodes a frame of operations; false when the generated code has to.
func readRequest(body []byte, q *api.PipelineRequest) bool {
	n, ok := countRepeated(body, tagOps)
	if !ok {
		return false
	}
	ops := make([]api.PipelineOp, n)
	all := make([]*api.PipelineOp, n)
	m := message{b: body}
	for i := 0; m.next(); i++ {
		if m.tag != tagOps {
			return false
		}
		all[i] = &ops[i]
		if !readOp(m.bytes, all[i]) && !readRarely(m.bytes, all[i], 1) {
			return false
		}
	}
	q.Reset()
	q.Ops = all
	return !m.bad
}

// readRarely has the generated code decode a message that is so many messages deep:
// what is left of its bound of depth is the same as in the whole.
func readRarely(b []byte, m proto.Message, depth int) bool {
	return proto.UnmarshalOptions{RecursionLimit: protowire.DefaultRecursionLimit - depth}.Unmarshal(b, m) == nil
}

// countRepeated counts the fields of a message that begin with tag.
func countRepeated(b []byte, tag uint64) (n int, ok bool) {
	m := message{b: b}
	for m.next() {
		if m.tag == tag {
			n++
		}
	}
	return n, !m.bad
}

// readOp decodes an operation; false when the generated code has to.
func readOp(b []byte, op *api.PipelineOp) bool {
	for m := (message{b: b}); ; {
		if !m.next() {
			return !m.bad
		}
		switch m.tag {
		case tagOpID:
			op.Id = m.num
			continue
		case tagOpTimeout:
			op.TimeoutMs = int64(m.num)
			continue
		}
		if op.Op != nil || !readKind(&m, op) {
			return false
		}
	}
}

// readKind decodes what an operation does.
func readKind(m *message, op *api.PipelineOp) bool {
	switch m.tag {
	case tagOpGet:
		one := &struct {
			api.PipelineOp_Get
			q api.GetRequest
		}{}
		one.Get, op.Op = &one.q, &one.PipelineOp_Get
		return readGet(m.bytes, &one.q, new(memory))
	case tagOpPut:
		one := &struct {
			api.PipelineOp_Put
			put
		}{}
		one.Put, op.Op = &one.q, &one.PipelineOp_Put
		return readPut(m.bytes, &one.put, new(memory), 2)
	case tagOpDelete:
		one := &struct {
			api.PipelineOp_Delete
			q api.DeleteRequest
		}{}
		one.Delete, op.Op = &one.q, &one.PipelineOp_Delete
		return readDelete(m.bytes, &one.q, new(memory), 2)
	case tagOpBatchPut:
		one := &struct {
			api.PipelineOp_BatchPut
			q api.BatchPutRequest
		}{}
		one.BatchPut, op.Op = &one.q, &one.PipelineOp_BatchPut
		return readBatchPut(m.bytes, &one.q)
	case tagOpBatchGet:
		one := &struct {
			api.PipelineOp_BatchGet
			q api.BatchGetRequest
		}{}
		one.BatchGet, op.Op = &one.q, &one.PipelineOp_BatchGet
		return readBatchGet(m.bytes, &one.q)
	case tagOpTransaction:
		one := &struct {
			api.PipelineOp_Transaction
			q api.TransactionRequest
		}{}
		one.Transaction, op.Op = &one.q, &one.PipelineOp_Transaction
		return readTransaction(m.bytes, &one.q)
	}
	return false
}
