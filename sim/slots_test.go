package sim

import (
	"fmt"
	"testing"
	"testing/cryptotest"
)

// splitsOf moves slots to a third data group under faults. Damage of logs is for
// TestSeeds: a node that cannot say what lived on it needs an operator, and ends
// more runs here than moves of slots do.
func splitsOf(seed uint64) Config {
	cfg := configOf(seed)
	cfg.Splits, cfg.Groups, cfg.Operations, cfg.Damages = true, 3, 1500, 0
	return cfg
}

// TestSplits moves slots between groups while everything fails (ADR 0015).
func TestSplits(t *testing.T) {
	var total Coverage
	for i := range *seeds {
		seed := *seedFrom + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(splitsOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s\nrun again: go test ./sim -run 'TestSplits' -seed %d -seeds 1", seed, p, seed)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, *seeds)
	if total.SlotMoves < 3**seeds || total.Elsewhere == 0 {
		t.Errorf("%d moves of slots, and %d requests to former owners; want more", total.SlotMoves, total.Elsewhere)
	}
	t.Logf("coverage of %d seeds: %s", *seeds, total)
}
