package balancer

import (
	"slices"
	"sync"

	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// maxSteps bounds the groups that take a step at the same time.
const maxSteps = 8

// steps runs the steps of groups beside the loop. A step waits for a group's
// quorum, and when that does not answer until its timeout; with one step after
// the other, a few such groups would keep all others of the node where they are.
// A group takes one step at a time. While maxSteps run, further groups wait for
// a later round; each round begins behind the group that the last one began
// with last, so that groups whose steps never end do not keep the rest waiting
// for ever.
type steps struct {
	running sync.WaitGroup
	// taken is told when members changed, or a step ended for which others wait.
	taken chan struct{}

	mu      sync.Mutex
	busy    map[keyspace.GroupID]bool
	last    keyspace.GroupID // begun last
	waiting bool             // a group found no room
}

func newSteps() *steps {
	return &steps{taken: make(chan struct{}, 1), busy: make(map[keyspace.GroupID]bool)}
}

// begin begins a step of every group that needs one and takes none, as far as
// there is room. take runs on a goroutine of its own, which running waits for.
func (s *steps) begin(groups []host.GroupStatus, needs, take func(*host.GroupStatus) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	from := slices.IndexFunc(groups, func(g host.GroupStatus) bool { return g.Group > s.last })
	for i := range groups {
		g := &groups[(max(from, 0)+i)%len(groups)]
		if s.busy[g.Group] || !needs(g) {
			continue
		}
		if s.waiting = len(s.busy) == maxSteps; s.waiting {
			return
		}
		s.busy[g.Group], s.last = true, g.Group
		s.running.Go(func() { s.end(g.Group, take(g)) })
	}
}

// end notes that a step ended.
func (s *steps) end(g keyspace.GroupID, changed bool) {
	s.mu.Lock()
	delete(s.busy, g)
	tell := changed || s.waiting
	s.mu.Unlock()
	if !tell {
		return
	}
	select {
	case s.taken <- struct{}{}:
	default: // it was told already
	}
}
