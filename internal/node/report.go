package node

import (
	"fmt"
	"os"
	"runtime"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/config"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/metrics"
	"kvstore/internal/router"
	"kvstore/internal/version"
)

// report is what Status shows of this node.
func (n *Node) report() router.NodeReport {
	e, l := n.storage.engine.Stats(), n.storage.log.Stats()
	ready, reason := n.Ready()
	return router.NodeReport{
		Version: version.String(), UptimeMS: time.Since(n.started).Milliseconds(),
		EffectiveConfig: n.effective(), Ready: ready, NotReadyReason: reason,
		Storage: &api.StorageStatus{
			LsmBytes: uint64(e.LSMBytes + n.storage.runs.Bytes()), ValueLogBytes: uint64(e.ValueLogBytes), RaftLogBytes: uint64(l.Bytes),
			DeltaBytes: uint64(n.storage.store.Bytes()), MemoryBudgetBytes: uint64(n.config.Budget().Total),
		},
	}
}

// effective adds what TLS really negotiates to the configuration in force.
func (n *Node) effective() map[string]string {
	out := n.config.Effective()
	if n.tls != nil {
		r := n.tls.Report()
		out["tls.cipher_suites_in_use"] = fmt.Sprint(r.SuitesInUse)
		out["tls.not_after"] = r.NotAfter.UTC().Format(time.RFC3339)
	}
	return out
}

// hostHooks hands the host the functions that count.
func hostHooks(h metrics.Hooks) host.Hooks {
	return host.Hooks{
		Election:    func(g keyspace.GroupID, planned bool) { h.Election(uint32(g), planned) },
		Commit:      h.Commit,
		Batch:       h.Batch,
		ReadBatch:   h.ReadBatch,
		Flush:       h.Flush,
		Merge:       h.Merge,
		Move:        h.Move,
		Snapshot:    h.Snapshot,
		Overloaded:  h.Overloaded,
		LoopLatency: h.LoopLatency,
		Stall:       h.Stall,
	}
}

// feedMetrics registers the figures that are read when the page is asked for.
func (n *Node) feedMetrics() {
	n.metrics.Groups(func() []metrics.Group {
		groups := n.host.Groups()
		out := make([]metrics.Group, len(groups))
		for i, g := range groups {
			out[i] = metrics.Group{
				Group: fmt.Sprint(g.Group), Leader: g.Role == "leader",
				Commit: uint64(g.Commit), Applied: uint64(g.Applied), Term: uint64(g.Term),
			}
		}
		return out
	})
	n.metrics.Storage(func() metrics.Storage {
		e := n.storage.engine.Stats()
		return metrics.Storage{
			LSM: e.LSMBytes, MemtableLogs: e.MemtableLogBytes, ValueLog: e.ValueLogBytes,
			RaftLog: n.storage.log.Stats().Bytes, Delta: n.storage.store.Bytes(), History: n.storage.store.HistoryBytes(),
			Runs: n.storage.store.Runs(), RunsBytes: n.storage.runs.Bytes(),
			BlockCacheHitRatio: e.BlockCacheHitRatio, IndexCacheHitRatio: e.IndexCacheHitRatio,
		}
	})
	n.metrics.Gauge("kvstore_fsync_running_seconds", "For how long the sync of the shared log runs that runs now; 0 when none does.",
		func() float64 { return n.host.SyncRunning().Seconds() })
	n.metrics.Gauge("kvstore_ready", "1 while this node serves linearizable requests.", func() float64 {
		if ok, _ := n.Ready(); ok {
			return 1
		}
		return 0
	})
	n.metrics.Counter("kvstore_memory_returns_total", "Times that this node, of profile edge, gave memory back to the system because it was quiet.", func() float64 {
		return float64(n.quiet.returns.Load())
	})
	n.metrics.CounterBy("kvstore_peer_dropped_messages_total", "Messages to a peer that were dropped; raft repeats them.", "peer", func(emit metrics.Emit) {
		for _, p := range n.transport.Stats().Peers {
			emit(string(p.Node), float64(p.DroppedFull+p.DroppedTooLarge+p.DroppedDown))
		}
	})
	n.metrics.GaugeBy("kvstore_peer_up", "1 while the stream of frames to a peer is open.", "peer", func(emit metrics.Emit) {
		for _, p := range n.transport.Stats().Peers {
			up := 0.0
			if p.Up {
				up = 1
			}
			emit(string(p.Node), up)
		}
	})
}

// feedGossip registers the figures of gossip.
func (n *Node) feedGossip() {
	n.metrics.GaugeBy("kvstore_gossip_members", "Members as this node hears them, itself included, by state.", "state", func(emit metrics.Emit) {
		for state, count := range n.gossip.Stats().Members {
			emit(state, float64(count))
		}
	})
	n.metrics.CounterBy("kvstore_gossip_dropped_total", "Gossip that was not heard or not sent, by reason.", "reason", func(emit metrics.Emit) {
		for reason, count := range n.gossip.Stats().Dropped {
			emit(reason, float64(count))
		}
	})
}

// leastProcs is how many threads run Go code at least. Flushes, compactions and
// syncs of a busy node would otherwise hold all of a small machine's few: a
// goroutine that waits for a request then runs when Go takes turns, every 10
// ms, where the system's scheduler would let its thread run at once.
const leastProcs = 4

// tuneProcs does nothing where the environment (GOMAXPROCS) decides, or on an
// edge node, which has half a core.
func tuneProcs(c *config.Config) {
	if os.Getenv("GOMAXPROCS") == "" && c.Profile != "edge" && runtime.GOMAXPROCS(0) < leastProcs {
		runtime.GOMAXPROCS(leastProcs)
	}
}
