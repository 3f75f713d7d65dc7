//go:build race

package history

// raceEnabled: allocation counts mean nothing under the race detector.
const raceEnabled = true
