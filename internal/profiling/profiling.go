// Package profiling records profiles and execution traces of this process on
// request: `kvctl debug profile` asks for them over gRPC. Nothing is sampled
// while nobody asks.
//
// The runtime's profilers belong to the process, so a Recorder makes one
// recording at a time and refuses the next. A recording is bounded in time
// (MaxDuration) and in bytes (Recorder.maxBytes): it is kept in memory until it
// is whole, because the tracer buffers without bound what a slow receiver does
// not take. A trace that reaches the bound ends there and says so.
package profiling

import (
	"context"
	"slices"
	"sync"
	"time"

	"kvstore/internal/fault"
)

// Types of recordings.
const (
	CPU       = "cpu"
	Heap      = "heap"
	Allocs    = "allocs"
	Goroutine = "goroutine"
	Mutex     = "mutex"
	Block     = "block"
	Trace     = "trace"
)

// Types are all types there are.
var Types = []string{CPU, Heap, Allocs, Goroutine, Mutex, Block, Trace}

// Lasting says whether a type records for a while; the others are of one
// moment.
func Lasting(kind string) bool {
	return kind == CPU || kind == Mutex || kind == Block || kind == Trace
}

const (
	// DefaultDuration is that of a request which names none.
	DefaultDuration = 10 * time.Second
	// MaxDuration bounds a recording.
	MaxDuration = 60 * time.Second
	// maxBytes bounds what a recording holds in memory: a trace stops at half
	// of it, which leaves room for what the tracer still writes then.
	maxBytes = 64 << 20
)

// Recording is a finished profile or trace.
type Recording struct {
	// Data is a pprof file, gzipped, or an execution trace.
	Data []byte
	// Took is how long was recorded.
	Took time.Duration
	// Cut says that the bound of bytes ended it early.
	Cut bool
}

// Recorder makes the recordings of one process. It is safe for concurrent use.
type Recorder struct {
	enabled  bool
	maxBytes int

	mu sync.Mutex // guards what follows
	// running is the type of the recording in progress, "" without one; it
	// ends by until.
	running string
	until   time.Time
}

// New returns a Recorder; one that is not enabled refuses everything.
func New(enabled bool) *Recorder { return &Recorder{enabled: enabled, maxBytes: maxBytes} }

// Record makes a recording of a type. It returns early with an error when ctx
// ends. Errors: permission_denied when profiling is turned off,
// invalid_argument, failed_precondition when another one runs, and
// message_too_large when the recording does not fit its bound.
func (r *Recorder) Record(ctx context.Context, kind string, d time.Duration) (Recording, error) {
	if !r.enabled {
		return Recording{}, fault.New(fault.PermissionDenied, "profiling is turned off on this node", "option", "debug.profiling")
	}
	if !slices.Contains(Types, kind) {
		return Recording{}, fault.New(fault.InvalidArgument, "unknown type of profile", "actual", kind, "allowed", Types)
	}
	if d == 0 {
		d = DefaultDuration
	}
	if d < 0 || d > MaxDuration {
		return Recording{}, fault.New(fault.InvalidArgument, "a profile lasts longer than 0 and not longer than the limit",
			"limit", MaxDuration, "actual", d)
	}
	if !Lasting(kind) {
		d = 0
	}
	if err := r.begin(kind, d); err != nil {
		return Recording{}, err
	}
	defer r.end()
	return r.record(ctx, kind, d)
}

func (r *Recorder) begin(kind string, d time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running != "" {
		left := max(time.Until(r.until), 0).Round(100 * time.Millisecond)
		return fault.New(fault.FailedPrecondition, "a profile is already being recorded on this node", "running", r.running, "ends_in", left)
	}
	r.running, r.until = kind, time.Now().Add(d)
	return nil
}

func (r *Recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = ""
}
