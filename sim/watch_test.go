package sim

import (
	"fmt"
	"testing"
	"testing/cryptotest"

	"kvstore/internal/invariant"
)

// watchesOf is a cluster with watches of keys in groups between which slots move,
// under all faults; with every other seed transactions over several groups write
// them too.
func watchesOf(seed uint64) Config {
	cfg := splitsOf(seed)
	cfg.Watchers, cfg.Operations, cfg.Transactions = 6, 600, seed%2 == 1
	return cfg
}

// TestWatches: DESIGN 10. Watches have every event once, in order and whole, and go
// on anywhere by their tokens, whoever fails and whatever moves.
func TestWatches(t *testing.T) {
	var total Coverage
	seeds := max(*seeds/6, 1)
	for i := range seeds {
		seed := *seedFrom + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(watchesOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s\nrun again: go test ./sim -run TestWatches -seed %d -seeds 1", seed, p, seed)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, seeds)
	if total.Watched < 200*seeds {
		t.Errorf("%d events, want more", total.Watched)
	}
	t.Logf("coverage of %d seeds: %d events; %s", seeds, total.Watched, total)
}

// TestOneSeedOneWatch is TestOneSeedOneHistory with watches.
func TestOneSeedOneWatch(t *testing.T) {
	for _, seed := range []uint64{3} {
		var traces [2]uint64
		for i := range traces {
			t.Run(fmt.Sprint(seed, "-", i), func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, seed)
				cov, _ := Run(watchesOf(seed))
				traces[i] = cov.Trace
			})
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d: traces %x and %x", seed, traces[0], traces[1])
		}
	}
}

// TestPlantedWatchBugs is TestPlantedBugs for what watches can do wrong.
func TestPlantedWatchBugs(t *testing.T) {
	const most = 100
	for _, b := range []struct {
		name string
		bug  invariant.Bug
	}{
		{"a watch joins without the latest events", invariant.BugJoinLate},
		{"feeds in the order of the log", invariant.BugFeedUnheld},
		{"clocks believed before the log up to them is read", invariant.BugPromiseBlind},
	} {
		t.Run(b.name, func(t *testing.T) {
			for seed := uint64(1); seed <= most; seed++ {
				cryptotest.SetGlobalRandom(t, seed)
				cfg := watchesOf(seed)
				cfg.Bugs = b.bug
				if _, problems := Run(cfg); len(problems) > 0 {
					t.Logf("found by seed %d: %.200s", seed, problems[0])
					return
				}
			}
			t.Errorf("not found in %d seeds", most)
		})
	}
}
