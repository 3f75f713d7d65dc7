package main

import (
	"fmt"
	"maps"
	"slices"

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
	// most; 0 where nothing is wanted.
	Required float64 `json:"required"`
	Aim      float64 `json:"aim"`
	// ByPut is the most that p50 may be, in p50 of kvstore's puts of the same run.
	ByPut float64 `json:"p50_by_put_at_most,omitempty"`
	put   string  // names the row of those puts
	args  []string
}

// sets are what can be compared in one run: rows, and what they need.
var sets = map[string]set{
	"peers":        {rows: rows},
	"transactions": {rows: transactionRows, groups: 5},
}

// set is rows that are measured in one run; its name is that of the files and of
// the markers.
type set struct {
	rows func() []row
	// groups of kvstore, its default where 0.
	groups int
}

// env is what kvstore's nodes are told.
func (s set) env() []string {
	if s.groups == 0 {
		return nil
	}
	return []string{fmt.Sprintf("KVSTORE_CLUSTER_GROUPS=%d", s.groups)}
}

func setNames() []string { return slices.Sorted(maps.Keys(sets)) }

// transactionRows are 5 puts at once, of keys in 1, 2 and 5 groups of kvstore, and
// single puts beside them: as many as 64 clients can do, and at a moderate rate, where
// their latency is their own. etcd, which has no groups, does the same Txn each time.
func transactionRows() []row {
	var all []row
	for _, load := range []struct {
		name, text  string
		clients     int
		rate        []string
		most, least float64 // of p50 by that of a put; throughput matters where 1
	}{
		{"", "", 64, nil, 0, 1},
		{"-at-rate", fmt.Sprintf(", %d/s", moderate), 8, []string{"--rate", fmt.Sprint(moderate)}, mostByPut, 0},
	} {
		put := row{Name: "put" + load.name, Title: "put" + load.text, Workload: bench.WorkPut, Mode: bench.ModePipeline,
			Clients: load.clients, Latency: load.rate != nil, args: load.rate}
		all = append(all, put)
		for _, groups := range []int{1, 2, 5} {
			all = append(all, row{
				Name: fmt.Sprintf("transaction-%d%s", groups, load.name), Title: fmt.Sprintf("transaction of 5 puts in %s%s", groupsText(groups), load.text),
				Workload: bench.WorkTxn, Mode: bench.ModePipeline, Clients: load.clients, Latency: load.rate != nil,
				Required: load.least * atLeast[groups], ByPut: load.most, put: put.Name,
				args: append([]string{"--batch", "5", "--groups", fmt.Sprint(groups)}, load.rate...),
			})
		}
	}
	return all
}

// moderate is a rate per second that leaves the machine idle most of the time.
const moderate = 200

// atLeast is the throughput of transactions by that of etcd's, by groups.
var atLeast = map[int]float64{1: 3, 5: 1}

// mostByPut is how many times as long as a put a transaction may take.
const mostByPut = 3

func groupsText(n int) string {
	if n == 1 {
		return "1 group"
	}
	return fmt.Sprintf("%d groups", n)
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
