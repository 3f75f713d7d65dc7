package node

import (
	"strings"
	"testing"

	"kvstore/internal/config"
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
	for _, want := range []string{"cluster.groups = 8 is not used: the cluster was founded with 4", "cluster.replication_factor = 3 is not used: the cluster was founded with 5"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

// TestUnusedDefaults: what nobody asked for is not reported.
func TestUnusedDefaults(t *testing.T) {
	if got := unused(config.Default(), &router.Map{Groups: 7, ReplicationFactor: 5}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
