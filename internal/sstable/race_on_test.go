//go:build race

package sstable

// raceEnabled: allocation counts mean nothing under the race detector.
const raceEnabled = true
