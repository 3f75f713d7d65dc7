package main

import (
	"fmt"

	"kvstore/internal/bench"
	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
	"kvstore/test/peers/figures"
)

const (
	// holds is the least throughput relative to that at the base.
	holds = 0.95
	// tailGrowth is how much more p99 may grow than the number of clients:
	// in a closed loop, at constant throughput, latency grows as they do.
	tailGrowth = 1.5
	// mixTail is the most that p99 of small puts may grow beside large ones.
	mixTail = 3
	// refused is the code of the error that must not appear.
	refused = "overloaded"
)

// results are part of the JSON.
type results struct {
	Steps    []*step              `json:"steps"`
	Mix      mix                  `json:"mix"`
	Verdicts []experiment.Verdict `json:"verdicts"`

	settings *depth
}

// step is one workload at one number of clients.
type step struct {
	Workload  string            `json:"workload"`
	Clients   int               `json:"clients"`
	Runs      []*experiment.Run `json:"rounds"`
	PerSecond figures.Spread    `json:"per_second"`
	// Throughput and Tail are ratios to the base of the same round: of
	// throughput, and of p99.
	Throughput figures.Spread `json:"throughput_ratio"`
	Tail       figures.Spread `json:"p99_ratio"`
}

// mix is small puts alone and beside large ones.
type mix struct {
	Alone  []*experiment.Run `json:"small_alone"`
	Beside []*experiment.Run `json:"small_beside_large"`
	Large  []*experiment.Run `json:"large"`
	// Tail is p99 of small puts beside large ones by that alone, by round.
	Tail figures.Spread `json:"p99_ratio"`
}

func newResults(d *depth) *results {
	res := &results{settings: d}
	for _, workload := range []string{bench.WorkPut, bench.WorkGet} {
		for _, n := range d.Clients {
			res.Steps = append(res.Steps, &step{Workload: workload, Clients: n})
		}
	}
	return res
}

func (r *results) summarize() {
	for _, s := range r.Steps {
		base := r.step(s.Workload, r.settings.Base)
		s.PerSecond = experiment.SpreadBy(s.Runs, func(m *experiment.Run) float64 { return m.PerSecond })
		s.Throughput = ratio(s.Runs, base.Runs, func(m *experiment.Run) float64 { return m.PerSecond })
		s.Tail = ratio(s.Runs, base.Runs, func(m *experiment.Run) float64 { return m.P99 })
	}
	r.Mix.Tail = ratio(r.Mix.Beside, r.Mix.Alone, func(m *experiment.Run) float64 { return m.P99 })
	r.judge()
}

// ratio is of the same round.
func ratio(runs, by []*experiment.Run, figure func(*experiment.Run) float64) figures.Spread {
	var values []float64
	for i := range min(len(runs), len(by)) {
		if base := figure(by[i]); base > 0 {
			values = append(values, figure(runs[i])/base)
		}
	}
	return figures.SpreadOf(values)
}

func (r *results) step(workload string, clients int) *step {
	for _, s := range r.Steps {
		if s.Workload == workload && s.Clients == clients {
			return s
		}
	}
	panic(fmt.Sprintf("depth: no step for %s at %d clients", workload, clients)) // Check requires the base
}

func (r *results) judge() {
	for _, s := range r.Steps {
		if s.Clients <= r.settings.Base {
			continue
		}
		growth := float64(s.Clients) / float64(r.settings.Base)
		what := fmt.Sprintf("%s, %s clients", s.Workload, figures.Thousands(float64(s.Clients)))
		r.claim(s.Throughput.Median >= holds, fmt.Sprintf("%s: throughput at least %.2fx that at %d", what, holds, r.settings.Base), "%s", s.Throughput)
		r.claim(s.Tail.Median <= tailGrowth*growth, fmt.Sprintf("%s: p99 at most %.1fx that at %d (%.1f times as clients grow)", what, tailGrowth*growth, r.settings.Base, tailGrowth), "%s", s.Tail)
	}
	var overloads int64
	for _, m := range r.runs() {
		overloads += m.Errors[refused]
	}
	r.claim(overloads == 0, "nothing is refused as "+refused, "%d refused", overloads)
	r.claim(r.Mix.Tail.Median < mixTail, fmt.Sprintf("p99 of small puts beside large ones under %dx that alone", mixTail), "%s", r.Mix.Tail)
}

func (r *results) claim(met bool, claim, format string, args ...any) {
	r.Verdicts = append(r.Verdicts, experiment.Verdict{Claim: claim, Figure: fmt.Sprintf(format, args...), Met: met})
}

// runs are all.
func (r *results) runs() (all []*experiment.Run) {
	for _, s := range r.Steps {
		all = append(all, s.Runs...)
	}
	return append(append(append(all, r.Mix.Alone...), r.Mix.Beside...), r.Mix.Large...)
}

// peak is the most that any node had resident in any run.
func peak(runs []*experiment.Run) (most cluster.Memory) {
	for _, m := range runs {
		for _, node := range m.Memory {
			most = most.Max(node)
		}
	}
	return most
}
