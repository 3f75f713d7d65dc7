package bench

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// groupedKeys are the numbers of a run's keys by the group that owned them at its
// start; a store without groups has all in one. Slots that move during a run change
// what was asked for.
type groupedKeys [][]int

// findGroups asks the driver, for workloads that have to know.
func (c *Config) findGroups(ctx context.Context, d Driver) error {
	if c.Workload != WorkTxn {
		return nil
	}
	of, err := groupOf(ctx, d)
	if err != nil {
		return err
	}
	keys, byGroup := c.keyMaker(), map[uint32][]int{}
	for i := range c.Keys {
		g := of(keys.Key(i))
		byGroup[g] = append(byGroup[g], i)
	}
	c.byGroup = nil
	for _, g := range slices.Sorted(maps.Keys(byGroup)) {
		if len(byGroup[g]) >= c.Batch {
			c.byGroup = append(c.byGroup, byGroup[g])
		}
	}
	if _, grouped := d.(GroupedKeys); grouped && len(c.byGroup) < c.Groups || len(c.byGroup) == 0 {
		return fmt.Errorf("--groups %d: %d groups of the cluster own %d or more of the --keys (kvctl cluster set makes more groups)", c.Groups, len(c.byGroup), c.Batch)
	}
	return nil
}

// groupOf is the driver's, or that of a store with one group.
func groupOf(ctx context.Context, d Driver) (func(string) uint32, error) {
	if g, ok := d.(GroupedKeys); ok {
		return g.GroupOf(ctx)
	}
	return func(string) uint32 { return 0 }, nil
}

// topologyGroupOf reads a slot map.
func topologyGroupOf(t *api.TopologyResponse, namespace string) (func(string) uint32, error) {
	id, known := t.GetNamespaces()[cmp.Or(namespace, keyspace.DefaultNamespaceName)]
	slots := t.GetSlotGroups()
	if !known || len(slots) != keyspace.SlotCount {
		return nil, fmt.Errorf("the cluster does not say which groups own the keys of namespace %q", namespace)
	}
	return func(key string) uint32 { return slots[keyspace.SlotOf(keyspace.NamespaceID(id), key)] }, nil
}

// inGroups fills the batch with different keys of exactly so many groups, each of
// which has its part of them.
func (w *worker) inGroups() {
	w.taken.clear()
	chosen := w.drawGroups(min(w.cfg.Groups, len(w.groups)))
	for i := range w.batchK {
		own := w.cfg.byGroup[chosen[i%len(chosen)]]
		at := w.index() % len(own)
		for !w.taken.add(own[at]) {
			at = (at + 1) % len(own)
		}
		w.batchK[i], w.batchV[i] = w.keys.Key(own[at]), w.value()
	}
}

// drawGroups returns n different groups, each as likely as the others.
func (w *worker) drawGroups(n int) []int {
	for i := range n {
		j := i + w.rand.IntN(len(w.groups)-i)
		w.groups[i], w.groups[j] = w.groups[j], w.groups[i]
	}
	return w.groups[:n]
}

func transaction(ctx context.Context, c Client, keys []string, values [][]byte) error {
	if t, ok := c.(TxnClient); ok {
		return t.Transaction(ctx, keys, values)
	}
	return c.BatchPut(ctx, keys, values)
}
