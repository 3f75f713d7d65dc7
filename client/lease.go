package client

import (
	"context"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// Lease is a time that ends by itself unless it is kept alive. Keys that are put
// with it (WithLease) end with it. Package concurrency keeps leases alive, and makes
// locks and elections of them.
type Lease struct {
	ID string
	// TTL is what was granted.
	TTL time.Duration
	// ExpiresAt is on the clock of the lease's group; Remaining is from when the
	// answer was given.
	ExpiresAt time.Time
	Remaining time.Duration
	// Revision is that of the grant.
	Revision uint64
	// Keys are what is attached, with DescribeLease; KeysMore: there are more.
	Keys     []LeaseKey
	KeysMore bool
}

// LeaseKey is a key that is attached to a lease.
type LeaseKey struct{ Namespace, Key string }

func leaseFromAPI(m *api.Lease) Lease {
	l := Lease{
		ID: m.GetId(), TTL: time.Duration(m.GetTtlSeconds()) * time.Second, ExpiresAt: milliTime(m.GetExpiresAtMs()),
		Remaining: millis(m.GetRemainingMs()), Revision: m.GetRevision(), KeysMore: m.GetKeysMore(),
	}
	for _, k := range m.GetKeys() {
		l.Keys = append(l.Keys, LeaseKey{k.GetNamespace(), k.GetKey()})
	}
	return l
}

// GrantLease grants a lease of whole seconds, from one to a day. An empty id lets
// the cluster choose one; a lease lies with the keys of the namespace default that
// have the same {hash part}. ErrLeaseExists while there is a lease of that id, or
// keys of one that has ended.
func (c *Client) GrantLease(ctx context.Context, ttl time.Duration, id string) (Lease, error) {
	if ttl <= 0 || ttl%time.Second != 0 {
		return Lease{}, newError(CodeInvalidArgument, "the TTL of a lease is a positive number of whole seconds", "ttl", ttl)
	}
	m, err := unary(ctx, c, writeUnary, &api.LeaseGrantRequest{TtlSeconds: int64(ttl / time.Second), Id: id}, kvClient.grantLease)
	return leaseFromAPI(m), err
}

// KeepLeaseAlive gives a lease its whole time again. ErrLeaseNotFound once it has
// ended: it never comes back.
func (c *Client) KeepLeaseAlive(ctx context.Context, id string) (Lease, error) {
	m, err := unary(ctx, c, readUnary, &api.LeaseKeepAliveRequest{Id: id}, kvClient.keepLeaseAlive) // may be repeated
	return leaseFromAPI(m), err
}

// RevokeLease ends a lease now and deletes its keys; it returns how many.
func (c *Client) RevokeLease(ctx context.Context, id string) (deleted uint64, err error) {
	m, err := unary(ctx, c, writeUnary, &api.LeaseRevokeRequest{Id: id}, kvClient.revokeLease)
	return m.GetDeleted(), err
}

// DescribeLease shows how much time a lease has left, and up to a thousand of its
// keys.
func (c *Client) DescribeLease(ctx context.Context, id string) (Lease, error) {
	m, err := unary(ctx, c, readUnary, &api.LeaseDescribeRequest{Id: id, Keys: true}, kvClient.describeLease)
	return leaseFromAPI(m), err
}

// Leases yields the leases that have not ended, by id. An error is yielded once and
// ends it.
func (c *Client) Leases(ctx context.Context) iter.Seq2[Lease, error] {
	return func(yield func(Lease, error) bool) {
		for token := ""; ; {
			m, err := unary(ctx, c, readUnary, &api.LeaseListRequest{ContinuationToken: token}, kvClient.listLeases)
			if err != nil {
				yield(Lease{}, err)
				return
			}
			for _, l := range m.GetLeases() {
				if !yield(leaseFromAPI(l), nil) {
					return
				}
			}
			if token = m.GetContinuationToken(); token == "" {
				return
			}
		}
	}
}

func (k kvClient) grantLease(ctx context.Context, q *api.LeaseGrantRequest, opts ...grpc.CallOption) (*api.Lease, error) {
	return k.leases.Grant(ctx, q, opts...)
}

func (k kvClient) keepLeaseAlive(ctx context.Context, q *api.LeaseKeepAliveRequest, opts ...grpc.CallOption) (*api.Lease, error) {
	return k.leases.KeepAlive(ctx, q, opts...)
}

func (k kvClient) revokeLease(ctx context.Context, q *api.LeaseRevokeRequest, opts ...grpc.CallOption) (*api.LeaseRevokeResponse, error) {
	return k.leases.Revoke(ctx, q, opts...)
}

func (k kvClient) describeLease(ctx context.Context, q *api.LeaseDescribeRequest, opts ...grpc.CallOption) (*api.Lease, error) {
	return k.leases.Describe(ctx, q, opts...)
}

func (k kvClient) listLeases(ctx context.Context, q *api.LeaseListRequest, opts ...grpc.CallOption) (*api.LeaseListResponse, error) {
	return k.leases.List(ctx, q, opts...)
}

// Fence names the key of a lock and the revision at which its owner created it. A
// write with a fence (WithFence) happens only while that key is there and is still
// that one: an owner that has lost the lock without knowing it can do no harm.
type Fence struct {
	// Namespace is that of the write when it is empty.
	Namespace string
	Key       string
	Revision  uint64
}

// String is the form of REST and of the environment of `kvctl lock`:
// NAMESPACE/KEY@REVISION, with the key percent-encoded.
func (f Fence) String() string {
	space := f.Namespace
	if space == "" {
		space = "default"
	}
	return space + "/" + url.PathEscape(f.Key) + "@" + strconv.FormatUint(f.Revision, 10)
}

// ParseFence is the inverse of String.
func ParseFence(text string) (Fence, error) {
	bad := newError(CodeInvalidArgument, "a fence is NAMESPACE/KEY@REVISION, with the key percent-encoded", "actual", quoteKey(text))
	space, rest, ok := strings.Cut(text, "/")
	at := strings.LastIndexByte(rest, '@')
	if !ok || space == "" || at <= 0 {
		return Fence{}, bad
	}
	key, err := url.PathUnescape(rest[:at])
	if err != nil {
		return Fence{}, bad
	}
	rev, err := strconv.ParseUint(rest[at+1:], 10, 64)
	if err != nil || rev == 0 {
		return Fence{}, bad
	}
	return Fence{Namespace: space, Key: key, Revision: rev}, nil
}

func (f *Fence) toAPI() *api.Fence {
	if f == nil {
		return nil
	}
	return &api.Fence{Namespace: f.Namespace, Key: f.Key, Revision: f.Revision}
}

// WithLease attaches the key to a lease: it is deleted when that ends. A put
// without it detaches the key. ErrLeaseNotFound when the lease has ended.
func WithLease(id string) PutOption { return putOption(func(i *PutItem) { i.Lease = id }) }

// FencedOption changes writes of one key and of batches.
type FencedOption interface {
	PutOption
	DeleteOption
	BatchWriteOption
}

// WithFence lets the write happen only while the lock is held that the fence is of;
// ErrConditionFailed, with the fence in its details, when it is not. A batch with a
// fence is written whole or not at all.
func WithFence(f Fence) FencedOption { return fenceOption(f) }

type fenceOption Fence

func (o fenceOption) applyPut(c *putCall)               { c.item.fence = (*Fence)(&o) }
func (o fenceOption) applyDelete(c *deleteCall)         { c.item.fence = (*Fence)(&o) }
func (o fenceOption) applyBatchWrite(c *batchWriteCall) { c.fence, c.atomic = (*Fence)(&o), true }

// IfCreated requires that the key exists and was created at this revision.
func IfCreated(rev uint64) WriteOption {
	return conditionOption(func(c *Condition) { c.Created = &rev })
}

// IfLease requires that the key exists and is attached to this lease.
func IfLease(id string) WriteOption {
	return conditionOption(func(c *Condition) { c.Lease = id })
}
