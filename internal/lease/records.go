package lease

import (
	"context"
	"errors"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// leaseTags are on leases themselves, so that lists find them.
var leaseTags = map[string]string{"kind": "lease"}

// entry is a lease's own record, or its mark.
type entry struct {
	value             []byte
	record            format.LeaseRecord
	created, revision uint64
	expires           int64
}

func entryOf(rec *api.Record) (*entry, error) {
	r, err := format.DecodeLease[format.LeaseRecord](rec.Value)
	if err != nil {
		return nil, err
	}
	return &entry{value: rec.Value, record: r, created: rec.CreatedRevision, revision: rec.Revision, expires: rec.ExpiresAtMs}, nil
}

// lease is what users see of it at a time of its group.
func (e *entry) lease(id string, clock keyspace.Revision) *api.Lease {
	return &api.Lease{Id: id, TtlSeconds: e.record.TTLSeconds, ExpiresAtMs: e.expires,
		RemainingMs: max(0, e.expires-clock.UnixMilli()), Revision: e.created}
}

// read returns a lease that has not ended, and its group's clock.
func (s *Service) read(ctx context.Context, id string) (*entry, keyspace.Revision, error) {
	if err := keyspace.ValidateLeaseID(id); err != nil {
		return nil, 0, err
	}
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{
		Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id),
	}}})
	switch {
	case fault.CodeOf(err) == fault.NotFound:
		return nil, 0, router.NoLease(id)
	case err != nil:
		return nil, 0, err
	}
	l, err := entryOf(res.GetGet().GetRecord())
	return l, keyspace.Revision(res.GetGet().GetReadRevision()), err
}

// look returns a lease and its mark as they are at one moment; nil for what is not
// there.
func (s *Service) look(ctx context.Context, id string) (l, mark *entry, err error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: &api.BatchGetRequest{
		Namespace: keyspace.LeaseNamespaceName, Keys: []string{keyspace.LeaseKey(id), keyspace.LeaseMarkKey(id)},
	}}})
	if err != nil {
		return nil, nil, err
	}
	var both [2]*entry
	for i, r := range res.GetBatchGet().GetResults() {
		switch err := router.StatusError(r.Status); {
		case fault.CodeOf(err) == fault.NotFound:
		case err != nil:
			return nil, nil, err
		default:
			if both[i], err = entryOf(r.Record); err != nil {
				return nil, nil, err
			}
		}
	}
	return both[0], both[1], nil
}

// attached returns keys of a lease. A record beside the lease may be of a key that
// was taken from it since, so the keys are asked.
func (s *Service) attached(ctx context.Context, id string, limit uint32) (keys []*api.LeaseKey, more bool, err error) {
	noted, more, err := s.noted(ctx, id, limit)
	if err != nil {
		return nil, false, err
	}
	calls := make([]*router.Call, len(noted))
	for i, a := range noted {
		calls[i] = &router.Call{Identity: router.SystemIdentity, Op: &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{
			Namespace: a.Namespace, Key: a.Key, KeysOnly: true,
		}}}}
	}
	s.o.Store.Do(ctx, calls...)
	for i, c := range calls {
		switch code := fault.CodeOf(c.Err); {
		case code == fault.NotFound, code == fault.NamespaceNotFound:
		case c.Err != nil:
			return nil, false, c.Err
		case c.Result.GetGet().GetRecord().GetLease() == id:
			keys = append(keys, &api.LeaseKey{Namespace: noted[i].Namespace, Key: noted[i].Key})
		}
	}
	return keys, more, nil
}

// note is a record that says that a key is attached.
type note struct {
	format.AttachedRecord
	at string // the record's own key
}

// noted returns what the records beside a lease say.
func (s *Service) noted(ctx context.Context, id string, limit uint32) (notes []note, more bool, err error) {
	res, err := s.o.Store.List(asCluster(ctx), &api.ListRequest{
		Namespace: keyspace.LeaseNamespaceName, Prefix: keyspace.LeaseKeysPrefix(id), Limit: limit,
	})
	if err != nil {
		return nil, false, err
	}
	for _, rec := range res.Records {
		a, err := format.DecodeLease[format.AttachedRecord](rec.Value)
		if err != nil {
			return nil, false, err
		}
		notes = append(notes, note{a, rec.Key})
	}
	return notes, res.ContinuationToken != "", nil
}

func asCluster(ctx context.Context) context.Context {
	return router.WithIdentity(ctx, router.SystemIdentity)
}

func (s *Service) do(ctx context.Context, op *api.PipelineOp) (*api.PipelineResult, error) {
	c := &router.Call{Op: op, Identity: router.SystemIdentity}
	s.o.Store.Do(ctx, c)
	return c.Result, c.Err
}

// transact executes operations on records of leases, whole or not at all.
func (s *Service) transact(ctx context.Context, ops ...*api.TransactionOp) ([]*api.TransactionResult, error) {
	res, err := s.do(ctx, transaction(ops...))
	return res.GetTransaction().GetResults(), err
}

// transaction is one whose keys are those of leases, where nothing else is named.
func transaction(ops ...*api.TransactionOp) *api.PipelineOp {
	return &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
		Namespace: keyspace.LeaseNamespaceName, Then: ops,
	}}}
}

func putOp(q *api.PutRequest) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: q}}
}

func deleteOp(q *api.DeleteRequest) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Delete{Delete: q}}
}

func checkOp(key string, c *api.Condition) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Key: key, Condition: c}}}
}

// failed reports whether the condition of an operation did not hold.
func failed(r *api.TransactionResult) bool {
	return r.GetStatus().GetCode() == string(fault.ConditionFailed)
}

// errEndedElsewhere says that another mark is there, or none.
var errEndedElsewhere = errors.New("the lease was ended elsewhere")
