package router

import (
	"fmt"
	"unicode/utf8"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// validate checks everything about an operation that needs no state. Nothing
// of a batch is executed when one of its items is invalid; the error names the
// item's position.
func validate(op *api.PipelineOp) error {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return validatePut(o.Put)
	case *api.PipelineOp_Get:
		return validateGet(o.Get)
	case *api.PipelineOp_Delete:
		return validateDelete(o.Delete)
	case *api.PipelineOp_Touch:
		return validateTouch(o.Touch)
	case *api.PipelineOp_Transaction:
		return validateTransaction(o.Transaction)
	case *api.PipelineOp_Order:
		return validateOrder(o.Order)
	case *api.PipelineOp_BatchPut:
		return validateBatchPut(o.BatchPut)
	case *api.PipelineOp_BatchGet:
		return validateBatchGet(o.BatchGet)
	case *api.PipelineOp_BatchDelete:
		return validateBatchDelete(o.BatchDelete)
	}
	return errNoOperation()
}

func validatePut(q *api.PutRequest) error {
	if err := keyspace.ValidateKey(q.GetKey()); err != nil {
		return err
	}
	if n := len(q.Value); n > keyspace.MaxValueBytes {
		return fault.New(fault.ValueTooLarge, "value is too large",
			"key", q.Key, "limit_bytes", keyspace.MaxValueBytes, "actual_bytes", n)
	}
	if err := validateChecksum(q); err != nil {
		return err
	}
	if err := validateExtras(q); err != nil {
		return err
	}
	if err := validateExpiry(q.Key, q.TtlSeconds, q.ExpiresAtMs); err != nil {
		return err
	}
	if q.Lease != "" {
		if err := keyspace.ValidateLeaseID(q.Lease); err != nil {
			return err
		}
	}
	if err := validateFence(q.Fence); err != nil {
		return err
	}
	return validateCondition(q.Key, q.Condition)
}

// validateExpiry checks a deadline as far as that needs no clock.
func validateExpiry(key string, ttlSeconds, expiresAtMilli int64) error {
	switch {
	case ttlSeconds < 0:
		return fault.New(fault.InvalidArgument, "ttl_seconds is negative", "key", key, "actual", ttlSeconds)
	case ttlSeconds > maxTTLSeconds:
		return fault.New(fault.InvalidArgument, "ttl_seconds is too large",
			"key", key, "limit", maxTTLSeconds, "actual", ttlSeconds)
	case expiresAtMilli < 0:
		return fault.New(fault.InvalidArgument, "expires_at_ms is negative", "key", key, "actual", expiresAtMilli)
	case expiresAtMilli > maxExpiryMilli:
		return fault.New(fault.InvalidArgument, "expires_at_ms is too large",
			"key", key, "limit", int64(maxExpiryMilli), "actual", expiresAtMilli)
	case ttlSeconds > 0 && expiresAtMilli > 0:
		return fault.New(fault.InvalidArgument, "ttl_seconds and expires_at_ms exclude each other", "key", key)
	}
	return nil
}

// validateTouch wants what is to become of the deadline said: a touch without one
// would make a key permanent by an oversight.
func validateTouch(q *api.TouchRequest) error {
	if err := keyspace.ValidateKey(q.GetKey()); err != nil {
		return err
	}
	if err := validateExpiry(q.Key, q.TtlSeconds, q.ExpiresAtMs); err != nil {
		return err
	}
	switch expires := q.TtlSeconds > 0 || q.ExpiresAtMs > 0; {
	case q.Persist && expires:
		return fault.New(fault.InvalidArgument, "persist excludes ttl_seconds and expires_at_ms", "key", q.Key)
	case !q.Persist && !expires:
		return fault.New(fault.InvalidArgument, "a touch needs one of ttl_seconds, expires_at_ms and persist", "key", q.Key)
	case q.Condition.GetMustNotExist():
		return fault.New(fault.InvalidArgument, "a touch needs a key that exists, and must_not_exist excludes that", "key", q.Key)
	}
	return validateCondition(q.Key, q.Condition)
}

// maxTTLSeconds is a hundred years; maxExpiryMilli is what the 48 physical
// bits of a revision can tell.
const (
	maxTTLSeconds  = 100 * 366 * 24 * 3600
	maxExpiryMilli = 1<<48 - 1
)

// validateChecksum compares the value with the checksum the client sent.
func validateChecksum(q *api.PutRequest) error {
	if q.Checksum == nil {
		return nil
	}
	if sum := format.CRC32C(q.Value); *q.Checksum != sum {
		return fault.New(fault.ChecksumMismatch, "value does not match its checksum",
			"key", q.Key, "expected_crc32c", fmt.Sprintf("%08x", *q.Checksum), "actual_crc32c", fmt.Sprintf("%08x", sum))
	}
	return nil
}

// validateExtras bounds what is stored beside the value, as one sum.
func validateExtras(q *api.PutRequest) error {
	total := len(q.ContentType) + len(q.Encoding)
	valid := utf8.ValidString(q.ContentType) && utf8.ValidString(q.Encoding)
	for _, m := range []map[string]string{q.Tags, q.Metadata} {
		for k, v := range m {
			total += len(k) + len(v)
			valid = valid && utf8.ValidString(k) && utf8.ValidString(v)
		}
	}
	if total > MaxRecordExtrasBytes {
		return fault.New(fault.InvalidArgument, "tags, metadata, content_type and encoding are too large together",
			"key", q.Key, "limit_bytes", MaxRecordExtrasBytes, "actual_bytes", total)
	}
	if !valid {
		return fault.New(fault.InvalidArgument, "tags, metadata, content_type and encoding must be valid UTF-8", "key", q.Key)
	}
	return nil
}

func validateCondition(key string, c *api.Condition) error {
	switch {
	case c == nil:
		return nil
	case c.MustExist && c.MustNotExist:
		return fault.New(fault.InvalidArgument, "must_exist and must_not_exist exclude each other", "key", key)
	case len(c.ValueEquals) > keyspace.MaxValueBytes:
		return fault.New(fault.ValueTooLarge, "value_equals is larger than any value",
			"key", key, "limit_bytes", keyspace.MaxValueBytes, "actual_bytes", len(c.ValueEquals))
	case c.CreatedMatch != nil && *c.CreatedMatch == 0:
		return fault.New(fault.InvalidArgument, "created_match of 0 matches no key; must_not_exist asks for absence", "key", key)
	case c.LeaseMatch != nil:
		return keyspace.ValidateLeaseID(*c.LeaseMatch)
	}
	return nil
}

func validateGet(q *api.GetRequest) error {
	if err := keyspace.ValidateKey(q.GetKey()); err != nil {
		return err
	}
	return validateRead(q.AtRevision, q.AtTimeMs, q.Consistency, q.MaxStalenessMs)
}

// validateRead refuses a read of the past that may also be stale.
func validateRead(rev uint64, ms int64, level api.Consistency, maxMS int64) error {
	if (rev != 0 || ms != 0) && level == api.Consistency_CONSISTENCY_BOUNDED_STALENESS {
		return fault.New(fault.InvalidArgument, "a revision or time and bounded staleness exclude each other")
	}
	if err := validateMoment(rev, ms); err != nil {
		return err
	}
	return validateStaleness(level, maxMS)
}

func validateStaleness(level api.Consistency, maxMS int64) error {
	switch level {
	case api.Consistency_CONSISTENCY_LINEARIZABLE:
		return nil
	case api.Consistency_CONSISTENCY_BOUNDED_STALENESS:
		if maxMS <= 0 {
			return fault.New(fault.InvalidArgument, "max_staleness_ms must be positive with bounded staleness",
				"limit_min", 1, "actual", maxMS)
		}
		return nil
	case api.Consistency_CONSISTENCY_SNAPSHOT:
		return fault.New(fault.InvalidArgument, "snapshot is a consistency of lists", "actual", int32(level))
	}
	return fault.New(fault.InvalidArgument, "unknown consistency", "actual", int32(level))
}

func validateDelete(q *api.DeleteRequest) error {
	if err := keyspace.ValidateKey(q.GetKey()); err != nil {
		return err
	}
	if q.Reason != "" {
		if _, known := leaseEnds[q.Reason]; !known {
			return fault.New(fault.InvalidArgument, "unknown reason of a deletion", "key", q.Key, "actual", q.Reason)
		}
	}
	if err := validateFence(q.Fence); err != nil {
		return err
	}
	return validateCondition(q.Key, q.Condition)
}

func validateBatchPut(b *api.BatchPutRequest) error {
	if err := validateFence(b.GetFence()); err != nil {
		return err
	}
	total := 0
	for i, q := range b.GetItems() {
		if q == nil {
			return errEmptyItem(i)
		}
		if err := unnamed("batch", q.RequestId); err != nil {
			return atItem(err, i)
		}
		if err := validatePut(q); err != nil {
			return atItem(err, i)
		}
		if q.Fence != nil {
			return errFenceOfItem(i)
		}
		if err := sameNamespace(b.Namespace, q.Namespace, i); err != nil {
			return err
		}
		total += len(q.Key) + len(q.Value)
	}
	if total > MaxBatchBytes {
		return fault.New(fault.MessageTooLarge, "keys and values of the batch are too large together",
			"limit_bytes", MaxBatchBytes, "actual_bytes", total)
	}
	return distinct(len(b.GetItems()), func(i int) string { return b.Items[i].Key })
}

func validateBatchGet(b *api.BatchGetRequest) error {
	if err := validateCount(len(b.GetKeys())); err != nil {
		return err
	}
	for i, key := range b.GetKeys() {
		if err := keyspace.ValidateKey(key); err != nil {
			return atItem(err, i)
		}
	}
	return validateRead(b.GetAtRevision(), b.GetAtTimeMs(), b.GetConsistency(), b.GetMaxStalenessMs())
}

func validateBatchDelete(b *api.BatchDeleteRequest) error {
	if err := validateFence(b.GetFence()); err != nil {
		return err
	}
	for i, q := range b.GetItems() {
		if q == nil {
			return errEmptyItem(i)
		}
		if err := unnamed("batch", q.RequestId); err != nil {
			return atItem(err, i)
		}
		if err := validateDelete(q); err != nil {
			return atItem(err, i)
		}
		if q.Fence != nil {
			return errFenceOfItem(i)
		}
		if err := sameNamespace(b.Namespace, q.Namespace, i); err != nil {
			return err
		}
	}
	return distinct(len(b.GetItems()), func(i int) string { return b.Items[i].Key })
}

// distinct refuses a batch that writes a key twice: which write should win is
// not said, and a condition of the second would judge the first.
func distinct(n int, key func(int) string) error {
	if err := validateCount(n); err != nil {
		return err
	}
	if n <= fewItems {
		return distinctFew(n, key)
	}
	seen := make(map[string]int, n)
	for i := range n {
		if first, ok := seen[key(i)]; ok {
			return errTwice(key(i), first, i)
		}
		seen[key(i)] = i
	}
	return nil
}

// fewItems is the number of items up to which comparing each with each is
// cheaper than a map.
const fewItems = 16

func distinctFew(n int, key func(int) string) error {
	for i := range n {
		for first := range i {
			if key(first) == key(i) {
				return errTwice(key(i), first, i)
			}
		}
	}
	return nil
}

func errTwice(key string, first, second int) error {
	return fault.New(fault.InvalidArgument, "batch writes a key twice", "key", key, "first", first, "second", second)
}

func validateCount(n int) error {
	if n > MaxBatchItems {
		return fault.New(fault.InvalidArgument, "batch has too many items", "limit", MaxBatchItems, "actual", n)
	}
	return nil
}

func sameNamespace(batch, item string, i int) error {
	if item != "" && item != batch && (item != keyspace.DefaultNamespaceName || batch != "") {
		return fault.New(fault.InvalidArgument, "item names another namespace than its batch",
			"item", i, "batch_namespace", batch, "item_namespace", item)
	}
	return nil
}

func errEmptyItem(i int) error {
	return fault.New(fault.InvalidArgument, "batch item is empty", "item", i)
}

// atItem adds the position to an error of a batch item.
func atItem(err error, i int) error {
	e := asFault(err)
	out := fault.New(e.Code, e.Message, "item", i)
	for k, v := range e.Details {
		out.Details[k] = v
	}
	return out
}
