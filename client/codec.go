package client

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"kvstore/internal/wirebuf"
)

// rawCodec passes frames that are already encoded. It calls itself by the
// name of gRPC's protobuf codec, because that is what the bytes are.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Name() string { return encproto.Name }

// Marshal takes a *[]byte from mem.DefaultBufferPool; gRPC gives it back.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("frame codec: cannot encode %T", v)
	}
	return mem.BufferSlice{mem.NewBuffer(b, wirebuf.Pool)}, nil
}

// Unmarshal keeps a reference to the received bytes in a *frame.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("frame codec: cannot decode into %T", v)
	}
	f.buf = data.MaterializeToBuffer(wirebuf.Pool)
	return nil
}
