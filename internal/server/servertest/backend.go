// Package servertest is a store in a map behind the servers' Backend, for their
// tests: no cluster, the same answers.
package servertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Now is the time of every write, in Unix milliseconds.
const Now = 1_800_000_000_000

// Backend is a map with the router's methods; safe for concurrent use.
type Backend struct {
	// Fail, when set, may answer an operation instead of the map.
	Fail func(ctx context.Context, op *api.PipelineOp) error
	// FailCall is Fail for everything that is no operation, by method name.
	FailCall func(method string) error
	// Later, when set, is given the answering of Execute's operations, to be
	// run by any goroutine at any time.
	Later func(answer func())

	mu         sync.Mutex
	revision   uint64
	records    map[string]map[string]*api.Record
	namespaces map[string]*api.Namespace
	jobs       map[string]*api.Job
	requests   map[string]kept
	ids        uint64
}

// New returns an empty store with the namespace "default".
func New() *Backend {
	return &Backend{
		revision:   uint64(keyspace.RevisionAt(Now)),
		records:    map[string]map[string]*api.Record{},
		namespaces: map[string]*api.Namespace{keyspace.LeaseNamespaceName: {Name: keyspace.LeaseNamespaceName}, "default": {Name: "default", Id: 1, State: "active", CreatedAtMs: Now}},
		jobs:       map[string]*api.Job{},
		requests:   map[string]kept{},
	}
}

// Do answers calls before it returns.
func (b *Backend) Do(ctx context.Context, calls ...*router.Call) {
	for _, c := range calls {
		b.answer(ctx, c)
	}
}

// Execute answers calls at once, or through Later.
func (b *Backend) Execute(ctx context.Context, calls []*router.Call, done func(*router.Call)) {
	for _, c := range calls {
		answer := func() {
			b.answer(ctx, c)
			done(c)
		}
		if b.Later != nil {
			b.Later(answer)
		} else {
			answer()
		}
	}
}

func (b *Backend) answer(ctx context.Context, c *router.Call) {
	if c.Result == nil {
		c.Result = &api.PipelineResult{}
	}
	if b.Fail != nil {
		c.Err = b.Fail(ctx, c.Op)
	}
	if c.Err == nil {
		c.Err = b.run(c.Op, c.Result)
	}
	c.Result.Status = router.ErrorStatus(c.Err)
	if get := c.Result.GetGet(); get != nil && c.Err == nil && c.Encoded {
		c.Result.Result = &api.PipelineResult_Get{Get: encoded(get)}
	}
}

// encoded is g as the router answers who may have bytes.
func encoded(g *api.GetResponse) *api.GetResponse {
	b, err := proto.Marshal(g)
	if err != nil {
		panic(err)
	}
	out := new(api.GetResponse)
	out.ProtoReflect().SetUnknown(b)
	return out
}

func (b *Backend) run(op *api.PipelineOp, res *api.PipelineResult) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	once, err := b.once(op, func() (*api.PipelineResult, error) {
		res := new(api.PipelineResult)
		return res, b.runNow(op, res)
	})
	res.Result = once.GetResult()
	return err
}

// runNow executes an operation; mu must be held.
func (b *Backend) runNow(op *api.PipelineOp, res *api.PipelineResult) error {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		put, err := b.put(o.Put.Namespace, o.Put)
		res.Result = &api.PipelineResult_Put{Put: put}
		return err
	case *api.PipelineOp_Get:
		rec, err := b.get(o.Get.Namespace, o.Get.Key, o.Get.KeysOnly)
		res.Result = &api.PipelineResult_Get{Get: &api.GetResponse{Record: rec, Consistency: o.Get.Consistency, ReadRevision: cmp.Or(o.Get.AtRevision, b.revision)}}
		return err
	case *api.PipelineOp_Delete:
		del, err := b.delete(o.Delete.Namespace, o.Delete)
		res.Result = &api.PipelineResult_Delete{Delete: del}
		return err
	case *api.PipelineOp_Touch:
		touched, err := b.touch(o.Touch.Namespace, o.Touch)
		res.Result = &api.PipelineResult_Touch{Touch: touched}
		return err
	case *api.PipelineOp_BatchPut:
		res.Result = &api.PipelineResult_BatchPut{BatchPut: b.batchPut(o.BatchPut)}
	case *api.PipelineOp_BatchGet:
		res.Result = &api.PipelineResult_BatchGet{BatchGet: b.batchGet(o.BatchGet)}
	case *api.PipelineOp_BatchDelete:
		res.Result = &api.PipelineResult_BatchDelete{BatchDelete: b.batchDelete(o.BatchDelete)}
	case *api.PipelineOp_Transaction:
		res.Result = &api.PipelineResult_Transaction{Transaction: b.transaction(o.Transaction)}
	default:
		return fault.New(fault.InvalidArgument, "no operation")
	}
	return nil
}

// space returns the records of a namespace; mu must be held.
func (b *Backend) space(name string) (map[string]*api.Record, error) {
	if name == "" {
		name = "default"
	}
	if b.namespaces[name] == nil {
		return nil, fault.New(fault.NamespaceNotFound, "namespace does not exist", "namespace", name)
	}
	if b.records[name] == nil {
		b.records[name] = map[string]*api.Record{}
	}
	return b.records[name], nil
}

func (b *Backend) put(ns string, q *api.PutRequest) (*api.PutResponse, error) {
	all, err := b.space(ns)
	if err == nil {
		err = keyspace.ValidateKey(q.Key)
	}
	if err != nil {
		return nil, err
	}
	if len(q.Value) > keyspace.MaxValueBytes {
		return nil, fault.New(fault.ValueTooLarge, "value is too large", "key", q.Key,
			"limit_bytes", keyspace.MaxValueBytes, "actual_bytes", len(q.Value))
	}
	sum := format.CRC32C(q.Value)
	if q.Checksum != nil && *q.Checksum != sum {
		return nil, fault.New(fault.ChecksumMismatch, "value does not match its checksum", "key", q.Key,
			"expected_crc32c", fmt.Sprintf("%08x", *q.Checksum), "actual_crc32c", fmt.Sprintf("%08x", sum))
	}
	old := all[q.Key]
	if err := judge(q.Key, q.Condition, old); err != nil {
		return nil, err
	}
	b.revision++
	rec := &api.Record{
		Key: q.Key, Value: bytes.Clone(q.Value), ContentType: q.ContentType, Encoding: q.Encoding, Checksum: sum,
		CreatedAtMs: Now, UpdatedAtMs: Now, ExpiresAtMs: q.ExpiresAtMs, Version: old.GetVersion() + 1, Revision: b.revision,
		Tags: q.Tags, Metadata: q.Metadata, Size: uint64(len(q.Value)), CreatedRevision: b.revision, Lease: q.Lease,
	}
	if old != nil {
		rec.CreatedRevision = old.CreatedRevision
	}
	if q.TtlSeconds > 0 {
		rec.ExpiresAtMs = Now + q.TtlSeconds*1000
	}
	all[q.Key] = rec
	return &api.PutResponse{
		Version: rec.Version, Revision: rec.Revision, CreatedAtMs: rec.CreatedAtMs, UpdatedAtMs: rec.UpdatedAtMs,
		ExpiresAtMs: rec.ExpiresAtMs, Checksum: sum,
	}, nil
}

func (b *Backend) touch(ns string, q *api.TouchRequest) (*api.PutResponse, error) {
	all, err := b.space(ns)
	if err != nil {
		return nil, err
	}
	old := all[q.Key]
	if err := judge(q.Key, q.Condition, old); err != nil {
		return nil, err
	}
	if old == nil {
		return nil, fault.New(fault.ConditionFailed, "condition does not hold", "key", q.Key, "condition", "must_exist")
	}
	b.revision++
	rec := view(old, false)
	rec.Version, rec.Revision, rec.ExpiresAtMs = old.Version+1, b.revision, q.ExpiresAtMs
	if q.TtlSeconds > 0 {
		rec.ExpiresAtMs = Now + q.TtlSeconds*1000
	}
	all[q.Key] = rec
	return &api.PutResponse{
		Version: rec.Version, Revision: rec.Revision, CreatedAtMs: rec.CreatedAtMs, UpdatedAtMs: rec.UpdatedAtMs,
		ExpiresAtMs: rec.ExpiresAtMs, Checksum: rec.Checksum,
	}, nil
}

func judge(key string, c *api.Condition, old *api.Record) error {
	failed := ""
	switch {
	case c == nil:
	case c.VersionMatch != nil && *c.VersionMatch != old.GetVersion():
		failed = "version_match"
	case c.RevisionMatch != nil && *c.RevisionMatch != old.GetRevision():
		failed = "revision_match"
	case c.MustExist && old == nil:
		failed = "must_exist"
	case c.MustNotExist && old != nil:
		failed = "must_not_exist"
	case c.CreatedMatch != nil && *c.CreatedMatch != old.GetCreatedRevision():
		failed = "created_match"
	case c.LeaseMatch != nil && *c.LeaseMatch != old.GetLease():
		failed = "lease_match"
	case c.ValueEquals != nil && (old == nil || !bytes.Equal(c.ValueEquals, old.Value)):
		failed = "value_equals"
	}
	if failed == "" {
		return nil
	}
	return fault.New(fault.ConditionFailed, "condition does not hold", "key", key, "condition", failed,
		"actual_version", old.GetVersion(), "actual_revision", old.GetRevision())
}

func (b *Backend) get(ns, key string, keysOnly bool) (*api.Record, error) {
	all, err := b.space(ns)
	if err == nil {
		err = keyspace.ValidateKey(key)
	}
	if err != nil {
		return nil, err
	}
	rec := all[key]
	if rec == nil {
		return nil, fault.New(fault.NotFound, "key does not exist", "key", key)
	}
	return view(rec, keysOnly), nil
}

// view copies a record, perhaps without its value.
func view(rec *api.Record, keysOnly bool) *api.Record {
	out := &api.Record{
		Key: rec.Key, Value: rec.Value, ContentType: rec.ContentType, Encoding: rec.Encoding, Checksum: rec.Checksum,
		CreatedAtMs: rec.CreatedAtMs, UpdatedAtMs: rec.UpdatedAtMs, ExpiresAtMs: rec.ExpiresAtMs, Version: rec.Version,
		Revision: rec.Revision, Tags: rec.Tags, Metadata: rec.Metadata, Size: rec.Size,
		CreatedRevision: rec.CreatedRevision, Lease: rec.Lease,
	}
	if keysOnly {
		out.Value = nil
	}
	return out
}

func (b *Backend) delete(ns string, q *api.DeleteRequest) (*api.DeleteResponse, error) {
	all, err := b.space(ns)
	if err == nil {
		err = keyspace.ValidateKey(q.Key)
	}
	if err == nil {
		err = judge(q.Key, q.Condition, all[q.Key])
	}
	if err != nil || all[q.Key] == nil {
		return &api.DeleteResponse{}, err
	}
	delete(all, q.Key)
	b.revision++
	return &api.DeleteResponse{Existed: true, Revision: b.revision}, nil
}

func (b *Backend) batchPut(q *api.BatchPutRequest) *api.BatchPutResponse {
	out := &api.BatchPutResponse{}
	for _, item := range q.Items {
		put, err := b.put(q.Namespace, item)
		out.Results = append(out.Results, &api.BatchPutResult{Put: put, Status: router.ErrorStatus(err)})
	}
	return out
}

func (b *Backend) batchGet(q *api.BatchGetRequest) *api.BatchGetResponse {
	out := &api.BatchGetResponse{}
	for _, key := range q.Keys {
		rec, err := b.get(q.Namespace, key, q.KeysOnly)
		out.Results = append(out.Results, &api.BatchGetResult{Record: rec, Status: router.ErrorStatus(err)})
	}
	return out
}

func (b *Backend) batchDelete(q *api.BatchDeleteRequest) *api.BatchDeleteResponse {
	out := &api.BatchDeleteResponse{}
	for _, item := range q.Items {
		del, err := b.delete(q.Namespace, item)
		out.Results = append(out.Results, &api.BatchDeleteResult{Delete: del, Status: router.ErrorStatus(err)})
	}
	return out
}

// List returns one page; the token is the key the next one starts at.
func (b *Backend) List(_ context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	if err := b.failCall("List"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := b.space(q.Namespace)
	if err != nil {
		return nil, err
	}
	after, err := token(q.ContinuationToken)
	if err != nil {
		return nil, err
	}
	limit := int(q.Limit)
	if limit == 0 {
		limit = 1000
	}
	out := &api.ListResponse{Revision: b.revision, Consistency: q.Consistency, AgeMs: q.MaxStalenessMs}
	matching := b.matching(all, q)
	if q.CountOnly {
		out.Count = uint64(len(matching))
		return out, nil
	}
	for i, rec := range matching {
		if i < after {
			continue
		}
		if len(out.Records) == limit {
			out.ContinuationToken = "t" + strconv.Itoa(i)
			break
		}
		out.Records = append(out.Records, view(rec, q.KeysOnly))
	}
	return out, nil
}

// ListEncoded is List: messages are a form of what is sent.
func (b *Backend) ListEncoded(ctx context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	return b.List(ctx, q)
}

// ListStreamEncoded yields page after page.
func (b *Backend) ListStreamEncoded(ctx context.Context, q *api.ListRequest, yield func(*api.ListResponse) error) error {
	next := &api.ListRequest{
		Namespace: q.Namespace, Prefix: q.Prefix, Start: q.Start, End: q.End, Limit: q.Limit, KeysOnly: q.KeysOnly,
		Reverse: q.Reverse, ContinuationToken: q.ContinuationToken, Tags: q.Tags, CountOnly: q.CountOnly,
	}
	for {
		page, err := b.List(ctx, next)
		if err == nil {
			err = yield(page)
		}
		if err != nil || page.ContinuationToken == "" {
			return err
		}
		next.ContinuationToken = page.ContinuationToken
	}
}

func token(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(text, "t"))
	if err != nil {
		return 0, fault.New(fault.InvalidToken, "continuation token is damaged")
	}
	return n, nil
}

func (b *Backend) matching(all map[string]*api.Record, q *api.ListRequest) []*api.Record {
	var out []*api.Record
	for key, rec := range all {
		ok := strings.HasPrefix(key, q.Prefix) && key >= q.Start && (q.End == "" || key < q.End)
		for name, value := range q.Tags {
			ok = ok && rec.Tags[name] == value
		}
		if ok {
			out = append(out, rec)
		}
	}
	sort.Slice(out, func(i, j int) bool { return (out[i].Key < out[j].Key) != q.Reverse })
	return out
}

func (b *Backend) failCall(method string) error {
	if b.FailCall == nil {
		return nil
	}
	return b.FailCall(method)
}

// Status describes a node that does not exist.
func (b *Backend) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	return &api.StatusResponse{ClusterName: "test", NodeName: "node-1", Version: "test", Ready: true}, b.failCall("Status")
}

// Topology has one group.
func (b *Backend) Topology(context.Context, *api.TopologyRequest) (*api.TopologyResponse, error) {
	return &api.TopologyResponse{Epoch: 1, Groups: []*api.GroupInfo{{Group: 1, LeaderNode: "n1"}}}, b.failCall("Topology")
}

// RecoverPlan knows one node.
func (b *Backend) RecoverPlan(context.Context, *api.RecoverPlanRequest) (*api.RecoverPlanResponse, error) {
	return &api.RecoverPlanResponse{Nodes: []*api.RecoverNode{{NodeId: "n1"}}}, b.failCall("RecoverPlan")
}

// Recover takes any step.
func (b *Backend) Recover(context.Context, *api.RecoverRequest) (*api.RecoverResponse, error) {
	return &api.RecoverResponse{Replica: 7}, b.failCall("Recover")
}

// Digest finds everything equal.
func (b *Backend) Digest(context.Context, *api.DigestRequest) (*api.DigestResponse, error) {
	return &api.DigestResponse{Equal: true, Groups: []*api.GroupDigest{{Group: 1, Equal: true}}}, b.failCall("Digest")
}

// CreateNamespace creates a namespace.
func (b *Backend) CreateNamespace(_ context.Context, q *api.CreateNamespaceRequest) (*api.Namespace, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(b.failCall("CreateNamespace"), keyspace.ValidateNamespaceName(q.Name)); err != nil {
		return nil, err
	}
	if b.namespaces[q.Name] != nil {
		return nil, fault.New(fault.NamespaceExists, "namespace exists", "namespace", q.Name)
	}
	n := &api.Namespace{Name: q.Name, Id: uint32(16 + len(b.namespaces)), State: "active", CreatedAtMs: Now}
	b.namespaces[q.Name] = n
	return n, nil
}

// ListNamespaces returns them by name.
func (b *Backend) ListNamespaces(context.Context, *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &api.ListNamespacesResponse{}
	for _, n := range b.namespaces {
		if n.Name == keyspace.LeaseNamespaceName {
			continue
		}
		out.Namespaces = append(out.Namespaces, n)
	}
	sort.Slice(out.Namespaces, func(i, j int) bool { return out.Namespaces[i].Name < out.Namespaces[j].Name })
	return out, b.failCall("ListNamespaces")
}

// DescribeNamespace returns one namespace.
func (b *Backend) DescribeNamespace(_ context.Context, q *api.DescribeNamespaceRequest) (*api.Namespace, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.space(q.Name); err != nil {
		return nil, err
	}
	return b.namespaces[q.Name], nil
}

// DeleteNamespace deletes at once and leaves a finished job.
func (b *Backend) DeleteNamespace(_ context.Context, q *api.DeleteNamespaceRequest) (*api.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := b.space(q.Name)
	if err != nil {
		return nil, err
	}
	n := uint64(len(all))
	delete(b.records, q.Name)
	delete(b.namespaces, q.Name)
	j := &api.Job{Id: "job-" + q.Name, Kind: "delete-namespace", State: "done", Done: n, Total: n, StartedAtMs: Now, FinishedAtMs: Now}
	b.jobs[j.Id] = j
	return j, nil
}
