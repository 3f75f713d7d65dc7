package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
)

// once lets a fault happen a number of times.
func times(n int64, fault opFault) func(*api.PipelineOp) opFault {
	var used atomic.Int64
	return func(*api.PipelineOp) opFault {
		if used.Add(1) > n {
			return opFault{}
		}
		return fault
	}
}

// A write whose stream is lost after it was sent is reported, never repeated,
// whether it was executed or not, under a condition or not.
func TestLostWriteIsUnknown(t *testing.T) {
	for name, fault := range map[string]opFault{"before": {dropBefore: true}, "after": {dropAfter: true}} {
		for _, opts := range [][]PutOption{nil, {IfAbsent()}} {
			f := newFakeCluster(t, 3)
			c := f.client(nil)
			key := f.keyLedBy(f.nodes[1], "k")
			f.nodes[1].setFault(times(1, fault))
			_, err := c.Put(t.Context(), key, []byte("v"), opts...)
			wantError(t, err, ErrUnknownOutcome)
			want := 0
			if fault.dropAfter {
				want = 1
			}
			if n := f.executions(key); n != want {
				t.Fatalf("dropped %s: executed %d times", name, n)
			}
			if s := c.Stats(); s.UnknownOutcomes != 1 || s.Retries != 0 {
				t.Fatalf("dropped %s: %+v", name, s)
			}
		}
	}
}

func TestLostReadMovesOn(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[1], "k")
	mustPut(t, c, key, "v")
	f.nodes[1].setFault(times(1, opFault{dropBefore: true}))
	wantValue(t, c, key, "v")
	f.nodes[1].setFault(times(1, opFault{dropAfter: true}))
	if r, err := c.BatchGet(t.Context(), []string{key}); err != nil || string(r[0].Record.Value) != "v" {
		t.Fatalf("batch get: %+v, %v", r, err)
	}
}

// What the server says was not executed is repeated, writes too.
func TestRefusedIsRepeated(t *testing.T) {
	for _, code := range []Code{CodeOverloaded, CodeUnavailable} {
		f := newFakeCluster(t, 3)
		c := f.client(nil)
		key := f.keyLedBy(f.nodes[1], "k")
		for _, n := range f.nodes {
			n.setFault(times(2, opFault{status: statusOf(code)}))
		}
		mustPut(t, c, key, "v")
		if n := f.executions(key); n != 1 {
			t.Fatalf("%s: executed %d times", code, n)
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	refusal := statusOf(CodeOverloaded, "limit", "10", "actual", "11")
	refusal.RetryAfterMs = 30
	f.nodes[0].setFault(times(1, opFault{status: refusal}))
	start := time.Now()
	mustPut(t, c, "k", "v")
	if d := time.Since(start); d < 30*time.Millisecond {
		t.Fatalf("repeated after %v", d)
	}
}

func TestRetriesEndWithTheDeadline(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	refusal := statusOf(CodeOverloaded, "limit", "10", "actual", "11")
	refusal.RetryAfterMs = time.Minute.Milliseconds() // past the deadline
	f.nodes[0].setFault(func(*api.PipelineOp) opFault { return opFault{status: refusal} })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := c.Put(ctx, "k", nil)
	wantError(t, err, ErrOverloaded)
	wantError(t, err, context.DeadlineExceeded)
	var e *Error
	if errors.As(err, &e); e.RetryAfter != time.Minute || e.Details["limit"] != "10" {
		t.Fatalf("error %+v", e)
	}
}

// That the time is over does not say why: the attempt before does.
func TestDeadlinesTellWhatWasSaidBefore(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	first := times(1, opFault{status: statusOf(CodeUnavailable, "group", "3")})
	f.nodes[0].setFault(func(op *api.PipelineOp) opFault {
		if fault := first(op); fault.status != nil {
			return fault
		}
		return opFault{status: statusOf(CodeDeadlineExceeded)}
	})
	_, err := c.Get(t.Context(), "k")
	wantError(t, err, ErrDeadlineExceeded)
	wantError(t, err, context.DeadlineExceeded)
	const want = "; an attempt before ended with unavailable: fake: unavailable (group=3)"
	if !strings.Contains(err.Error(), want) || strings.Count(err.Error(), errorPrefix) != 1 {
		t.Errorf("error %q, want it to have %q", err, want)
	}
	_, err = c.Get(t.Context(), "k")
	wantError(t, err, ErrDeadlineExceeded)
	if strings.Contains(err.Error(), "before") {
		t.Errorf("error %q, but there was no attempt before", err)
	}
}

func TestOtherRefusalsAreFinal(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	for _, code := range []Code{CodeConditionFailed, CodeDeadlineExceeded, CodeUnknownOutcome, CodeInternal, CodePermissionDenied} {
		f.served()
		f.nodes[0].setFault(func(*api.PipelineOp) opFault { return opFault{status: statusOf(code)} })
		_, err := c.Put(t.Context(), "k", nil)
		wantError(t, err, sentinel(code))
		if got := f.served(); got[0] != 1 {
			t.Fatalf("%s: sent %d times", code, got[0])
		}
	}
}

// ASKS F2: a deadline that passes after a write was sent is not a refusal.
func TestDeadline(t *testing.T) {
	f := newFakeCluster(t, 1)
	withTimeout := f.client(func(cfg *Config) { cfg.Timeout = 300 * time.Millisecond })
	c := f.client(nil)
	mustPut(t, c, "k", "v") // opens the streams
	mustPut(t, withTimeout, "k", "v")
	f.nodes[0].setFault(func(*api.PipelineOp) opFault { return opFault{mute: true} })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := c.Put(ctx, "k", nil)
	wantError(t, err, ErrUnknownOutcome)
	wantError(t, err, context.DeadlineExceeded)
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = c.Get(ctx, "k")
	wantError(t, err, ErrDeadlineExceeded)
	wantError(t, err, context.DeadlineExceeded)
	// The same by Config.Timeout, which the sweep enforces.
	_, err = withTimeout.Put(t.Context(), "k", nil)
	wantError(t, err, ErrUnknownOutcome)
	wantError(t, err, context.DeadlineExceeded)
	_, err = withTimeout.Get(t.Context(), "k")
	wantError(t, err, ErrDeadlineExceeded)
	// The client is none the worse.
	f.nodes[0].setFault(nil)
	mustPut(t, c, "k", "v")
	mustPut(t, withTimeout, "k", "v")
}

func TestDeadlineTravels(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	var timeout atomic.Int64
	f.nodes[0].setFault(func(op *api.PipelineOp) opFault {
		timeout.Store(op.GetTimeoutMs())
		return opFault{}
	})
	mustPut(t, c, "k", "v")
	if got := timeout.Load(); got < 19_000 || got > 20_000 {
		t.Fatalf("Config.Timeout arrived as %d ms", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if got := timeout.Load(); got < 4_000 || got > 5_000 {
		t.Fatalf("the context's 5 s arrived as %d ms", got)
	}
}

func TestCancel(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	sent := make(chan struct{}, 2)
	f.nodes[0].setFault(func(*api.PipelineOp) opFault {
		sent <- struct{}{}
		return opFault{mute: true}
	})
	for _, want := range []error{ErrCanceled, ErrUnknownOutcome} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			var err error
			if errors.Is(want, ErrCanceled) {
				_, err = c.Get(ctx, "k")
			} else {
				_, err = c.Put(ctx, "k", nil)
			}
			done <- err
		}()
		<-sent
		cancel()
		err := <-done
		wantError(t, err, want)
		wantError(t, err, context.Canceled)
	}
}

func TestSlowOperationDoesNotHoldUpOthers(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	f.nodes[0].setFault(func(op *api.PipelineOp) opFault {
		if op.GetPut().GetKey() != "slow" {
			return opFault{}
		}
		held <- struct{}{}
		return opFault{hold: hold}
	})
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), "slow", nil)
		done <- err
	}()
	<-held
	for range 100 {
		mustPut(t, c, "fast", "v")
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// S3.1: a node that dies is left at once, and used again when it is back.
func TestDeadNodeIsLeft(t *testing.T) {
	f := newFakeCluster(t, 3)
	e := newEvents()
	c := f.client(func(cfg *Config) { cfg.Logger = slog.New(e) })
	dead := f.nodes[1]
	key := f.keyLedBy(dead, "k")
	mustPut(t, c, key, "1")
	dead.stop()
	start := time.Now()
	for i := range 20 {
		_, err := c.Put(t.Context(), key, []byte("2"))
		if err != nil && (i > 0 || !errors.Is(err, ErrUnknownOutcome)) {
			t.Fatalf("put %d: %v", i, err)
		}
		if err == nil {
			wantValue(t, c, key, "2", From(Any))
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Fatalf("leaving took %v", d)
	}
	e.await(t, "node left "+dead.addr)
	dead.start(dead.addr)
	e.await(t, "node is back "+dead.addr)
	f.served()
	mustPut(t, c, key, "3")
	if got := f.served(); got[1] != 1 {
		t.Fatalf("served %v", got)
	}
}

// A node that falls silent is left within a second: its reads move, what was
// not sent moves, writes that were sent wait for their answer.
func TestSilentNodeIsLeft(t *testing.T) {
	f := newFakeCluster(t, 3)
	e := newEvents()
	c := f.client(func(cfg *Config) { cfg.Logger = slog.New(e); cfg.ProbeAfter, cfg.ProbeTimeout = 0, 0 })
	silent := f.nodes[1]
	key, other := f.keyLedBy(silent, "k"), f.keyLedBy(silent, "o")
	mustPut(t, c, key, "1")
	silent.freeze()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), other, []byte("late"))
		sent <- err
	}()
	start := time.Now()
	wantValue(t, c, key, "1")
	if d := time.Since(start); d > 1200*time.Millisecond {
		t.Fatalf("the read moved after %v", d)
	}
	e.await(t, "node left "+silent.addr)
	mustPut(t, c, key, "2")
	select {
	case err := <-sent:
		t.Fatalf("the write that was sent ended with %v", err)
	default:
	}
	silent.unfreeze()
	if err := <-sent; err != nil {
		t.Fatalf("the write that was sent: %v", err)
	}
	e.await(t, "node is back "+silent.addr)
}

// A socket that stays silent is cut; the writes on it are unknown.
func TestSilentSocketIsCut(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(func(cfg *Config) { cfg.ProbeAfter, cfg.ProbeTimeout = 20*time.Millisecond, 60*time.Millisecond })
	silent := f.nodes[1]
	key := f.keyLedBy(silent, "k")
	mustPut(t, c, key, "1")
	silent.freeze()
	_, err := c.Put(t.Context(), key, nil)
	wantError(t, err, ErrUnknownOutcome)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("ended by the deadline")
	}
	silent.unfreeze()
	mustPut(t, c, key, "2")
}

func TestFullQueueIsOverloaded(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(func(cfg *Config) { cfg.MaxPending = 1 })
	sent := make(chan struct{}, 1)
	hold := make(chan struct{})
	f.nodes[0].setFault(func(*api.PipelineOp) opFault {
		sent <- struct{}{}
		return opFault{hold: hold}
	})
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), "k", nil)
		done <- err
	}()
	<-sent
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := c.Put(ctx, "k", nil)
	wantError(t, err, ErrOverloaded)
	var e *Error
	if errors.As(err, &e); e.Details["limit"] != "1" {
		t.Fatalf("details %v", e.Details)
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A stream that is turned down as a whole was not executed.
func TestRefusedStream(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	f.nodes[0].setRefuse(func(_ context.Context, method string) error {
		if strings.HasSuffix(method, "Pipeline") {
			return status.Error(codes.Unauthenticated, "who are you")
		}
		return nil
	})
	_, err := c.Put(t.Context(), "k", nil)
	wantError(t, err, ErrUnauthenticated)
	var left atomic.Int64
	left.Store(2)
	f.nodes[0].setRefuse(func(_ context.Context, method string) error {
		if strings.HasSuffix(method, "Pipeline") && left.Add(-1) >= 0 {
			return rpcError(statusOf(CodeOverloaded))
		}
		return nil
	})
	mustPut(t, c, "k", "v")
}

// A node that stops says that what it did not answer was not executed.
func TestDrainedStreamIsRepeated(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[1], "k")
	mustPut(t, c, key, "1")
	f.nodes[1].setFault(times(1, opFault{drain: true}))
	mustPut(t, c, key, "2")
	if n := f.executions(key); n != 2 {
		t.Fatalf("executed %d times", n)
	}
}

func TestUnaryFailures(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	ctx := t.Context()
	lose := func(_ context.Context, method string) error {
		if strings.HasSuffix(method, "Topology") {
			return nil
		}
		return status.Error(codes.Unavailable, "connection lost")
	}
	f.nodes[0].setRefuse(lose)
	f.nodes[1].setRefuse(lose)
	for range 5 {
		if _, err := c.List(ctx); err != nil {
			t.Fatalf("a read: %v", err)
		}
	}
	f.nodes[2].setRefuse(lose)
	_, err := c.CreateNamespace(ctx, "n")
	wantError(t, err, ErrUnknownOutcome)
	refuse := func(_ context.Context, method string) error { return rpcError(statusOf(CodeUnavailable)) }
	f.nodes[0].setRefuse(refuse)
	f.nodes[1].setRefuse(refuse)
	f.nodes[2].setRefuse(func(context.Context, string) error { return nil })
	if _, err := c.CreateNamespace(ctx, "n"); err != nil {
		t.Fatalf("a refused write: %v", err)
	}
}

// Requests beside the pipes leave a silent node too.
func TestUnaryReadsLeaveASilentNode(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[1], "k")
	mustPut(t, c, key, "value")
	f.nodes[1].freeze()
	v, err := c.GetReader(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(v); err != nil || string(got) != "value" {
		t.Fatalf("read %q, %v", got, err)
	}
	for range 6 {
		if _, err := c.List(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if _, err := c.StatusOf(t.Context(), "node-b"); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("status of the silent node: %v", err)
	}
	if _, err := c.PutReader(t.Context(), key, strings.NewReader("other"), 5); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Fatalf("took %v", d)
	}
}

func TestGetReaderResumes(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[1], "k")
	value := strings.Repeat("0123456789", 2000)
	mustPut(t, c, key, value)
	var pieces atomic.Int64
	for _, n := range f.nodes {
		n.setRefuse(func(_ context.Context, method string) error {
			if method != "GetStream piece" {
				return nil
			}
			switch pieces.Add(1) {
			case 5, 15, 30:
				return status.Error(codes.Unavailable, "connection lost")
			}
			return nil
		})
	}
	v, err := c.GetReader(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(v); err != nil || string(got) != value {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if v.Close() != nil {
		t.Fatal("close failed")
	}
}

func TestPutReaderRepeatsWithASeeker(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	var left atomic.Int64
	refuse := func(_ context.Context, method string) error {
		if strings.HasSuffix(method, "PutStream") && left.Add(-1) >= 0 {
			return rpcError(statusOf(CodeOverloaded))
		}
		return nil
	}
	f.nodes[0].setRefuse(refuse)
	left.Store(2)
	if _, err := c.PutReader(t.Context(), "k", strings.NewReader("value"), 5); err != nil {
		t.Fatal(err)
	}
	wantValue(t, c, "k", "value")
	left.Store(2)
	_, err := c.PutReader(t.Context(), "k", io.MultiReader(strings.NewReader("other")), 5)
	if err != nil && !errors.Is(err, ErrFailedPrecondition) {
		t.Fatalf("without a seeker: %v", err)
	}
}
