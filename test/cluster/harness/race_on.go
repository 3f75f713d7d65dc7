//go:build race

package harness

// raceFlags: a test binary with the race detector builds nodes with it.
var raceFlags = []string{"-race"}
