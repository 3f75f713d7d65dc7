package router

import (
	"sync"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/wirebuf"
)

// What a mark tells a request by is the hash of its operation as the generated code
// encodes it deterministically, without the id. Those bytes are written by hand here
// for the operations that are common; for others, as with tags, the generated code
// does. TestContent and FuzzContent hold one to the other, byte for byte: records
// keep the hash, and nodes of other versions compare it with theirs.

// contentHash is that of the operation without its id.
func (st *callState) contentHash() uint64 {
	buf := contents.Get().(*[]byte)
	defer contents.Put(buf)
	b, from, rare := appendContent((*buf)[:0], st.call.Op)
	if rare {
		var err error
		if b, err = appendRareContent(b[:0], st.call.Op); err != nil {
			return 0 // cannot be: it was received
		}
	}
	if cap(b) <= maxKept {
		*buf = b
	}
	return xxh3.Hash(b[from:])
}

// contents are buffers for operations that are hashed.
var contents = sync.Pool{New: func() any { return new([]byte) }}

// appendRareContent has the generated code encode an operation.
func appendRareContent(dst []byte, op *api.PipelineOp) ([]byte, error) {
	op = &api.PipelineOp{Op: op.Op}
	switch o := op.Op.(type) {
	case *api.PipelineOp_Put:
		q := proto.CloneOf(o.Put)
		q.RequestId = ""
		op.Op = &api.PipelineOp_Put{Put: q}
	case *api.PipelineOp_Delete:
		q := proto.CloneOf(o.Delete)
		q.RequestId = ""
		op.Op = &api.PipelineOp_Delete{Delete: q}
	case *api.PipelineOp_Transaction:
		op.Op = &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
			Namespace: o.Transaction.Namespace, Checks: o.Transaction.Checks, Then: o.Transaction.Then, Otherwise: o.Transaction.Otherwise}}
	case *api.PipelineOp_BatchPut:
		op.Op = &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Namespace: o.BatchPut.Namespace, Items: o.BatchPut.Items}}
	case *api.PipelineOp_BatchDelete:
		op.Op = &api.PipelineOp_BatchDelete{BatchDelete: &api.BatchDeleteRequest{Namespace: o.BatchDelete.Namespace, Items: o.BatchDelete.Items}}
	}
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, op)
}

// content writes an operation.
type content struct {
	b []byte
	// rare: it holds something that is not written here.
	rare bool
}

// contentHead is room for the field around an operation: a tag of one byte and a
// length.
const contentHead = 1 + 10

// appendContent appends an operation without its id and returns where it begins;
// rare says that it was not encoded.
func appendContent(dst []byte, op *api.PipelineOp) (b []byte, from int, rare bool) {
	from = len(dst) + contentHead
	c := content{b: append(dst, make([]byte, contentHead)...)}
	var number protowire.Number
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		number = 2
		if c.plain(o.Put, o.Put == nil || rarePut(o.Put)) {
			c.putBody(o.Put)
		}
	case *api.PipelineOp_Delete:
		number = 4
		if c.plain(o.Delete, o.Delete == nil || rareDelete(o.Delete)) {
			c.deleteBody(o.Delete)
		}
	case *api.PipelineOp_BatchPut:
		number = 5
		c.batchPut(o.BatchPut)
	case *api.PipelineOp_BatchDelete:
		number = 7
		c.batchDelete(o.BatchDelete)
	case *api.PipelineOp_Transaction:
		number = 9
		c.transaction(o.Transaction)
	default:
		c.rare = true
	}
	if c.rare {
		return c.b, 0, true
	}
	body := len(c.b) - from
	from -= protowire.SizeTag(number) + protowire.SizeVarint(uint64(body))
	appendHead(c.b[:from], number, body)
	return c.b, from, false
}

// appendHead appends the tag and length of a message of size bytes.
func appendHead(dst []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.BytesType), uint64(size))
}

func (c *content) transaction(q *api.TransactionRequest) {
	c.text(1, q.Namespace)
	for _, check := range q.Checks {
		c.check(2, check)
	}
	for _, op := range q.Then {
		c.operation(3, op)
	}
	for _, op := range q.Otherwise {
		c.operation(4, op)
	}
}

func (c *content) batchPut(q *api.BatchPutRequest) {
	c.text(1, q.Namespace)
	for _, put := range q.Items {
		if c.mayPut(put) {
			c.head(2, sizePut(put))
			c.putBody(put)
		}
	}
}

func (c *content) batchDelete(q *api.BatchDeleteRequest) {
	c.text(1, q.Namespace)
	for _, del := range q.Items {
		if c.mayDelete(del) {
			c.head(2, sizeDelete(del))
			c.deleteBody(del)
		}
	}
}

// operation writes one of a transaction's list.
func (c *content) operation(list protowire.Number, op *api.TransactionOp) {
	if !c.plain(op, op == nil) {
		return
	}
	switch o := op.Op.(type) {
	case *api.TransactionOp_Put:
		if c.mayPut(o.Put) {
			c.nested(list, 1, sizePut(o.Put))
			c.putBody(o.Put)
		}
	case *api.TransactionOp_Delete:
		if c.mayDelete(o.Delete) {
			c.nested(list, 2, sizeDelete(o.Delete))
			c.deleteBody(o.Delete)
		}
	case *api.TransactionOp_Get:
		c.get(list, o.Get)
	case *api.TransactionOp_Touch:
		c.touch(list, o.Touch)
	case *api.TransactionOp_Check:
		if o.Check != nil {
			size := sizeCheck(o.Check)
			c.head(list, protowire.SizeTag(40)+protowire.SizeBytes(size))
		}
		c.check(40, o.Check)
	default:
		c.rare = true
	}
}

// nested writes the heads of a message in an operation of a transaction.
func (c *content) nested(list, number protowire.Number, size int) {
	c.head(list, protowire.SizeTag(number)+protowire.SizeBytes(size))
	c.head(number, size)
}

// plain reports whether a message has nothing that is not known here.
func (c *content) plain(m proto.Message, none bool) bool {
	if none || len(m.ProtoReflect().GetUnknown()) > 0 {
		c.rare = true
	}
	return !c.rare
}

func (c *content) head(number protowire.Number, size int) { c.b = appendHead(c.b, number, size) }

func (c *content) text(number protowire.Number, s string) {
	if s == "" {
		return
	}
	if !utf8.ValidString(s) {
		c.rare = true
	}
	c.b = protowire.AppendString(protowire.AppendTag(c.b, number, protowire.BytesType), s)
}

func (c *content) number(number protowire.Number, v uint64) {
	c.b = wirebuf.AppendNumber(c.b, number, v)
}

func (c *content) flag(number protowire.Number, set bool) {
	if set {
		c.number(number, 1)
	}
}

// optional writes a number that may be there and 0.
func (c *content) optional(number protowire.Number, v *uint64) {
	if v != nil {
		c.b = protowire.AppendVarint(protowire.AppendTag(c.b, number, protowire.VarintType), *v)
	}
}
