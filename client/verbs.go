package client

import (
	"context"
	"errors"
	"hash/crc32"
	"time"
	"unicode/utf8"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Put writes a key. It fails with ErrConditionFailed when a condition does not
// hold, and with ErrUnknownOutcome when the write was sent and its answer lost.
// value may be changed after Put returned.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...PutOption) (PutResult, error) {
	o := newOperation(fieldOpPut, true)
	defer o.release()
	o.put = putCall{namespace: c.cfg.Namespace, item: PutItem{Key: key, Value: value}}
	for _, opt := range opts {
		opt.applyPut(&o.put)
	}
	if err := c.checkPut(&o.put.item); err != nil {
		return PutResult{}, err
	}
	if o.requestID = o.put.item.requestID; !o.put.item.Condition.isZero() || o.put.item.fence != nil {
		o.put.item.requestID = o.name(c, o.requestID)
	}
	o.namespace, o.key = o.put.namespace, key
	o.body = appendPut(o.body[:0], fieldOpPut, o.namespace, &o.put.item)
	answer, err := c.do(ctx, o)
	if err != nil {
		return PutResult{}, err
	}
	var r PutResult
	if err := decodePut(answer, &r); err != nil {
		return PutResult{}, unreadable(true, err)
	}
	return r, nil
}

// Get reads a key; one that is not there is ErrNotFound. The value's checksum
// is verified.
func (c *Client) Get(ctx context.Context, key string, opts ...GetOption) (Record, error) {
	o := newOperation(fieldOpGet, false)
	defer o.release()
	o.read = readCall{namespace: c.cfg.Namespace, from: c.cfg.Read}
	for _, opt := range opts {
		opt.applyGet(&o.read)
	}
	return c.get(ctx, o, key)
}

func (c *Client) get(ctx context.Context, o *operation, key string) (Record, error) {
	if err := c.checkKey(key); err != nil {
		return Record{}, err
	}
	if err := o.read.at.err; err != nil {
		return Record{}, err
	}
	o.namespace, o.key, o.from = o.read.namespace, key, o.read.source()
	o.body = appendGet(o.body[:0], fieldOpGet, o.namespace, key, &o.read)
	answer, err := c.do(ctx, o)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := decodeGet(answer, key, &r); err != nil {
		return Record{}, unreadable(false, err)
	}
	if err := o.read.at.served(r.Read.Revision); err != nil {
		return Record{}, err
	}
	return r, r.verify(o.read.keysOnly)
}

// source is the replica choice: a read that may be stale, or is of the past, needs
// no leader.
func (r *readCall) source() ReadFrom {
	if (r.consistency == BoundedStaleness || r.at != moment{}) && (r.from == Leader || r.from == Auto) {
		return Any
	}
	return r.from
}

// verify completes a record that was read and checks its value.
func (r *Record) verify(keysOnly bool) error {
	if keysOnly {
		return nil
	}
	if r.Value == nil {
		r.Value = []byte{}
	}
	return r.verifySum(crc32.Checksum(r.Value, castagnoli))
}

func (r *Record) verifySum(sum uint32) error {
	if r.Checksum == 0 || sum == r.Checksum {
		return nil
	}
	return newError(CodeCorruption, "the value read does not match its checksum", "key", r.Key, "expected", r.Checksum, "actual", sum)
}

// Delete deletes a key. Deleting one that is not there is no error, unless a
// condition requires it.
func (c *Client) Delete(ctx context.Context, key string, opts ...DeleteOption) (DeleteResult, error) {
	o := newOperation(fieldOpDelete, true)
	defer o.release()
	o.del = deleteCall{namespace: c.cfg.Namespace, item: DeleteItem{Key: key}}
	for _, opt := range opts {
		opt.applyDelete(&o.del)
	}
	if err := c.checkKey(key); err != nil {
		return DeleteResult{}, err
	}
	if o.requestID = o.del.item.requestID; !o.del.item.Condition.isZero() || o.del.item.fence != nil {
		o.del.item.requestID = o.name(c, o.requestID)
	}
	o.namespace, o.key = o.del.namespace, key
	o.body = appendDelete(o.body[:0], fieldOpDelete, o.namespace, &o.del.item)
	answer, err := c.do(ctx, o)
	if err != nil {
		return DeleteResult{}, err
	}
	var r DeleteResult
	if err := decodeDelete(answer, &r); err != nil {
		return DeleteResult{}, unreadable(true, err)
	}
	return r, nil
}

// Touch gives a key that exists another deadline, by WithTTL or WithExpiry, or takes
// it away, by Persist; exactly one of them is given. Value, tags and metadata stay and
// do not travel. It is a write, with a new version and revision; one of a key
// that does not exist, or has expired, is ErrConditionFailed.
func (c *Client) Touch(ctx context.Context, key string, opts ...TouchOption) (PutResult, error) {
	o := newOperation(fieldOpTouch, true)
	defer o.release()
	o.touch = touchCall{namespace: c.cfg.Namespace, item: touchItem{key: key}}
	for _, opt := range opts {
		opt.applyTouch(&o.touch)
	}
	if err := c.checkTouch(&o.touch.item); err != nil {
		return PutResult{}, err
	}
	o.namespace, o.key = o.touch.namespace, key
	o.body = appendTouch(o.body[:0], fieldOpTouch, o.namespace, &o.touch.item)
	answer, err := c.do(ctx, o)
	if err != nil {
		return PutResult{}, err
	}
	var r PutResult
	if err := decodePut(answer, &r); err != nil {
		return PutResult{}, unreadable(true, err)
	}
	return r, nil
}

func (c *Client) checkTouch(i *touchItem) error {
	if err := c.checkKey(i.key); err != nil {
		return err
	}
	if err := checkExpiry(i.key, i.ttl, i.expiresAt); err != nil {
		return err
	}
	if expires := i.ttl != 0 || !i.expiresAt.IsZero(); expires == i.persist {
		return newError(CodeInvalidArgument, "a touch takes exactly one of WithTTL, WithExpiry and Persist", "key", quoteKey(i.key))
	}
	return nil
}

// Exists says whether a key is there, without reading its value.
func (c *Client) Exists(ctx context.Context, key string, opts ...GetOption) (bool, error) {
	o := newOperation(fieldOpGet, false)
	defer o.release()
	o.read = readCall{namespace: c.cfg.Namespace, from: c.cfg.Read}
	for _, opt := range opts {
		opt.applyGet(&o.read)
	}
	o.read.keysOnly = true
	_, err := c.get(ctx, o, key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// checkKey refuses what every server would refuse.
func (c *Client) checkKey(key string) error {
	limit := c.topology().limits.keyBytes
	switch {
	case key == "":
		return newError(CodeInvalidKey, "the key is empty")
	case len(key) > limit:
		return newError(CodeKeyTooLarge, "the key is too long", "limit_bytes", limit, "actual_bytes", len(key))
	case !utf8.ValidString(key):
		return newError(CodeInvalidKey, "the key is not valid UTF-8", "key", quoteKey(key))
	}
	return nil
}

func (c *Client) checkPut(i *PutItem) error {
	if err := c.checkKey(i.Key); err != nil {
		return err
	}
	if limit := c.topology().limits.valueBytes; uint64(len(i.Value)) > limit {
		return newError(CodeValueTooLarge, "the value is too large", "key", quoteKey(i.Key), "limit_bytes", limit, "actual_bytes", len(i.Value))
	}
	return checkExpiry(i.Key, i.TTL, i.ExpiresAt)
}

func checkExpiry(key string, ttl time.Duration, at time.Time) error {
	switch {
	case ttl < 0 || ttl%time.Second != 0:
		return newError(CodeInvalidArgument, "a TTL is a positive number of whole seconds", "key", quoteKey(key), "ttl", ttl)
	case ttl != 0 && !at.IsZero():
		return newError(CodeInvalidArgument, "at most one of TTL and expiry can be set", "key", quoteKey(key))
	case !at.IsZero() && at.UnixMilli() <= 0:
		return newError(CodeInvalidArgument, "an expiry is a time after 1970", "key", quoteKey(key), "expires_at", at)
	}
	return nil
}

// itemChecksum is the caller's, or that of the value.
func itemChecksum(i *PutItem) uint32 {
	if i.Checksum != nil {
		return *i.Checksum
	}
	return crc32.Checksum(i.Value, castagnoli)
}
