package main

import (
	"fmt"

	"kvstore/internal/bench"
)

// row is one workload.
type row struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Workload string `json:"workload"`
	// Stated are S3.18's figures by number of nodes, in thousands per second.
	Stated map[int]float64 `json:"stated"`
	args   []string
}

// rows in the order in which they run: what writes leave to be flushed and
// compacted must not count for reads.
func rows() []row {
	writes := map[int]float64{3: 50, 5: 80, 7: 100}
	reads := map[int]float64{3: 200, 5: 400, 7: 600}
	total := map[int]float64{3: 250, 5: 480, 7: 700}
	return []row{
		{Name: "get-leader", Title: "linearizable get, from leaders", Workload: bench.WorkGet, Stated: reads, args: []string{"--read", "leader"}},
		{Name: "get-any", Title: "linearizable get, from all replicas", Workload: bench.WorkGet, Stated: reads, args: []string{"--read", "any"}},
		{Name: "mixed", Title: "90 % get, 10 % put", Workload: bench.WorkMixed, Stated: total, args: []string{"--read-ratio", "0.9"}},
		{Name: "put", Title: "put", Workload: bench.WorkPut, Stated: writes},
	}
}

// wanted are the least ratios to three nodes. The ideal, with equal nodes, is
// the ratio of their numbers.
var wanted = map[int]float64{5: 1.5, 7: 2}

// kvbench returns the flags of one run.
func (r *row) kvbench(s *settings, nodes, seed int, preload bool) []string {
	return append([]string{
		"--workload", r.Workload, "--clients", fmt.Sprint(s.Clients * nodes), "--keys", fmt.Sprint(max(s.Keys*nodes/factor, 1)),
		"--key-size", fmt.Sprint(s.KeySize), "--value-size", fmt.Sprint(s.ValueSize),
		"--seed", fmt.Sprint(seed), "--preload=" + fmt.Sprint(preload),
	}, r.args...)
}
