package format

import (
	"errors"
	"testing"
)

// What stands for a payload is refused where the payload is needed.
func TestStrippedIsNoEntry(t *testing.T) {
	var e Entry
	if err := DecodeEntry(Stripped(), &e); !errors.Is(err, ErrStripped) {
		t.Fatalf("decoding it: %v", err)
	}
	for _, typ := range []EntryType{EntryWrite, EntryChunk, EntryClock, EntryDigest} {
		if IsStripped(AppendEntry(nil, &Entry{Type: typ})) {
			t.Errorf("an entry of type %d counts as stripped", typ)
		}
	}
	if IsStripped(nil) {
		t.Error("an empty payload counts as stripped")
	}
}
