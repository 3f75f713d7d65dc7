package router

import (
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// Operations are large: they are filled in place, from their zero value.

// putOp fills o from a validated put.
func putOp(o *replica.Op, ns keyspace.NamespaceID, q *api.PutRequest) {
	keyOp(o, ns, q.Key, q.Condition)
	o.Value, o.ContentType, o.Encoding, o.Tags, o.Metadata = q.Value, q.ContentType, q.Encoding, q.Tags, q.Metadata
	o.Checksum = format.CRC32C(q.Value)
	o.TTL, o.ExpiresAt, o.Lease = time.Duration(q.TtlSeconds)*time.Second, q.ExpiresAtMs, q.Lease
}

// keyOp fills what all operations have.
func keyOp(o *replica.Op, ns keyspace.NamespaceID, key string, c *api.Condition) {
	o.Namespace, o.Key = ns, key
	if c != nil {
		o.Condition = condition(c)
	}
}

func deleteOp(o *replica.Op, ns keyspace.NamespaceID, q *api.DeleteRequest) {
	keyOp(o, ns, q.Key, q.Condition)
	o.Delete = true
	if q.Reason != "" {
		o.Ended, o.Lease = leaseEnds[q.Reason], q.GetCondition().GetLeaseMatch()
	}
}

func touchOp(o *replica.Op, ns keyspace.NamespaceID, q *api.TouchRequest) {
	keyOp(o, ns, q.Key, q.Condition)
	o.Touch = true
	o.TTL, o.ExpiresAt = time.Duration(q.TtlSeconds)*time.Second, q.ExpiresAtMs
}

func condition(c *api.Condition) replica.Condition {
	return replica.Condition{
		Version: c.VersionMatch, Revision: c.RevisionMatch,
		MustExist: c.MustExist, MustNotExist: c.MustNotExist,
		Created: c.CreatedMatch, Lease: c.LeaseMatch,
		ValueEquals: c.ValueEquals, HasValueEquals: c.ValueEquals != nil,
	}
}

func fillPut(out *api.PutResponse, o *replica.Op) {
	out.Version, out.Revision = o.Result.Version, uint64(o.Result.Revision)
	out.CreatedAtMs, out.UpdatedAtMs = o.Result.Created.UnixMilli(), o.Result.Revision.UnixMilli()
	out.ExpiresAtMs, out.Checksum = o.Result.Expires, o.Result.Checksum
}

func fillDelete(out *api.DeleteResponse, o *replica.Op) {
	out.Existed, out.Revision = o.Result.Existed, uint64(o.Result.Revision)
}

func fillRecord(out *api.Record, key string, r *format.Record, keysOnly bool) {
	out.Key, out.ContentType, out.Encoding, out.Checksum = key, r.ContentType, r.Encoding, r.Checksum
	out.CreatedAtMs, out.UpdatedAtMs, out.ExpiresAtMs = r.Created.UnixMilli(), r.Revision.UnixMilli(), r.Expires
	out.Version, out.Revision, out.Tags, out.Metadata, out.Size = r.Version, uint64(r.Revision), r.Tags, r.Metadata, r.Size
	out.CreatedRevision, out.Lease = uint64(r.Created), r.Lease
	if !keysOnly {
		out.Value = r.Value
	}
}

// getAnswer is what a get is answered with, in one allocation.
type getAnswer struct {
	result   api.PipelineResult_Get
	response api.GetResponse
	record   api.Record
}

func answerGet(key string, p host.ReadPoint, r *format.Record, keysOnly bool) *api.PipelineResult_Get {
	a := new(getAnswer)
	fillRecord(&a.record, key, r, keysOnly)
	out := &a.response
	out.Record, out.ReadRevision = &a.record, uint64(p.Rev)
	out.Consistency, out.AgeMs = levelOf(p)
	a.result.Get = out
	return &a.result
}

// levelOf is the level that a read was served at, and how old its answer may be in
// milliseconds, rounded up.
func levelOf(p host.ReadPoint) (api.Consistency, int64) {
	if p.Level == host.BoundedStaleness {
		return api.Consistency_CONSISTENCY_BOUNDED_STALENESS, int64((p.Age + time.Millisecond - 1) / time.Millisecond)
	}
	return api.Consistency_CONSISTENCY_LINEARIZABLE, 0
}

// putAnswer is what a put is answered with, in one allocation.
type putAnswer struct {
	result   api.PipelineResult_Put
	response api.PutResponse
}

func answerPut(o *replica.Op) *api.PipelineResult_Put {
	a := new(putAnswer)
	fillPut(&a.response, o)
	a.result.Put = &a.response
	return &a.result
}
