package placement

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// withWitnesses adds nodes without data, and lets groups name some of them.
func withWitnesses(t *rapid.T, nodes []Node, present []Present) ([]Node, []Present) {
	all := slices.Clone(nodes)
	for i := range rapid.IntRange(1, 3).Draw(t, "witnesses") {
		all = append(all, Node{Name: fmt.Sprint("w", i), Witness: true, Zone: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone"),
			Dead: rapid.IntRange(0, 4).Draw(t, "dead") == 0, Draining: rapid.IntRange(0, 4).Draw(t, "draining") == 0})
	}
	out := slices.Clone(present)
	for i := range out {
		if w := rapid.IntRange(0, 4).Draw(t, "votes"); w < len(all)-len(nodes) {
			out[i].Replicas = append(slices.Clone(out[i].Replicas), all[len(nodes)+w].Name)
		}
	}
	return all, out
}

// Witnesses change nothing about where data is; each group whose replicas could
// split in halves has one where there is one; what is planned is planned again; a
// group with an odd number has none; and votes differ by one at most where zones do
// not decide.
func TestWitnessesOnlyBreakTies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.IntRange(1, 5).Draw(t, "factor")
		nodes := drawNodes(t, 6, true)
		present := drawPresent(t, nodes, 8, factor, true)
		all, voting := withWitnesses(t, nodes, present)
		plain, tied := mustPlan(t, nodes, present, factor), mustPlan(t, all, voting, factor)
		if again := mustPlan(t, all, after(voting, tied), factor); !reflect.DeepEqual(again, tied) {
			t.Fatalf("planned again:\n%v\nbefore:\n%v", again, tied)
		}
		reversed := slices.Clone(all)
		slices.Reverse(reversed)
		if other := mustPlan(t, reversed, voting, factor); !reflect.DeepEqual(other, tied) {
			t.Fatalf("in another order:\n%v\nbefore:\n%v", other, tied)
		}
		isWitness := func(name string) bool { return name[0] == 'w' }
		votes, zones, good := map[string]int{}, false, 0
		for _, n := range all {
			if n.Witness && !n.Dead && !n.Draining {
				votes[n.Name], good = 0, good+1
				zones = zones || n.Zone != ""
			}
		}
		for i, target := range tied {
			data := slices.DeleteFunc(slices.Clone(target.Replicas), isWitness)
			if !slices.Equal(data, plain[i].Replicas) || target.Missing != plain[i].Missing {
				t.Fatalf("group %d: data on %v, without witnesses on %v", target.Group, data, plain[i].Replicas)
			}
			has := len(target.Replicas) - len(data)
			for _, name := range target.Replicas {
				if _, usable := votes[name]; usable {
					votes[name]++
				}
			}
			if len(usable(nodes)) == 0 {
				continue
			}
			if even := len(data)%2 == 0 && len(data) > 0; has > 1 || has == 1 && !even || even && good > 0 && has == 0 {
				t.Fatalf("group %d with %v has %d witnesses of %d", target.Group, data, has, good)
			}
		}
		least, most := 1<<30, 0
		for _, n := range votes {
			least, most = min(least, n), max(most, n)
		}
		if !zones && good > 0 && len(usable(nodes)) > 0 && most-least > 1 {
			t.Fatalf("votes %v", votes)
		}
	})
}
