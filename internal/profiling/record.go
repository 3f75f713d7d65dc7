package profiling

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/pprof/profile"

	"kvstore/internal/fault"
)

// Sampling of contention while it is recorded: one mutex event in
// mutexFraction, one blocking event per blockRate nanoseconds blocked.
const (
	mutexFraction = 10
	blockRate     = 10_000
)

func (r *Recorder) record(ctx context.Context, kind string, d time.Duration) (Recording, error) {
	out := newBounded(r.maxBytes)
	start := time.Now()
	var err error
	switch kind {
	case CPU:
		err = recordCPU(ctx, out, d)
	case Trace:
		err = recordTrace(ctx, out, d)
	case Mutex, Block:
		err = recordContention(ctx, out, kind, d)
	default:
		err = snapshot(out, kind)
	}
	took := time.Since(start)
	if ctx.Err() != nil {
		return Recording{}, ended(ctx, kind)
	}
	if err != nil {
		return Recording{}, err
	}
	if out.overflowed() {
		return Recording{}, fault.New(fault.MessageTooLarge, "the profile is too large", "type", kind, "limit_bytes", r.maxBytes)
	}
	return Recording{Data: out.buf.Bytes(), Took: took, Cut: out.cut.Load()}, nil
}

// ended is the fault that ended ctx, or that nobody waits any more.
func ended(ctx context.Context, kind string) error {
	cause := context.Cause(ctx)
	if f := (*fault.Error)(nil); errors.As(cause, &f) {
		return f
	}
	return fault.Wrap(fault.Canceled, cause, "the recording was ended", "type", kind)
}

func recordCPU(ctx context.Context, out *bounded, d time.Duration) error {
	if err := pprof.StartCPUProfile(out); err != nil {
		return busy(CPU, err)
	}
	defer pprof.StopCPUProfile()
	out.wait(ctx, d)
	return nil
}

func recordTrace(ctx context.Context, out *bounded, d time.Duration) error {
	if err := trace.Start(out); err != nil {
		return busy(Trace, err)
	}
	defer trace.Stop()
	out.wait(ctx, d)
	return nil
}

// busy is a profiler that somebody else in this process uses, /debug/pprof
// for one.
func busy(kind string, err error) error {
	return fault.Wrap(fault.FailedPrecondition, err, "the profiler is in use on this node", "type", kind)
}

// recordContention samples for d. The runtime only adds up, so the profile is
// the difference to what was there before.
func recordContention(ctx context.Context, out *bounded, kind string, d time.Duration) error {
	before, err := parsed(kind)
	if err != nil {
		return err
	}
	stop := sampleContention(kind)
	out.wait(ctx, d)
	stop()
	after, err := parsed(kind)
	if err != nil {
		return err
	}
	before.Scale(-1)
	diff, err := profile.Merge([]*profile.Profile{before, after})
	if err != nil {
		return fmt.Errorf("difference of two %s profiles: %w", kind, err)
	}
	diff.TimeNanos, diff.DurationNanos = after.TimeNanos-d.Nanoseconds(), d.Nanoseconds()
	return diff.Write(out)
}

func sampleContention(kind string) (stop func()) {
	if kind == Block {
		runtime.SetBlockProfileRate(blockRate)
		return func() { runtime.SetBlockProfileRate(0) }
	}
	before := runtime.SetMutexProfileFraction(mutexFraction)
	return func() { runtime.SetMutexProfileFraction(before) }
}

func parsed(kind string) (*profile.Profile, error) {
	var b bytes.Buffer
	if err := snapshot(&b, kind); err != nil {
		return nil, err
	}
	p, err := profile.Parse(&b)
	if err != nil {
		return nil, fmt.Errorf("parse the %s profile: %w", kind, err)
	}
	return p, nil
}

// snapshot writes what the runtime knows now. Heap and allocs are as of the
// last collection, so there is one first.
func snapshot(out io.Writer, kind string) error {
	if kind == Heap || kind == Allocs {
		runtime.GC()
	}
	if err := pprof.Lookup(kind).WriteTo(out, 0); err != nil && !errors.Is(err, errFull) {
		return fmt.Errorf("write the %s profile: %w", kind, err)
	}
	return nil
}

var errFull = errors.New("the recording is too large")

// bounded keeps what is written up to a bound and tells when it is half full.
type bounded struct {
	limit int
	half  chan struct{} // closed when half of limit is there
	cut   atomic.Bool   // wait ended because of it

	mu       sync.Mutex // guards what follows
	buf      bytes.Buffer
	overflow bool
}

func newBounded(limit int) *bounded { return &bounded{limit: limit, half: make(chan struct{})} }

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.buf.Len()
	if before+len(p) > b.limit {
		b.overflow = true
		return 0, errFull
	}
	n, err := b.buf.Write(p)
	if mark := b.limit / 2; before < mark && b.buf.Len() >= mark {
		close(b.half)
	}
	return n, err
}

func (b *bounded) overflowed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.overflow
}

// wait returns after d, when ctx ends, or when half of the bound is used.
func (b *bounded) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-b.half:
		b.cut.Store(true)
	}
}
