package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/ctl/memserver"
)

// runMain runs kvbench against s with the contexts of this machine hidden.
func runMain(t *testing.T, s *memserver.Server, args ...string) (code int, out, errs string) {
	t.Helper()
	t.Setenv("KVCTL_CONFIG", t.TempDir()+"/none.yaml")
	t.Setenv("KVCTL_CONTEXT", "")
	var o, e bytes.Buffer
	code = Main(context.Background(), append([]string{"-e", s.Addr}, args...), &o, &e, nil)
	return code, o.String(), e.String()
}

func TestWorkloads(t *testing.T) {
	for _, mode := range []string{ModePipeline, ModeUnary} {
		for _, work := range []string{WorkPut, WorkGet, WorkMixed, WorkList, WorkBatchPut, WorkBatchGet, WorkAtomic, WorkTxn} {
			t.Run(mode+"/"+work, func(t *testing.T) {
				s := memserver.Start(t)
				code, out, errs := runMain(t, s, "-w", work, "--mode", mode, "--ops", "200", "--warmup", "0s", "--clients", "8",
					"--connections", "2", "--keys", "50", "--list-limit", "10", "--value-size", "32", "--read-ratio", "0.5", "-o", "json")
				if code != exitOK {
					t.Fatalf("exit %d: %s", code, errs)
				}
				var r Result
				if err := json.Unmarshal([]byte(out), &r); err != nil {
					t.Fatal(err)
				}
				perOp := map[string]int64{WorkList: 10, WorkBatchPut: 10, WorkBatchGet: 10, WorkAtomic: 10, WorkTxn: 10}[work]
				if r.Operations != 200 || len(r.Errors) != 0 || r.Keys != 200*max(perOp, 1) {
					t.Errorf("%d operations, %d keys, errors %v", r.Operations, r.Keys, r.Errors)
				}
				if work == WorkMixed && (r.ByKind[WorkGet].Operations == 0 || r.ByKind[WorkPut].Operations == 0) {
					t.Errorf("mixed did %v", r.ByKind)
				}
				if l := r.Latency; !(0 < l.P50 && l.P50 <= l.P95 && l.P95 <= l.P99 && l.P99 <= l.P999 && l.P999 <= l.Max) {
					t.Errorf("percentiles out of order: %+v", l)
				}
				if work != WorkPut && work != WorkBatchPut && work != WorkAtomic && work != WorkTxn && s.Len() != 50 {
					t.Errorf("%d keys preloaded, want 50", s.Len())
				}
			})
		}
	}
}

func TestErrorsAreCountedByCode(t *testing.T) {
	for _, mode := range []string{ModePipeline, ModeUnary} {
		s := memserver.Start(t)
		var n atomic.Int64
		s.FailWith(func(string, string) error {
			if n.Add(1)%2 == 0 {
				return memserver.Errorf("condition_failed", "made to fail")
			}
			return nil
		})
		code, out, errs := runMain(t, s, "--mode", mode, "--ops", "40", "--warmup", "0s", "--clients", "1", "-o", "json", "-q")
		var r Result
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK {
			t.Fatalf("exit %d, %v: %s", code, err, errs)
		}
		if r.Operations != 20 || r.Errors["condition_failed"] != 20 {
			t.Errorf("%s: %d operations, errors %v", mode, r.Operations, r.Errors)
		}
	}
}

func TestNothingSucceeded(t *testing.T) {
	s := memserver.Start(t)
	s.FailWith(func(string, string) error { return memserver.Errorf("permission_denied", "no") })
	code, out, errs := runMain(t, s, "--ops", "3", "--warmup", "0s", "--clients", "1")
	if code != exitError || !strings.Contains(out, "permission_denied: 3") || !strings.Contains(errs, "no operation succeeded") {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
}

func TestUsage(t *testing.T) {
	var out, errs bytes.Buffer
	args := []string{"-w", "x", "--mode", "y", "--clients", "0", "--zipf", "0.5", "--key-size", "3", "--duration", "0s"}
	code := Main(context.Background(), args, &out, &errs, nil)
	for _, flag := range []string{"workload", "mode", "clients", "zipf", "key-size", "duration"} {
		if !strings.Contains(errs.String(), "--"+flag) {
			t.Errorf("--%s is not reported: %s", flag, errs.String())
		}
	}
	if code != exitUsage {
		t.Errorf("exit %d", code)
	}
	errs.Reset()
	code = Main(context.Background(), []string{"--value-size", "20000000", "-o", "yaml"}, &out, &errs, nil)
	if want := "--value-size 20000000: want 0 to 16777216\n--output \"yaml\""; code != exitUsage || !strings.Contains(errs.String(), want) {
		t.Errorf("exit %d, %q does not name every bad flag: %q", code, errs.String(), want)
	}
	if code := Main(context.Background(), []string{"--version"}, &out, &errs, nil); code != exitOK || !strings.HasPrefix(out.String(), "kvbench ") {
		t.Errorf("--version: exit %d, %q", code, out.String())
	}
	if code := Main(context.Background(), []string{"--nonsense"}, &out, &errs, nil); code != exitUsage {
		t.Errorf("unknown flag: exit %d", code)
	}
}

func TestText(t *testing.T) {
	r := &Result{
		Config:  &Config{Driver: "kvstore", Workload: WorkMixed, Mode: ModePipeline, Clients: 2, Connections: 1, Keys: 10, KeySize: 16, ValueSize: 8},
		Elapsed: 2, Operations: 30, Keys: 30, OpsPerSecond: 15,
		Latency: Latency{30, 1, 1, 2, 3, 4, 5}, ByKind: map[string]Latency{"put": {10, 1, 1, 2, 3, 4, 5}, "get": {20, 1, 1, 2, 3, 4, 5}},
		Errors: map[string]int64{"unavailable": 2, "overloaded": 1},
	}
	var b bytes.Buffer
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	want := `kvstore mixed, pipeline, closed loop, 2 clients, 1 connections, 10 keys of 16 bytes, values of 8 bytes
30 operations in 2.0 s: 15 operations/s, 3 errors

   ms   mean    p50    p95    p99  p99.9    max  count
  get  1.000  1.000  2.000  3.000  4.000  5.000     20
  put  1.000  1.000  2.000  3.000  4.000  5.000     10
  all  1.000  1.000  2.000  3.000  4.000  5.000     30

errors by code
  overloaded: 1
  unavailable: 2
`
	if b.String() != want {
		t.Errorf("have\n%s\nwant\n%s", b.String(), want)
	}
}

// fake is a Driver whose operations do what it is told.
type fake struct {
	Client
	put func(ctx context.Context) error
}

// fakeDriver gives the same fake to all clients.
type fakeDriver struct{ *fake }

func (d fakeDriver) Client(int) Client                             { return d.fake }
func (d fakeDriver) CodeOf(error) string                           { return "made" }
func (d fakeDriver) Close() error                                  { return nil }
func (f *fake) Put(ctx context.Context, _ string, _ []byte) error  { return f.put(ctx) }
func (f *fake) BatchPut(context.Context, []string, [][]byte) error { return errors.New("made") }

func TestOneOutstandingOperationPerClient(t *testing.T) {
	var now, most atomic.Int64
	d := fakeDriver{&fake{put: func(context.Context) error {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		now.Add(-1)
		return nil
	}}}
	cfg := Default()
	cfg.Clients, cfg.Ops, cfg.Warmup, cfg.Duration = 4, 10_000, 0, time.Minute
	r := Run(context.Background(), &cfg, d, nil)
	if r.Operations != 10_000 || most.Load() > 4 {
		t.Errorf("%d operations, up to %d at once", r.Operations, most.Load())
	}
}

// TestOpenLoopCountsWaiting holds up the only client: operations that were due
// meanwhile have waited, and their latency says so.
func TestOpenLoopCountsWaiting(t *testing.T) {
	const hold = 50 * time.Millisecond
	var once sync.Once
	d := fakeDriver{&fake{put: func(ctx context.Context) error {
		once.Do(func() {
			timer := time.NewTimer(hold)
			<-timer.C
		})
		return nil
	}}}
	cfg := Default()
	cfg.Clients, cfg.Rate, cfg.Ops, cfg.Warmup, cfg.Duration = 1, 1000, 20, 0, time.Minute
	r := Run(context.Background(), &cfg, d, nil)
	if r.Operations != 20 || r.Latency.P50 < 20 {
		t.Errorf("%d operations, p50 %.1f ms; half of them were due at least 20 ms before the first ended", r.Operations, r.Latency.P50)
	}
}

func TestCancelEndsTheRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int64
	d := fakeDriver{&fake{put: func(ctx context.Context) error {
		if n.Add(1) == 100 {
			cancel()
		}
		return ctx.Err()
	}}}
	cfg := Default()
	cfg.Clients, cfg.Warmup, cfg.Duration = 2, 0, time.Hour
	if r := Run(ctx, &cfg, d, nil); r.Operations < 98 || len(r.Errors) != 0 {
		t.Errorf("%d operations, errors %v", r.Operations, r.Errors)
	}
}

func TestKeys(t *testing.T) {
	k := NewKeys("k", 16)
	if got := k.Key(42); got != "k000000000000042" {
		t.Errorf("%q", got)
	}
	cfg := Default()
	cfg.Keys, cfg.Zipf = 1000, 1.2
	w := newWorker(&cfg, newPool(cfg.ValueSize, 1), 0)
	seen := map[int]int{}
	for range 100_000 {
		i := w.index()
		if i < 0 || i >= cfg.Keys {
			t.Fatalf("index %d", i)
		}
		seen[i]++
	}
	most := 0
	for _, n := range seen {
		most = max(most, n)
	}
	if most < 10_000 {
		t.Errorf("the hottest of %d keys got %d of 100000", len(seen), most)
	}
	ranks := map[uint64]bool{}
	for i := range uint64(cfg.Keys) {
		ranks[i*spread%uint64(cfg.Keys)] = true
	}
	if len(ranks) != cfg.Keys {
		t.Errorf("ranks share keys: %d of %d", len(ranks), cfg.Keys)
	}
}

func TestBatchesHaveDistinctKeys(t *testing.T) {
	for _, batch := range []int{10, 10 * fewNumbers} {
		cfg := Default()
		cfg.Workload, cfg.Keys, cfg.Batch, cfg.Zipf = WorkBatchPut, batch+2, batch, 2
		w := newWorker(&cfg, newPool(cfg.ValueSize, 1), 0)
		for range 1000 {
			w.distinct()
			seen := map[string]bool{}
			for _, k := range w.batchK {
				seen[k] = true
			}
			if len(seen) != cfg.Batch {
				t.Fatalf("%q", w.batchK)
			}
		}
	}
}

// TestWorkersAllocateOnlyKeys: what is measured is not disturbed by garbage.
func TestWorkersAllocateOnlyKeys(t *testing.T) {
	cfg := Default()
	cfg.Workload, cfg.Batch, cfg.Groups, cfg.Keys = WorkTxn, 5, 2, 100
	if err := cfg.findGroups(t.Context(), grouped{groups: 5}); err != nil {
		t.Fatal(err)
	}
	w := newWorker(&cfg, newPool(cfg.ValueSize, 1), 0)
	if n := testing.AllocsPerRun(100, w.inGroups); n > 5 {
		t.Errorf("%v allocations for a transaction of 5", n)
	}
	if n := testing.AllocsPerRun(100, w.distinct); n > 5 {
		t.Errorf("%v allocations for a batch of 5", n)
	}
	rec := newRecorder()
	rec.ok(1, WorkTxn, 5, 0, 0)
	if n := testing.AllocsPerRun(100, func() { rec.ok(1, WorkTxn, 5, 1, 2) }); n > 0 {
		t.Errorf("%v allocations to record", n)
	}
}

func TestSpreadIsPrime(t *testing.T) {
	for i := 2; i <= int(math.Sqrt(spread)); i++ {
		if spread%i == 0 {
			t.Fatalf("%d divides %d", i, spread)
		}
	}
}
