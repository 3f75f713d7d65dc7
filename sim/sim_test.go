package sim

import (
	"flag"
	"fmt"
	"testing"
	"testing/cryptotest"

	"kvstore/internal/invariant"
)

var (
	seeds    = flag.Int("seeds", 40, "number of seeds to run")
	seedFrom = flag.Uint64("seed", 1, "first seed")
)

// configOf varies the cluster with the seed (RELIABILITY 1).
func configOf(seed uint64) Config {
	return Config{Seed: seed, Nodes: 3 + 2*int(seed%2), Groups: 2 + int(seed/2%2), Operations: 1000, Crashes: 3, Partitions: 2,
		Pauses: int(seed % 3), ClockJumps: int(seed / 3 % 3), Wipes: int(seed / 5 % 2),
		FullDisks: int(seed / 7 % 2), Damages: int(seed / 11 % 2), Stalls: int(seed / 13 % 3), LargeEvery: 10,
		Retargets: int(seed / 2 % 4)}
}

// TestSeeds runs seeds with faults and requires zero violations.
func TestSeeds(t *testing.T) {
	var total Coverage
	for i := range *seeds {
		seed := *seedFrom + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(configOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s\nrun again: go test ./sim -run 'TestSeeds' -seed %d -seeds 1", seed, p, seed)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, *seeds)
	if total.Merges == 0 || total.Moves == 0 {
		t.Errorf("%d merges and %d moves of runs", total.Merges, total.Moves)
	}
	t.Logf("coverage of %d seeds: %s", *seeds, total)
}

// TestLeadersCutOff aims at leaders that do not know yet that they were deposed.
func TestLeadersCutOff(t *testing.T) {
	const seeds = 25
	undecided := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cfg := configOf(seed)
			cfg.Partitions, cfg.Keys, cfg.Clients, cfg.Probes = 6, 3, 16, true
			cov, problems := Run(cfg)
			for _, p := range problems {
				t.Errorf("seed %d: %s", seed, p)
			}
			undecided += cov.Undecided
		})
	}
	mustDecide(t, undecided, seeds)
}

// stallsOf is a cluster in which nothing happens but that disks hang.
func stallsOf(seed uint64) Config {
	cfg := configOf(seed)
	return Config{Seed: seed, Nodes: cfg.Nodes, Groups: cfg.Groups, Operations: 1000, LargeEvery: cfg.LargeEvery, Stalls: 5}
}

// TestHungDisks aims at leaders whose disk does not answer (G4).
func TestHungDisks(t *testing.T) {
	const seeds = 25
	var total Coverage
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(stallsOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s", seed, p)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, seeds)
	if total.Handovers < seeds {
		t.Errorf("%d leaderships moved from %d hung disks", total.Handovers, total.Stalls)
	}
	t.Logf("coverage of %d seeds: %s", seeds, total)
}

// mustDecide allows one history in twenty-five to be too hard for the checker.
func mustDecide(t *testing.T, undecided, seeds int) {
	t.Helper()
	if most := 1 + seeds/25; undecided > most {
		t.Errorf("%d of %d histories could not be judged, allowed are %d", undecided, seeds, most)
	}
}

// TestOneSeedOneHistory runs a seed twice: the same trace, or the simulation
// is not deterministic and its seeds reproduce nothing.
func TestOneSeedOneHistory(t *testing.T) {
	for _, seed := range []uint64{3, 8} {
		var traces [2]uint64
		for i := range traces {
			t.Run(fmt.Sprint(seed, "-", i), func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, seed)
				cov, _ := Run(configOf(seed))
				traces[i] = cov.Trace
			})
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d: traces %x and %x", seed, traces[0], traces[1])
		}
	}
}

// changeOften moves replicas all the time, down to a single one.
func changeOften(cfg Config) Config {
	cfg.Retargets, cfg.Crashes, cfg.Wipes, cfg.Damages = 16, 8, 0, 0
	return cfg
}

// TestMembersChangeOften moves replicas all the time, with crashes.
func TestMembersChangeOften(t *testing.T) {
	var total Coverage
	for i := range max(*seeds/2, 1) {
		seed := *seedFrom + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(changeOften(configOf(seed)))
			for _, p := range problems {
				t.Errorf("seed %d: %s", seed, p)
			}
			total.add(cov)
		})
	}
	if total.Changes < 2**seeds {
		t.Errorf("%d membership changes, want more", total.Changes)
	}
	t.Logf("coverage: %s", total)
}

// membershipBugs need members that change often.
const membershipBugs = invariant.BugRemovedVanishes | invariant.BugCommitForgotten

// TestPlantedBugs proves that the checkers catch what they are for: each bug
// must be found within a bounded number of seeds.
func TestPlantedBugs(t *testing.T) {
	bugs := []struct {
		name string
		bug  invariant.Bug
	}{
		{"ack before fsync", invariant.BugAckBeforeFsync},
		{"ack before quorum", invariant.BugAckBeforeQuorum},
		{"hard state lost", invariant.BugHardStateLost},
		{"evaluation before an entry of the own term is applied", invariant.BugEvaluateEarly},
		{"overlay kept after a dropped proposal", invariant.BugOverlayKept},
		{"failed condition without ReadIndex", invariant.BugRefusalUnconfirmed},
		{"follower read without waiting for apply", invariant.BugFollowerReadEarly},
		{"refusal answered against an in-flight write", invariant.BugRefusalInFlight},
		{"replay skipped after an unclean start", invariant.BugReplaySkipped},
		{"snapshot acknowledged before it is durable", invariant.BugSnapshotUndurable},
		{"half an entry visible to a reader", invariant.BugHalfEntry},
		{"a replica that was taken out is gone at once", invariant.BugRemovedVanishes},
		{"entries kept without the commit index known before", invariant.BugCommitForgotten},
		{"keep leading on a stalled disk", invariant.BugLeadStalled},
	}
	const most = 400
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			for seed := uint64(1); seed <= most; seed++ {
				cryptotest.SetGlobalRandom(t, seed)
				cfg := configOf(seed)
				cfg.Partitions, cfg.Keys, cfg.Clients, cfg.Probes = 6, 3, 16, true
				if membershipBugs.Has(b.bug) {
					cfg = changeOften(cfg)
				}
				if b.bug == invariant.BugLeadStalled {
					cfg = stallsOf(seed)
				}
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
