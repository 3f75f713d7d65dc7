package sim

import (
	"fmt"
	"testing"
	"testing/cryptotest"
)

// txnsOf is a cluster of three data groups with transactions over them, under all
// faults; with every other seed their slots move.
func txnsOf(seed uint64) Config {
	cfg := configOf(seed)
	if seed%2 == 0 {
		cfg = splitsOf(seed)
	}
	cfg.Groups, cfg.Operations, cfg.Transactions = 3, 1000, true
	return cfg
}

// TestTransactions: DESIGN 9. Transactions over several groups are strictly
// serializable with each other, with single reads and writes of their keys, and happen
// whole or not at all, whoever fails, stops, moves or asks again.
func TestTransactions(t *testing.T) {
	const seeds = 6
	var total Coverage
	for i := range uint64(seeds) {
		seed := *seedFrom + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(txnsOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s\nrun again: go test ./sim -run 'TestTransactions/%d$' -seed %d", seed, p, seed, seed)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, seeds)
	if *seedFrom != 1 {
		t.Logf("coverage of %d seeds: %s", seeds, total)
		return // of the first ones it is known what they have
	}
	if total.Moved < 10*seeds || total.Looked < 10*seeds || total.Finished < seeds || total.Forgotten < 10*seeds || total.Stopped < seeds || total.Remembered < 10*seeds {
		t.Errorf("too little of: %s", total)
	}
	t.Logf("coverage of %d seeds: %s", seeds, total)
}
