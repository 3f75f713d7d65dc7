package watch

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// encoding is an event as it goes over the wire: as a whole message for the watch
// of an id, in which it lies as a field of a batch. Streams with one watch, which
// clients give the same id, are all sent the same bytes; other messages are put
// together of the field.
type encoding struct {
	watch   uint64
	field   []byte
	message mem.BufferSlice
}

// keptEncoding bounds the encodings that are kept for other watches.
const keptEncoding = 256 << 10

// encode returns the event's encoding for a variant, made for watch unless there is
// one.
func (ev *event) encode(from versions, v variant, watch uint64) (*encoding, error) {
	if e := ev.encoded[v].Load(); e != nil {
		return e, nil
	}
	m, err := ev.message(from, v)
	if err != nil {
		return nil, err
	}
	var head [16]byte
	b := appendHead(head[:0], watch)
	size := proto.Size(m)
	tail := appendPosition(nil, ev.rev, tokenOf(ev.rev))
	body := len(b) + protowire.SizeTag(batchEvents) + protowire.SizeBytes(size) + len(tail)
	raw := make([]byte, 0, protowire.SizeTag(fieldBatches)+protowire.SizeBytes(body))
	raw = protowire.AppendTag(raw, fieldBatches, protowire.BytesType)
	raw = append(protowire.AppendVarint(raw, uint64(body)), b...)
	begin := len(raw)
	raw = protowire.AppendTag(raw, batchEvents, protowire.BytesType)
	raw = protowire.AppendVarint(raw, uint64(size))
	if raw, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(raw, m); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "an event cannot be encoded")
	}
	e := &encoding{watch: watch, field: raw[begin:]}
	raw = append(raw, tail...)
	e.message = mem.BufferSlice{mem.SliceBuffer(raw)}
	if len(raw) <= keptEncoding {
		ev.encoded[v].Store(e)
	}
	return e, nil
}

// appendHead appends the first fields of an api.WatchBatch.
func appendHead(b []byte, watch uint64) []byte {
	b = protowire.AppendTag(b, batchWatch, protowire.VarintType)
	return protowire.AppendVarint(b, watch)
}

// appendPosition appends the last ones, where its watch is then.
func appendPosition(b []byte, rev keyspace.Revision, token []byte) []byte {
	b = protowire.AppendTag(b, batchRevision, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(rev))
	b = protowire.AppendTag(b, batchToken, protowire.BytesType)
	return protowire.AppendBytes(b, token)
}
