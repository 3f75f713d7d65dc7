package client

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The pipeline's messages are written and read by hand: an operation is
// encoded by its caller straight into the bytes that go into the frame, and
// its answer is decoded by its caller straight into the result, without the
// generated messages between. This halves the work per operation (see
// BenchmarkEncodePut). wire_test.go holds this code to the generated one.

// Field numbers of api/kvstore/v1/kvstore.proto.
const (
	fieldFrameOps protowire.Number = 1 // PipelineRequest.ops, PipelineResponse.results

	fieldOpID          protowire.Number = 1 // PipelineOp
	fieldOpPut         protowire.Number = 2
	fieldOpGet         protowire.Number = 3
	fieldOpDelete      protowire.Number = 4
	fieldOpBatchPut    protowire.Number = 5
	fieldOpBatchGet    protowire.Number = 6
	fieldOpBatchDelete protowire.Number = 7
	fieldOpTimeoutMS   protowire.Number = 8
	fieldOpTransaction protowire.Number = 9
	fieldOpTouch       protowire.Number = 30
)

// lengthBytes is the room beginMessage leaves for a length: a varint padded to
// four bytes, enough for 256 MB. Padding is valid protobuf and saves encoding
// every nested message twice.
const lengthBytes = 4

func beginMessage(b []byte, field protowire.Number) (out []byte, mark int) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = append(b, 0, 0, 0, 0)
	return b, len(b)
}

func endMessage(b []byte, mark int) []byte {
	putPaddedLength(b[mark-lengthBytes:mark], len(b)-mark)
	return b
}

func putPaddedLength(b []byte, n int) {
	_ = b[3]
	b[0] = byte(n) | 0x80
	b[1] = byte(n>>7) | 0x80
	b[2] = byte(n>>14) | 0x80
	b[3] = byte(n>>21) & 0x7f
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendInt leaves zero out, as proto3 does.
func appendInt(b []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	return appendUint(b, field, uint64(v)) // protobuf's int64 is two's complement
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendUint(b, field, 1)
}

func appendMap(b []byte, field protowire.Number, m map[string]string) []byte {
	for k, v := range m {
		var mark int
		b, mark = beginMessage(b, field)
		b = appendString(b, 1, k)
		b = appendString(b, 2, v)
		b = endMessage(b, mark)
	}
	return b
}

// appendPut encodes a PutRequest.
func appendPut(b []byte, field protowire.Number, namespace string, i *PutItem) []byte {
	b, mark := beginMessage(b, field)
	b = appendString(b, 1, namespace)
	b = appendString(b, 2, i.Key)
	if len(i.Value) > 0 {
		b = appendBytes(b, 3, i.Value)
	}
	b = appendString(b, 4, i.ContentType)
	b = appendString(b, 5, i.Encoding)
	b = appendUint(b, 6, uint64(itemChecksum(i)))
	b = appendInt(b, 7, int64(i.TTL/time.Second))
	b = appendInt(b, 8, expiryMillis(i.ExpiresAt))
	b = appendMap(b, 9, i.Tags)
	b = appendMap(b, 10, i.Metadata)
	b = appendCondition(b, 11, &i.Condition)
	b = appendString(b, 40, i.Lease)
	b = appendFence(b, 41, i.fence)
	b = appendString(b, fieldRequestID, i.requestID)
	return endMessage(b, mark)
}

func appendCondition(b []byte, field protowire.Number, c *Condition) []byte {
	if c.isZero() {
		return b
	}
	b, mark := beginMessage(b, field)
	if c.Version != nil {
		b = appendUint(b, 1, *c.Version)
	}
	if c.Revision != nil {
		b = appendUint(b, 2, *c.Revision)
	}
	b = appendBool(b, 3, c.MustExist)
	b = appendBool(b, 4, c.MustNotExist)
	if c.HasValueEquals {
		b = appendBytes(b, 5, c.ValueEquals)
	}
	if c.Created != nil {
		b = appendUint(b, 40, *c.Created)
	}
	b = appendString(b, 41, c.Lease)
	return endMessage(b, mark)
}

func appendFence(b []byte, field protowire.Number, f *Fence) []byte {
	if f == nil {
		return b
	}
	b, mark := beginMessage(b, field)
	b = appendString(b, 1, f.Namespace)
	b = appendString(b, 2, f.Key)
	b = appendUint(b, 3, f.Revision)
	return endMessage(b, mark)
}

// appendDelete encodes a DeleteRequest.
func appendDelete(b []byte, field protowire.Number, namespace string, i *DeleteItem) []byte {
	b, mark := beginMessage(b, field)
	b = appendString(b, 1, namespace)
	b = appendString(b, 2, i.Key)
	b = appendCondition(b, 3, &i.Condition)
	b = appendFence(b, 40, i.fence)
	b = appendString(b, fieldRequestID, i.requestID)
	return endMessage(b, mark)
}

// appendTouch encodes a TouchRequest.
func appendTouch(b []byte, field protowire.Number, namespace string, i *touchItem) []byte {
	b, mark := beginMessage(b, field)
	b = appendString(b, 1, namespace)
	b = appendString(b, 2, i.key)
	b = appendInt(b, 3, int64(i.ttl/time.Second))
	b = appendInt(b, 4, expiryMillis(i.expiresAt))
	b = appendBool(b, 5, i.persist)
	b = appendCondition(b, 6, &i.condition)
	return endMessage(b, mark)
}

// appendGet encodes a GetRequest.
func appendGet(b []byte, field protowire.Number, namespace, key string, r *readCall) []byte {
	b, mark := beginMessage(b, field)
	b = appendString(b, 1, namespace)
	b = appendString(b, 2, key)
	b = appendInt(b, 3, int64(r.consistency))
	b = appendInt(b, 4, ceilMillis(r.maxAge))
	b = appendBool(b, 5, r.keysOnly)
	if r.at.revision != 0 {
		b = appendUint(b, 6, r.at.revision)
	}
	b = appendInt(b, 50, -r.at.agoMs)
	return endMessage(b, mark)
}

// appendBatchPut encodes the items at the given positions.
func appendBatchPut(b []byte, w *batchWriteCall, items []PutItem, positions []int) []byte {
	b, mark := beginMessage(b, fieldOpBatchPut)
	b = appendString(b, 1, w.namespace)
	for _, p := range positions {
		b = appendPut(b, 2, "", &items[p])
	}
	b = appendBool(b, 3, w.atomic)
	b = appendFence(b, 40, w.fence)
	b = appendString(b, fieldRequestID, w.requestID)
	return endMessage(b, mark)
}

func appendBatchDelete(b []byte, w *batchWriteCall, items []DeleteItem, positions []int) []byte {
	b, mark := beginMessage(b, fieldOpBatchDelete)
	b = appendString(b, 1, w.namespace)
	for _, p := range positions {
		b = appendDelete(b, 2, "", &items[p])
	}
	b = appendBool(b, 3, w.atomic)
	b = appendFence(b, 40, w.fence)
	b = appendString(b, fieldRequestID, w.requestID)
	return endMessage(b, mark)
}

func appendBatchGet(b []byte, namespace string, keys []string, positions []int, r *readCall) []byte {
	b, mark := beginMessage(b, fieldOpBatchGet)
	b = appendString(b, 1, namespace)
	for _, p := range positions {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), keys[p])
	}
	b = appendInt(b, 3, int64(r.consistency))
	b = appendInt(b, 4, ceilMillis(r.maxAge))
	b = appendBool(b, 5, r.keysOnly)
	if r.at.revision != 0 {
		b = appendUint(b, 50, r.at.revision)
	}
	return endMessage(b, mark)
}

// appendOp adds one operation to a frame.
func appendOp(frame []byte, id uint64, body []byte, timeout time.Duration) []byte {
	frame, mark := beginMessage(frame, fieldFrameOps)
	frame = appendUint(frame, fieldOpID, id)
	frame = append(frame, body...)
	frame = appendInt(frame, fieldOpTimeoutMS, ceilMillis(timeout))
	return endMessage(frame, mark)
}

// opOverheadBytes is more than appendOp adds to a body.
const opOverheadBytes = 32

// ceilMillis rounds up, so that a positive duration never becomes "none".
func ceilMillis(d time.Duration) int64 {
	if d > math.MaxInt64-time.Millisecond {
		return int64(d / time.Millisecond)
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func expiryMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
