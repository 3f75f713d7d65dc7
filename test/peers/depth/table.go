package main

import (
	"fmt"
	"strings"

	"kvstore/test/peers/experiment"
	"kvstore/test/peers/figures"
)

// Tables is the Markdown output.
func (r *results) Tables() string {
	d := r.settings
	head := fmt.Sprintf("%d rounds of %s after %s of warm-up, %s keys. Medians; in brackets the lowest and highest ratio of a round. Memory is the most that one node had resident (VmRSS; of it anonymous).\n",
		d.Rounds, d.Duration, d.Warmup, figures.Thousands(float64(d.Keys)))
	return strings.Join([]string{head, r.stepTable(), r.mixTable(), experiment.Verdicts(r.Verdicts)}, "\n")
}

func (r *results) stepTable() string {
	base := r.settings.Base
	t := experiment.NewTable("workload, clients", "/s", fmt.Sprintf("throughput by that at %d", base), "p50 ms", "p99 ms", "p99.9 ms", "peak memory MB", "errors")
	for _, s := range r.Steps {
		t.Row(append([]string{fmt.Sprintf("%s, %s", s.Workload, figures.Thousands(float64(s.Clients))), figures.Thousands(s.PerSecond.Median), s.Throughput.String()}, tail(s.Runs)...)...)
	}
	return t.String()
}

func (r *results) mixTable() string {
	d := r.settings
	t := experiment.NewTable("mix", "/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "peak memory MB", "errors")
	row := func(name string, runs []*experiment.Run, bytes int) {
		rate := experiment.SpreadBy(runs, func(m *experiment.Run) float64 { return m.PerSecond }).Median
		t.Row(append([]string{name, fmt.Sprintf("%.1f", rate), fmt.Sprintf("%.1f", rate*float64(bytes)/(1<<20))}, tail(runs)...)...)
	}
	small := fmt.Sprintf("put of %d bytes, %d clients", d.ValueSize, d.MixClients)
	row(small+", alone", r.Mix.Alone, d.ValueSize)
	row(small+", beside the large ones", r.Mix.Beside, d.ValueSize)
	row(fmt.Sprintf("put of %s bytes, %d clients", figures.Thousands(float64(d.LargeBytes)), d.LargeClients), r.Mix.Large, d.LargeBytes)
	return t.String()
}

// tail is the last cells of both tables.
func tail(runs []*experiment.Run) []string {
	median := func(figure func(*experiment.Run) float64) string {
		return fmt.Sprintf("%.2f", experiment.SpreadBy(runs, figure).Median)
	}
	memory := "-"
	if most := peak(runs); most.Total > 0 {
		memory = fmt.Sprintf("%s (%s)", experiment.MB(most.Total), experiment.MB(most.Anonymous))
	}
	return []string{
		median(func(m *experiment.Run) float64 { return m.P50 }), median(func(m *experiment.Run) float64 { return m.P99 }), median(func(m *experiment.Run) float64 { return m.P999 }),
		memory, experiment.Codes(experiment.ErrorsOf(runs)),
	}
}
