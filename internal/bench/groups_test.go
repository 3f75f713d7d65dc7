package bench

import (
	"context"
	"strings"
	"testing"

	"kvstore/internal/ctl/memserver"
)

// grouped is a driver of a store whose keys go round so many groups.
type grouped struct {
	fakeDriver
	groups uint32
}

func (g grouped) GroupOf(context.Context) (func(string) uint32, error) {
	return func(key string) uint32 { return uint32(key[len(key)-1]-'0') % g.groups }, nil
}

// TestTransactionsLieInSoManyGroups: in exactly as many as asked for, with different
// keys, and all groups are used.
func TestTransactionsLieInSoManyGroups(t *testing.T) {
	for want := 1; want <= 5; want++ {
		cfg := Default()
		cfg.Workload, cfg.Batch, cfg.Groups, cfg.Keys = WorkTxn, 5, want, 100
		d := grouped{groups: 5}
		if err := cfg.findGroups(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		of, _ := d.GroupOf(t.Context())
		w, used := newWorker(&cfg, poolOf(&cfg), 0), map[uint32]bool{}
		for range 200 {
			w.inGroups()
			groups, keys := map[uint32]bool{}, map[string]bool{}
			for _, k := range w.batchK {
				groups[of(k)], keys[k], used[of(k)] = true, true, true
			}
			if len(groups) != want || len(keys) != 5 {
				t.Fatalf("%d groups, want %d: %v", len(groups), want, w.batchK)
			}
		}
		if len(used) != 5 {
			t.Errorf("%d groups: only %v are used", want, used)
		}
	}
}

// TestTooFewGroups: what cannot be asked for is said before anything runs.
func TestTooFewGroups(t *testing.T) {
	code, _, errs := runMain(t, memserver.Start(t), "-w", WorkTxn, "--batch", "5", "--groups", "2", "--keys", "50", "--ops", "10")
	if code != exitError || !strings.Contains(errs, "--groups 2: 1 groups of the cluster own 5 or more of the --keys") {
		t.Errorf("exit %d: %s", code, errs)
	}
	code, _, errs = runMain(t, memserver.Start(t), "-w", WorkTxn, "--batch", "5", "--groups", "6")
	if code != exitUsage || !strings.Contains(errs, "--groups 6: want 1 to 5") {
		t.Errorf("exit %d: %s", code, errs)
	}
	cfg := Default() // a store without groups has all keys in one, whatever is asked for
	cfg.Workload, cfg.Batch, cfg.Groups = WorkTxn, 5, 5
	if err := cfg.findGroups(t.Context(), fakeDriver{}); err != nil || len(cfg.byGroup) != 1 {
		t.Errorf("%d groups, %v", len(cfg.byGroup), err)
	}
}
