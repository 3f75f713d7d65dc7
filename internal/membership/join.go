package membership

import (
	"context"
	"fmt"
	"maps"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
)

// maxHops bounds how often one attempt follows retry_at.
const maxHops = 4

// Join asks members to admit this node until one does, and returns its answer.
// It asks the addresses in through first, then the first members, and goes
// where an answer sends it. Name, node id, cluster name and format version of
// req are filled in. It only ends early with ctx: whatever refuses a node
// today (no quorum, an older version, a wrong name) may be repaired; Status
// says what it is.
func (a *Agent) Join(ctx context.Context, req *api.JoinRequest, through ...string) (*api.JoinResponse, error) {
	req.NodeName = a.o.Name
	req.NodeId = string(a.o.Node)
	req.ClusterName = a.o.Cluster
	req.FormatVersion = format.Version
	addrs := a.joinAddresses(through)
	if len(addrs) == 0 {
		return nil, fault.New(fault.InvalidArgument, "no member is known that could admit this node")
	}
	p := pauser{min: a.o.MinPause, max: a.o.MaxPause}
	for i := 0; ; i++ {
		r, err := a.askToJoin(ctx, req, addrs[i%len(addrs)])
		if err == nil {
			return r, nil
		}
		a.mu.Lock()
		a.note("asking to join: " + err.Error())
		a.mu.Unlock()
		if err := p.wait(ctx); err != nil {
			return nil, fmt.Errorf("joining the cluster (%s): %w", a.Status(), err)
		}
	}
}

// joinAddresses lists whom to ask, each once, without this node.
func (a *Agent) joinAddresses(through []string) []string {
	own := a.o.First[a.o.Name]
	var addrs []string
	add := func(addr string) {
		if addr != "" && addr != own && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	for _, addr := range through {
		add(addr)
	}
	for _, name := range slices.Sorted(maps.Keys(a.o.First)) {
		add(a.o.First[name])
	}
	return addrs
}

// askToJoin asks at addr and follows retry_at.
func (a *Agent) askToJoin(ctx context.Context, req *api.JoinRequest, addr string) (*api.JoinResponse, error) {
	for range maxHops {
		c, err := a.o.Dialer.ClientAt(addr)
		if err != nil {
			return nil, err
		}
		call, cancel := context.WithTimeout(ctx, a.o.JoinTimeout)
		r, err := c.Join(call, req)
		cancel()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %s", addr, reason(err))
		case r.GetRetryAt() != "":
			addr = r.GetRetryAt()
		case r.GetClusterId() == "":
			return nil, fmt.Errorf("%s admits without naming its cluster", addr)
		default:
			return r, nil
		}
	}
	return nil, fmt.Errorf("members send this node in circles, last to %s", addr)
}

// Addresses returns the peer addresses of first members by name.
func (a *Agent) Addresses(names []string) []string {
	var addrs []string
	for _, name := range names {
		if addr := a.o.First[name]; addr != "" {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
