package router

import (
	"cmp"
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// clockAsk is a reading of a clock, and what else its answer says.
type clockAsk struct {
	host.ClockAsk
	// read are the keys of the only set, whose records a second reading finds at
	// AtLeast; nil for none.
	read *keySet
}

// clockReading answers a clockAsk.
type clockReading struct {
	host.ClockReading
	found []*api.Record // parallel to read.keys
	moved bool          // one of them is not the group's
}

// clockRequest is what asks, one for each group of the same sets, send to a peer.
func clockRequest(asks []clockAsk) *api.GroupClockRequest {
	first := &asks[0]
	q := &api.GroupClockRequest{Group: uint32(first.Group), AtLeast: uint64(first.AtLeast), Hold: first.Hold}
	second := slices.ContainsFunc(asks, func(a clockAsk) bool { return a.Since.Term != 0 })
	for i := range asks {
		q.Groups = append(q.Groups, uint32(asks[i].Group))
		if second {
			q.Since, q.Terms = append(q.Since, uint64(asks[i].Since.Clock)), append(q.Terms, uint64(asks[i].Since.Term))
		}
	}
	for _, set := range first.Sets {
		s := &api.KeySet{}
		for _, span := range set {
			s.Spans = append(s.Spans, &api.KeySpan{Lower: span.Lower, Upper: span.Upper})
		}
		q.Sets = append(q.Sets, s)
	}
	if first.read != nil {
		q.Sets = []*api.KeySet{{Keys: first.read.keys, KeysOnly: first.read.keysOnly}}
	}
	return q
}

// clockAsks is the inverse of clockRequest.
func clockAsks(q *api.GroupClockRequest) ([]clockAsk, error) {
	n := len(q.Groups)
	if len(q.Since) != len(q.Terms) || len(q.Since) != 0 && len(q.Since) != n || q.Hold != 0 && len(q.Sets) != 1 {
		return nil, fault.New(fault.InvalidArgument, "reading of clocks is malformed",
			"groups", n, "since", len(q.Since), "terms", len(q.Terms), "sets", len(q.Sets))
	}
	var read *keySet
	sets := make([]replica.Spans, len(q.Sets))
	for i, s := range q.Sets {
		if len(s.Keys) > 0 {
			if n != 1 || len(q.Sets) != 1 || len(s.KeysOnly) != 0 && len(s.KeysOnly) != len(s.Keys) {
				return nil, fault.New(fault.InvalidArgument, "keys are read of one group, in one set", "groups", n, "sets", len(q.Sets))
			}
			read = &keySet{keys: s.Keys, keysOnly: s.KeysOnly}
			sets[i] = read.spans()
			continue
		}
		for _, span := range s.Spans {
			sets[i] = append(sets[i], replica.Span{Lower: span.Lower, Upper: span.Upper})
		}
	}
	asks := make([]clockAsk, n)
	for i, g := range q.Groups {
		asks[i] = clockAsk{read: read, ClockAsk: host.ClockAsk{
			Group: keyspace.GroupID(g), AtLeast: keyspace.Revision(q.AtLeast), Sets: sets, Hold: q.Hold}}
		if len(q.Since) > 0 {
			asks[i].Since = replica.Reading{Term: keyspace.Term(q.Terms[i]), Clock: keyspace.Revision(q.Since[i])}
		}
	}
	return asks, nil
}

func clockAnswer(c *clockReading) *api.GroupClockReading {
	out := &api.GroupClockReading{Group: uint32(c.Group), Clock: uint64(c.Clock), Index: uint64(c.Index),
		Settled: uint64(c.Settled), Term: uint64(c.Term), Moved: c.moved}
	for _, n := range c.Unsettled {
		out.Unsettled = append(out.Unsettled, uint32(n))
	}
	for _, rec := range c.found {
		out.Found = append(out.Found, &api.KeyFound{Record: rec})
	}
	return out
}

func clockOf(c *api.GroupClockReading) clockReading {
	out := clockReading{moved: c.Moved, ClockReading: host.ClockReading{Group: keyspace.GroupID(c.Group),
		Clock: keyspace.Revision(c.Clock), Index: keyspace.Index(c.Index), Term: keyspace.Term(c.Term),
		Settled: cmp.Or(keyspace.Revision(c.Settled), keyspace.Revision(c.Clock))}}
	for _, n := range c.Unsettled {
		out.Unsettled = append(out.Unsettled, int(n))
	}
	for _, f := range c.Found {
		out.found = append(out.found, f.Record)
	}
	return out
}

// askHere reads clocks of groups that are led here.
func (r *Router) askHere(ctx context.Context, asks []clockAsk) []clockReading {
	plain := make([]host.ClockAsk, len(asks))
	for i := range asks {
		plain[i] = asks[i].ClockAsk
	}
	out := make([]clockReading, len(asks))
	answers := r.o.Host.AskClocks(ctx, plain)
	for i := range asks {
		ask, c := &asks[i], &out[i]
		c.ClockReading = answers[i]
		if ask.read != nil && c.Err == nil && ask.Since.Term != 0 && len(c.Unsettled) == 0 {
			r.find(ctx, ask, c)
		}
	}
	return out
}

// askNode reads clocks of groups led by one node; what fails is left out or has
// its Err.
func (r *Router) askNode(ctx context.Context, node keyspace.NodeID, asks []clockAsk) []clockReading {
	if node == r.o.Node {
		return r.askHere(ctx, asks)
	}
	client, err := r.o.Peers.Client(node)
	if err != nil {
		return nil
	}
	out, err := askPeer(ctx, client, asks)
	if err != nil {
		return nil
	}
	return out
}

func askPeer(ctx context.Context, peer api.PeerClient, asks []clockAsk) ([]clockReading, error) {
	resp, err := peer.GroupClock(ctx, clockRequest(asks))
	if err != nil {
		return nil, err
	}
	out := make([]clockReading, 0, len(asks))
	for _, c := range resp.Clocks {
		out = append(out, clockOf(c))
	}
	if len(out) == 0 { // a node that knows one group per request
		out = append(out, clockReading{ClockReading: host.ClockReading{Group: asks[0].Group,
			Clock: keyspace.Revision(resp.Clock), Index: keyspace.Index(resp.Index), Settled: keyspace.Revision(resp.Clock)}})
	}
	return out, nil
}

// clockAt confirms the leadership of g and returns its clock, at least atLeast, once
// everything it stamped is applied.
func (r *Router) clockAt(ctx context.Context, g keyspace.GroupID, atLeast keyspace.Revision) (host.ClockReading, error) {
	c, err := r.groupClock(ctx, clockAsk{ClockAsk: host.ClockAsk{Group: g, AtLeast: atLeast}})
	return c.ClockReading, err
}

// groupClock reads the clock of one group, wherever it is led.
func (r *Router) groupClock(ctx context.Context, ask clockAsk) (clock clockReading, err error) {
	err = r.onGroup(ctx, ask.Group, attempt{
		local: func(ctx context.Context) error {
			clock = r.askHere(ctx, []clockAsk{ask})[0]
			return clock.Err
		},
		remote: func(ctx context.Context, _ keyspace.NodeID, peer api.PeerClient) error {
			out, err := askPeer(ctx, peer, []clockAsk{ask})
			if err == nil {
				clock = out[0]
			}
			return err
		},
	})
	return clock, err
}

// ServeClock answers Peer.GroupClock from this node's replicas. It leaves out the
// groups that are not led here.
func (r *Router) ServeClock(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	if len(q.Groups) == 0 {
		q.Groups = []uint32{q.Group}
	}
	asks, err := clockAsks(q)
	if err != nil {
		return nil, err
	}
	led := asks[:0]
	for _, a := range asks {
		if _, local, _ := r.o.Host.Leader(a.Group); local {
			led = append(led, a)
		}
	}
	out := &api.GroupClockResponse{}
	var failed error
	for _, c := range r.askHere(ctx, led) {
		if c.Err != nil {
			failed = c.Err
			continue
		}
		out.Clocks = append(out.Clocks, clockAnswer(&c))
		if c.Group == keyspace.GroupID(q.Group) { // for a node that asks for one group per request
			out.Clock, out.Index = uint64(c.Clock), uint64(c.Index)
		}
	}
	switch {
	case len(out.Clocks) > 0:
		return out, nil
	case failed == nil:
		g := keyspace.GroupID(q.Groups[0])
		leader, _, _ := r.o.Host.Leader(g)
		failed = r.elsewhere(g, leader)
	}
	return nil, failed
}
