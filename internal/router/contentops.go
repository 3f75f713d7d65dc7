package router

import (
	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/wirebuf"
)

// The operations of appendContent, each with what it may hold, its size, and its
// fields in their order.

// mayPut reports whether a put of a list is written here.
func (c *content) mayPut(q *api.PutRequest) bool {
	return c.plain(q, q == nil || q.RequestId != "" || rarePut(q))
}

func rarePut(q *api.PutRequest) bool { return len(q.Tags)+len(q.Metadata) > 0 || q.Fence != nil }

func sizePut(q *api.PutRequest) int {
	n := sizeField(len(q.Namespace)) + sizeField(len(q.Key)) + sizeField(len(q.Value)) + sizeField(len(q.ContentType)) +
		sizeField(len(q.Encoding)) + wirebuf.SizeNumber(uint64(q.TtlSeconds)) + wirebuf.SizeNumber(uint64(q.ExpiresAtMs)) +
		sizeConditionField(q.Condition) + sizeLease(q.Lease)
	if q.Checksum != nil {
		n += 1 + protowire.SizeVarint(uint64(*q.Checksum))
	}
	return n
}

func (c *content) putBody(q *api.PutRequest) {
	c.text(1, q.Namespace)
	c.text(2, q.Key)
	c.b = appendField(c.b, 3, q.Value)
	c.text(4, q.ContentType)
	c.text(5, q.Encoding)
	if q.Checksum != nil {
		c.b = protowire.AppendVarint(protowire.AppendTag(c.b, 6, protowire.VarintType), uint64(*q.Checksum))
	}
	c.number(7, uint64(q.TtlSeconds))
	c.number(8, uint64(q.ExpiresAtMs))
	c.condition(11, q.Condition)
	c.text(40, q.Lease)
}

// mayDelete is mayPut of a delete.
func (c *content) mayDelete(q *api.DeleteRequest) bool {
	return c.plain(q, q == nil || q.RequestId != "" || rareDelete(q))
}

func rareDelete(q *api.DeleteRequest) bool { return q.Fence != nil || q.Reason != "" }

func sizeDelete(q *api.DeleteRequest) int {
	return sizeField(len(q.Namespace)) + sizeField(len(q.Key)) + sizeConditionField(q.Condition)
}

func (c *content) deleteBody(q *api.DeleteRequest) {
	c.text(1, q.Namespace)
	c.text(2, q.Key)
	c.condition(3, q.Condition)
}

func (c *content) get(list protowire.Number, q *api.GetRequest) {
	if !c.plain(q, q == nil || q.Consistency != 0 || q.MaxStalenessMs != 0 || q.AtRevision != 0 || q.AtTimeMs != 0) {
		return
	}
	size := sizeField(len(q.Namespace)) + sizeField(len(q.Key))
	if q.KeysOnly {
		size += 2
	}
	c.nested(list, 3, size)
	c.text(1, q.Namespace)
	c.text(2, q.Key)
	c.flag(5, q.KeysOnly)
}

func (c *content) touch(list protowire.Number, q *api.TouchRequest) {
	if !c.plain(q, q == nil) {
		return
	}
	size := sizeField(len(q.Namespace)) + sizeField(len(q.Key)) + wirebuf.SizeNumber(uint64(q.TtlSeconds)) +
		wirebuf.SizeNumber(uint64(q.ExpiresAtMs)) + sizeConditionField(q.Condition)
	if q.Persist {
		size += 2
	}
	c.nested(list, 30, size)
	c.text(1, q.Namespace)
	c.text(2, q.Key)
	c.number(3, uint64(q.TtlSeconds))
	c.number(4, uint64(q.ExpiresAtMs))
	c.flag(5, q.Persist)
	c.condition(6, q.Condition)
}

func sizeCheck(q *api.TransactionCheck) int {
	return sizeField(len(q.Namespace)) + sizeField(len(q.Key)) + sizeConditionField(q.Condition)
}

func (c *content) check(number protowire.Number, q *api.TransactionCheck) {
	if !c.plain(q, q == nil) {
		return
	}
	c.head(number, sizeCheck(q))
	c.text(1, q.Namespace)
	c.text(2, q.Key)
	c.condition(3, q.Condition)
}

func sizeConditionField(q *api.Condition) int {
	if q == nil {
		return 0
	}
	return 1 + protowire.SizeBytes(sizeCondition(q))
}

func sizeCondition(q *api.Condition) (n int) {
	for _, v := range [...]*uint64{q.VersionMatch, q.RevisionMatch} {
		if v != nil {
			n += 1 + protowire.SizeVarint(*v)
		}
	}
	for _, set := range [...]bool{q.MustExist, q.MustNotExist} {
		if set {
			n += 2
		}
	}
	if q.ValueEquals != nil {
		n += 1 + protowire.SizeBytes(len(q.ValueEquals))
	}
	if q.CreatedMatch != nil {
		n += 2 + protowire.SizeVarint(*q.CreatedMatch)
	}
	if q.LeaseMatch != nil {
		n += 2 + protowire.SizeBytes(len(*q.LeaseMatch))
	}
	return n
}

func (c *content) condition(number protowire.Number, q *api.Condition) {
	if q == nil || !c.plain(q, false) {
		return
	}
	c.head(number, sizeCondition(q))
	c.optional(1, q.VersionMatch)
	c.optional(2, q.RevisionMatch)
	c.flag(3, q.MustExist)
	c.flag(4, q.MustNotExist)
	if q.ValueEquals != nil {
		c.b = protowire.AppendBytes(protowire.AppendTag(c.b, 5, protowire.BytesType), q.ValueEquals)
	}
	c.optional(40, q.CreatedMatch)
	if q.LeaseMatch == nil {
		return
	}
	if *q.LeaseMatch == "" {
		c.b = protowire.AppendBytes(protowire.AppendTag(c.b, 41, protowire.BytesType), nil)
	}
	c.text(41, *q.LeaseMatch)
}
