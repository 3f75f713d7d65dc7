package meta

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

func absent() *api.Condition { return &api.Condition{MustNotExist: true} }

func atVersion(v uint64) *api.Condition { return &api.Condition{VersionMatch: &v} }

// item is one record to write; a condition that does not hold ends the write
// with fault.ConditionFailed.
func item(key string, record any, c *api.Condition) *api.PutRequest {
	return &api.PutRequest{
		Namespace: keyspace.SystemNamespaceName, Key: key, Value: format.EncodeSystem(record),
		ContentType: "application/json", Condition: c,
	}
}

func (s *Service) put(ctx context.Context, key string, record any, c *api.Condition) error {
	_, err := s.o.Store.Put(ctx, item(key, record, c))
	return err
}

func (s *Service) remove(ctx context.Context, key string) error {
	_, err := s.o.Store.Delete(ctx, &api.DeleteRequest{Namespace: keyspace.SystemNamespaceName, Key: key})
	return err
}

// putAll writes several records, all or none: they share group 0.
func (s *Service) putAll(ctx context.Context, items ...*api.PutRequest) error {
	resp, err := s.o.Store.BatchPut(ctx, &api.BatchPutRequest{
		Namespace: keyspace.SystemNamespaceName, Items: items, Atomic: true,
	})
	if err != nil {
		return err
	}
	var aborted error
	for _, r := range resp.Results {
		switch err := router.StatusError(r.Status); fault.CodeOf(err) {
		case "":
		case fault.BatchAborted:
			aborted = err
		default:
			return err
		}
	}
	return aborted
}

// get reads a record linearizably; ok false when there is none.
func get[T any](ctx context.Context, s *Service, key string) (v stored[T], ok bool, err error) {
	resp, err := s.o.Store.Get(ctx, &api.GetRequest{Namespace: keyspace.SystemNamespaceName, Key: key})
	switch {
	case fault.CodeOf(err) == fault.NotFound:
		return v, false, nil
	case err != nil:
		return v, false, err
	}
	v.version = resp.Record.Version
	v.record, err = format.DecodeSystem[T](key, resp.Record.Value)
	return v, err == nil, err
}
