package main

import (
	"strings"
	"testing"
	"time"

	"kvstore/test/peers/figures"
	"kvstore/test/peers/samples"
)

// limited is a measurement that the nodes limit.
func limited(perSecond float64) *measurement {
	return &measurement{PerSecond: perSecond, P50: 1, P99: 2, Nodes: shares{0.97, 0.95, 1}, Generator: 0.4, Machine: 0.8}
}

func rowOf(sizes ...[]*measurement) *rowReport {
	r := newRowReport(rows()[0], []int{3, 5, 7}[:len(sizes)])
	for i, rounds := range sizes {
		r.Sizes[i].Rounds = rounds
	}
	r.summarize()
	return r
}

// TestRatios: ratios are of the same round, not of the medians.
func TestRatios(t *testing.T) {
	r := rowOf(
		[]*measurement{limited(100), limited(50), limited(200)},
		[]*measurement{limited(150), limited(100), limited(320)},
		[]*measurement{limited(200), limited(200), limited(480)},
	)
	if want := (figures.Spread{Median: 1.6, Min: 1.5, Max: 2}); r.size(5).Ratio != want {
		t.Errorf("5:3 is %v, want %v", r.size(5).Ratio, want)
	}
	if want := (figures.Spread{Median: 2.4, Min: 2, Max: 4}); r.size(7).Ratio != want {
		t.Errorf("7:3 is %v, want %v", r.size(7).Ratio, want)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		want                      limit
		nodes, generator, machine float64
	}{
		{byNodes, 0.95, 0.5, 0.95},
		{byGenerator, 0.95, 0.92, 0.99},
		{byMachine, 0.95, 0.5, 0.99},
		{byMachine, 0.8, 0.5, 0.95},
		{byWaiting, 0.6, 0.5, 0.5},
	} {
		m := &measurement{Nodes: shares{Mean: c.nodes}, Generator: c.generator, Machine: c.machine}
		if got := m.limit(); got != c.want {
			t.Errorf("%+v: limited by %s", c, got)
		}
		if got := limitOf([]*measurement{m, limited(1), m}); got != c.want {
			t.Errorf("%+v in two of three rounds: limited by %s", c, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	saturated := limited(200)
	saturated.Generator = 1
	waits := limited(100)
	waits.Nodes = shares{}
	for _, c := range []struct {
		want string
		r    *rowReport
	}{
		{"1.5x met, 2x missed", rowOf([]*measurement{limited(100)}, []*measurement{limited(150)}, []*measurement{limited(199)})},
		{"1.5x met, 2x not judged (generator at 7)", rowOf([]*measurement{limited(100)}, []*measurement{limited(150)}, []*measurement{saturated})},
		{"1.5x not judged (waiting at 3)", rowOf([]*measurement{waits}, []*measurement{limited(150)})},
		{"", rowOf([]*measurement{limited(100)})},
	} {
		if got := c.r.verdict(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	other := newRowReport(rows()[0], []int{5, 7})
	if got := other.verdict(); got != "" {
		t.Errorf("without three nodes: %q", got)
	}
}

// TestStated: S3.18's own ratios.
func TestStated(t *testing.T) {
	want := map[string][2]float64{"put": {1.6, 2}, "get-leader": {2, 3}, "get-any": {2, 3}, "mixed": {1.92, 2.8}}
	for _, row := range rows() {
		r := newRowReport(row, []int{3, 5, 7})
		if got := [2]float64{r.stated(5), r.stated(7)}; got != want[r.Name] {
			t.Errorf("%s: %v, want %v", r.Name, got, want[r.Name])
		}
	}
}

func reportOf(sizes []int, measured *measurement) *report {
	r := &report{Settings: &settings{Sizes: sizes, Rounds: 1, Keys: 1234567, Period: 10 * time.Millisecond}}
	for _, each := range rows() {
		row := newRowReport(each, sizes)
		for _, s := range row.Sizes {
			s.Rounds = append(s.Rounds, measured)
		}
		r.Rows = append(r.Rows, row)
	}
	for _, n := range sizes {
		i := r.idle(n)
		i.Rounds = append(i.Rounds, 0.05)
	}
	r.summarize()
	return r
}

func TestTable(t *testing.T) {
	m := limited(1000)
	m.Parts = map[samples.Component]float64{"raft": 3, "gRPC": 5}
	r := reportOf([]int{3, 5, 7}, m)
	text := r.table()
	columns := map[string]int{"growth": 9, "costs": 13, "parts": 14}
	known := map[int]bool{0: true}
	for _, n := range columns {
		known[n] = true
	}
	for line := range strings.Lines(text) {
		if n := strings.Count(line, "|"); !known[n] {
			t.Errorf("%d separators in %q", n, line)
		}
	}
	for _, want := range []string{"1,234,567 keys", "5.0 % of 3, 5.0 % of 5, 5.0 % of 7", "| 5:3 (ideal 1.67) | 7:3 (ideal 2.33) |", "2.00, 3.00 | 1.5x missed, 2x missed |", "60 % of ideal"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Index(text, "| gRPC |") > strings.Index(text, "| raft |") {
		t.Errorf("components are not in order in\n%s", text)
	}
	if err := r.check(); err != nil {
		t.Error(err)
	}
	if one := reportOf([]int{7}, limited(1)); one.check() != nil || strings.Contains(one.table(), "ideal 1.00") {
		t.Errorf("one size: %v\n%s", one.check(), one.table())
	}
}

// TestCheck: a workload that did nothing is found.
func TestCheck(t *testing.T) {
	if err := reportOf([]int{3, 5}, limited(0)).check(); err == nil || !strings.Contains(err.Error(), "get-any on 5 nodes") {
		t.Errorf("%v", err)
	}
}
