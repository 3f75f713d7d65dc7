package lease

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
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

// Bounds of leases. One that must be kept alive more than once a second costs more
// than it is worth, and one of a day is a TTL.
const (
	MinTTL = time.Second
	MaxTTL = 24 * time.Hour
	// MaxPage is the largest page of leases or of the keys of one.
	MaxPage = 1000
)

// Store executes operations; *router.Router is the real one.
type Store interface {
	Do(ctx context.Context, calls ...*router.Call)
	List(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error)
}

// Host shows the replicas of this node; *host.Host is the real one.
type Host interface {
	Groups() []host.GroupStatus
	StaleRead(g keyspace.GroupID, maxAge time.Duration) (host.ReadPoint, error)
	ScanGroup(ctx context.Context, g keyspace.GroupID, r host.ScanRequest, each func([]byte, *format.Record)) (host.ScanPage, error)
}

// Options builds a Service; Logger and Interval may be left out.
type Options struct {
	Store  Store
	Host   Host
	Clock  env.Clock
	Rand   env.Rand
	Logger *slog.Logger
	// Interval is the least time between two looks for leases that have ended; one
	// second by default.
	Interval time.Duration
}

// Service answers for leases and ends those of the groups that this node leads. It
// is safe for concurrent use.
type Service struct {
	o    Options
	wg   sync.WaitGroup
	stop context.CancelFunc

	wake  chan struct{} // room for one signal
	loose chan loose
	ended [2]counter // by replica.LeaseEnd-1
}

// New returns a service; Start lets leases end.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Host == nil || o.Clock == nil || o.Rand == nil {
		return nil, errors.New("lease: Store, Host, Clock and Rand are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	return &Service{o: o, stop: func() {}, wake: make(chan struct{}, 1), loose: make(chan loose, maxLoose)}, nil
}

// Start begins to end leases.
func (s *Service) Start(ctx context.Context) error {
	ctx, s.stop = context.WithCancel(router.WithIdentity(ctx, router.SystemIdentity))
	s.wg.Go(func() { s.keep(ctx) })
	s.wg.Go(func() { s.tidy(ctx) })
	return nil
}

// Close ends the keeper where it is. It comes before the router's and the host's
// Close.
func (s *Service) Close() error {
	s.stop()
	s.wg.Wait()
	return nil
}

// Grant begins a lease; lease_exists while one of its id, or its keys, are there.
func (s *Service) Grant(ctx context.Context, q *api.LeaseGrantRequest) (*api.Lease, error) {
	if ttl := q.GetTtlSeconds(); ttl < int64(MinTTL/time.Second) || ttl > int64(MaxTTL/time.Second) {
		return nil, fault.New(fault.InvalidArgument, "ttl_seconds of a lease is out of range",
			"limit_min", int64(MinTTL/time.Second), "limit", int64(MaxTTL/time.Second), "actual", ttl)
	}
	id := q.GetId()
	if id == "" {
		id = s.newID()
	}
	if err := keyspace.ValidateLeaseID(id); err != nil {
		return nil, err
	}
	value, absent := format.EncodeLease(format.LeaseRecord{TTLSeconds: q.TtlSeconds}), &api.Condition{MustNotExist: true}
	lease := &api.PutRequest{Key: keyspace.LeaseKey(id), Value: value, TtlSeconds: q.TtlSeconds, Tags: leaseTags, Condition: absent}
	mark := &api.PutRequest{Key: keyspace.LeaseMarkKey(id), Value: value, Condition: absent}
	results, err := s.transact(ctx, putOp(lease), putOp(mark))
	switch {
	case err != nil:
		return nil, err
	case failed(results[0]):
		return nil, fault.New(fault.LeaseExists, "lease exists", "lease", id)
	case failed(results[1]):
		s.Wake()
		return nil, fault.New(fault.LeaseExists, "a lease of this id has ended, and its keys are still being deleted", "lease", id).WithRetry(time.Second)
	}
	put := results[0].GetPut()
	return &api.Lease{Id: id, TtlSeconds: q.TtlSeconds, ExpiresAtMs: put.GetExpiresAtMs(),
		RemainingMs: q.TtlSeconds * 1000, Revision: put.GetRevision()}, nil
}

// newID draws an id that nobody can guess.
func (s *Service) newID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], s.o.Rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], s.o.Rand.Uint64())
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// KeepAlive gives a lease its whole time again.
func (s *Service) KeepAlive(ctx context.Context, q *api.LeaseKeepAliveRequest) (*api.Lease, error) {
	l, _, err := s.read(ctx, q.GetId())
	if err != nil {
		return nil, err
	}
	put := &api.PutRequest{
		Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(q.Id), Value: l.value, TtlSeconds: l.record.TTLSeconds,
		Tags: leaseTags, Condition: &api.Condition{CreatedMatch: &l.created},
	}
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Put{Put: put}})
	switch {
	case fault.CodeOf(err) == fault.ConditionFailed:
		return nil, router.NoLease(q.Id)
	case err != nil:
		return nil, err
	}
	return &api.Lease{Id: q.Id, TtlSeconds: l.record.TTLSeconds, ExpiresAtMs: res.GetPut().GetExpiresAtMs(),
		RemainingMs: l.record.TTLSeconds * 1000, Revision: l.created}, nil
}

// Revoke ends a lease now and deletes its keys. When it fails after the lease has
// ended the keeper goes on; it may be repeated.
func (s *Service) Revoke(ctx context.Context, q *api.LeaseRevokeRequest) (*api.LeaseRevokeResponse, error) {
	if err := keyspace.ValidateLeaseID(q.GetId()); err != nil {
		return nil, err
	}
	for {
		l, mark, err := s.look(ctx, q.Id)
		switch {
		case err != nil:
			return nil, err
		case mark == nil || l == nil && !mark.record.Revoked:
			s.Wake() // for what expired
			return nil, router.NoLease(q.Id)
		case l == nil:
			n, err := s.end(ctx, q.Id, mark)
			return &api.LeaseRevokeResponse{Deleted: n}, err
		}
		// Repeated when the lease was kept alive, or ended, meanwhile: the next look
		// shows which.
		if err := s.markRevoked(ctx, q.Id, mark); err != nil {
			return nil, err
		}
	}
}

// markRevoked takes the lease away and notes why, in one step. No error when the
// lease or the mark are others now.
func (s *Service) markRevoked(ctx context.Context, id string, mark *entry) error {
	value := format.EncodeLease(format.LeaseRecord{TTLSeconds: mark.record.TTLSeconds, Revoked: true})
	_, err := s.transact(ctx,
		deleteOp(&api.DeleteRequest{Key: keyspace.LeaseKey(id), Condition: &api.Condition{MustExist: true}}),
		putOp(&api.PutRequest{Key: keyspace.LeaseMarkKey(id), Value: value, Condition: &api.Condition{RevisionMatch: &mark.revision}}))
	return err
}

// Describe shows a lease, and what is attached to it.
func (s *Service) Describe(ctx context.Context, q *api.LeaseDescribeRequest) (*api.Lease, error) {
	l, clock, err := s.read(ctx, q.GetId())
	if err != nil {
		return nil, err
	}
	out := l.lease(q.Id, clock)
	if q.Keys {
		out.Keys, out.KeysMore, err = s.attached(ctx, q.Id, page(q.Limit))
	}
	return out, err
}

// List returns the leases that have not ended.
func (s *Service) List(ctx context.Context, q *api.LeaseListRequest) (*api.LeaseListResponse, error) {
	if q.GetLimit() > MaxPage {
		return nil, fault.New(fault.InvalidArgument, "limit is too large", "limit", MaxPage, "actual", q.Limit)
	}
	res, err := s.o.Store.List(asCluster(ctx), &api.ListRequest{
		Namespace: keyspace.LeaseNamespaceName, Tags: leaseTags, Limit: page(q.GetLimit()), ContinuationToken: q.GetContinuationToken(),
	})
	if err != nil {
		return nil, err
	}
	out := &api.LeaseListResponse{ContinuationToken: res.ContinuationToken}
	for _, rec := range res.Records {
		id, _ := keyspace.ParseLeaseKey(rec.Key)
		l, err := entryOf(rec)
		if err != nil {
			return nil, err
		}
		out.Leases = append(out.Leases, l.lease(id, keyspace.Revision(res.Revision)))
	}
	return out, nil
}

func page(limit uint32) uint32 {
	if limit == 0 {
		return MaxPage
	}
	return min(limit, MaxPage)
}
