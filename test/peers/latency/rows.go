package main

import (
	"kvstore/internal/bench"
)

// quantiles are the columns of S3.17, as parts of 1.
var quantiles = [...]float64{0.5, 0.95, 0.99, 0.999}

// names of the quantiles.
var names = [...]string{"p50", "p95", "p99", "p99.9"}

// four is a figure at each of the quantiles, in milliseconds.
type four [len(quantiles)]float64

// row is one operation with the latencies that are wanted.
type row struct {
	Title    string `json:"title"`
	Workload string `json:"workload"`
	// Method names the operation in the nodes' metrics.
	Method string `json:"method"`
	// Rate is in operations per second.
	Rate   int    `json:"rate"`
	Wanted four   `json:"wanted_ms"`
	Runs   []*run `json:"rounds"`
	// Latency, and the parts of it, are medians over the rounds.
	Latency four    `json:"latency_ms"`
	Rated   float64 `json:"per_second"`
	Split   split   `json:"split"`
	Cells   []cell  `json:"cells"`
	args    []string
}

func (l *latency) rows() []*row {
	return []*row{
		{Title: "put", Workload: bench.WorkPut, Method: "Put", Rate: l.PutRate, Wanted: four{0.5, 2, 5, 10}},
		{Title: "get", Workload: bench.WorkGet, Method: "Get", Rate: l.GetRate, Wanted: four{0.3, 1, 3, 8}},
		{Title: "batch put of 10", Workload: bench.WorkBatchPut, Method: "BatchPut", Rate: l.BatchRate, Wanted: four{2, 8, 15, 30}, args: []string{"--batch", "10"}},
		{Title: "batch get of 10", Workload: bench.WorkBatchGet, Method: "BatchGet", Rate: l.BatchRate, Wanted: four{1, 4, 10, 20}, args: []string{"--batch", "10"}},
		{Title: "transaction of 5", Workload: bench.WorkTxn, Method: "Transaction", Rate: l.TxnRate, Wanted: four{5, 12, 25, 50}, args: []string{"--batch", "5", "--groups", "1"}},
	}
}
