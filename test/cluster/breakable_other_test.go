//go:build unix && !linux

package cluster

import (
	"testing"

	"kvstore/test/cluster/harness"
)

func startBreakable(t *testing.T) (*harness.Cluster, breakable) {
	t.Helper()
	return harness.Start(t, harness.Options{}), nil
}
