package sim

import (
	"fmt"
	"testing"
	"testing/cryptotest"
)

// expiringOf is a cluster in which most operations are on keys that expire, under
// all faults; with every other seed their slots move.
func expiringOf(seed uint64) Config {
	cfg := configOf(seed)
	if seed%2 == 0 {
		cfg = splitsOf(seed)
	}
	cfg.Expiring, cfg.Operations, cfg.Crashes, cfg.ClockJumps = true, 1000, 4, int(seed%3)
	return cfg
}

// TestExpiry: DESIGN 6, 10. A key is gone when its deadline has passed on group time
// and not before, whoever is asked, and comes back by no failover; a sweep takes
// nothing that was touched or written anew.
func TestExpiry(t *testing.T) {
	const seeds = 6
	var total Coverage
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			cov, problems := Run(expiringOf(seed))
			for _, p := range problems {
				t.Errorf("seed %d: %s", seed, p)
			}
			total.add(cov)
		})
	}
	mustDecide(t, total.Undecided, seeds)
	if total.Expiring < 100*seeds || total.Swept < 20*seeds {
		t.Errorf("%d writes of keys that expire, %d swept; want more", total.Expiring, total.Swept)
	}
	t.Logf("coverage of %d seeds: %s", seeds, total)
}
