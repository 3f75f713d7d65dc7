//go:build race

package badger

// raceEnabled: allocation counts mean nothing under the race detector.
const raceEnabled = true
