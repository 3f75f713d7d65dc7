package guard

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"kvstore/internal/fault"
)

func codeOf(err error) fault.Code { return fault.CodeOf(err) }

func TestLimiterAdmitsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter("requests", 2, 100, 4, time.Second)
		must(t, l.acquire(t.Context(), 1, 60))
		must(t, l.acquire(t.Context(), 1, 30))
		var mu sync.Mutex
		var order []int64
		wait := func(bytes int64) {
			go func() {
				if err := l.acquire(t.Context(), 1, bytes); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, bytes)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		wait(90) // a large one is not overtaken
		wait(5)
		l.release(1, 30)
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v overtook the head", order)
		}
		l.release(1, 60)
		synctest.Wait()
		if len(order) != 2 || l.bytes != 95 || l.ops != 2 {
			t.Fatalf("order %v, bytes %d, ops %d", order, l.bytes, l.ops)
		}
	})
}

func TestLimiterRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter("requests", 1, 0, 1, time.Second)
		must(t, l.acquire(t.Context(), 1, 0))
		start := time.Now()
		err := l.acquire(t.Context(), 1, 0)
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.Overloaded || f.RetryAfter == 0 || f.Details["limit"] != "1" {
			t.Errorf("after the wait: %v", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := l.acquire(ctx, 1, 0); codeOf(err) != fault.Canceled {
				t.Errorf("canceled: %v", err)
			}
		}()
		synctest.Wait()
		if err := l.acquire(t.Context(), 1, 0); codeOf(err) != fault.Overloaded {
			t.Errorf("full queue: %v", err)
		}
		cancel()
		synctest.Wait()
		l.release(1, 0)
		must(t, l.acquire(t.Context(), 1, 0))
		if l.queue.Len() != 0 {
			t.Errorf("%d still queued", l.queue.Len())
		}
	})
}

// One that is larger than the limit runs alone instead of never.
func TestLimiterLetsAGiantRunAlone(t *testing.T) {
	l := newLimiter("requests", 10, 100, 0, 0)
	must(t, l.acquire(t.Context(), 50, 1000))
	if err := l.acquire(t.Context(), 1, 1); codeOf(err) != fault.Overloaded {
		t.Errorf("beside a giant: %v", err)
	}
	l.release(50, 1000)
	must(t, l.acquire(t.Context(), 1, 1))
}

func TestReleaseOfNothingPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	newLimiter("requests", 1, 0, 0, 0).release(1, 0)
}

func TestUnaryChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Nanosecond, DefaultTimeout: time.Second, MaxTimeout: 5 * time.Second,
			Authenticate: func(context.Context, Credentials) (string, error) { return "app", nil }})
		info := &grpc.UnaryServerInfo{FullMethod: "/kvstore.v1.KVStore/Get"}
		run := func(ctx context.Context, h grpc.UnaryHandler) error {
			_, err := g.Unary()(ctx, nil, info, h)
			return err
		}
		left := func(ctx context.Context) (d time.Duration) {
			must(t, run(ctx, func(ctx context.Context, _ any) (any, error) {
				deadline, _ := ctx.Deadline()
				d = time.Until(deadline)
				if Identity(ctx) != "app" {
					t.Errorf("identity %q", Identity(ctx))
				}
				return nil, nil
			}))
			return d
		}
		if d := left(t.Context()); d != time.Second {
			t.Errorf("default deadline %v", d)
		}
		for asked, want := range map[time.Duration]time.Duration{3 * time.Second: 3 * time.Second, time.Hour: 5 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), asked)
			if d := left(ctx); d != want {
				t.Errorf("asked for %v, given %v", asked, d)
			}
			cancel()
		}
		err := run(t.Context(), func(context.Context, any) (any, error) { panic("boom") })
		if grpcstatus.Code(err) != codes.Internal {
			t.Errorf("panic: %v", err)
		}
		err = run(t.Context(), func(context.Context, any) (any, error) { return nil, fault.New(fault.ConditionFailed, "no") })
		if grpcstatus.Code(err) != codes.FailedPrecondition {
			t.Errorf("mapped to %v", err)
		}
		must(t, g.Acquire(t.Context(), 1, 0))
		err = run(t.Context(), func(context.Context, any) (any, error) { return nil, nil })
		if grpcstatus.Code(err) != codes.ResourceExhausted {
			t.Errorf("overload: %v", err)
		}
		info.FullMethod = "/grpc.health.v1.Health/Check"
		must(t, run(t.Context(), func(context.Context, any) (any, error) { return nil, nil }))
	})
}

// A node that serves nobody answers Status and health checks, refuses the rest
// by every way in, and holds no slot for it.
func TestANodeThatServesNobody(t *testing.T) {
	gone := fault.New(fault.Unavailable, "removed")
	g := New(Options{Refuse: func() error { return gone }})
	pass := func(context.Context, any) (any, error) { return nil, nil }
	for method, want := range map[string]codes.Code{
		"/kvstore.v1.KVStore/Get": codes.Unavailable, "/kvstore.v1.Cluster/Members": codes.Unavailable,
		"/kvstore.v1.KVStore/Status": codes.OK, "/grpc.health.v1.Health/Check": codes.OK,
	} {
		if _, err := g.Unary()(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, pass); grpcstatus.Code(err) != want {
			t.Errorf("%s: %v", method, err)
		}
	}
	for method, want := range map[string]int{"Get": 503, "Status": 200, "Readyz": 200} {
		w := httptest.NewRecorder()
		route := Route{Method: method, Open: method == "Readyz", Handle: func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil }}
		g.HTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), route,
			func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(503) })
		if w.Code != want {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if err := g.Acquire(t.Context(), 1, 0); err != gone { //nolint:errorlint // passed on as it is
		t.Errorf("a frame of a stream that is open: %v", err)
	}
}

// Half an answer must not look whole; none becomes a problem.
func TestHTTPPanics(t *testing.T) {
	g := New(Options{})
	fail := func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(500) }
	run := func(h Handler) (w *httptest.ResponseRecorder, p any) {
		w = httptest.NewRecorder()
		defer func() { p = recover() }()
		g.HTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), Route{Method: "Get", Handle: h}, fail)
		return w, nil
	}
	if w, p := run(func(http.ResponseWriter, *http.Request) error { panic("early") }); p != nil || w.Code != 500 {
		t.Errorf("status %d, panic %v", w.Code, p)
	}
	half := func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); panic("late") }
	if _, p := run(half); p != http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		t.Errorf("panic %v", p)
	}
	must(t, g.Acquire(t.Context(), DefaultMaxConcurrent, 0)) // every slot came back
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
