package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	"kvstore/internal/bench"
	"kvstore/internal/placement"
)

func given(t *testing.T, args ...string) (*settings, error) {
	t.Helper()
	s := new(settings)
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	s.flags(f)
	if err := f.Parse(append([]string{"--bin", "b", "--work", "w", "--node-cpus", "0.1", "--generator-cpus", "0.2"}, args...)); err != nil {
		t.Fatal(err)
	}
	return s, s.complete()
}

func TestSettings(t *testing.T) {
	s, err := given(t)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(s.Sizes) != "[3 5 7]" || len(s.rows) != len(rows()) || procs(s.nodeLimit()) != "GOMAXPROCS=1" {
		t.Errorf("%v, %d rows, %s", s.Sizes, len(s.rows), procs(s.nodeLimit()))
	}
	for _, c := range []struct{ want, args string }{
		{`"4" is no size`, "--sizes=3,4"},
		{`"1" is no size`, "--sizes=1"},
		{"want ascending", "--sizes=5,3"},
		{"want ascending", "--sizes=3,3"},
		{"--rounds 0", "--rounds=0"},
		{"--duration 1ms", "--duration=1ms"},
		{"profiles want at least 2s", "--pprof=p --duration=1s"},
		{"matches no workload", "--only=^nothing$"},
		{"error parsing regexp", "--only=("},
		{"the machine has", "--node-cpus=1000"},
		{"want at least 1ms", "--node-cpus=0.01"},
		{"period 5s", "--period=5s"},
		{"--clients 0", "--clients=0"},
		{"--keys 0", "--keys=0"},
		{"mean nothing", "--smoke --doc=d.md"},
	} {
		if _, err := given(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestSmoke: a smoke run is short, whatever else is said.
func TestSmoke(t *testing.T) {
	s, err := given(t, "--smoke", "--rounds", "50", "--duration", "1h")
	if err != nil || s.Rounds != 1 || s.Duration.Seconds() > 1 {
		t.Errorf("%d rounds of %s, %v", s.Rounds, s.Duration, err)
	}
}

// TestFlags: kvbench has the flags that every workload gives it.
func TestFlags(t *testing.T) {
	for _, r := range rows() {
		args := append(r.kvbench(&settings{Clients: 1, Keys: 1, KeySize: 16}, 3, 1, false), "--help")
		var errors strings.Builder
		if code := bench.Main(context.Background(), args, io.Discard, &errors, nil); code != 0 {
			t.Errorf("%s: kvbench %q ends with %d: %s", r.Name, args, code, errors.String())
		}
	}
}

// TestPlacement: with the default number of groups, no node leads or holds
// more than 3 % above the average, at any size.
func TestPlacement(t *testing.T) {
	s, err := given(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Sizes {
		var nodes []placement.Node
		for i := range n {
			nodes = append(nodes, placement.Node{Name: fmt.Sprintf("n%d", i+1)})
		}
		plan, err := placement.Bootstrap(nodes, s.Groups, factor)
		if err != nil {
			t.Fatal(err)
		}
		leads, holds := map[string]int{}, map[string]int{}
		for _, a := range plan[1:] { // without the group of the metadata
			leads[a.Replicas[0].Node]++
			for _, r := range a.Replicas {
				holds[r.Node]++
			}
		}
		for _, node := range nodes {
			lead, hold := float64(leads[node.Name]*n)/float64(s.Groups), float64(holds[node.Name]*n)/float64(s.Groups*factor)
			if lead > 1.03 || hold > 1.03 {
				t.Errorf("%s of %d leads %.2f and holds %.2f of the average", node.Name, n, lead, hold)
			}
		}
	}
}

func TestEven(t *testing.T) {
	for _, c := range []struct {
		leads  []int
		groups int
		want   bool
	}{{[]int{12, 12, 11}, 35, true}, {[]int{13, 11, 11}, 35, false}, {[]int{12, 12, 10}, 35, false}, {[]int{5, 5, 5, 5, 5, 5, 5}, 35, true}} {
		if got := even(c.leads, c.groups); got != c.want {
			t.Errorf("%v of %d: %v", c.leads, c.groups, got)
		}
	}
}
