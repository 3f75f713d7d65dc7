package transport

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/wirebuf"
)

// Numbers of the other fields of Frame.
const (
	clockField   protowire.Number = 1
	clusterField protowire.Number = 2
	fromField    protowire.Number = 3
	versionField protowire.Number = 4
	toField      protowire.Number = 5
	// 6 is messagesField.
	recoveryField protowire.Number = 7
)

// buffers are recycled when they have been written. Nothing clears them: whatever
// is sent was appended before.
var buffers = wirebuf.Pool

// leastFrame is the capacity of a frame that has anything, in bytes.
const leastFrame = 4 << 10

// frame is an api.Frame in its wire encoding, built message by message. The
// header fields come last, when it is sent; protobuf allows any order.
type frame struct {
	buf      *[]byte // of the pool; prefixBytes for a link, then the frame
	messages int
}

func newFrame() *frame { return &frame{} }

// size is that of the encoding without the prefix.
func (f *frame) size() int {
	if f.buf == nil {
		return 0
	}
	return len(*f.buf) - prefixBytes
}

// Numbers of GroupMessage's fields that carry messages of raft.
const (
	groupField protowire.Number = 1
	raftField  protowire.Number = 2
)

// raftOf is the message of raft that m carries, if it does. Nearly all do: those
// are written and read without protobuf's tables.
func raftOf(m *api.GroupMessage) (raft []byte, ok bool) {
	body, ok := m.GetBody().(*api.GroupMessage_Raft)
	if !ok {
		return nil, false
	}
	return body.Raft, true
}

// messageSize is the size of m's encoding.
func messageSize(m *api.GroupMessage) int {
	raft, ok := raftOf(m)
	if !ok {
		return proto.Size(m)
	}
	n := protowire.SizeTag(raftField) + protowire.SizeBytes(len(raft))
	if m.GetGroup() != 0 {
		n += protowire.SizeTag(groupField) + protowire.SizeVarint(uint64(m.GetGroup()))
	}
	return n
}

func appendMessage(b []byte, m *api.GroupMessage) ([]byte, error) {
	raft, ok := raftOf(m)
	if !ok {
		return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	}
	if m.GetGroup() != 0 {
		b = protowire.AppendTag(b, groupField, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(m.GetGroup()))
	}
	b = protowire.AppendTag(b, raftField, protowire.BytesType)
	return protowire.AppendBytes(b, raft), nil
}

// append encodes m, whose messageSize is size, in need bytes.
func (f *frame) append(m *api.GroupMessage, size, need int) {
	b := f.grow(need)
	b = protowire.AppendTag(b, messagesField, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	before := len(b)
	b, err := appendMessage(b, m)
	if err != nil || len(b)-before != size {
		panic(fmt.Sprintf("transport: message of group %d encodes to %d bytes instead of %d: %v", m.GetGroup(), len(b)-before, size, err))
	}
	*f.buf = b
	f.messages++
}

// grow returns the buffer with room for n more bytes.
func (f *frame) grow(n int) []byte {
	used := prefixBytes + f.size()
	if f.buf != nil && cap(*f.buf)-used >= n {
		return *f.buf
	}
	next := buffers.Get(max(used+n, leastFrame))
	*next = (*next)[:used]
	if f.buf != nil {
		copy(*next, *f.buf)
		buffers.Put(f.buf)
	}
	f.buf = next
	return *next
}

// frameHeader is what a sender adds to every frame.
type frameHeader struct {
	clockMS           int64
	cluster, from, to string
	version           uint32
	recovery          uint64
}

func (h *frameHeader) size() int {
	return 6*protowire.SizeTag(toField) + protowire.SizeVarint(h.recovery) + protowire.SizeVarint(uint64(h.clockMS)) + protowire.SizeVarint(uint64(h.version)) +
		protowire.SizeBytes(len(h.cluster)) + protowire.SizeBytes(len(h.from)) + protowire.SizeBytes(len(h.to))
}

// seal adds the header.
func (f *frame) seal(h *frameHeader) {
	b := f.grow(h.size())
	b = protowire.AppendTag(b, clockField, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(h.clockMS))
	b = protowire.AppendTag(b, clusterField, protowire.BytesType)
	b = protowire.AppendString(b, h.cluster)
	b = protowire.AppendTag(b, fromField, protowire.BytesType)
	b = protowire.AppendString(b, h.from)
	b = protowire.AppendTag(b, versionField, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(h.version))
	b = protowire.AppendTag(b, toField, protowire.BytesType)
	b = protowire.AppendString(b, h.to)
	if h.recovery != 0 {
		b = protowire.AppendTag(b, recoveryField, protowire.VarintType)
		b = protowire.AppendVarint(b, h.recovery)
	}
	*f.buf = b
}

// release returns the buffer of a frame that is not sent.
func (f *frame) release() {
	if f.buf != nil {
		buffers.Put(f.buf)
		f.buf = nil
	}
}

// frameCodec is the proto codec that takes frames as they are.
type frameCodec struct{ encoding.CodecV2 }

func newFrameCodec() frameCodec { return frameCodec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal hands the frame's buffer, without the prefix, to gRPC, which releases
// it.
func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	buf := f.buf
	f.buf = nil
	*buf = (*buf)[:copy(*buf, (*buf)[prefixBytes:])]
	return mem.BufferSlice{mem.NewBuffer(buf, buffers)}, nil
}
