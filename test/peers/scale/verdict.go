package main

import "fmt"

// limit is what kept a run from being faster.
type limit string

const (
	byNodes     limit = "nodes"
	byGenerator limit = "generator"
	byMachine   limit = "machine"
	// byWaiting: nobody used up its CPU time; disks, or too few clients.
	byWaiting limit = "waiting"
)

// saturated is the share of a limit from which on it is what limits. A process
// that waits for others at times never uses all of its quota.
const saturated = 0.9

// The machine has nothing left for certain above full. Above busy it is what
// kept nodes from their shares, if they did not get them.
const (
	busyMachine = 0.9
	fullMachine = 0.98
)

// limit of one run. The generator and the machine come first: nodes that are
// busy beside them say nothing.
func (m *measurement) limit() limit {
	switch {
	case m.Generator >= saturated:
		return byGenerator
	case m.Machine >= fullMachine:
		return byMachine
	case m.Nodes.Mean >= saturated:
		return byNodes
	case m.Machine >= busyMachine:
		return byMachine
	}
	return byWaiting
}

// limitOf is what limited most of the runs; of equal counts the first of the
// order in which a run is judged.
func limitOf(rounds []*measurement) limit {
	counts := map[limit]int{}
	for _, m := range rounds {
		counts[m.limit()]++
	}
	most := byGenerator
	for _, l := range []limit{byMachine, byNodes, byWaiting} {
		if counts[l] > counts[most] {
			most = l
		}
	}
	return most
}

// verdict compares ratios to three nodes with what is wanted, where the nodes
// were the limit.
func (r *rowReport) verdict() string {
	text := ""
	if r.Sizes[0].Nodes != 3 {
		return text
	}
	for _, s := range r.Sizes[1:] {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%gx ", wanted[s.Nodes])
		switch {
		case r.Sizes[0].Limit != byNodes:
			text += fmt.Sprintf("not judged (%s at %d)", r.Sizes[0].Limit, r.Sizes[0].Nodes)
		case s.Limit == byGenerator || s.Limit == byMachine:
			text += fmt.Sprintf("not judged (%s at %d)", s.Limit, s.Nodes)
		case s.Ratio.Median >= wanted[s.Nodes]:
			text += "met"
		default:
			text += "missed"
		}
	}
	return text
}

// ideal is the ratio of the numbers of nodes.
func (r *rowReport) ideal(nodes int) float64 { return float64(nodes) / float64(r.Sizes[0].Nodes) }

// stated is the ratio of S3.18's figures; 0 where it has none.
func (r *rowReport) stated(nodes int) float64 {
	if r.Stated[r.Sizes[0].Nodes] == 0 {
		return 0
	}
	return r.Stated[nodes] / r.Stated[r.Sizes[0].Nodes]
}
