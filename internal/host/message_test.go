package host

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// randomMessage has each field or not; sometimes those that are rare.
func randomMessage(r *rand.Rand) *raftpb.Message {
	number := func() *uint64 {
		if r.IntN(3) == 0 {
			return nil
		}
		return new(r.Uint64() >> r.IntN(64))
	}
	data := func() []byte {
		if r.IntN(3) == 0 {
			return nil
		}
		return bytes.Repeat([]byte{7}, r.IntN(300))
	}
	m := &raftpb.Message{To: number(), From: number(), Term: number(), LogTerm: number(), Index: number(),
		Commit: number(), RejectHint: number(), Vote: number(), Context: data()}
	if r.IntN(4) > 0 {
		m.Type = raftpb.MessageType(r.IntN(20)).Enum()
	}
	if r.IntN(2) > 0 {
		m.Reject = new(r.IntN(2) == 0)
	}
	for range r.IntN(3) {
		e := &raftpb.Entry{Term: number(), Index: number(), Data: data()}
		if r.IntN(2) > 0 {
			e.Type = raftpb.EntryType(r.IntN(3)).Enum()
		}
		m.Entries = append(m.Entries, e)
	}
	switch r.IntN(8) {
	case 0:
		m.Snapshot = &raftpb.Snapshot{Data: data()}
	case 1:
		m.Responses = []*raftpb.Message{{Term: number()}}
	}
	return m
}

func TestMessagesAreThoseOfProtobuf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		m := randomMessage(r)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := appendMessage([]byte("before"), m)
		if !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Fatalf("%v is encoded as %x, want %x", m, got[6:], want)
		}
		back, err := decodeMessage(want)
		if err != nil || !proto.Equal(back, m) {
			t.Fatalf("%v is decoded as %v, %v", m, back, err)
		}
	}
}

// A message that was cut short or damaged is what protobuf makes of it.
func TestDamagedMessages(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		b := appendMessage(nil, randomMessage(r))
		if len(b) == 0 {
			continue
		}
		if r.IntN(2) == 0 {
			b = b[:r.IntN(len(b))]
		} else {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		want := new(raftpb.Message)
		wantErr := proto.Unmarshal(b, want)
		got, err := decodeMessage(b)
		if (err != nil) != (wantErr != nil) || err == nil && !proto.Equal(got, want) {
			t.Fatalf("%x is decoded as %v, %v; want %v, %v", b, got, err, want, wantErr)
		}
	}
}

func BenchmarkAppendAndDecodeMessage(b *testing.B) {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(3)), LogTerm: new(uint64(3)),
		Index: new(uint64(1e6)), Commit: new(uint64(1e6)),
		Entries: []*raftpb.Entry{{Term: new(uint64(3)), Index: new(uint64(1e6 + 1)), Data: make([]byte, 3000)}}}
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = appendMessage(buf[:0], m)
		if _, err := decodeMessage(bytes.Clone(buf)); err != nil {
			b.Fatal(err)
		}
	}
}
