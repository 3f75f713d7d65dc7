package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"testing/cryptotest"

	"kvstore/internal/invariant"
)

var (
	seeds    = flag.Int("seeds", 40, "number of seeds to run")
	seedFrom = flag.Uint64("seed", 1, "first seed")
)

// TestMain collects garbage less often than it would: a run makes much of it and
// keeps a few megabytes.
func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

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
			cfg := configOf(seed)
			cfg.Transactions = true
			cov, problems := Run(cfg)
			for _, p := range problems {
				t.Errorf("seed %d: %s\nrun again: go test ./sim -run 'TestSeeds' -seed %d -seeds 1", seed, p, seed)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, *seeds)
	if *seeds >= 30 && (total.Merges == 0 || total.Moves == 0) { // few seeds merge runs
		t.Errorf("%d merges and %d moves of runs", total.Merges, total.Moves)
	}
	if want := total.Transactions / 8; total.Transferred < want {
		t.Errorf("%d of %d transactions moved money, want %d", total.Transferred, total.Transactions, want)
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
	for _, cfg := range []Config{configOf(3), configOf(8), splitsOf(4), txnsOf(2), txnsOf(5)} {
		var traces [2]uint64
		for i := range traces {
			t.Run(fmt.Sprint(cfg.Seed, "-", i), func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, cfg.Seed)
				cov, _ := Run(cfg)
				traces[i] = cov.Trace
			})
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d: traces %x and %x", cfg.Seed, traces[0], traces[1])
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

// witnessOf is a cluster of two or three nodes with data and a witness, in which
// nodes are cut off and crash, disks hang and members change. Disks are kept: where
// there is one copy, losing it is losing data.
func witnessOf(seed uint64) Config {
	cfg := configOf(seed)
	cfg.Nodes, cfg.Witness, cfg.Wipes, cfg.Damages = 3+int(seed/2%2), true, 0, 0
	cfg.Crashes, cfg.Partitions, cfg.Stalls = 6, 6, int(seed%4)
	cfg.Retargets = int(seed%3) * 4
	return cfg
}

// TestWitness: S1.7, DESIGN 11. Nothing that was acknowledged is lost in any order
// of failures of two copies and a witness.
func TestWitness(t *testing.T) {
	var total Coverage
	for i := range *seeds {
		seed := *seedFrom + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(witnessOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s\nrun again: go test ./sim -run 'TestWitness' -seed %d -seeds 1", seed, p, seed)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, *seeds)
	if *seeds >= 10 && total.OneCopy == 0 {
		t.Error("no group ever had one copy; the seeds show nothing")
	}
	t.Logf("coverage of %d seeds: %s", *seeds, total)
}

// listsOf is a cluster in which clients list keys of all groups and write them,
// while nodes crash, are cut off, and their clocks jump.
func listsOf(seed uint64) Config {
	return Config{Seed: seed, Nodes: 3, Groups: 2 + int(seed%3), Operations: 250, Lists: true, Crashes: 2, Partitions: 2,
		Pauses: int(seed % 3), ClockJumps: 1 + int(seed%2), Retargets: int(seed / 2 % 3)}
}

// TestLists: DESIGN 8. Lists over groups are linearizable.
func TestLists(t *testing.T) {
	const seeds = 12
	var total Coverage
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(listsOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s", seed, p)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, seeds)
	if total.Lists < 40*seeds || total.HeldLists == 0 {
		t.Errorf("%d lists were judged, %d that held keys", total.Lists, total.HeldLists)
	}
	t.Logf("coverage of %d seeds: %+v", seeds, total)
}

// witnessBugs need a witness.
const witnessBugs = invariant.BugWitnessVotesBlind | invariant.BugWitnessCounted | invariant.BugWitnessCampaigns

// membershipBugs need members that change often.
const membershipBugs = invariant.BugRemovedVanishes | invariant.BugCommitForgotten

// splitBugs need slots that move.
const splitBugs = invariant.BugLeaveThawed | invariant.BugLastTailMissing | invariant.BugTailFromView |
	invariant.BugReadUnowned | invariant.BugWriteUnowned

// txnBugs need transactions over several groups.
const txnBugs = invariant.BugLockForgotten | invariant.BugVolatileNo

// foundLate are seeds with which the search for a bug begins that few find; it
// goes on with those after it.
var foundLate = map[invariant.Bug]uint64{
	invariant.BugLagVotes: 4484, invariant.BugRefusalUnconfirmed: 402, invariant.BugRemovedVanishes: 46, invariant.BugCommitForgotten: 135,
	invariant.BugTailFromView: 466, invariant.BugSweepBlind: 6, invariant.BugOneRound: 58,
	invariant.BugLeaveThawed: 15, invariant.BugLastTailMissing: 21, invariant.BugWitnessVotesBlind: 10, invariant.BugSnapshotUndurable: 6,
}

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
		{"a witness votes without a look at its log", invariant.BugWitnessVotesBlind},
		{"what a witness does not get counts as acknowledged", invariant.BugWitnessCounted},
		{"a witness asks for votes", invariant.BugWitnessCampaigns},
		{"slots are left though the freeze was undone", invariant.BugLeaveThawed},
		{"slots are accepted without the last changes", invariant.BugLastTailMissing},
		{"changes begin behind the index of a view", invariant.BugTailFromView},
		{"reads of slots that the group does not own", invariant.BugReadUnowned},
		{"writes of slots that the group does not own", invariant.BugWriteUnowned},
		{"lists over groups in one round", invariant.BugOneRound},
		{"sweeps without a look at the deadline", invariant.BugSweepBlind},
		{"transactions are prepared without their locks", invariant.BugLockForgotten},
		{"a leader's copy counts before its sync, which waits", invariant.BugLagVotes},
		{"refusals to prepare leave no record", invariant.BugVolatileNo},
		{"what was fetched of a key stands though it was written since", invariant.BugUntouched},
	}
	const most = 400
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			for n := range uint64(most) {
				seed := max(foundLate[b.bug], 1) + n
				cryptotest.SetGlobalRandom(t, seed)
				cfg := configOf(seed)
				cfg.Partitions, cfg.Keys, cfg.Clients, cfg.Probes = 6, 3, 16, true
				if membershipBugs.Has(b.bug) {
					cfg = changeOften(cfg)
				}
				if b.bug == invariant.BugLeadStalled {
					cfg = stallsOf(seed)
				}
				if witnessBugs.Has(b.bug) {
					cfg = witnessOf(seed)
				}
				if b.bug == invariant.BugSweepBlind {
					cfg = expiringOf(seed)
				}
				if txnBugs.Has(b.bug) {
					cfg = txnsOf(seed)
				}
				if splitBugs.Has(b.bug) {
					cfg = splitsOf(seed)
				}
				if b.bug == invariant.BugOneRound {
					cfg = listsOf(seed)
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
