package node

import "testing"

// TestQuietNodesReturnMemory: once after a burst, not under load, and not for the
// little that an idle node allocates.
func TestQuietNodesReturnMemory(t *testing.T) {
	var heap heapFigures
	r := &memoryReturn{read: func() heapFigures { return heap }}
	r.free = func() { heap.collections++ }
	for i, step := range []struct {
		allocated, collections uint64
		want                   uint64
	}{
		{100 << 20, 9, 0},   // a burst
		{100 << 20, 5, 0},   // goes on
		{1 << 20, 0, 1},     // ended
		{1 << 20, 0, 1},     // idle
		{returnLeast, 0, 2}, // idle for long
		{1 << 20, 0, 2},     //
		{100 << 20, 1, 2},   // a burst ends with a collection
		{1 << 20, 0, 3},     //
		{0, 1, 3},           // the runtime's own, of an idle node
		{returnLeast - 1, 0, 3},
	} {
		heap.allocated += step.allocated
		heap.collections += step.collections
		r.look()
		if got := r.returns.Load(); got != step.want {
			t.Errorf("step %d: memory was returned %d times, want %d", i, got, step.want)
		}
	}
}

// TestHeapFigures: the runtime has them under the names that are asked for.
func TestHeapFigures(t *testing.T) {
	before := readHeap()
	newMemoryReturn().free()
	kept := make([]byte, 1<<20)
	after := readHeap()
	if after.collections <= before.collections || after.allocated < before.allocated+uint64(len(kept)) {
		t.Errorf("%+v, then %+v", before, after)
	}
}
