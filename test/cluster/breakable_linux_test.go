package cluster

import (
	"testing"

	"kvstore/test/cluster/harness"
)

// startBreakable starts three nodes with a network between them that a test can
// break, where that can be made, else without. The cluster is nil when the test ran
// in a process of its own (harness.Apart).
func startBreakable(t *testing.T) (*harness.Cluster, breakable) {
	t.Helper()
	if !harness.CanBeApart() {
		return harness.Start(t, harness.Options{}), nil
	}
	if !harness.Apart(t) {
		return nil, nil
	}
	return harness.StartOnNetwork(t, 3)
}
