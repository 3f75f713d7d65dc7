package client

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

// topology is one view of the cluster. It is replaced as a whole; only the
// leaders inside change, as hints come.
type topology struct {
	epoch      uint64
	clusterID  string
	slots      []*group
	groups     map[keyspace.GroupID]*group
	nodes      []*node
	everywhere []*node // those that have replicas of all groups
	byID       map[string]*node
	namespaces map[string]keyspace.NamespaceID
	limits     limits
	// serverTime is that of the node which told, in Unix milliseconds, at received in
	// the client's time; 0 for one that knows no request ids.
	serverTime int64
	received   time.Duration
	// replaced is closed when another view is there.
	replaced chan struct{}
}

// limits are the server's, so that what it would refuse is refused here.
type limits struct {
	valueBytes   uint64
	keyBytes     int
	messageBytes int
}

// messageOverhead is what a gRPC message may hold beside the value.
const messageOverhead = 4 << 20

var defaultLimits = limits{
	valueBytes: keyspace.MaxValueBytes, keyBytes: keyspace.MaxKeyBytes,
	messageBytes: keyspace.MaxValueBytes + messageOverhead,
}

// group is a Raft group as far as a client cares.
type group struct {
	id       keyspace.GroupID
	leader   atomic.Pointer[node]
	replicas []*node
}

// newTopology reads a response; find gives the node of an address.
func newTopology(r *api.TopologyResponse, find func(*api.NodeInfo) *node) *topology {
	t := &topology{
		epoch: r.GetEpoch(), clusterID: r.GetClusterId(),
		groups:     make(map[keyspace.GroupID]*group),
		byID:       make(map[string]*node),
		namespaces: make(map[string]keyspace.NamespaceID),
		limits:     newLimits(r),
		replaced:   make(chan struct{}),
	}
	for name, id := range r.GetNamespaces() {
		t.namespaces[name] = keyspace.NamespaceID(id)
	}
	for _, info := range r.GetNodes() {
		if n := find(info); n != nil {
			t.nodes = append(t.nodes, n)
			t.byID[info.GetId()] = n
		}
	}
	for _, g := range r.GetGroups() {
		t.addGroup(g)
	}
	if len(r.GetSlotGroups()) == keyspace.SlotCount {
		t.slots = make([]*group, keyspace.SlotCount)
		for i, id := range r.GetSlotGroups() {
			t.slots[i] = t.groups[keyspace.GroupID(id)]
		}
	}
	for _, n := range t.nodes {
		if t.hasAll(n) {
			t.everywhere = append(t.everywhere, n)
		}
	}
	return t
}

// hasAll reports whether a node has a replica of every group.
func (t *topology) hasAll(n *node) bool {
	for _, g := range t.groups {
		if !slices.Contains(g.replicas, n) {
			return false
		}
	}
	return true
}

func (t *topology) addGroup(info *api.GroupInfo) {
	g := &group{id: keyspace.GroupID(info.GetGroup())}
	for _, r := range info.GetReplicas() {
		if n := t.byID[r.GetNodeId()]; n != nil && r.GetRole() != "learner" && r.GetRole() != "witness" {
			g.replicas = append(g.replicas, n)
		}
	}
	if n := t.byID[info.GetLeaderNode()]; n != nil {
		g.leader.Store(n)
	}
	t.groups[g.id] = g
}

func newLimits(r *api.TopologyResponse) limits {
	l := defaultLimits
	if v := r.GetMaxValueBytes(); v > 0 {
		l.valueBytes = v
	}
	if v := r.GetMaxKeyBytes(); v > 0 {
		l.keyBytes = int(v)
	}
	if v := r.GetMaxMessageBytes(); v > 0 && v < 1<<31 {
		l.messageBytes = int(v)
	}
	return l
}

// groupOf returns the group that owns a key, nil when that is not known.
func (t *topology) groupOf(namespace, key string) *group {
	if namespace == keyspace.SystemNamespaceName {
		return t.groups[keyspace.MetaGroup]
	}
	id, ok := t.namespaces[namespace]
	if !ok || t.slots == nil {
		return nil
	}
	return t.slots[keyspace.SlotOf(id, key)]
}

func (c *Client) topology() *topology { return c.topo.Load() }

// wantRefresh makes the refresher look soon.
func (c *Client) wantRefresh() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

// awaitNewer waits until the topology is newer than epoch, for most at the
// longest. Nodes learn of changes one after the other, so it asks until one has
// it; the next attempt goes where that says, or the old way again.
func (c *Client) awaitNewer(ctx context.Context, epoch uint64, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		t := c.topology()
		if t.epoch > epoch {
			return nil
		}
		c.wantRefresh()
		select {
		case <-t.replaced:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// minRefreshGap bounds how often hints can make the client ask.
const minRefreshGap = 20 * time.Millisecond

// watchTopology refreshes the topology until ctx ends.
func (c *Client) watchTopology(ctx context.Context) {
	timer := time.NewTimer(c.cfg.RefreshInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.refresh:
			if system.Pause(ctx, minRefreshGap) != nil {
				return
			}
		}
		if err := c.loadTopology(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Logger.Debug("topology not refreshed", "error", err)
		}
		timer.Reset(c.cfg.RefreshInterval)
	}
}

// applyTopology replaces the view and retires nodes that left the cluster.
func (c *Client) applyTopology(r *api.TopologyResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	old := c.topo.Load()
	t := newTopology(r, c.nodeOf)
	t.serverTime, t.received = r.GetServerTimeMs(), c.now()
	c.topo.Store(t)
	close(old.replaced)
	for addr, n := range c.nodes {
		if !slices.Contains(t.nodes, n) && !slices.Contains(c.seeds, n) {
			delete(c.nodes, addr)
			c.retired = append(c.retired, n)
		}
	}
}

// nodeOf returns the node at an advertised address, nil when it cannot be
// used. mu must be held.
func (c *Client) nodeOf(info *api.NodeInfo) *node {
	addr := info.GetGrpc()
	if addr == "" {
		return nil
	}
	n := c.nodes[addr]
	if n == nil && !c.cfg.Gateway {
		var err error
		if n, err = newNode(c, addr); err != nil {
			c.cfg.Logger.Warn("node skipped", "error", err)
			return nil
		}
		c.nodes[addr] = n
	}
	if n != nil {
		n.info.Store(info)
	}
	return n
}

// allNodes returns every node in use, also the retired ones.
func (c *Client) allNodes() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*node, 0, len(c.nodes)+len(c.retired))
	for _, n := range c.nodes {
		all = append(all, n)
	}
	return append(all, c.retired...)
}

// closeRetired closes retired nodes that owe no answer.
func (c *Client) closeRetired() {
	c.mu.Lock()
	retired := c.retired
	c.mu.Unlock()
	var closed []*node
	for _, n := range retired { // without mu: a pipe's own comes before it
		if n.closeIfIdle() {
			closed = append(closed, n)
		}
	}
	if len(closed) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = slices.DeleteFunc(slices.Clone(c.retired), func(n *node) bool { return slices.Contains(closed, n) })
}
