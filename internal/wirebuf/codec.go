package wirebuf

import (
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	api "kvstore/api/kvstore/v1"
)

// Encoded is a message in its wire encoding.
type Encoded interface {
	// Buffers are the message's; gRPC frees them once when they are written.
	Buffers() mem.BufferSlice
}

// Codec is the codec of protobuf that takes messages which are encoded already as
// they are.
type Codec struct{ encoding.CodecV2 }

// NewCodec returns a Codec on top of gRPC's codec of protobuf.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(encproto.Name)} }

// Marshal encodes v unless it is Encoded, or an answer to a get that is nothing but
// bytes.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case Encoded:
		return m.Buffers(), nil
	case *api.GetResponse:
		if b := BytesOf(m); len(b) > 0 {
			return mem.BufferSlice{mem.SliceBuffer(b)}, nil
		}
	}
	return c.CodecV2.Marshal(v)
}
