package watch

import (
	"testing"
	"time"
)

// TestProgressIsSpread: each of many watches is told once per round, at each tick a
// part of them.
func TestProgressIsSpread(t *testing.T) {
	const many, ticks = 5000, 8
	s := &Stream{hub: &Hub{o: Options{ProgressEvery: ticks * tickEvery, StreamBytes: 1}}, watches: make(map[uint64]*watch)}
	sources := []*source{{}, {}}
	for id := range uint64(many) {
		s.watches[id] = &watch{id: id, src: sources[id%2]}
	}
	for round := range 2 {
		told, largest := make(map[*watch]int), 0
		for tick := range ticks {
			some := 0
			for _, d := range s.nextMarks(time.Duration((round+1)*ticks+tick) * tickEvery) {
				some += len(d.watches)
				for _, w := range d.watches {
					if told[w]++; w.src != d.src {
						t.Fatal("a watch is marked by a source that is not its own")
					}
				}
			}
			largest = max(largest, some)
		}
		if len(told) != many || largest > many/ticks+1 {
			t.Errorf("round %d: %d watches of %d, up to %d at once", round, len(told), many, largest)
		}
		for _, n := range told {
			if n != 1 {
				t.Errorf("round %d: told %d times", round, n)
			}
		}
	}
}
