package watch

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/wirebuf"
)

// Message is an encoded api.WatchResponse, for wirebuf.Codec or Decode. Its bytes
// may be other streams' too.
type Message struct{ buffers mem.BufferSlice }

// Buffers are the message's; who takes them frees them once.
func (m *Message) Buffers() mem.BufferSlice { return m.buffers }

// Decode returns a message of Next with its fields, for those who do not pass it
// on.
func Decode(m *Message) (*api.WatchResponse, error) {
	b := m.buffers.MaterializeToBuffer(wirebuf.Pool)
	defer b.Free()
	defer m.buffers.Free()
	out := &api.WatchResponse{}
	if err := proto.Unmarshal(b.ReadOnlyData(), out); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "message of a watch cannot be decoded")
	}
	return out, nil
}

// pooled gives gRPC a buffer of the pool.
func (m *Message) pooled(b *[]byte) *Message {
	m.buffers = mem.BufferSlice{mem.NewBuffer(b, wirebuf.Pool)}
	return m
}
