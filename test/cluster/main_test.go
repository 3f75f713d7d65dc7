//go:build unix

// Package cluster tests whole clusters of real processes from outside: kill -9,
// pauses, lost disks, limits, TLS. -chaos N makes the faults last N times as
// long; a failing test prints the end of every node's log. The longest tests run
// when -run names them, as .ci/run does.
package cluster

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"kvstore/test/cluster/harness"
)

var chaos = flag.Int("chaos", 1, "how many times as long the tests named TestChaos run")

// longest are the tests that everybody's `go test ./...` has no time for.
const longest = "^Test(ChaosGrow|Split|Witness|WatchThroughSplit|ChaosTransactions|ChaosCoordinator|ChaosQueue|ChaosClock)$"

func TestMain(m *testing.M) {
	if config := os.Getenv(writerVariable); config != "" {
		os.Exit(writerMain(config))
	}
	flag.Parse()
	if named := flag.Lookup("test.run").Value.String(); named == "" {
		if err := flag.Set("test.skip", longest); err != nil {
			panic(err)
		}
	}
	manyAtOnce()
	os.Exit(harness.Main(m))
}

// manyAtOnce runs at least four of the parallel tests at a time, however few
// cores there are: they wait for elections, timeouts and other processes for most
// of their time. What measures how long something takes is not parallel.
func manyAtOnce() {
	const least = 4
	if set := flag.Lookup("test.parallel"); set.Value.(flag.Getter).Get().(int) < least && !given(set.Name) {
		if err := set.Value.Set(strconv.Itoa(least)); err != nil {
			panic(err)
		}
	}
}

// given reports whether the command line has a flag.
func given(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
