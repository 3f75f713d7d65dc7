//go:build unix

package cluster

import (
	"fmt"
	"testing"
	"time"

	"kvstore/test/cluster/harness"
)

// breakable is a network between nodes, where a test can make one.
type breakable interface {
	Cut(from, to int)
	Heal()
}

// TestChaosTransactions (issue 5): every kind of transaction at once, under kill -9,
// pauses shorter and longer than an election, and partitions, is strictly
// serializable, and what is built on transactions keeps its promises (mixed). A
// round is one fault of each kind. -transactions N goes on until so many have
// ended; -multi gives a part of them several groups.
func TestChaosTransactions(t *testing.T) {
	c, network := startBreakable(t)
	if c == nil {
		return // it ran apart
	}
	m := startMixed(t, c, *groupsShare)
	f := &faults{mixed: m, network: network}
	began := time.Now()
	for round := 0; round < *chaos || m.count.ended.Load() < int64(*manyTransactions); round++ {
		f.round()
	}
	m.waitMore(100)
	took := time.Since(began)
	violations := m.judge()
	t.Logf("%d transactions in %v, %d over several groups, %d aborted runs, %d unknown outcomes; %d kills, %d pauses, %d partitions; %d violations",
		m.count.ended.Load(), took.Round(time.Second), m.count.multi.Load(), m.count.aborted.Load(), m.count.unknown.Load(),
		f.kills, f.pauses, f.partitions, violations)
	if m.count.ended.Load() == 0 {
		t.Error("no transaction ended")
	}
	c.ExpectEqualDigests(3)
}

// faults happen to a cluster under a mixed workload.
type faults struct {
	*mixed
	network                   breakable // nil: no partitions
	kills, pauses, partitions int
	groups                    int // more than in the beginning
}

// between two faults so many transactions end; in a long run more, which is what it
// is for.
const (
	between     = 40
	betweenLong = 300
)

func (f *faults) waitBetween() {
	f.t.Helper()
	if *manyTransactions > 0 {
		f.waitMore(betweenLong)
	} else {
		f.waitMore(between)
	}
}

// round is a kill, a pause and a partition, with transactions meanwhile, and a watch
// that begins before all of it and is opened behind.
func (f *faults) round() {
	f.t.Helper()
	from := f.stream.all[0].revision()
	f.kill()
	f.pause()
	if f.network != nil {
		f.cut()
	}
	if *manyTransactions > 0 && f.groups < mostGroups && f.kills%growEvery == 0 {
		f.grow()
	}
	f.watchPast("la/", from, f.stream.all[0].revision())
	f.t.Logf("%v: %d transactions, %d over several groups, %d unknown outcomes, %d kills, %d pauses, %d partitions",
		time.Since(f.start).Round(time.Second), f.count.ended.Load(), f.count.multi.Load(), f.count.unknown.Load(), f.kills, f.pauses, f.partitions)
}

// A long run founds a group every so many rounds, until there are so many more:
// slots move under everything else.
const (
	growEvery  = 3
	mostGroups = 3
)

func (f *faults) grow() {
	f.t.Helper()
	f.groups++
	f.c.MustCtl("cluster", "set", "--groups", fmt.Sprint(len(f.tags)+f.groups))
}

func (f *faults) kill() {
	f.t.Helper()
	victim := pick(f.t, 3)
	f.c.Kill(victim)
	f.kills++
	f.waitMore(between)
	f.c.Restart(victim)
	f.c.WaitReady(victim)
	f.waitBetween()
}

// pause stops a node for shorter than an election and for longer, in turn.
func (f *faults) pause() {
	f.t.Helper()
	victim := pick(f.t, 3)
	f.c.Pause(victim)
	lasts := harness.Settle / 5
	if f.pauses%2 == 0 {
		lasts = 2 * harness.Settle
	}
	harness.Pass(f.t, lasts)
	f.c.Resume(victim)
	f.pauses++
	f.waitBetween()
}

// cut cuts a node off, or the way from one to another, or the ways between two.
func (f *faults) cut() {
	f.t.Helper()
	a := pick(f.t, 3)
	b, c := (a+1)%3, (a+2)%3
	ways := [][][2]int{{{a, b}, {b, a}, {a, c}, {c, a}}, {{a, b}}, {{a, b}, {b, a}}}[f.partitions%3]
	for _, way := range ways {
		f.network.Cut(way[0], way[1])
	}
	f.partitions++
	harness.Pass(f.t, 2*harness.Settle)
	f.network.Heal()
	f.c.WaitReady()
	f.waitBetween()
}
