package main

import (
	"kvstore/test/peers/experiment"
)

// reached is the part of the rate that must be for a row to count as loaded.
const reached = 0.95

// results are part of the JSON.
type results struct {
	Rows []*row `json:"rows"`

	settings *latency
}

// cell is one figure that is wanted.
type cell struct {
	Quantile string  `json:"quantile"`
	Wanted   float64 `json:"wanted_ms"`
	Measured float64 `json:"measured_ms"`
	Met      bool    `json:"met"`
	// Part is where most of the time goes, of a cell that was missed.
	Part string `json:"largest_part,omitempty"`
}

func (r *row) summarize() {
	r.Rated = experiment.SpreadBy(r.Runs, func(m *run) float64 { return m.PerSecond }).Median
	r.Latency = median(r.Runs, (*run).latency)
	r.Split = split{
		Request: median(r.Runs, func(m *run) four { return m.Split.Request }),
		Commit:  median(r.Runs, func(m *run) four { return m.Split.Commit }),
		Turn:    median(r.Runs, func(m *run) four { return m.Split.Turn }),
		Sync:    median(r.Runs, func(m *run) four { return m.Split.Sync }),
	}
	r.Cells = nil
	for i, name := range names {
		c := cell{Quantile: name, Wanted: r.Wanted[i], Measured: r.Latency[i], Met: r.Latency[i] <= r.Wanted[i]}
		if !c.Met {
			c.Part = r.largest(i)
		}
		r.Cells = append(r.Cells, c)
	}
}

func median(runs []*run, figures func(*run) four) (q four) {
	for i := range q {
		q[i] = experiment.SpreadBy(runs, func(m *run) float64 { return figures(m)[i] }).Median
	}
	return q
}

// largest names the largest of the parts that time at a quantile divides
// into: what the client waited beyond the request at the node; the sync; the
// turn of the loop beside it; and the rest of the request, which waits for
// turns and messages of other nodes. Quantiles do not add up exactly: the part
// is where to look, not a proof.
func (r *row) largest(i int) string {
	s := r.Split
	if s.Request[i] == 0 {
		return "the nodes counted no request"
	}
	part, most := "", -1.0
	for _, p := range []struct {
		name string
		time float64
	}{
		{"client and network", r.Latency[i] - s.Request[i]},
		{"waiting for turns and other nodes", s.Request[i] - max(s.Turn[i], s.Sync[i])},
		{"loop beside the sync", s.Turn[i] - s.Sync[i]},
		{"sync", min(s.Sync[i], s.Request[i])},
	} {
		if p.time > most {
			part, most = p.name, p.time
		}
	}
	return part
}

// loaded says whether the rate was reached.
func (r *row) loaded() bool { return r.Rated >= reached*float64(r.Rate) }
