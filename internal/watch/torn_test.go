package watch

import (
	"context"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// lackingHost cannot tell what one key was.
type lackingHost struct {
	Host
	lacks string
}

func (h lackingHost) VersionAt(_ keyspace.GroupID, diskKey []byte, _ keyspace.Revision, _ bool) (*format.Record, error) {
	if string(diskKey) == h.lacks {
		return nil, fault.New(fault.OutOfRange, "gone")
	}
	return nil, nil
}

func putOf(key string, rev keyspace.Revision) *event {
	rec := format.Record{Value: []byte("v")}
	rec.Version, rec.Created, rec.Revision, rec.Size, rec.Checksum = 1, rev, rev, 1, format.CRC32C(rec.Value)
	return &event{group: 1, rev: rev, key: keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(key)), value: format.AppendRecord(nil, &rec)}
}

// TestAnEventThatCannotBeReadTearsNothing: the watch ends before the revision, not in
// it: nothing that was sent says that the revision is complete.
func TestAnEventThatCannotBeReadTearsNothing(t *testing.T) {
	first, last := putOf("a", 20), putOf("b", 20)
	ctx, cancel := context.WithCancelCause(t.Context())
	h := &Hub{o: Options{Host: lackingHost{lacks: string(last.key)}, Clock: stoppedClock{}, StreamBytes: 1 << 20}}
	s := &Stream{hub: h, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), watches: map[uint64]*watch{}}
	w := &watch{id: 1, stream: s, pattern: &pattern{}, src: &source{hub: h, index: newIndex()}, variant: withPrevious, sent: 10}
	s.watches[1] = w
	s.push([]item{{w: w, ev: first}, {w: w, ev: last}}, false)
	fragments := 0
	for ended := false; !ended; {
		raw, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range m.GetBatches() {
			fragments++
			if !b.GetFragment() || b.GetRevision() != 0 || len(b.GetToken()) > 0 {
				t.Errorf("part of a revision was sent as %v", b)
			}
		}
		for _, e := range m.GetEnded() {
			if ended = true; e.GetRevision() != 10 {
				t.Errorf("it ended at %d, want 10", e.GetRevision())
			}
		}
	}
	if fragments == 0 {
		t.Error("the first event was not sent, which shows nothing")
	}
}

// TestClosedStreamsBufferNothing: what a source, or who catches up, still gives to a
// stream that was closed meanwhile does not count as waiting to be sent.
func TestClosedStreamsBufferNothing(t *testing.T) {
	h := &Hub{o: Options{Clock: stoppedClock{}, StreamBytes: 1 << 20}, streams: make(map[*Stream]struct{})}
	s, err := h.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{id: 1, stream: s, pattern: &pattern{}}
	give := func() { s.push([]item{{w: w, ev: putOf("a", 20)}}, true) }
	give()
	if h.Stats().BufferBytes == 0 {
		t.Fatal("nothing is buffered")
	}
	s.Close()
	give()
	s.tell(&note{marked: []*watch{w}, rev: 20})
	if n := h.Stats().BufferBytes; n != 0 {
		t.Fatalf("%d bytes are buffered", n)
	}
}
