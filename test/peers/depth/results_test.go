package main

import (
	"strings"
	"testing"

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
	"kvstore/test/peers/figures"
)

// sample is results of two rounds; scale multiplies throughput beyond the
// base, tail multiplies p99.
func sample(scale, tail float64) *results {
	d := &depth{Rounds: 2, Keys: 1000, Clients: counts{64, 256, 1024}, Base: 256, MixClients: 64, LargeClients: 4, LargeBytes: 16 << 20}
	r := newResults(d)
	for _, s := range r.Steps {
		for round := range 2 {
			m := &experiment.Run{PerSecond: 1000 * float64(round+1), P50: 1, P99: 10, P999: 20, Memory: []cluster.Memory{{Total: 100 << 20, Anonymous: 60 << 20}}}
			if s.Clients > d.Base {
				m.PerSecond, m.P99 = m.PerSecond*scale, m.P99*tail
			}
			s.Runs = append(s.Runs, m)
		}
	}
	small, large := &experiment.Run{PerSecond: 1000, P99: 10}, &experiment.Run{PerSecond: 5, P99: 900}
	r.Mix = mix{Alone: []*experiment.Run{small}, Beside: []*experiment.Run{{PerSecond: 500, P99: 25}}, Large: []*experiment.Run{large}}
	r.summarize()
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
	if m := missed(sample(0.95, 6)); m != nil {
		t.Errorf("missed %q", m)
	}
	if m := missed(sample(0.94, 6.1)); len(m) != 4 {
		t.Errorf("missed %q, want throughput and p99 of both workloads", m)
	}
	r := sample(1, 1)
	r.Steps[0].Runs[1].Errors = map[string]int64{refused: 2}
	r.Mix.Beside[0].P99 = 30
	r.Verdicts = nil
	r.summarize()
	if m := missed(r); len(m) != 2 || !strings.Contains(m[0], refused) || !strings.Contains(m[1], "small puts") {
		t.Errorf("missed %q, want the refusals and the mix", m)
	}
}

// TestRatios: of the same round, not of medians.
func TestRatios(t *testing.T) {
	runs := func(values ...float64) (all []*experiment.Run) {
		for _, v := range values {
			all = append(all, &experiment.Run{PerSecond: v})
		}
		return all
	}
	got := ratio(runs(500, 400, 600), runs(100, 50, 200), func(m *experiment.Run) float64 { return m.PerSecond })
	if want := (figures.Spread{Median: 5, Min: 3, Max: 8}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTables(t *testing.T) {
	text := sample(1, 1).Tables()
	if err := experiment.CheckTables(text, 3); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"| put, 1,024 | 1,500 |", "| put of 16,777,216 bytes, 4 clients | 5.0 | 80.0 |", "100 (60)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestCounts(t *testing.T) {
	var c counts
	if err := c.Set("256, 64"); err != nil || c.String() != "64,256" {
		t.Errorf("%v, %v", c, err)
	}
	if err := c.Set("64,many"); err == nil {
		t.Error("a word is no number of clients")
	}
}
