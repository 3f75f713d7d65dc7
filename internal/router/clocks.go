package router

import (
	"context"
	"slices"
	"sync"

	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// clocks reads the clocks of all data groups for the lists that wait at the
// same time. While one reading runs, those who come wait for the next: it
// begins after them, so it covers all that was acknowledged before them, and
// many lists cost two rounds of requests to each leader's node together. Each
// brings the range that it reads, and the answers say of each range what happened
// to it. A reading makes one attempt; what it lacks the lists read for themselves.
type clocks struct {
	r       *Router
	mu      sync.Mutex
	running bool     // guarded by mu
	next    *reading // guarded by mu; who comes joins it
}

// reading is the clocks of groups. What it asks is final once it began, its
// other fields are once done is closed.
type reading struct {
	done chan struct{}
	// sets are the ranges of those who joined, bytes what they are made of.
	sets  []replica.Spans
	bytes int
	// strict: one of them needs both rounds of all groups.
	strict bool
	// rev is the maximum of the first round; the second moved the clocks to it
	// where all went well. groups are the last readings, of the second round where
	// there was one.
	rev           keyspace.Revision
	first, groups map[keyspace.GroupID]clockReading
}

// maxSharedSets and maxSharedBytes bound the ranges of one reading; who finds no
// room reads for itself.
const (
	maxSharedSets  = 64
	maxSharedBytes = 64 << 10
)

// join adds a range, unless it is there, and returns its number.
func (s *reading) join(set replica.Spans, strict bool) (number int, ok bool) {
	number = slices.IndexFunc(s.sets, func(o replica.Spans) bool {
		return slices.EqualFunc(o, set, func(a, b replica.Span) bool {
			return string(a.Lower) == string(b.Lower) && string(a.Upper) == string(b.Upper)
		})
	})
	if number < 0 {
		size := 0
		for _, span := range set {
			size += len(span.Lower) + len(span.Upper)
		}
		if len(s.sets) >= maxSharedSets || s.bytes+size > maxSharedBytes {
			return 0, false
		}
		number, s.bytes = len(s.sets), s.bytes+size
		s.sets = append(s.sets, set)
	}
	s.strict = s.strict || strict
	return number, true
}

// read returns a reading that began after the call, and the number of the range
// in it. It is empty when ctx or the router end first, or when there was no room.
// strict asks what happened to the range between the two rounds.
func (c *clocks) read(ctx context.Context, set replica.Spans, strict bool) (*reading, int) {
	c.mu.Lock()
	if c.next == nil {
		c.next = &reading{done: make(chan struct{})}
	}
	waits := c.next
	number, ok := waits.join(set, strict)
	if ok && !c.running && c.r.hold() {
		c.running = true
		go func() {
			defer c.r.wg.Done()
			c.run()
		}()
	}
	c.mu.Unlock()
	if !ok {
		return &reading{}, 0
	}
	select {
	case <-waits.done:
		return waits, number
	case <-ctx.Done():
	case <-c.r.ctx.Done():
	}
	return &reading{}, 0
}

// run reads until nobody waits.
func (c *clocks) run() {
	for {
		c.mu.Lock()
		now := c.next
		c.next = nil
		c.running = now != nil
		c.mu.Unlock()
		if now == nil {
			return
		}
		c.r.readClocks(now)
		close(now.done)
	}
}

// readClocks runs the two rounds: the clocks of all groups, then all moved to
// their maximum; without strict only those that are behind it.
func (r *Router) readClocks(s *reading) {
	ctx, cancel := context.WithTimeout(r.ctx, r.o.ReadAttempt)
	defer cancel()
	s.first, s.groups = make(map[keyspace.GroupID]clockReading), make(map[keyspace.GroupID]clockReading)
	asks := make([]clockAsk, 0, 8)
	for _, g := range r.o.Directory.Map().owning() {
		asks = append(asks, clockAsk{ClockAsk: host.ClockAsk{Group: g, Sets: s.sets}})
	}
	r.clockRound(ctx, asks, s.first)
	for _, c := range s.first {
		s.rev = max(s.rev, c.Clock)
	}
	again := asks[:0]
	for _, a := range asks {
		c, ok := s.first[a.Group]
		if !ok {
			continue
		}
		if c.Clock == s.rev && !s.strict {
			s.groups[a.Group] = c
			continue
		}
		a.AtLeast, a.Since = s.rev, c.Since()
		again = append(again, a)
	}
	r.clockRound(ctx, again, s.groups)
}

// clockRound asks each node once for the clocks of the groups it leads.
func (r *Router) clockRound(ctx context.Context, asks []clockAsk, out map[keyspace.GroupID]clockReading) {
	byNode := make(map[keyspace.NodeID][]clockAsk)
	for _, a := range asks {
		leader, _, known := r.o.Host.Leader(a.Group)
		if !known {
			leader, known = r.hints.get(a.Group)
		}
		if known {
			byNode[leader] = append(byNode[leader], a)
		}
	}
	answers := make(chan []clockReading, len(byNode))
	for node, led := range byNode {
		r.wg.Add(1) // the caller holds wg
		go func() {
			defer r.wg.Done()
			answers <- r.askNode(ctx, node, led)
		}()
	}
	for range byNode {
		for _, c := range <-answers {
			if c.Err == nil {
				out[c.Group] = c
			}
		}
	}
}
