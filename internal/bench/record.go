package bench

import (
	"runtime"
	"sort"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// Latencies are kept in nanoseconds, to three digits.
	lowest  = int64(time.Microsecond)
	highest = int64(5 * time.Minute)
	digits  = 3
	// maxShards bounds the memory of histograms whatever the number of clients.
	maxShards = 16
)

func newHistogram() *hdr.Histogram { return hdr.New(lowest, highest, digits) }

// shard is what some clients recorded since the last drain.
type shard struct {
	mu     sync.Mutex // guards what follows
	hist   map[string]*hdr.Histogram
	keys   int64
	errors map[string]int64
	last   time.Duration // of its completions
	_      [88]byte      // the next one is in another cache line
}

// recorder collects latencies and errors of all clients. Clients write to
// shards, a few for each processor: more of them would share caches with what is
// measured. One goroutine drains them into the totals.
type recorder struct {
	shards []shard

	// what follows belongs to the goroutine that drains
	hist     map[string]*hdr.Histogram
	keys     int64
	errors   map[string]int64
	last     time.Duration // completion, since the measurement began
	timeline []Point
}

func newRecorder() *recorder {
	r := &recorder{hist: map[string]*hdr.Histogram{}, errors: map[string]int64{}}
	r.shards = make([]shard, min(maxShards, 2*runtime.GOMAXPROCS(0)))
	for i := range r.shards {
		r.shards[i].hist, r.shards[i].errors = map[string]*hdr.Histogram{}, map[string]int64{}
	}
	return r
}

// ok records a success of a client, at a time since the measurement began.
func (r *recorder) ok(client int, kind string, keys int, at, latency time.Duration) {
	s := &r.shards[client%len(r.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, at)
	h := s.hist[kind]
	if h == nil {
		h = newHistogram()
		s.hist[kind] = h
	}
	_ = h.RecordValue(min(max(latency.Nanoseconds(), lowest), highest)) // within bounds
	s.keys += int64(keys)
}

// failed counts an error of a client, at a time as ok's.
func (r *recorder) failed(client int, code string, at time.Duration) {
	s := &r.shards[client%len(r.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, at)
	s.errors[code]++
}

// drain moves the shards into the totals and returns the interval as a point,
// which is not in the timeline yet.
func (r *recorder) drain(at, interval time.Duration) Point {
	all := newHistogram()
	p := Point{Seconds: at.Seconds()}
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for kind, h := range s.hist {
			total := r.hist[kind]
			if total == nil {
				total = newHistogram()
				r.hist[kind] = total
			}
			total.Merge(h)
			all.Merge(h)
			h.Reset()
		}
		r.keys += s.keys
		s.keys = 0
		r.last = max(r.last, s.last)
		for code, n := range s.errors {
			r.errors[code] += n
			p.Errors += n
		}
		clear(s.errors)
		s.mu.Unlock()
	}
	p.Operations = all.TotalCount()
	if interval > 0 {
		p.PerSecond = float64(p.Operations) / interval.Seconds()
	}
	if l := summarize(all); l.Operations > 0 {
		p.P50, p.P95, p.P99, p.Max = l.P50, l.P95, l.P99, l.Max
	}
	return p
}

// Point is one interval of a run.
type Point struct {
	Seconds    float64 `json:"t"`
	Operations int64   `json:"operations"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P95        float64 `json:"p95_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	Errors     int64   `json:"errors"`
}

func millis(ns int64) float64 { return float64(ns) / 1e6 }

// Latency summarizes a histogram, in milliseconds.
type Latency struct {
	Operations int64   `json:"operations"`
	Mean       float64 `json:"mean_ms"`
	P50        float64 `json:"p50_ms"`
	P95        float64 `json:"p95_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p99_9_ms"`
	Max        float64 `json:"max_ms"`
}

func summarize(h *hdr.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	return Latency{
		Operations: h.TotalCount(), Mean: h.Mean() / 1e6, P50: millis(h.ValueAtQuantile(50)), P95: millis(h.ValueAtQuantile(95)),
		P99: millis(h.ValueAtQuantile(99)), P999: millis(h.ValueAtQuantile(99.9)), Max: millis(h.Max()),
	}
}

// Quantile is one point of a distribution: percent of the operations took at
// most Millis.
type Quantile struct {
	Percent float64 `json:"percent"`
	Millis  float64 `json:"ms"`
}

// ticks is how many quantiles there are per halving of what is left.
const ticks = 5

// distribution is a histogram by quantile, finer towards the slowest: some 100
// points for a million operations.
func distribution(h *hdr.Histogram) []Quantile {
	if h.TotalCount() == 0 {
		return nil
	}
	var out []Quantile
	for _, b := range h.CumulativeDistributionWithTicks(ticks) {
		out = append(out, Quantile{b.Quantile, millis(b.ValueAt)})
	}
	return out
}

// kinds returns the kinds of operations there were, in order.
func (r *recorder) kinds() []string {
	out := make([]string, 0, len(r.hist))
	for k := range r.hist {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
