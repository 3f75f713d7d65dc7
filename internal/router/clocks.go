package router

import (
	"context"
	"sync"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// clocks reads the clocks of all data groups for the lists that wait at the
// same time. While one reading runs, those who come wait for the next: it
// begins after them, so it covers all that was acknowledged before them, and
// many lists cost two rounds of requests to each leader's node together. A
// reading makes one attempt; what it lacks the lists read for themselves.
type clocks struct {
	r       *Router
	mu      sync.Mutex
	running bool     // guarded by mu
	next    *reading // guarded by mu; who comes joins it
}

// reading is the clocks of groups. Its fields are final once done is closed.
type reading struct {
	done chan struct{}
	// rev is the maximum of the first round; the second moved the clocks to it
	// where all went well.
	rev    keyspace.Revision
	groups map[keyspace.GroupID]host.ClockReading
}

// read returns a reading that began after the call; it is empty when ctx or
// the router end first.
func (c *clocks) read(ctx context.Context) *reading {
	c.mu.Lock()
	if c.next == nil {
		c.next = &reading{done: make(chan struct{})}
	}
	waits := c.next
	if !c.running && c.r.hold() {
		c.running = true
		go func() {
			defer c.r.wg.Done()
			c.run()
		}()
	}
	c.mu.Unlock()
	select {
	case <-waits.done:
		return waits
	case <-ctx.Done():
	case <-c.r.ctx.Done():
	}
	return &reading{}
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
		now.rev, now.groups = c.r.readClocks()
		close(now.done)
	}
}

// readClocks runs the two rounds: the clocks of all groups, then all moved to
// their maximum.
func (r *Router) readClocks() (latest keyspace.Revision, out map[keyspace.GroupID]host.ClockReading) {
	ctx, cancel := context.WithTimeout(r.ctx, r.o.ReadAttempt)
	defer cancel()
	out = make(map[keyspace.GroupID]host.ClockReading)
	m := r.o.Directory.Map()
	groups := make([]keyspace.GroupID, m.Groups)
	for i := range groups {
		groups[i] = keyspace.GroupID(i + 1)
	}
	r.clockRound(ctx, groups, 0, out)
	for _, c := range out {
		latest = max(latest, c.Clock)
	}
	behind := groups[:0]
	for _, g := range groups {
		if c, ok := out[g]; ok && c.Clock < latest {
			behind = append(behind, g)
		}
	}
	r.clockRound(ctx, behind, latest, out)
	return latest, out
}

// clockRound asks each node once for the clocks of the groups it leads.
func (r *Router) clockRound(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision, out map[keyspace.GroupID]host.ClockReading) {
	byNode := make(map[keyspace.NodeID][]keyspace.GroupID)
	for _, g := range groups {
		leader, _, known := r.o.Host.Leader(g)
		if !known {
			leader, known = r.hints.get(g)
		}
		if known {
			byNode[leader] = append(byNode[leader], g)
		}
	}
	answers := make(chan []host.ClockReading, len(byNode))
	for node, led := range byNode {
		r.wg.Add(1) // the caller holds wg
		go func() {
			defer r.wg.Done()
			answers <- r.nodeClocks(ctx, node, led, atLeast)
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

// nodeClocks reads the clocks of groups led by one node; what fails is left
// out or has its Err.
func (r *Router) nodeClocks(ctx context.Context, node keyspace.NodeID, groups []keyspace.GroupID, atLeast keyspace.Revision) []host.ClockReading {
	if node == r.o.Node {
		return r.o.Host.Clocks(ctx, groups, atLeast)
	}
	client, err := r.o.Peers.Client(node)
	if err != nil {
		return nil
	}
	q := &api.GroupClockRequest{Group: uint32(groups[0]), AtLeast: uint64(atLeast)}
	for _, g := range groups {
		q.Groups = append(q.Groups, uint32(g))
	}
	resp, err := client.GroupClock(ctx, q)
	if err != nil {
		return nil
	}
	out := make([]host.ClockReading, 0, len(groups))
	for _, c := range resp.Clocks {
		out = append(out, host.ClockReading{
			Group: keyspace.GroupID(c.Group), Clock: keyspace.Revision(c.Clock), Index: keyspace.Index(c.Index)})
	}
	if len(out) == 0 { // a node that knows one group per request
		out = append(out, host.ClockReading{Group: groups[0], Clock: keyspace.Revision(resp.Clock), Index: keyspace.Index(resp.Index)})
	}
	return out
}

// groupClock confirms the leadership of g and returns its clock, at least
// atLeast, once everything it stamped is applied.
func (r *Router) groupClock(ctx context.Context, g keyspace.GroupID, atLeast keyspace.Revision) (host.ClockReading, error) {
	var clock host.ClockReading
	err := r.onGroup(ctx, g, attempt{
		local: func(ctx context.Context) error {
			clock = r.o.Host.Clocks(ctx, []keyspace.GroupID{g}, atLeast)[0]
			return clock.Err
		},
		remote: func(ctx context.Context, _ keyspace.NodeID, peer api.PeerClient) error {
			resp, err := peer.GroupClock(ctx, &api.GroupClockRequest{Group: uint32(g), AtLeast: uint64(atLeast)})
			clock = host.ClockReading{Group: g, Clock: keyspace.Revision(resp.GetClock()), Index: keyspace.Index(resp.GetIndex())}
			return err
		},
	})
	return clock, err
}

// ServeClock answers Peer.GroupClock from this node's replicas.
func (r *Router) ServeClock(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	if len(q.Groups) > 0 {
		return r.serveClocks(ctx, q)
	}
	g := keyspace.GroupID(q.Group)
	if leader, local, _ := r.o.Host.Leader(g); !local {
		return nil, r.elsewhere(g, leader)
	}
	c := r.o.Host.Clocks(ctx, []keyspace.GroupID{g}, keyspace.Revision(q.AtLeast))[0]
	return &api.GroupClockResponse{Clock: uint64(c.Clock), Index: uint64(c.Index)}, c.Err
}

// serveClocks leaves out the groups that are not led here.
func (r *Router) serveClocks(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
	groups := make([]keyspace.GroupID, 0, len(q.Groups))
	for _, g := range q.Groups {
		if _, local, _ := r.o.Host.Leader(keyspace.GroupID(g)); local {
			groups = append(groups, keyspace.GroupID(g))
		}
	}
	out := &api.GroupClockResponse{}
	var failed error
	for _, c := range r.o.Host.Clocks(ctx, groups, keyspace.Revision(q.AtLeast)) {
		if c.Err != nil {
			failed = c.Err
			continue
		}
		out.Clocks = append(out.Clocks, &api.GroupClockReading{Group: uint32(c.Group), Clock: uint64(c.Clock), Index: uint64(c.Index)})
	}
	switch {
	case len(out.Clocks) > 0:
		return out, nil
	case failed == nil:
		failed = r.elsewhere(keyspace.GroupID(q.Groups[0]), "")
	}
	return nil, failed
}
