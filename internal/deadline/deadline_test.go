package deadline

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

type key struct{}

func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, waits := range []bool{false, true} {
			ctx, cancel := WithTimeout(context.WithValue(t.Context(), key{}, 7), time.Second)
			defer cancel()
			if at, ok := ctx.Deadline(); !ok || time.Until(at) != time.Second || ctx.Err() != nil || ctx.Value(key{}) != 7 {
				t.Fatalf("new: deadline %v %v, %v", at, ok, ctx.Err())
			}
			if start := time.Now(); waits {
				if <-ctx.Done(); time.Since(start) != time.Second {
					t.Errorf("done after %v", time.Since(start))
				}
			} else {
				after := time.After(time.Second)
				<-after
			}
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) || ctx.Value(key{}) != 7 {
				t.Errorf("waits %v: %v", waits, ctx.Err())
			}
			<-ctx.Done()
		}
	})
}

func TestEarlierParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ctx, end := WithTimeout(parent, time.Minute)
		defer end()
		if at, _ := ctx.Deadline(); time.Until(at) != time.Second {
			t.Errorf("deadline in %v", time.Until(at))
		}
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("after the parent's end: %v", ctx.Err())
		}
		<-ctx.Done()
	})
}

func TestCanceled(t *testing.T) {
	for _, first := range []bool{false, true} {
		ctx, cancel := WithTimeout(t.Context(), time.Hour)
		if first {
			ctx.Done()
		}
		cancel()
		cancel()
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("done asked first %v: %v", first, ctx.Err())
		}
	}
}

// TestDerived: contexts derived from it end with it and start no goroutine.
func TestDerived(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := WithTimeout(t.Context(), time.Hour)
	derived, end := context.WithCancel(ctx)
	defer end()
	if n := runtime.NumGoroutine(); n != before {
		t.Errorf("%d goroutines more", n-before)
	}
	cancel()
	<-derived.Done()
	if !errors.Is(derived.Err(), context.Canceled) {
		t.Error(derived.Err())
	}
}

// TestAllocations: the context and its cancel function.
func TestAllocations(t *testing.T) {
	parent := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		ctx, cancel := WithTimeout(parent, time.Hour)
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		cancel()
	}); n > 2 {
		t.Errorf("%v allocations, want at most 2", n)
	}
}
