package format

import (
	"bytes"
	"reflect"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func TestWatchTokens(t *testing.T) {
	for _, tok := range []WatchToken{
		{},
		{{0, keyspace.SlotCount - 1, 1}},
		{{7, 7, keyspace.MaxRevision}},
		{{0, 99, 5}, {100, 100, 6}, {2000, 4095, 7}},
	} {
		b := AppendWatchToken([]byte("before"), tok)[len("before"):]
		got, err := DecodeWatchToken(b)
		if err != nil || len(got) != len(tok) || len(tok) > 0 && !reflect.DeepEqual(got, tok) {
			t.Errorf("%v decodes to %v, %v", tok, got, err)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if _, err := DecodeWatchToken(bad); fault.CodeOf(err) != fault.InvalidToken {
				t.Errorf("%v with byte %d changed: %v", tok, i, err)
			}
		}
	}
	list := AppendListToken(nil, ListToken{Namespace: 1})
	if _, err := DecodeWatchToken(list); fault.CodeOf(err) != fault.InvalidToken {
		t.Errorf("a list's token: %v", err)
	}
}

func TestWatchTokenKnowsSlots(t *testing.T) {
	part := WatchToken{{0, 99, 5}, {100, 100, 3}}
	for slot, want := range map[keyspace.SlotID]keyspace.Revision{0: 5, 99: 5, 100: 3, 101: 0} {
		if rev, ok := part.At(slot); rev != want || ok != (want > 0) {
			t.Errorf("slot %d: %d, %t", slot, rev, ok)
		}
	}
	if _, all := part.Least(); all {
		t.Error("a part of the slots counts as all")
	}
	whole := append(part[:2:2], SlotRevision{101, keyspace.SlotCount - 1, 9})
	if rev, all := whole.Least(); rev != 3 || !all {
		t.Errorf("the least of %v is %d, %t", whole, rev, all)
	}
}

func FuzzDecodeWatchToken(f *testing.F) {
	f.Add(AppendWatchToken(nil, WatchToken{{0, 99, 5}, {100, 100, 6}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := DecodeWatchToken(b)
		if err != nil {
			return
		}
		if again, err := DecodeWatchToken(AppendWatchToken(nil, tok)); err != nil || len(again) != len(tok) {
			t.Fatalf("%v encodes to what decodes to %v, %v", tok, again, err)
		}
	})
}
