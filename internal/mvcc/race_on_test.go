//go:build race

package mvcc

// raceEnabled: allocation counts mean nothing under the race detector.
const raceEnabled = true
