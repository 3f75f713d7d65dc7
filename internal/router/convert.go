package router

import (
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// putOp fills o from a validated put.
func putOp(o *replica.Op, ns keyspace.NamespaceID, q *api.PutRequest) {
	*o = replica.Op{
		Namespace: ns, Key: q.Key, Condition: condition(q.Condition),
		Value: q.Value, ContentType: q.ContentType, Encoding: q.Encoding,
		Tags: q.Tags, Metadata: q.Metadata, Checksum: format.CRC32C(q.Value),
		TTL: time.Duration(q.TtlSeconds) * time.Second, ExpiresAt: q.ExpiresAtMs,
	}
}

func deleteOp(o *replica.Op, ns keyspace.NamespaceID, q *api.DeleteRequest) {
	*o = replica.Op{Delete: true, Namespace: ns, Key: q.Key, Condition: condition(q.Condition)}
}

func condition(c *api.Condition) replica.Condition {
	if c == nil {
		return replica.Condition{}
	}
	return replica.Condition{
		Version: c.VersionMatch, Revision: c.RevisionMatch,
		MustExist: c.MustExist, MustNotExist: c.MustNotExist,
		ValueEquals: c.ValueEquals, HasValueEquals: c.ValueEquals != nil,
	}
}

func putResponse(o *replica.Op) *api.PutResponse {
	return &api.PutResponse{
		Version: o.Result.Version, Revision: uint64(o.Result.Revision),
		CreatedAtMs: o.Result.Created.UnixMilli(), UpdatedAtMs: o.Result.Revision.UnixMilli(),
		ExpiresAtMs: o.Result.Expires, Checksum: o.Checksum,
	}
}

func deleteResponse(o *replica.Op) *api.DeleteResponse {
	return &api.DeleteResponse{Existed: o.Result.Existed, Revision: uint64(o.Result.Revision)}
}

func record(key string, r *format.Record, keysOnly bool) *api.Record {
	out := &api.Record{
		Key: key, ContentType: r.ContentType, Encoding: r.Encoding, Checksum: r.Checksum,
		CreatedAtMs: r.Created.UnixMilli(), UpdatedAtMs: r.Revision.UnixMilli(), ExpiresAtMs: r.Expires,
		Version: r.Version, Revision: uint64(r.Revision), Tags: r.Tags, Metadata: r.Metadata, Size: r.Size,
	}
	if !keysOnly {
		out.Value = r.Value
	}
	return out
}

func getResponse(key string, p host.ReadPoint, r *format.Record, keysOnly bool) *api.GetResponse {
	out := &api.GetResponse{
		Record: record(key, r, keysOnly), Consistency: api.Consistency_CONSISTENCY_LINEARIZABLE,
		ReadRevision: uint64(p.Rev),
	}
	if p.Level == host.BoundedStaleness {
		out.Consistency = api.Consistency_CONSISTENCY_BOUNDED_STALENESS
		out.AgeMs = int64((p.Age + time.Millisecond - 1) / time.Millisecond)
	}
	return out
}
