//go:build unix

// Package cluster tests whole clusters of real processes from outside: kill -9,
// pauses, lost disks, limits, TLS. -chaos N makes the faults last N times as
// long; a failing test prints the end of every node's log.
package cluster

import (
	"flag"
	"os"
	"testing"

	"kvstore/test/cluster/harness"
)

var chaos = flag.Int("chaos", 1, "how many times as long the tests named TestChaos run")

func TestMain(m *testing.M) {
	if config := os.Getenv(writerVariable); config != "" {
		os.Exit(writerMain(config))
	}
	flag.Parse()
	os.Exit(harness.Main(m))
}
