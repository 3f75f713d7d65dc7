package node

import (
	"fmt"
	"os"
	"runtime"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/config"
	"kvstore/internal/format"
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
	ahead, off := n.host.ClockAhead()
	return router.NodeReport{
		Version: version.String(), UptimeMS: time.Since(n.started).Milliseconds(),
		EffectiveConfig: n.effective(), Ready: ready, NotReadyReason: reason, RecoveryEpoch: n.recoveryEpoch(),
		ClockAhead: ahead, ClockOff: off, HidesReplicas: n.host.HidesReplicas(),
		Moves: n.mover.Progress(),
		Storage: &api.StorageStatus{
			LsmBytes: uint64(e.LSMBytes + n.storage.runsBytes()), ValueLogBytes: uint64(e.ValueLogBytes), RaftLogBytes: uint64(l.Bytes),
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

// hostHooks hands the host the functions that count, and the one that ends
// transactions which stand in the way.
func (n *Node) hostHooks(h metrics.Hooks) host.Hooks {
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
		Blocked:     func(_ keyspace.GroupID, p *format.Prepared) { n.router.FinishTransaction(p) },
		Locked:      func(_ keyspace.GroupID, p *format.Prepared) { n.router.FinishTransaction(p) },
		// What ends is looked for by the keeper: this one may be among many.
		LeaseExpired: func(keyspace.GroupID, string) { n.leases.Wake() },
		Detached:     n.detached,
	}
}

// detached hears of a key that has expired.
func (n *Node) detached(ns keyspace.NamespaceID, key, id string) {
	if name, ok := n.directory.Map().NameOf(ns); ok {
		n.leases.Detached(name, key, id)
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
				Commit: uint64(g.Commit), Applied: uint64(g.Applied), Term: uint64(g.Term), Copies: g.Copies,
				Backlog: g.Backlog, Swept: g.Swept,
			}
		}
		return out
	})
	n.metrics.Storage(func() metrics.Storage {
		e := n.storage.engine.Stats()
		return metrics.Storage{
			LSM: e.LSMBytes, MemtableLogs: e.MemtableLogBytes, ValueLog: e.ValueLogBytes,
			RaftLog: n.storage.log.Stats().Bytes, Delta: n.storage.store.Bytes(), History: n.storage.store.HistoryBytes(),
			Runs: n.storage.store.Runs(), RunsBytes: n.storage.runsBytes(),
			BlockCacheHitRatio: e.BlockCacheHitRatio, IndexCacheHitRatio: e.IndexCacheHitRatio,
		}
	})
	n.metrics.Watches(func() metrics.Watches {
		w := n.watches.Stats()
		return metrics.Watches{
			Watches: w.Watches, Streams: w.Streams, BufferBytes: w.BufferBytes, Events: w.Events,
			FellBehind: w.FellBehind, PastPages: w.PastPages, PastScans: w.PastScans,
			EndedBelow: w.EndedBelow, EndedSlow: w.EndedSlow, FeedsOvertaken: w.Overtaken, ClockReadings: w.ClockReadings,
		}
	})
	n.metrics.Transactions(func() metrics.Transactions {
		t := n.router.TransactionStats()
		return metrics.Transactions{
			Committed: t.Committed, Aborted: t.Aborted, Unknown: t.Unknown, Attempts: t.Attempts, Conflicts: t.Conflicts,
			Active: t.Active, Prepared: t.Prepared, Recovering: t.Recovering,
			Leftover: t.Leftover, Recovered: t.Recovered, Poisoned: t.Poisoned, Collected: t.Collected,
			CollectionsHeld: t.CollectionsHeld, CollectionsFailed: t.CollectionsFailed,
		}
	})
	for name, count := range map[string]func() int64{
		"expired": func() int64 { expired, _ := n.leases.Ended(); return expired },
		"revoked": func() int64 { _, revoked := n.leases.Ended(); return revoked },
	} {
		n.metrics.Counter("kvstore_leases_"+name+"_total", "Leases that "+name+" and whose keys this node has deleted.", func() float64 { return float64(count()) })
	}
	n.metrics.Gauge("kvstore_fsync_running_seconds", "For how long the sync of the shared log runs that runs now; 0 when none does.",
		func() float64 { return n.host.SyncRunning().Seconds() })
	n.metrics.Gauge("kvstore_ready", "1 while this node serves linearizable requests.", func() float64 {
		if ok, _ := n.Ready(); ok {
			return 1
		}
		return 0
	})
	n.metrics.Gauge("kvstore_recovery_epoch", "The last recovery of the cluster that this node took part in or joined after; 0 for none.",
		func() float64 { return float64(n.recoveryEpoch()) })
	n.metrics.Gauge("kvstore_clock_ahead_seconds", "How far this node's clock is ahead of the median of its peers' and its own.", func() float64 {
		ahead, _ := n.host.ClockAhead()
		return ahead.Seconds()
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

// tuneProcs does nothing where the environment (GOMAXPROCS) decides, on an edge
// node, which has half a core, or on a witness.
func tuneProcs(c *config.Config) {
	if os.Getenv("GOMAXPROCS") == "" && c.Profile != "edge" && !c.Witness() && runtime.GOMAXPROCS(0) < leastProcs {
		runtime.GOMAXPROCS(leastProcs)
	}
}
