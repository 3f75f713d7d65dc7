// Package node wires one node out of all parts and knows in which order they
// start and stop. It is the only package that sees everything.
//
// # Start
//
// New opens what is on disk and binds every port, so that a node that cannot
// run says so at once; nothing runs yet. Start, in this order:
//
//  1. Certificates are watched; the metrics, peer and client listeners serve.
//     Peers may probe this node, clients are told why it is not ready.
//  2. An empty node settles: it founds the cluster with the other first
//     members, or joins (package membership). Its replicas and its cluster are
//     on disk before anything else runs.
//  3. Transport, then host: the host's first message needs somewhere to go,
//     and the first one delivered needs a host.
//  4. Router, then metadata, balancer, mover and leases: from here on requests are served.
//  5. Gossip, which nothing waits for and nothing depends on.
//
// # Stop
//
//  1. Health turns to not ready, Pipeline streams and watches end; then the client
//     listeners finish what is in progress. Beside this and what follows, gossip
//     tells the others that this node leaves.
//  2. Watches, leases, mover, balancer and metadata, then router: all use the host, the others
//     also the router.
//  3. Host: it hands leaderships over, which needs the transport and the peer
//     listener; then it flushes, which needs the storage.
//  4. Gossip, whose streams the transport dials; transport and peer listener, metrics listener, storage; the lock last.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/balancer"
	"kvstore/internal/config"
	"kvstore/internal/env"
	"kvstore/internal/env/system"
	"kvstore/internal/gossip"
	"kvstore/internal/guard"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/lease"
	"kvstore/internal/membership"
	"kvstore/internal/meta"
	"kvstore/internal/metrics"
	"kvstore/internal/mover"
	"kvstore/internal/router"
	"kvstore/internal/server/peer"
	"kvstore/internal/server/rpc"
	"kvstore/internal/tlsconf"
	"kvstore/internal/transport"
	"kvstore/internal/version"
	"kvstore/internal/watch"
)

// Node is one node of a cluster.
type Node struct {
	config  *config.Config
	logger  *slog.Logger
	clock   env.Clock
	rand    env.Rand
	started time.Time

	metrics *metrics.Registry
	storage *storage
	id      keyspace.NodeID
	cluster *clusterFact // nil until the node belongs to one
	// recovering is held by a step of a recovery, which may change cluster.
	recovering   sync.Mutex
	toldOutdated sync.Once
	gone         gone
	tls          *tlsconf.Source
	transport    *transport.Transport
	book         *addressBook
	agent        *membership.Agent
	gossip       *gossip.Gossip
	host         *host.Host
	router       *router.Router
	directory    *meta.Directory
	meta         *meta.Service
	balancer     *balancer.Balancer
	mover        *mover.Mover
	leases       *lease.Service
	silence      *silence
	guard        *guard.Guard
	watches      *watch.Hub
	peer         *peer.Server
	rpc          *rpc.Service
	listeners    *listeners
	servers      *servers
	ready        readiness
	quiet        *memoryReturn

	running atomic.Bool // host, router and metadata were started
	cancel  context.CancelFunc
	failed  chan error
	wg      sync.WaitGroup
}

// Option replaces a part of the world that a node lives in; for tests of whole
// nodes.
type Option func(*Node)

// WithClock has the node live by another clock than the machine's.
func WithClock(clock env.Clock) Option { return func(n *Node) { n.clock = clock } }

// New opens a node's storage and ports. Nothing runs before Start; Close is
// needed in any case after a nil error.
func New(c *config.Config, with ...Option) (_ *Node, err error) {
	n := &Node{
		config: c, logger: NewLogger(c.Log, os.Stderr), clock: system.Clock(), rand: system.Rand(),
		started: time.Now(), metrics: metrics.New(version.String()), failed: make(chan error, 1),
		gone:  gone{told: make(chan struct{})},
		quiet: newMemoryReturn(),
	}
	for _, option := range with {
		option(n)
	}
	n.logger = n.logger.With("node", c.Node.Name)
	tuneMemory(c)
	tuneProcs(c)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closeParts())
		}
	}()
	for _, open := range []func() error{n.openListeners, n.openStorage, n.openPeers, n.openGossip, n.openHost, n.openServices} {
		if err := open(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Node) openListeners() (err error) {
	return patiently(func() (err error) {
		n.listeners, err = openListeners(n.config.Listen)
		return err
	})
}

func (n *Node) openStorage() (err error) {
	if n.storage, err = openStorage(n.config, n.logger, n.metrics.Hooks().Fsync); err != nil {
		return err
	}
	if n.id, err = loadNodeID(n.storage.log); err != nil {
		return err
	}
	if n.cluster, err = loadCluster(n.storage.log); err != nil {
		return err
	}
	if n.cluster != nil && n.cluster.Name != n.config.Cluster.Name {
		return fmt.Errorf("data directory %s belongs to the cluster %q, cluster.name is %q", n.config.Node.DataDir, n.cluster.Name, n.config.Cluster.Name)
	}
	return nil
}

func (n *Node) openPeers() (err error) {
	o := transport.Options{
		Node: n.id, Version: version.String(), Clock: n.clock, Logger: n.logger.With("part", "transport"),
		QueueBytes: n.peerQueueBytes(), OnOutdated: n.outdated, OnGone: n.toldGone,
	}
	if n.config.TLS.Enabled() {
		if n.tls, err = tlsconf.Open(n.config.TLS, tlsconf.Options{Logger: n.logger.With("part", "tls")}); err != nil {
			return err
		}
		o.Credentials, o.TLS = n.tls.ClientCredentials(), n.tls.Client
	}
	if n.transport, err = transport.New(o); err != nil {
		return err
	}
	n.adoptRecovery()
	n.book = openAddressBook(n.config, n.id, n.transport, n.nameOf, n.logger.With("part", "peers"))
	n.book.selfGone = n.toldGone
	n.agent, err = n.newAgent()
	return err
}

// peerQueueBytes is each peer's share of what may wait for all of them.
func (n *Node) peerQueueBytes() int {
	peers := max(2, len(n.config.Membership)-1)
	return int(min(max(n.config.Budget().Frames/config.Size(peers), 4*config.MB), 32*config.MB))
}

func (n *Node) openHost() (err error) {
	bounds := hostBounds(n.config)
	n.host, err = host.New(host.Options{
		Node: n.id, Log: n.storage.log, Store: n.storage.store, Engine: n.storage.engine,
		Out: n.transport, Snapshots: n.transport, Clock: n.clock, Rand: n.rand,
		Logger: n.logger.With("part", "host"), Hooks: n.hostHooks(n.metrics.Hooks()),
		Window:        n.config.HistoryWindow,
		MaxQueueBytes: bounds.queue, MaxUncommittedBytes: bounds.uncommitted, MaxInflightBytes: bounds.inflight,
		LogBytes: bounds.log, Witness: n.config.Witness(),
	})
	if err != nil {
		return err
	}
	if n.cluster != nil && len(n.host.Groups()) == 0 && n.storage.log.Hidden() {
		return errors.New("the raft log lost this node's replicas; delete the data directory, the node is then rebuilt from its peers")
	}
	return nil
}

// Start runs the node until ctx ends or Close. A failure that the node cannot
// go on with is sent on the channel.
func (n *Node) Start(ctx context.Context) (failed <-chan error) {
	ctx, n.cancel = context.WithCancel(ctx)
	if n.tls != nil {
		n.tls.Start(ctx)
	}
	n.servers.start(n.fail)
	n.logger.Info("node started", "id", n.id, "version", version.String(), "data_dir", n.config.Node.DataDir,
		"http", n.config.Listen.HTTP, "grpc", n.config.Listen.GRPC, "peer", n.config.Listen.Peer, "gossip", n.config.Listen.Gossip, "metrics", n.config.Listen.Metrics)
	n.wg.Go(func() {
		if err := n.run(ctx); err != nil && ctx.Err() == nil {
			n.fail(err)
		}
	})
	return n.failed
}

func (n *Node) fail(err error) {
	n.logger.Error("node failed", "error", err)
	select {
	case n.failed <- err:
	default: // the first failure is the one to report
	}
}

// run is steps 2 to 4 of the start, and then waits for the host.
func (n *Node) run(ctx context.Context) error {
	if n.cluster == nil {
		if err := n.settle(ctx); err != nil {
			return err
		}
	}
	// The parts that run from here on are ended by Close in its own order, not
	// by ctx.
	parts := context.WithoutCancel(ctx)
	n.transport.SetCluster(n.cluster.ID)
	n.adoptRecovery()
	if err := n.transport.Start(parts, inbound{n.host}); err != nil {
		return err
	}
	n.directory.Plant(n.seed())
	n.host.Start(parts)
	n.running.Store(true)
	if err := n.router.Start(parts); err != nil {
		return err
	}
	n.router.SetRecovery(recoverer{n})
	n.watches.Start()
	n.peer.Serve(n.router, n.meta)
	if err := errors.Join(n.meta.Start(parts), n.balancer.Start(parts), n.mover.Start(parts), n.leases.Start(parts)); err != nil {
		return err
	}
	n.wg.Go(func() { n.watchReady(ctx) })
	n.wg.Go(func() { n.runGossip(ctx) })
	if n.config.Profile == "edge" || n.config.Witness() {
		n.wg.Go(func() { n.quiet.run(ctx) })
	}
	select {
	case <-ctx.Done():
		return nil
	case <-n.host.Done():
		return n.host.Err()
	}
}

// inbound hands the transport's deliveries to the host.
type inbound struct{ *host.Host }

func (i inbound) SnapshotSink(h *api.SnapshotHeader) (transport.SnapshotSink, error) {
	return i.ReceiveSnapshot(h)
}

// Close stops the node in the order given above.
func (n *Node) Close() error {
	n.logger.Info("node stops")
	n.rpc.Drain()
	n.watches.Drain()
	n.cancelRun()
	n.wg.Wait()
	err := n.closeParts()
	n.logger.Info("node stopped", "clean", err == nil)
	return err
}

func (n *Node) cancelRun() {
	if n.cancel != nil {
		n.cancel()
	}
}

// closeParts closes whatever New or Start opened.
func (n *Node) closeParts() error {
	var errs []error
	var leaving sync.WaitGroup
	if n.gossip != nil {
		leaving.Go(n.leaveGossip)
	}
	if n.servers != nil {
		errs = append(errs, n.servers.stopClients())
	}
	if n.watches != nil {
		errs = append(errs, n.watches.Close())
	}
	if n.running.Load() {
		errs = append(errs, n.leases.Close(), n.mover.Close(), n.balancer.Close(), n.meta.Close(), n.router.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	leaving.Wait()
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.transport != nil {
		errs = append(errs, n.transport.Close())
	}
	if n.servers != nil {
		errs = append(errs, n.servers.stopRest())
	}
	if n.rpc != nil {
		errs = append(errs, n.rpc.Close())
	}
	if n.listeners != nil {
		n.listeners.close()
	}
	if n.tls != nil {
		errs = append(errs, n.tls.Close())
	}
	if n.storage != nil {
		errs = append(errs, n.storage.close())
	}
	return errors.Join(errs...)
}
