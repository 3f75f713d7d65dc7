package profiling

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"kvstore/internal/fault"
)

func TestEveryTypeParses(t *testing.T) {
	r := New(true)
	for _, kind := range Types {
		got, err := r.Record(t.Context(), kind, 20*time.Millisecond)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if kind == Trace {
			if !bytes.HasPrefix(got.Data, []byte("go 1.")) {
				t.Errorf("no trace: %q", got.Data[:min(len(got.Data), 16)])
			}
			continue
		}
		p, err := profile.ParseData(got.Data)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if err := p.CheckValid(); err != nil || len(p.SampleType) == 0 {
			t.Errorf("%s: %v, %d sample types", kind, err, len(p.SampleType))
		}
	}
}

// TestContentionIsTheDifference: what was recorded before is not in the next
// profile.
func TestContentionIsTheDifference(t *testing.T) {
	r := New(true)
	events := func(block bool) (n int64) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		if block {
			wg.Go(func() { pingPong(ctx) })
		}
		got, err := r.Record(t.Context(), Block, 50*time.Millisecond)
		cancel()
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		p, err := profile.ParseData(got.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Sample {
			for _, l := range s.Location {
				for _, line := range l.Line {
					if line.Function.Name == "kvstore/internal/profiling.pingPong" {
						n += s.Value[0]
					}
				}
			}
		}
		return n
	}
	if n := events(true); n == 0 {
		t.Error("no blocking was seen")
	}
	if n := events(false); n != 0 {
		t.Errorf("%d events of the profile before", n)
	}
}

// pingPong blocks again and again until ctx ends.
func pingPong(ctx context.Context) {
	c := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range c {
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		c <- struct{}{}
	}
	close(c)
	wg.Wait()
}

func TestRefusals(t *testing.T) {
	if _, err := New(false).Record(t.Context(), CPU, time.Second); fault.CodeOf(err) != fault.PermissionDenied {
		t.Errorf("turned off: %v", err)
	}
	r := New(true)
	for _, c := range []struct {
		kind string
		d    time.Duration
	}{{"x", time.Second}, {CPU, MaxDuration + 1}, {CPU, -1}} {
		if _, err := r.Record(t.Context(), c.kind, c.d); fault.CodeOf(err) != fault.InvalidArgument {
			t.Errorf("%s for %s: %v", c.kind, c.d, err)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	r := New(true)
	if err := r.begin(CPU, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Record(t.Context(), Heap, 0); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Errorf("beside another: %v", err)
	}
	r.end()
	if _, err := r.Record(t.Context(), Heap, 0); err != nil {
		t.Errorf("after the other: %v", err)
	}
}

func TestCancelEndsTheRecording(t *testing.T) {
	r := New(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Record(ctx, CPU, MaxDuration); fault.CodeOf(err) != fault.Canceled {
		t.Errorf("%v", err)
	}
	if _, err := r.Record(t.Context(), CPU, time.Millisecond); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestBoundOfBytes(t *testing.T) {
	r := New(true)
	r.maxBytes = 16
	if _, err := r.Record(t.Context(), Goroutine, 0); fault.CodeOf(err) != fault.MessageTooLarge {
		t.Errorf("%v", err)
	}
	b := newBounded(10)
	if _, err := b.Write(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	b.wait(t.Context(), time.Hour)
	if !b.cut.Load() {
		t.Error("half full, and not cut")
	}
}
