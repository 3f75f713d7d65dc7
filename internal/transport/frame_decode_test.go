package transport

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

func randomFrame(r *rand.Rand) *frame {
	f := newFrame()
	for range r.IntN(5) {
		m := &api.GroupMessage{Group: uint32(r.IntN(3))}
		switch r.IntN(5) {
		case 0:
			m.Body = &api.GroupMessage_Unfit{Unfit: true}
		case 1:
			m.Body = &api.GroupMessage_Closed{Closed: &api.ClosedUpdate{Term: 3, Closed: r.Uint64()}}
		default:
			m.Body = &api.GroupMessage_Raft{Raft: bytes.Repeat([]byte{9}, r.IntN(200))}
		}
		size := messageSize(m)
		f.append(m, size, 1+size+3)
	}
	f.seal(&frameHeader{clockMS: r.Int64(), cluster: "c", from: "node-1", to: "node-2", version: 7, recovery: uint64(r.IntN(3))})
	return f
}

func TestFramesAreThoseOfProtobuf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		f := randomFrame(r)
		b := (*f.buf)[prefixBytes:]
		if r.IntN(3) == 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		want := new(api.Frame)
		wantErr := proto.Unmarshal(b, want)
		got, err := decodeFrame(bytes.Clone(b), &api.Frame{FromNode: "node-1"})
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("%x: %v, want %v", b, err, wantErr)
		}
		if err == nil {
			want.ProtoReflect().SetUnknown(nil)
			if !proto.Equal(got, want) {
				t.Fatalf("%x is decoded as %v, want %v", b, got, want)
			}
		}
		f.release()
	}
}
