package main

import (
	"fmt"

	"kvstore/internal/bench"
)

// row is one workload that both stores do.
type row struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Workload string `json:"workload"`
	Mode     string `json:"mode"`
	Clients  int    `json:"clients"`
	// Latency rows are judged by p50, the others by throughput.
	Latency bool `json:"latency,omitempty"`
	// Required and Aim are ratios to etcd: of throughput at least, of p50 at
	// most.
	Required float64 `json:"required"`
	Aim      float64 `json:"aim"`
	args     []string
}

func rows() []row {
	sdk, unary := bench.ModePipeline, bench.ModeUnary
	return []row{
		{Name: "put-256", Title: "put, 256 clients, SDK", Workload: bench.WorkPut, Mode: sdk, Clients: 256, Required: 4, Aim: 8},
		{Name: "put-64", Title: "put, 64 clients, SDK", Workload: bench.WorkPut, Mode: sdk, Clients: 64, Required: 4, Aim: 6},
		{Name: "put-256-unary", Title: "put, 256 clients, unary gRPC", Workload: bench.WorkPut, Mode: unary, Clients: 256, Required: 2, Aim: 3},
		{Name: "put-1", Title: "put, 1 client, SDK", Workload: bench.WorkPut, Mode: sdk, Clients: 1, Latency: true, Required: 0.75, Aim: 0.6},
		{Name: "get-256", Title: "linearizable get, 256 clients, SDK", Workload: bench.WorkGet, Mode: sdk, Clients: 256, Required: 4, Aim: 8},
		{Name: "get-64", Title: "linearizable get, 64 clients, SDK", Workload: bench.WorkGet, Mode: sdk, Clients: 64, Required: 4, Aim: 6},
		{Name: "get-256-unary", Title: "linearizable get, 256 clients, unary gRPC", Workload: bench.WorkGet, Mode: unary, Clients: 256, Required: 1.6, Aim: 2},
		{Name: "get-1", Title: "linearizable get, 1 client, SDK", Workload: bench.WorkGet, Mode: sdk, Clients: 1, Latency: true, Required: 0.75, Aim: 0.5},
		{Name: "mixed-256", Title: "90 % get, 10 % put, Zipf keys, 256 clients", Workload: bench.WorkMixed, Mode: sdk, Clients: 256, Required: 4, Aim: 8,
			args: []string{"--read-ratio", "0.9", "--zipf", "1.1"}},
		{Name: "batch-put-64", Title: "batch put of 10, 64 clients, keys", Workload: bench.WorkBatchPut, Mode: sdk, Clients: 64, Required: 4, Aim: 8,
			args: []string{"--batch", "10"}},
		{Name: "batch-get-64", Title: "batch get of 10, 64 clients, keys", Workload: bench.WorkBatchGet, Mode: sdk, Clients: 64, Required: 4, Aim: 8,
			args: []string{"--batch", "10"}},
		{Name: "list-16", Title: "list of 1,000 keys, 16 clients, lists", Workload: bench.WorkList, Mode: sdk, Clients: 16, Required: 2, Aim: 4,
			args: []string{"--list-limit", "1000"}},
	}
}

// perSecond is the throughput a row is judged by: keys for batches, else
// operations.
func (r *row) perSecond(res *bench.Result) float64 {
	if r.Workload == bench.WorkBatchPut || r.Workload == bench.WorkBatchGet {
		return res.KeysPerSecond
	}
	return res.OpsPerSecond
}

// kvbench returns the flags of one run.
func (r *row) kvbench(s *settings, connections int, seed int) []string {
	return append([]string{
		"--workload", r.Workload, "--mode", r.Mode, "--clients", fmt.Sprint(r.Clients), "--connections", fmt.Sprint(connections),
		"--keys", fmt.Sprint(s.Keys), "--key-size", fmt.Sprint(s.KeySize), "--value-size", fmt.Sprint(s.ValueSize),
		"--seed", fmt.Sprint(seed), "--preload=false",
	}, r.args...)
}
