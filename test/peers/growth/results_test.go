package main

import (
	"strings"
	"testing"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
)

const megabyte = 1 << 20

// sample has two sizes; the second does part of the first's operations.
func sample(part float64) *results {
	g := &growth{Common: experiment.Common{KeySize: 16, ValueSize: 256}, First: 1000, Keys: 2000, Rounds: 1, Overwrite: time.Minute, OverwriteInterval: 20 * time.Second,
		Quiet: quiet{Window: time.Second, CPUs: 0.2, Written: megabyte, Limit: time.Minute}}
	r := &results{settings: g, budget: 1 << 30}
	for i, n := range g.sizes() {
		scale := 1.0
		if i == 1 {
			scale = part
		}
		z := &size{Keys: n, Loaded: 1000, LoadSeconds: 2, Ready: 1.5, FirstRead: 1.6, Settled: settled{Seconds: 7, Quiet: i == 0},
			Memory: []cluster.Memory{{Total: 900 * megabyte, Anonymous: 500 * megabyte}, {Total: 800 * megabyte, Anonymous: 600 * megabyte}},
			Disk:   []int64{100 * megabyte, 200 * megabyte, 300 * megabyte}, Written: cluster.Writes{Device: 50 * megabyte, Nodes: 500 * megabyte}, UserWritten: 5 * megabyte, UserStored: 150 * megabyte}
		run := &experiment.Run{PerSecond: 1000 * scale, P99: 5}
		z.Put, z.Get = []*experiment.Run{run}, []*experiment.Run{run}
		z.Busy.Put, z.Busy.Get = run, run
		r.Sizes = append(r.Sizes, z)
	}
	r.Overwrite = &overwritten{Put: &experiment.Run{PerSecond: 500, P99: 9, Max: 80}}
	for i, tail := range []float64{4, 5, 8} {
		r.Overwrite.Intervals = append(r.Overwrite.Intervals, &interval{Seconds: float64(20 * i), Get: &experiment.Run{P99: tail, Max: 90},
			Memory: []cluster.Memory{{Total: 950 * megabyte, Anonymous: 610 * megabyte}}, Disk: []int64{3 * megabyte}})
	}
	r.Overwrite.Stall = r.Overwrite.stall()
	r.judge()
	return r
}

func missed(r *results) (claims []string) {
	for _, v := range r.Verdicts {
		if !v.Met {
			claims = append(claims, v.Claim)
		}
	}
	return claims
}

func TestVerdicts(t *testing.T) {
	if m := missed(sample(0.7)); m != nil {
		t.Errorf("missed %q", m)
	}
	if m := missed(sample(0.69)); len(m) != 2 {
		t.Errorf("missed %q, want put and get", m)
	}
	r := sample(1)
	r.Overwrite.Intervals[2].Get.P99 = 8.1
	r.Overwrite.Stall = 1000
	r.Sizes[1].Memory[0].Total = 1<<30 + 1
	r.judge()
	if m := missed(r); len(m) != 3 || !strings.Contains(m[0], "VmRSS") || !strings.Contains(m[1], "stall") || !strings.Contains(m[2], "gets") {
		t.Errorf("missed %q", m)
	}
}

func TestStall(t *testing.T) {
	point := func(at float64, operations int64) bench.Point {
		return bench.Point{Seconds: at, Operations: operations}
	}
	o := &overwritten{Put: &experiment.Run{Max: 300}, Intervals: []*interval{{Get: &experiment.Run{Max: 400}}}}
	o.Timeline = []bench.Point{point(1, 5), point(2, 5), point(2.1, 0)}
	if got := o.stall(); got != 400 {
		t.Errorf("%v ms, want the slowest get: the last point is cut off", got)
	}
	o.Timeline = []bench.Point{point(1, 5), point(2, 0), point(3, 0), point(4, 5), point(5, 1)}
	if got := o.stall(); got != 2000 {
		t.Errorf("%v ms, want two seconds without an answer", got)
	}
}

func TestPerSecond(t *testing.T) {
	timeline := []bench.Point{{Seconds: 1, Operations: 10}, {Seconds: 2, Operations: 20}, {Seconds: 3, Operations: 30}}
	if got := perSecond(timeline, 1, 3); got != 25 {
		t.Errorf("%v, want 25", got)
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		first, second, keys int
		want                int
	}{{1, 10, 20, 3}, {1, 10, 10, 2}, {1, 10, 5, 2}, {5, 10, 5, 1}} {
		g := &growth{First: c.first, Second: c.second, Keys: c.keys}
		if got := g.sizes(); len(got) != c.want || got[len(got)-1] != c.keys {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestTables(t *testing.T) {
	r := sample(1)
	r.Stopped = "1h0m0s are nearly over"
	text := r.Tables()
	if err := experiment.CheckTables(text, 4); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"| 1,000 | 500 | 1,000, 5.00 | 1,000, 5.00 | 7 |", "| not in 7 |", "Loading stopped before 2,000 keys: 1h0m0s are nearly over.",
		"| 1,000 | 1.50 | 1.60 | 600 | 900 | 200 | 10.0 (100.0) | 4.0 |", "longest stall 90 ms",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestMemoryBudget(t *testing.T) {
	g := &growth{}
	if _, err := g.memoryBudget(); err == nil {
		t.Error("no budget is one")
	}
	g.MemoryBudget = "1GB"
	if b, err := g.memoryBudget(); err != nil || b != 1<<30 {
		t.Errorf("%d, %v", b, err)
	}
}
