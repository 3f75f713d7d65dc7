package main

import (
	"fmt"

	"kvstore/internal/config"
	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
	"kvstore/test/peers/figures"
)

const (
	// keeps is the least throughput at the last size relative to the first.
	keeps = 0.7
	// longestStall is in milliseconds.
	longestStall = 1000
	// readTail is the most that p99 of gets may grow while keys are
	// overwritten, relative to the median of the first firstIntervals.
	readTail       = 2
	firstIntervals = 3
)

// results are part of the JSON.
type results struct {
	Sizes []*size `json:"sizes"`
	// Stopped says why loading ended before the last size, if it did.
	Stopped   string               `json:"stopped,omitempty"`
	Overwrite *overwritten         `json:"overwrite,omitempty"`
	Verdicts  []experiment.Verdict `json:"verdicts"`

	settings *growth
	budget   int64
}

// size is the figures at one number of keys.
type size struct {
	Keys int `json:"keys"`
	// Loaded is how many of them were written since the size before.
	Loaded      int     `json:"loaded_keys"`
	LoadSeconds float64 `json:"load_seconds"`
	// Busy is at once after the load, the rounds are after Settled.
	Busy struct {
		Put *experiment.Run `json:"put"`
		Get *experiment.Run `json:"get"`
	} `json:"right_after_load"`
	Settled settled           `json:"settled"`
	Put     []*experiment.Run `json:"put_rounds"`
	Get     []*experiment.Run `json:"get_rounds"`
	// Written is from before the load until the nodes were quiet, UserWritten
	// what users wrote meanwhile, UserStored what the keys and values are,
	// Disk what the data of each node occupies; all in bytes.
	Written     cluster.Writes `json:"written_bytes"`
	UserWritten int64          `json:"user_written_bytes"`
	UserStored  int64          `json:"user_stored_bytes"`
	Disk        []int64        `json:"disk_bytes"`
	// Memory is the most that each node had resident, from the load to the
	// restart.
	Memory []cluster.Memory `json:"peak_memory"`
	// Ready and FirstRead are seconds from the start after kill -9.
	Ready     float64 `json:"ready_seconds"`
	FirstRead float64 `json:"first_read_seconds"`
}

// writeAmplification is by what the disk was given and by what the kernel
// counts for the nodes.
func (z *size) writeAmplification() (device, nodes float64) {
	user := float64(max(z.UserWritten, 1))
	return float64(z.Written.Device) / user, float64(z.Written.Nodes) / user
}

func (z *size) spaceAmplification() float64 {
	return float64(sum(z.Disk)) / float64(max(z.UserStored, 1))
}

func sum(values []int64) (all int64) {
	for _, v := range values {
		all += v
	}
	return all
}

// largest is the most of any node.
func largest(nodes []cluster.Memory) (most cluster.Memory) {
	for _, m := range nodes {
		most = most.Max(m)
	}
	return most
}

func rate(runs []*experiment.Run) float64 {
	return experiment.SpreadBy(runs, func(r *experiment.Run) float64 { return r.PerSecond }).Median
}

func p99(runs []*experiment.Run) float64 {
	return experiment.SpreadBy(runs, func(r *experiment.Run) float64 { return r.P99 }).Median
}

func (r *results) judge() {
	r.Verdicts = nil
	if len(r.Sizes) > 0 {
		first, last := r.Sizes[0], r.Sizes[len(r.Sizes)-1]
		r.judgeRate("put", first, last, rate(first.Put), rate(last.Put))
		r.judgeRate("get", first, last, rate(first.Get), rate(last.Get))
	}
	r.judgeMemory()
	if r.Overwrite != nil {
		r.judgeOverwrite()
	}
}

func (r *results) judgeRate(what string, first, last *size, before, after float64) {
	claim := fmt.Sprintf("%s at %s keys at least %.0f %% of that at %s", what, keys(last.Keys), 100*keeps, keys(first.Keys))
	r.claim(after >= keeps*before, claim, "%.0f %%", 100*after/max(before, 1))
}

// judgeMemory judges both ways of counting: what only the node can give back,
// and that with the pages of mapped files.
func (r *results) judgeMemory() {
	var most cluster.Memory
	for _, z := range r.Sizes {
		most = most.Max(largest(z.Memory))
	}
	if r.Overwrite != nil {
		for _, each := range r.Overwrite.Intervals {
			most = most.Max(largest(each.Memory))
		}
	}
	budget := config.Size(r.budget)
	r.claim(most.Anonymous <= r.budget, fmt.Sprintf("anonymous memory of each node within %s (RssAnon)", budget), "%s MB", experiment.MB(most.Anonymous))
	r.claim(most.Total <= r.budget, fmt.Sprintf("the same with pages of mapped files (VmRSS) within %s", budget), "%s MB", experiment.MB(most.Total))
}

func (r *results) judgeOverwrite() {
	o := r.Overwrite
	r.claim(o.Stall < longestStall, fmt.Sprintf("no stall of %d ms or more while keys are overwritten", longestStall), "%.0f ms", o.Stall)
	base, worst := o.tails()
	r.claim(worst <= readTail*base, fmt.Sprintf("p99 of gets of every interval at most %dx that of the first", readTail), "%.2f ms, then at most %.2f ms", base, worst)
}

// tails are p99 of the gets of the first intervals, by their median, and the
// worst of the others.
func (o *overwritten) tails() (base, worst float64) {
	n := max(1, min(firstIntervals, len(o.Intervals)/2))
	var first []float64
	for i, each := range o.Intervals {
		if i < n {
			first = append(first, each.Get.P99)
			continue
		}
		worst = max(worst, each.Get.P99)
	}
	return figures.SpreadOf(first).Median, worst
}

func (r *results) claim(met bool, claim, format string, args ...any) {
	r.Verdicts = append(r.Verdicts, experiment.Verdict{Claim: claim, Figure: fmt.Sprintf(format, args...), Met: met})
}

func keys(n int) string { return figures.Thousands(float64(n)) }
