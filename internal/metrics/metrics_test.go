package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kvstore/internal/fault"
)

func read(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

// S3.24: the names that alerts and dashboards use.
func TestEveryMetricIsShown(t *testing.T) {
	r := New("v1")
	h := r.Hooks()
	h.Election(3, true)
	h.Commit(time.Millisecond)
	h.Fsync(time.Millisecond)
	h.Batch(7)
	h.ReadBatch(2)
	h.Flush(time.Second, 100)
	h.Snapshot(true, 5)
	h.Snapshot(false, 6)
	h.Overloaded()
	h.LoopLatency(time.Microsecond)
	h.Stall()
	q := r.Requests()
	q.Observe("Put", "", 2*time.Millisecond)
	q.Observe("Put", "", 2*time.Millisecond)
	q.Observe("Get", fault.NotFound, time.Millisecond)
	q.InFlight("Pipeline", 1)
	q.Bytes(10, 20)
	q.Panicked()
	r.Storage(func() Storage { return Storage{LSM: 1, ValueLog: 2, RaftLog: 3, Delta: 4, History: 5} })
	r.Groups(func() []Group {
		return []Group{{Group: "1", Leader: true, Commit: 9, Applied: 7, Term: 2, Backlog: 3, Swept: 4}}
	})
	r.Counter("kvstore_dropped_total", "Dropped.", func() float64 { return 1 })
	_, text := read(t, r.Serve(Pages{Ready: func() (bool, string) { return true, "" }}), "/metrics")
	for _, want := range []string{
		`kvstore_request_duration_seconds_count{code="ok",method="Put"} 2`,
		`kvstore_request_duration_seconds_count{code="not_found",method="Get"} 1`,
		`kvstore_leader_elections_total{group="3",planned="true"} 1`,
		`kvstore_commit_latency_seconds_count 1`, `kvstore_fsync_duration_seconds_count 1`,
		`kvstore_batch_operations_sum 7`, `kvstore_read_batch_operations_sum 2`, `kvstore_apply_lag_entries{group="1"} 2`,
		`kvstore_badger_bytes{kind="lsm"} 1`, `kvstore_badger_bytes{kind="value_log"} 2`, `kvstore_raft_log_bytes 3`,
		`kvstore_delta_bytes 4`, `kvstore_history_bytes 5`, `kvstore_leader{group="1"} 1`, `kvstore_ttl_backlog{group="1"} 3`, `kvstore_ttl_swept_total{group="1"} 4`, `kvstore_snapshots_total{direction="sent"} 1`,
		`kvstore_snapshot_bytes_total{direction="received"} 6`, `kvstore_overloaded_total 1`, `kvstore_disk_stalls_total 1`, `kvstore_requests_in_flight{method="Pipeline"} 1`,
		`kvstore_request_bytes_total{direction="sent"} 20`, `kvstore_request_panics_total 1`, `kvstore_build_info{version="v1"} 1`,
		`kvstore_dropped_total 1`, `kvstore_host_loop_seconds_count 1`, `kvstore_flush_bytes_total 100`, `go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestPages(t *testing.T) {
	ready := false
	pages := Pages{Ready: func() (bool, string) { return ready, "joining" }}
	h := New("v1").Serve(pages)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/debug/pprof/": 404} {
		if code, body := read(t, h, path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := read(t, h, "/readyz"); body != "not ready: joining\n" {
		t.Errorf("reason %q", body)
	}
	ready, pages.Pprof = true, true
	h = New("v1").Serve(pages)
	for path, want := range map[string]int{"/readyz": 200, "/debug/pprof/cmdline": 200} {
		if code, _ := read(t, h, path); code != want {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	q := New("v1").Requests()
	for b.Loop() {
		q.Observe("Put", "", time.Millisecond)
	}
}
