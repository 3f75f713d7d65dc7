package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/config"
	"kvstore/internal/fault"
	"kvstore/internal/gossip"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

const (
	// readyAge is how long an answer about readiness is good for.
	readyAge = 500 * time.Millisecond
	// readyTimeout bounds the reads that prove readiness.
	readyTimeout = time.Second
	// readyInterval is how often gRPC health is brought up to date.
	readyInterval = 2 * time.Second
)

// readiness is the last answer; mu also keeps concurrent askers to one check.
type readiness struct {
	mu     sync.Mutex
	at     time.Duration
	known  bool
	reason string

	// health is the last answer for those who must not wait for a check.
	health atomic.Uint32
}

// Ready reports whether this node can serve linearizable requests, and if not,
// why: it belongs to a cluster, knows the slot map, has a confirmed read on
// every group it hosts, and gets one from those that others host.
func (n *Node) Ready() (bool, string) {
	r := &n.ready
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := n.clock.Mono(); !r.known || now-r.at > readyAge {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		var health gossip.Health
		health, r.reason = n.notReady(ctx)
		r.health.Store(uint32(health))
		cancel()
		r.at, r.known = n.clock.Mono(), true
	}
	return r.reason == "", r.reason
}

// notReady says why, roughly and in words; no words mean that it is ready.
func (n *Node) notReady(ctx context.Context) (gossip.Health, string) {
	if !n.running.Load() {
		return gossip.HealthStarting, n.agent.Status()
	}
	if text := n.gone.text(); text != "" {
		return gossip.HealthGroups, text
	}
	if err := n.host.Err(); err != nil {
		return gossip.HealthStorage, fmt.Sprintf("storage failed: %v", err)
	}
	m := n.directory.Map()
	if m.Groups == 0 {
		return gossip.HealthStarting, "the cluster's metadata is not known yet"
	}
	if reason := n.readGroups(ctx, m); reason != "" {
		return gossip.HealthGroups, reason
	}
	return gossip.HealthReady, ""
}

// readGroups proves that reads of every group are answered.
func (n *Node) readGroups(ctx context.Context, m *router.Map) string {
	hosted, elsewhere := whereRead(m, n.host.Hosts)
	if reason := n.confirmReads(ctx, hosted); reason != "" {
		return reason
	}
	return n.readElsewhere(ctx, m, elsewhere)
}

// whereRead divides the groups into those that are hosted here and those of
// which a key is read elsewhere: they own one, and the meta group was just read,
// for m.
func whereRead(m *router.Map, hosts func(keyspace.GroupID) bool) (hosted, elsewhere []keyspace.GroupID) {
	for g := keyspace.GroupID(0); int(g) <= m.Groups; g++ {
		if hosts(g) {
			hosted = append(hosted, g)
		} else if owned := m.Owned(g); !owned.Empty() {
			elsewhere = append(elsewhere, g)
		}
	}
	return hosted, elsewhere
}

// readElsewhere reads one key of each group that other nodes host.
func (n *Node) readElsewhere(ctx context.Context, m *router.Map, groups []keyspace.GroupID) string {
	if len(groups) == 0 {
		return ""
	}
	calls := make([]*router.Call, len(groups))
	for i, g := range groups {
		calls[i] = &router.Call{Op: &api.PipelineOp{Id: uint64(i), Op: &api.PipelineOp_Get{Get: &api.GetRequest{
			Namespace: keyspace.DefaultNamespaceName, Key: keyOf(m, g), KeysOnly: true,
		}}}}
	}
	n.router.Do(ctx, calls...)
	for i, c := range calls {
		if c.Err != nil && fault.CodeOf(c.Err) != fault.NotFound {
			return fmt.Sprintf("group %d, which other nodes host, does not answer: %v", groups[i], c.Err)
		}
	}
	return ""
}

// keyOf returns some key that belongs to a group, which owns some slot. Most own
// equal parts, so it takes about as many tries as there are groups.
func keyOf(m *router.Map, g keyspace.GroupID) string {
	for i := 0; ; i++ {
		key := fmt.Sprintf("_ready/%d", i)
		if owner, _ := m.GroupOfKey(keyspace.DefaultNamespace, key); owner == g {
			return key
		}
	}
}

// confirmReads asks for one read point per group, all at the same time.
func (n *Node) confirmReads(ctx context.Context, groups []keyspace.GroupID) string {
	answers := make(chan string, len(groups))
	for _, g := range groups {
		n.host.ReadIndex(ctx, g, func(_ host.ReadPoint, err error) {
			if err != nil {
				answers <- fmt.Sprintf("group %d does not confirm reads: %v", g, err)
				return
			}
			answers <- ""
		})
	}
	for range groups {
		select {
		case reason := <-answers:
			if reason != "" {
				return reason
			}
		case <-ctx.Done():
			return "some group does not confirm reads in time"
		}
	}
	return ""
}

// unused names what this node's configuration says about the cluster's shape
// and the cluster, which has another, does not follow. Groups may have become
// more since it was founded.
func unused(c *config.Config, m *router.Map) []string {
	var out []string
	for _, s := range []struct {
		key           string
		given, actual int
		grown         bool
	}{
		{"cluster.groups", c.Cluster.Groups, m.Groups, m.Slots != nil && c.Cluster.Groups < m.Groups},
		{"cluster.replication_factor", c.Cluster.ReplicationFactor, m.ReplicationFactor, false},
	} {
		if s.given != s.actual && !s.grown && c.Given(s.key) {
			out = append(out, fmt.Sprintf("%s = %d is not used: the cluster has %d", s.key, s.given, s.actual))
		}
	}
	return out
}

// watchReady keeps gRPC health true.
func (n *Node) watchReady(ctx context.Context) {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	last, told := false, false
	for {
		ready, reason := n.Ready()
		if ready && !told {
			told = true
			for _, text := range unused(n.config, n.directory.Map()) {
				n.logger.Warn(text)
			}
		}
		if ready != last {
			n.logger.Info("readiness changed", "ready", ready, "reason", reason)
			n.rpc.SetReady(ready)
			last = ready
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
