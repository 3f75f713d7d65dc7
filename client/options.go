package client

import "time"

// Options are small values with one interface per verb, so that an option
// given to a verb it has no meaning for does not compile.
type (
	// PutOption changes Put and PutReader.
	PutOption interface{ applyPut(*putCall) }
	// GetOption changes Get, Exists and GetReader.
	GetOption interface{ applyGet(*readCall) }
	// DeleteOption changes Delete.
	DeleteOption interface{ applyDelete(*deleteCall) }
	// TouchOption changes Touch.
	TouchOption interface{ applyTouch(*touchCall) }
	// ExpiryOption says when a key expires.
	ExpiryOption interface {
		PutOption
		TouchOption
	}
	// BatchWriteOption changes BatchPut and BatchDelete.
	BatchWriteOption interface{ applyBatchWrite(*batchWriteCall) }
	// BatchGetOption changes BatchGet.
	BatchGetOption interface{ applyBatchGet(*readCall) }
	// ListOption changes List, Scan and Count.
	ListOption interface{ applyList(*listCall) }
	// WatchOption changes Watch.
	WatchOption interface{ applyWatch(*watchCall) }
	// RangeOption chooses keys.
	RangeOption interface {
		ListOption
		WatchOption
	}
	// WriteOption changes every write of one key.
	WriteOption interface {
		PutOption
		DeleteOption
		TouchOption
	}
	// ReadOption changes every read by key.
	ReadOption interface {
		GetOption
		BatchGetOption
	}
	// Option changes every verb on keys.
	Option interface {
		WriteOption
		ReadOption
		BatchWriteOption
		ListOption
		WatchOption
	}
)

type putCall struct {
	namespace string
	item      PutItem
}

type deleteCall struct {
	namespace string
	item      DeleteItem
}

type touchCall struct {
	namespace string
	item      touchItem
}

type batchWriteCall struct {
	namespace string
	atomic    bool
	requestID string
	// ownID: requestID is this package's.
	ownID bool
	fence *Fence
}

type readCall struct {
	namespace   string
	from        ReadFrom
	consistency Consistency
	maxAge      time.Duration
	keysOnly    bool
	at          moment
}

type listCall struct {
	namespace string
	prefix    string
	start     string
	end       string
	limit     uint32
	keysOnly  bool
	reverse   bool
	token     string
	tags      map[string]string
	countOnly bool
	at        moment

	consistency Consistency
	maxAge      time.Duration
}

type namespaceOption string

// InNamespace uses a namespace other than the client's; "" keeps that.
func InNamespace(name string) Option { return namespaceOption(name) }

func (o namespaceOption) set(name *string) {
	if o != "" {
		*name = string(o)
	}
}

func (o namespaceOption) applyPut(c *putCall)               { o.set(&c.namespace) }
func (o namespaceOption) applyGet(c *readCall)              { o.set(&c.namespace) }
func (o namespaceOption) applyDelete(c *deleteCall)         { o.set(&c.namespace) }
func (o namespaceOption) applyTouch(c *touchCall)           { o.set(&c.namespace) }
func (o namespaceOption) applyBatchWrite(c *batchWriteCall) { o.set(&c.namespace) }
func (o namespaceOption) applyBatchGet(c *readCall)         { o.set(&c.namespace) }
func (o namespaceOption) applyList(c *listCall)             { o.set(&c.namespace) }
func (o namespaceOption) applyWatch(c *watchCall)           { o.set(&c.keys.namespace) }

type putOption func(*PutItem)

func (o putOption) applyPut(c *putCall) { o(&c.item) }

type expiryOption struct {
	ttl time.Duration
	at  time.Time
	set byte
}

func (o expiryOption) applyPut(c *putCall) {
	if o.set == 't' {
		c.item.TTL = o.ttl
	} else {
		c.item.ExpiresAt = o.at
	}
}

func (o expiryOption) applyTouch(c *touchCall) {
	if o.set == 't' {
		c.item.ttl = o.ttl
	} else {
		c.item.expiresAt = o.at
	}
}

// WithTTL lets the key expire after a duration, in whole seconds; 0 is none.
func WithTTL(ttl time.Duration) ExpiryOption { return expiryOption{ttl: ttl, set: 't'} }

// WithExpiry lets the key expire at a time, to the millisecond; the zero time is
// none. One that is not later than the clock of the key's group is refused.
func WithExpiry(at time.Time) ExpiryOption { return expiryOption{at: at} }

type persistOption struct{}

func (persistOption) applyTouch(c *touchCall) { c.item.persist = true }

// Persist takes the key's deadline away.
func Persist() TouchOption { return persistOption{} }

// WithContentType sets the value's MIME type.
func WithContentType(mime string) PutOption {
	return putOption(func(i *PutItem) { i.ContentType = mime })
}

// WithEncoding names the compression the caller applied to the value.
func WithEncoding(name string) PutOption { return putOption(func(i *PutItem) { i.Encoding = name }) }

// WithChecksum sets the CRC32C that the server verifies before it writes. The
// default is the checksum of the value as this package was given it.
func WithChecksum(crc32c uint32) PutOption {
	return putOption(func(i *PutItem) { i.Checksum = &crc32c })
}

// WithTag adds one tag.
func WithTag(name, value string) PutOption {
	return putOption(func(i *PutItem) { i.Tags = withEntry(i.Tags, name, value) })
}

// WithTags replaces all tags. The map is not changed.
func WithTags(tags map[string]string) PutOption { return putOption(func(i *PutItem) { i.Tags = tags }) }

// WithMetadata replaces all metadata. The map is not changed.
func WithMetadata(m map[string]string) PutOption {
	return putOption(func(i *PutItem) { i.Metadata = m })
}

// withEntry copies, so that a map given by the caller is never changed.
func withEntry(m map[string]string, name, value string) map[string]string {
	out := make(map[string]string, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	out[name] = value
	return out
}

type conditionOption func(*Condition)

func (o conditionOption) applyPut(c *putCall)       { o(&c.item.Condition) }
func (o conditionOption) applyDelete(c *deleteCall) { o(&c.item.Condition) }
func (o conditionOption) applyTouch(c *touchCall)   { o(&c.item.condition) }

// If requires all of a condition that was built elsewhere.
func If(cond Condition) WriteOption { return conditionOption(func(c *Condition) { *c = cond }) }

// IfVersion requires the key's version; 0 requires that it does not exist.
func IfVersion(v uint64) WriteOption {
	return conditionOption(func(c *Condition) { c.Version = &v })
}

// IfRevision requires the key's revision.
func IfRevision(r uint64) WriteOption {
	return conditionOption(func(c *Condition) { c.Revision = &r })
}

// IfExists requires that the key exists.
func IfExists() WriteOption { return conditionOption(func(c *Condition) { c.MustExist = true }) }

// IfAbsent requires that the key does not exist.
func IfAbsent() WriteOption { return conditionOption(func(c *Condition) { c.MustNotExist = true }) }

// IfValue requires that the key exists with exactly this value.
func IfValue(value []byte) WriteOption {
	return conditionOption(func(c *Condition) { c.ValueEquals, c.HasValueEquals = value, true })
}

type batchWriteOption func(*batchWriteCall)

func (o batchWriteOption) applyBatchWrite(c *batchWriteCall) { o(c) }

// Atomic requires that all items of a batch are written or none. Keys of one group
// are the fastest; {braces} keep keys together.
func Atomic() BatchWriteOption { return batchWriteOption(func(c *batchWriteCall) { c.atomic = true }) }

type readOption func(*readCall)

func (o readOption) applyGet(c *readCall)      { o(c) }
func (o readOption) applyBatchGet(c *readCall) { o(c) }

// From chooses the replica that serves the read, in place of Config.Read.
func From(r ReadFrom) ReadOption { return readOption(func(c *readCall) { c.from = r }) }

// stalenessOption serves Get, BatchGet, List and Scan.
type stalenessOption time.Duration

// WithMaxStaleness lets any one replica answer with a state that is at most
// this old. A List that finds nothing as new where it is served is a snapshot.
func WithMaxStaleness(age time.Duration) interface {
	ReadOption
	ListOption
} {
	return stalenessOption(age)
}

func (o stalenessOption) applyGet(c *readCall) {
	c.consistency, c.maxAge = BoundedStaleness, time.Duration(o)
}
func (o stalenessOption) applyBatchGet(c *readCall) { o.applyGet(c) }
func (o stalenessOption) applyList(c *listCall) {
	c.consistency, c.maxAge = BoundedStaleness, time.Duration(o)
}

// keysOnlyOption serves Get, BatchGet, List and Scan.
type keysOnlyOption struct{}

// KeysOnly leaves values out; Record.Size is still there.
func KeysOnly() interface {
	ReadOption
	RangeOption
} {
	return keysOnlyOption{}
}

func (keysOnlyOption) applyGet(c *readCall)      { c.keysOnly = true }
func (keysOnlyOption) applyBatchGet(c *readCall) { c.keysOnly = true }
func (keysOnlyOption) applyList(c *listCall)     { c.keysOnly = true }
func (keysOnlyOption) applyWatch(c *watchCall)   { c.keys.keysOnly = true }

type listOption func(*listCall)

func (o listOption) applyList(c *listCall) { o(c) }

type rangeOption func(*listCall)

func (o rangeOption) applyList(c *listCall)   { o(c) }
func (o rangeOption) applyWatch(c *watchCall) { o(&c.keys) }

// WithPrefix chooses the keys that start with prefix.
func WithPrefix(prefix string) RangeOption {
	return rangeOption(func(c *listCall) { c.prefix = prefix })
}

// WithRange chooses the keys from start (inclusive) to end (exclusive; empty
// means to the last).
func WithRange(start, end string) RangeOption {
	return rangeOption(func(c *listCall) { c.start, c.end = start, end })
}

// WithLimit sets the keys per page; 0 means the server's default (1,000).
func WithLimit(keys int) ListOption {
	return listOption(func(c *listCall) { c.limit = clampUint32(keys) })
}

// WithConsistency chooses how the snapshot of a List is found: Linearizable, which
// is the default, Snapshot, or, by WithMaxStaleness, BoundedStaleness. Snapshot
// costs less where others write what is listed.
func WithConsistency(level Consistency) ListOption {
	return listOption(func(c *listCall) { c.consistency = level })
}

// Reverse lists from the last key to the first.
func Reverse() ListOption { return listOption(func(c *listCall) { c.reverse = true }) }

// After continues a List where an earlier page's Token says, on its snapshot.
// The other options must be those of that List.
func After(token string) ListOption { return listOption(func(c *listCall) { c.token = token }) }

// WithTagFilter lists only records that carry all of these tags, and watches
// only those that do or did before the event.
func WithTagFilter(tags map[string]string) RangeOption {
	return rangeOption(func(c *listCall) { c.tags = tags })
}

func clampUint32(n int) uint32 {
	return uint32(min(max(n, 0), 1<<31)) // clamped
}
