package wirebuf

import (
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// Answers to gets that are bytes already are sent as they are; all others as the
// generated code writes them.
func TestCodec(t *testing.T) {
	plain := &api.GetResponse{ReadRevision: 9, Record: &api.Record{Key: "k", Value: []byte("v"), Version: 3}}
	b, err := proto.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	bytes, both := new(api.GetResponse), &api.GetResponse{AgeMs: 1}
	bytes.ProtoReflect().SetUnknown(b)
	both.ProtoReflect().SetUnknown(b)
	older := &api.GetResponse{ReadRevision: 9, Record: plain.Record, AgeMs: 1}
	for name, c := range map[string]struct{ send, want *api.GetResponse }{
		"plain": {plain, plain}, "bytes": {bytes, plain}, "both": {both, older}, "empty": {new(api.GetResponse), new(api.GetResponse)},
	} {
		sent, err := NewCodec().Marshal(c.send)
		if err != nil {
			t.Fatal(err)
		}
		got := new(api.GetResponse)
		if err := proto.Unmarshal(sent.Materialize(), got); err != nil || !proto.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		sent.Free()
	}
}
