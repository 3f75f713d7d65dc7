package node

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"kvstore/internal/config"
	"kvstore/internal/env/system"
)

// tuneMemory lets Go's collector know about the budget: it works harder when
// the process comes near it than growth alone would make it.
func tuneMemory(c *config.Config) {
	total := int64(c.Budget().Total)
	if c.Witness() {
		debug.SetMemoryLimit(witnessLimit)
		debug.SetGCPercent(witnessGarbage)
		return
	}
	debug.SetMemoryLimit(max(total-total/32, 192<<20))
	if c.Profile != "edge" && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(roomyGarbage)
	}
}

const (
	// roomyGarbage is how much garbage a node may have beside what lives, in percent,
	// as long as its budget has room: half as many collections as Go's own choice,
	// and 4 % more puts. Near the budget the limit decides.
	roomyGarbage = 200
	// witnessLimit leaves room below 64 MB for what Go does not count.
	witnessLimit = 36 << 20
	// witnessGarbage is how much garbage a witness may have beside what lives, in
	// percent: it has little to do, and little memory.
	witnessGarbage = 50
)

const (
	// quietLook is how long nothing is collected on a quiet node.
	quietLook = 10 * time.Second
	// returnLeast is what was allocated at least since memory was returned.
	returnLeast = 8 << 20
)

// memoryReturn gives memory back to the system when an edge node becomes quiet.
//
// Go collects when the heap has doubled, and returns memory by what it was at the
// last collection. A burst of work ends anywhere between two of those: its
// garbage stays, and the memory of its peak, until the runtime collects for want
// of anything else, after two minutes, and once more before it lets go. So whoever
// did not collect for a while and has allocated something collects now, and returns
// everything that is free. Under load the runtime's own pace is the right one: half
// as much room for garbage took a fifth of the reads of large values. An idle node
// allocates so little that it does this once in minutes.
type memoryReturn struct {
	read func() heapFigures
	free func()

	collections uint64 // at the last look
	allocated   uint64 // when memory was returned
	returns     atomic.Uint64
}

// heapFigures count since the start of the process.
type heapFigures struct {
	collections uint64
	allocated   uint64 // bytes
}

func newMemoryReturn() *memoryReturn {
	return &memoryReturn{read: readHeap, free: debug.FreeOSMemory}
}

// run looks at times until ctx ends.
func (r *memoryReturn) run(ctx context.Context) {
	for system.Pause(ctx, quietLook) == nil {
		r.look()
	}
}

func (r *memoryReturn) look() {
	now := r.read()
	quiet := now.collections == r.collections
	r.collections = now.collections
	if !quiet || now.allocated-r.allocated < returnLeast {
		return
	}
	r.free()
	now = r.read() // with the collections that this took
	r.collections, r.allocated = now.collections, now.allocated
	r.returns.Add(1)
}

func readHeap() heapFigures {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return heapFigures{collections: samples[0].Value.Uint64(), allocated: samples[1].Value.Uint64()}
}
