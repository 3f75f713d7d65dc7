package meta

import (
	"context"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// localTimeout is what the replica here may take of loadTimeout: where the others
// do not reach it, as at an address they do not know yet, it never answers, and
// another node must be asked.
const localTimeout = loadTimeout / 4

// load reads all records as of a moment after the call began and replaces the
// directory's copy.
func (s *Service) load(ctx context.Context) error {
	ctx = system(ctx)
	began := s.o.Clock.Mono()
	local, cancel := context.WithTimeout(ctx, localTimeout)
	entries, err := s.loadLocal(local)
	cancel()
	if err != nil {
		entries, err = s.loadAnywhere(ctx)
	}
	if err != nil {
		return err
	}
	s.install(entries, began+namespaceValidity)
	return nil
}

// install makes a copy current unless a newer read was faster.
func (s *Service) install(entries []entry, validUntil time.Duration) {
	next := build(s.dir.seed, entries, validUntil)
	for {
		old := s.dir.current.Load()
		if old.view.ValidUntil > validUntil {
			return
		}
		if s.dir.current.CompareAndSwap(old, next) {
			break
		}
	}
	for _, err := range next.damaged {
		s.o.Logger.Error("a record of the cluster's metadata is skipped", "error", err)
	}
	s.publishPeers()
}

// loadLocal reads this node's replica of the meta group: one ReadIndex, then a
// scan at the confirmed revision, when that is closed here. Idle replicas have
// it closed already; no entry is written for this.
func (s *Service) loadLocal(ctx context.Context) ([]entry, error) {
	if !s.o.Host.Hosts(keyspace.MetaGroup) {
		return nil, fault.New(fault.Unavailable, "meta group is not hosted here")
	}
	point, err := s.readIndex(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.o.Host.PointAt(keyspace.MetaGroup, point.Rev); err != nil {
		return nil, err
	}
	var out []entry
	q := host.ScanRequest{Namespace: keyspace.SystemNamespace, Revision: point.Rev}
	for {
		page, err := s.o.Host.Scan(ctx, keyspace.MetaGroup, q)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			r := &item.Record
			out = append(out, entry{item.Key, r.Value, r.Version, uint64(r.Revision)})
		}
		if !page.More {
			return out, nil
		}
		q.Start = page.Next
	}
}

func (s *Service) readIndex(ctx context.Context) (host.ReadPoint, error) {
	type answer struct {
		point host.ReadPoint
		err   error
	}
	out := make(chan answer, 1)
	s.o.Host.ReadIndex(ctx, keyspace.MetaGroup, func(p host.ReadPoint, err error) { out <- answer{p, err} })
	select {
	case a := <-out:
		return a.point, a.err
	case <-ctx.Done():
		return host.ReadPoint{}, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "meta group did not confirm the read in time")
	}
}

// loadAnywhere lists the reserved namespace through the router.
func (s *Service) loadAnywhere(ctx context.Context) ([]entry, error) {
	var out []entry
	req := &api.ListRequest{Namespace: keyspace.SystemNamespaceName}
	for {
		page, err := s.o.Store.List(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, r := range page.Records {
			out = append(out, entry{r.Key, r.Value, r.Version, r.Revision})
		}
		if page.ContinuationToken == "" {
			return out, nil
		}
		req = &api.ListRequest{Namespace: keyspace.SystemNamespaceName, ContinuationToken: page.ContinuationToken}
	}
}

// publishPeers tells the peer book about nodes that came, moved or went.
func (s *Service) publishPeers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.dir.Map()
	nodes := m.Nodes
	s.o.Peers.SetGone(m.Gone)
	for id, n := range nodes {
		if id == s.o.Self.ID || n.Peer == "" || s.peers[id] == n.Peer {
			continue
		}
		if err := s.o.Peers.SetPeer(id, n.Peer); err != nil {
			s.o.Logger.Warn("a node's address is not usable", "node", id, "address", n.Peer, "error", err)
			continue
		}
		s.peers[id] = n.Peer
	}
	for id := range s.peers {
		if _, ok := nodes[id]; !ok {
			s.o.Peers.RemovePeer(id)
			delete(s.peers, id)
		}
	}
}
