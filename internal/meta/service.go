package meta

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

const (
	// namespaceValidity is how long a copy may be used without being read
	// again; deletionWait is longer, by more than clock rates differ.
	namespaceValidity = 5 * time.Second
	deletionWait      = 2 * namespaceValidity
	defaultInterval   = time.Second
	loadTimeout       = 5 * time.Second
	stepTimeout       = 10 * time.Second
	// keptJobs bounds the finished jobs that can still be described.
	keptJobs = 100
)

// Store reads and writes records anywhere in the cluster; *router.Router is
// the real one.
type Store interface {
	Get(ctx context.Context, req *api.GetRequest) (*api.GetResponse, error)
	Put(ctx context.Context, req *api.PutRequest) (*api.PutResponse, error)
	Delete(ctx context.Context, req *api.DeleteRequest) (*api.DeleteResponse, error)
	BatchPut(ctx context.Context, req *api.BatchPutRequest) (*api.BatchPutResponse, error)
	BatchDelete(ctx context.Context, req *api.BatchDeleteRequest) (*api.BatchDeleteResponse, error)
	List(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error)
}

// Host is what the service asks the replicas of this node directly.
type Host interface {
	Hosts(g keyspace.GroupID) bool
	Leader(g keyspace.GroupID) (node keyspace.NodeID, local, known bool)
	ReadIndex(ctx context.Context, g keyspace.GroupID, done func(host.ReadPoint, error))
	PointAt(g keyspace.GroupID, rev keyspace.Revision) (host.ReadPoint, error)
	Scan(ctx context.Context, g keyspace.GroupID, r host.ScanRequest) (host.ScanPage, error)
}

// PeerBook is told where the other nodes are; *transport.Transport is the real
// one.
type PeerBook interface {
	SetPeer(id keyspace.NodeID, addr string) error
	RemovePeer(id keyspace.NodeID)
	// SetGone names the nodes that do not belong to the cluster any more, with
	// what they are told.
	SetGone(gone map[keyspace.NodeID]string)
}

// Options builds a Service; all but Logger, Alive, Recovery and Interval are required.
type Options struct {
	// Self is this node's record.
	Self      format.NodeRecord
	Directory *Directory
	Store     Store
	Host      Host
	Peers     PeerBook
	Clock     env.Clock
	Rand      env.Rand
	Logger    *slog.Logger
	// Alive asks the node at a record's address whether it still is the node
	// of that record. A join under a name whose node is alive is refused.
	Alive func(ctx context.Context, n format.NodeRecord) bool
	// Silent says for how long nobody heard from a node; 0 while it is alive.
	Silent func(keyspace.NodeID) time.Duration
	// Recovery returns the last recovery that this node has taken part in, and
	// its survivors; nil for none.
	Recovery func() (epoch uint64, survivors []string)
	// Interval between two reads of the metadata; 1 s by default.
	Interval time.Duration
}

// Service implements router.Admin.
type Service struct {
	o    Options
	dir  *Directory
	wg   sync.WaitGroup
	stop context.CancelFunc
	// wake asks for a round before the interval is over.
	wake chan struct{}

	mu    sync.Mutex
	peers map[keyspace.NodeID]string // told to PeerBook; guarded by mu

	job runner
}

// New returns a service that does nothing yet.
func New(o Options) (*Service, error) {
	if o.Self.ID == "" || o.Directory == nil || o.Store == nil || o.Host == nil || o.Peers == nil || o.Clock == nil || o.Rand == nil {
		return nil, errors.New("meta: Self, Directory, Store, Host, Peers, Clock and Rand are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Alive == nil {
		o.Alive = func(context.Context, format.NodeRecord) bool { return false }
	}
	if o.Silent == nil {
		o.Silent = func(keyspace.NodeID) time.Duration { return 0 }
	}
	if o.Recovery == nil {
		o.Recovery = func() (uint64, []string) { return 0, nil }
	}
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	return &Service{
		o: o, dir: o.Directory, stop: func() {}, wake: make(chan struct{}, 1),
		peers: make(map[keyspace.NodeID]string),
	}, nil
}

// Start tells the peer book what the seed knows and begins to keep the
// directory and this node's record.
func (s *Service) Start(ctx context.Context) error {
	ctx, s.stop = context.WithCancel(ctx)
	s.publishPeers()
	s.dir.attach(ctx, &s.wg, s.load)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.run(ctx)
	}()
	return nil
}

// Close ends the loop and a running job, which the next leader continues. It
// comes before the router's Close.
func (s *Service) Close() error {
	s.dir.detach()
	s.stop()
	s.wg.Wait()
	return nil
}

func (s *Service) run(ctx context.Context) {
	for {
		s.round(ctx)
		// Half of the interval is random, so that nodes do not read in step.
		wait := s.o.Interval/2 + time.Duration(s.o.Rand.Uint64()%uint64(s.o.Interval/2+1))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			s.job.end()
			return
		}
	}
}

// round is one turn of the loop.
func (s *Service) round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	ctx = system(ctx)
	if err := s.dir.Refresh(ctx); err != nil {
		s.o.Logger.Debug("cluster metadata is not readable", "error", err)
		return
	}
	if err := s.keepCluster(ctx); err != nil {
		s.o.Logger.Warn("cluster record is not written", "error", err)
	}
	if err := s.keepSelf(ctx); err != nil {
		s.o.Logger.Warn("record of this node is not written", "error", err)
	}
	s.keepJobs(ctx)
}

// system gives ctx the identity that may write the reserved namespace.
func system(ctx context.Context) context.Context {
	return router.WithIdentity(ctx, router.SystemIdentity)
}

// Wake asks for a round now.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// leads reports whether this node leads the meta group.
func (s *Service) leads() bool {
	_, local, _ := s.o.Host.Leader(keyspace.MetaGroup)
	return local
}

// keepCluster stores the cluster's record once, from the bootstrap's seed.
func (s *Service) keepCluster(ctx context.Context) error {
	st := s.dir.current.Load()
	if st.cluster.version != 0 || st.cluster.record.Groups == 0 || !s.leads() {
		return nil
	}
	err := s.put(ctx, format.SystemClusterKey, st.cluster.record, absent())
	if fault.CodeOf(err) == fault.ConditionFailed {
		return nil // another leader was faster
	}
	return err
}

// keepSelf stores this node's record and its addresses. A node that was
// replaced, or whose name another node holds, writes nothing: it has to join.
func (s *Service) keepSelf(ctx context.Context) error {
	st := s.dir.current.Load()
	self := s.o.Self
	old, ok := st.nodes[self.ID]
	self.State, self.DrainTo = old.record.State, old.record.DrainTo // an operator's
	switch holder, named := st.named(self.Name); {
	case ok && old.record == self:
		return nil
	case ok && old.record.ReplacedBy != "":
		return fault.New(fault.FailedPrecondition, "this node was replaced under its name and must not come back",
			"name", self.Name, "node", self.ID, "replaced_by", old.record.ReplacedBy)
	case ok && old.record.Removed != "":
		return errRemoved(old.record)
	case named && holder.record.ID != self.ID:
		return fault.New(fault.FailedPrecondition, "another node holds this node's name",
			"name", self.Name, "node", self.ID, "holder", holder.record.ID)
	}
	err := s.put(ctx, format.SystemNodeKey(self.ID), self, &api.Condition{VersionMatch: &old.version})
	if fault.CodeOf(err) == fault.ConditionFailed {
		return nil // read again first
	}
	return err
}
