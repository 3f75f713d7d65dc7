package node

import (
	"slices"
	"strings"
	"testing"

	"kvstore/internal/config"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// TestUnused: a shape that the cluster does not have is named, with both.
func TestUnused(t *testing.T) {
	c, err := config.Load(config.Sources{Values: map[string]any{"cluster.groups": 8, "cluster.replication_factor": 3}})
	if err != nil {
		t.Fatal(err)
	}
	m := &router.Map{Groups: c.Cluster.Groups, ReplicationFactor: c.Cluster.ReplicationFactor}
	if got := unused(c, m); len(got) != 0 {
		t.Errorf("%q", got)
	}
	m.Groups, m.ReplicationFactor = 4, 5
	got := strings.Join(unused(c, m), "; ")
	for _, want := range []string{"cluster.groups = 8 is not used: the cluster has 4", "cluster.replication_factor = 3 is not used: the cluster has 5"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

// TestGrownGroupsAreNotReported: a cluster that came to have more groups than it
// was founded with does what it was told.
func TestGrownGroupsAreNotReported(t *testing.T) {
	c, err := config.Load(config.Sources{Values: map[string]any{"cluster.groups": 8}})
	if err != nil {
		t.Fatal(err)
	}
	m := &router.Map{Groups: 9, ReplicationFactor: c.Cluster.ReplicationFactor, Slots: &router.SlotMap{}}
	if got := unused(c, m); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if m.Groups = 7; len(unused(c, m)) != 1 {
		t.Error("fewer groups than configured are not reported")
	}
}

// TestUnusedDefaults: what nobody asked for is not reported.
func TestUnusedDefaults(t *testing.T) {
	if got := unused(config.Default(), &router.Map{Groups: 7, ReplicationFactor: 5}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// A group that owns nothing yet has no key that could be read, and a node is
// ready without it.
func TestReadinessAsksGroupsThatOwnSlots(t *testing.T) {
	r := format.FoundingSlotsRecord(3)
	r.Owners = append(r.Owners, format.SlotOwner{Group: 4}, format.SlotOwner{Group: 5})
	m := &router.Map{Groups: len(r.Owners), Slots: router.NewSlotMap(&r, 1)}
	hosted, elsewhere := whereRead(m, func(g keyspace.GroupID) bool { return g == 2 || g == 5 })
	if !slices.Equal(hosted, []keyspace.GroupID{2, 5}) || !slices.Equal(elsewhere, []keyspace.GroupID{1, 3}) {
		t.Errorf("read here %v, elsewhere %v", hosted, elsewhere)
	}
	for _, g := range elsewhere {
		if owner, _ := m.GroupOfKey(keyspace.DefaultNamespace, keyOf(m, g)); owner != g {
			t.Errorf("the key of group %d is of %d", g, owner)
		}
	}
}
