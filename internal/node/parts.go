package node

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/balancer"
	"kvstore/internal/guard"
	"kvstore/internal/keyspace"
	"kvstore/internal/lease"
	"kvstore/internal/membership"
	"kvstore/internal/meta"
	"kvstore/internal/metrics"
	"kvstore/internal/mover"
	"kvstore/internal/profiling"
	"kvstore/internal/router"
	"kvstore/internal/server/peer"
	"kvstore/internal/server/rest"
	"kvstore/internal/server/rpc"
	"kvstore/internal/watch"
)

// nameOf returns a node's name in the cluster's metadata, "" while unknown.
func (n *Node) nameOf(id keyspace.NodeID) string {
	if n.directory == nil {
		return ""
	}
	return n.directory.Map().Nodes[id].Name
}

// openServices builds what answers requests, from the router up.
func (n *Node) openServices() (err error) {
	n.directory = meta.NewDirectory(meta.Seed{})
	n.router, err = router.New(router.Options{
		Node: n.id, NodeName: n.config.Node.Name, Host: n.host, Slots: n.host, Peers: n.transport, Directory: n.directory,
		Clock: n.clock, Rand: n.rand, Logger: n.logger.With("part", "router"), Info: n.report, Heard: func(id keyspace.NodeID) string { return n.gossip.StateOf(id).String() },
		PeerBytes: int64(n.config.Budget().Frames), Unheard: n.transport.Unheard,
		Detached: func(space, key, id string) { n.leases.Detached(space, key, id) },
	})
	if err != nil {
		return err
	}
	n.silence = newSilence(n.id, n.transport.Stats, n.gossip.StateOf, n.clock)
	n.meta, err = meta.New(meta.Options{
		Self: n.self(), Directory: n.directory, Store: n.router, Host: n.host, Peers: n.book,
		Clock: n.clock, Rand: n.rand, Logger: n.logger.With("part", "meta"), Alive: n.alive, Silent: n.silence.of,
		Recovery: n.recovery,
	})
	if err != nil {
		return err
	}
	n.router.SetAdmin(n.meta)
	n.balancer, err = balancer.New(balancer.Options{
		Node: n.id, Host: n.host, Store: n.router, Directory: n.directory, Rand: n.rand, Clock: n.clock,
		Logger: n.logger.With("part", "balancer"), Silent: n.silence.of, CopyRate: n.transport.SetSnapshotRate,
		ReplaceAfter: n.config.Cluster.ReplaceAfter,
	})
	if err != nil {
		return err
	}
	n.mover, err = mover.New(mover.Options{
		Host: n.host, Sender: n.router, Store: n.router, Directory: n.directory, Rand: n.rand, Clock: n.clock,
		Logger: n.logger.With("part", "mover"),
	})
	if err != nil {
		return err
	}
	n.leases, err = lease.New(lease.Options{
		Store: n.router, Host: n.host, Clock: n.clock, Rand: n.rand, Logger: n.logger.With("part", "leases"),
	})
	if err != nil {
		return err
	}
	limits := n.config.Limits
	n.guard = guard.New(guard.Options{
		MaxConcurrent: limits.MaxConcurrentRequests, MaxBytes: int64(n.config.Budget().Requests),
		DefaultTimeout: limits.DefaultTimeout, MaxTimeout: limits.MaxTimeout, Refuse: n.gone.refusal,
		Metrics: n.metrics.Requests(), Logger: n.logger.With("part", "guard"),
	})
	n.watches, err = watch.New(watch.Options{
		Host: watch.FromHost(n.host), Router: n.router, Peers: n.transport, Clock: n.clock, Logger: n.logger.With("part", "watch"),
		MaxWatches: limits.MaxWatches,
	})
	if err != nil {
		return err
	}
	n.rpc, err = rpc.New(rpc.Options{
		Backend: n.router, Cluster: n.meta, Leases: n.leases, Guard: n.guard, Watches: n.watches, Logger: n.logger.With("part", "rpc"), Profiles: profiling.New(n.config.Debug.Profiling),
	})
	if err != nil {
		return err
	}
	n.feedMetrics()
	n.feedGossip()
	front, err := rest.New(rest.Options{Backend: n.router, Guard: n.guard, Ready: n.Ready, Metrics: n.metrics.Handler(), Leases: n.leases, Watches: n.watches})
	if err != nil {
		return err
	}
	n.peer, err = peer.New(peer.Options{Streams: n.transport, Prober: prober{n.agent}, Watches: n.watches, Logger: n.logger.With("part", "peer")})
	if err != nil {
		return err
	}
	n.transport.TakeForwards(n.peer.Forward)
	n.servers, err = n.newServers(front)
	return err
}

func metricsPages(n *Node) metrics.Pages {
	return metrics.Pages{Ready: n.Ready, Pprof: n.config.Pprof}
}

// prober answers probes from the membership agent.
type prober struct{ agent *membership.Agent }

func (p prober) Probe(ctx context.Context, q *api.ProbeRequest) (*api.ProbeResponse, error) {
	return p.agent.HandleProbe(ctx, q)
}
