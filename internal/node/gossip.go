package node

import (
	"context"
	"net"
	"time"

	"kvstore/internal/gossip"
	"kvstore/internal/version"
)

const (
	// sayEvery is how often this node looks whether it has something new to say.
	sayEvery = time.Second
	// leaveTimeout bounds telling the others that this node leaves.
	leaveTimeout = time.Second
	// loadStep rounds the load that is said: others need no more, and what has
	// not changed is not sent.
	loadStep = 10
	// maxVersionBytes bounds the version that is said.
	maxVersionBytes = 64
)

// openGossip prepares gossip; it is heard once this node belongs to a cluster.
func (n *Node) openGossip() (err error) {
	n.gossip, err = gossip.New(gossip.Options{
		Node: n.id, Cluster: n.config.Cluster.Name, Packets: n.listeners.gossip,
		Dial: n.transport.DialGossip, Peers: n.book.addresses,
		KeyFile: n.config.Gossip.KeyFile, Interval: n.config.Gossip.Interval,
		Clock: n.clock, Rand: n.rand, Logger: n.logger.With("part", "gossip"),
	})
	if err != nil {
		return err
	}
	n.transport.TakeGossip(n.gossip.Take)
	return nil
}

// runGossip takes part until ctx ends, and keeps what this node says true. A
// node whose gossip cannot start goes on without: it is hints only.
func (n *Node) runGossip(ctx context.Context) {
	last := n.says()
	if err := n.gossip.Start(n.cluster.ID, last); err != nil {
		n.logger.Error("gossip does not run on this node", "error", err)
		return
	}
	ticker := time.NewTicker(sayEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.gone.told:
			n.leaveGossip()
			return
		case <-ticker.C:
		}
		next := n.says()
		if next == last {
			continue
		}
		if err := n.gossip.Update(next); err != nil {
			n.logger.Warn("this node's state is not gossiped", "error", err)
		}
		last = next
	}
}

// leaveGossip says goodbye. That it cannot be said in time, as with nobody left
// to hear it, is no failure.
func (n *Node) leaveGossip() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := n.gossip.Leave(ctx); err != nil {
		n.logger.Debug("gossip was left without a word", "error", err)
	}
}

// says is what this node tells of itself.
func (n *Node) says() gossip.Meta {
	a, l := n.config.Advertise, n.listeners
	build := version.String()
	m := gossip.Meta{
		Name: n.config.Node.Name, Witness: n.config.Witness(), Zone: n.config.Node.Zone, Version: build[:min(len(build), maxVersionBytes)],
		Gossip: withPort(a.Gossip, l.gossip.LocalAddr()), Peer: withPort(a.Peer, l.peer.Addr()),
		GRPC: withPort(a.GRPC, l.grpc.Addr()), HTTP: withPort(a.HTTP, l.http.Addr()),
		Started: n.started.UnixMilli(), Health: gossip.Health(n.ready.health.Load()),
		Load: uint8(min(n.guard.Load()/loadStep*loadStep, 100)), Epoch: n.directory.Map().Epoch,
	}
	for _, g := range n.host.Groups() {
		if g.Role == "leader" {
			m.Leads++
		}
	}
	return m
}

// withPort names the port that the system chose for port 0.
func withPort(advertised string, bound net.Addr) string {
	host, port, err := net.SplitHostPort(advertised)
	if err != nil || port != "0" {
		return advertised
	}
	if _, port, err = net.SplitHostPort(bound.String()); err != nil {
		return advertised
	}
	return net.JoinHostPort(host, port)
}
