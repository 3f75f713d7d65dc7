package client

import (
	"hash/crc32"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// What the fake stores. All of it under mu.

func statusOf(code Code, kv ...string) *api.Status {
	s := &api.Status{Code: string(code), Message: "fake: " + string(code), Details: map[string]string{}}
	for i := 0; i+1 < len(kv); i += 2 {
		s.Details[kv[i]] = kv[i+1]
	}
	return s
}

// rpcError is a status as an error of an RPC; nil stays nil.
func rpcError(s *api.Status) error {
	if s == nil {
		return nil
	}
	st, err := status.New(codes.FailedPrecondition, s.GetMessage()).WithDetails(&api.ErrorDetail{
		Code: s.GetCode(), Details: s.GetDetails(), RetryAfterMs: s.GetRetryAfterMs(), LeaderNode: s.GetLeaderNode(),
	})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (f *fakeCluster) find(namespace, key string) (*api.Record, *api.Status) {
	if f.namespaces[namespace] == nil {
		return nil, statusOf(CodeNamespaceNotFound, "namespace", namespace)
	}
	if slot := int(keyspace.SlotOf(keyspace.DefaultNamespace, key)); f.moved != nil && f.at != f.nodes[f.leaders[f.groupOf(slot, nil)-1]] {
		return nil, statusOf(CodeWrongGroup, "slot", strconv.Itoa(slot))
	}
	return f.data[namespace+"\x00"+key], nil
}

func checkCondition(c *api.Condition, r *api.Record) *api.Status {
	failed := c.GetMustExist() && r == nil || c.GetMustNotExist() && r != nil ||
		c.GetVersionMatch() != r.GetVersion() && c != nil && c.VersionMatch != nil ||
		c.GetRevisionMatch() != r.GetRevision() && c != nil && c.RevisionMatch != nil ||
		c.GetValueEquals() != nil && (r == nil || string(c.GetValueEquals()) != string(r.GetValue()))
	if failed {
		return statusOf(CodeConditionFailed, "actual_version", strconv.FormatUint(r.GetVersion(), 10))
	}
	return nil
}

func (f *fakeCluster) put(namespace string, q *api.PutRequest) (*api.PutResponse, *api.Status) {
	old, st := f.find(namespace, q.GetKey())
	if st == nil {
		st = checkCondition(q.GetCondition(), old)
	}
	sum := crc32.Checksum(q.GetValue(), castagnoli)
	if st == nil && q.Checksum != nil && q.GetChecksum() != sum {
		st = statusOf(CodeChecksumMismatch)
	}
	if st != nil {
		return nil, st
	}
	f.clock++
	now := int64(f.clock >> 16) // a clock
	r := &api.Record{
		Key: q.GetKey(), Value: append([]byte(nil), q.GetValue()...), ContentType: q.GetContentType(), Encoding: q.GetEncoding(),
		Checksum: sum, CreatedAtMs: now, UpdatedAtMs: now, ExpiresAtMs: q.GetExpiresAtMs(), Version: old.GetVersion() + 1,
		Revision: f.clock, Tags: q.GetTags(), Metadata: q.GetMetadata(), Size: uint64(len(q.GetValue())),
	}
	if q.GetTtlSeconds() != 0 {
		r.ExpiresAtMs = now + q.GetTtlSeconds()*1000
	}
	f.data[namespace+"\x00"+q.GetKey()] = r
	f.executed[q.GetKey()]++
	return &api.PutResponse{
		Version: r.GetVersion(), Revision: r.GetRevision(), CreatedAtMs: now, UpdatedAtMs: now, ExpiresAtMs: r.GetExpiresAtMs(), Checksum: sum,
	}, nil
}

func (f *fakeCluster) touch(namespace string, q *api.TouchRequest) (*api.PutResponse, *api.Status) {
	old, st := f.find(namespace, q.GetKey())
	if st == nil {
		st = checkTouch(q, old)
	}
	if st != nil {
		return nil, st
	}
	f.clock++
	r := proto.CloneOf(old)
	r.Version, r.Revision, r.ExpiresAtMs = old.GetVersion()+1, f.clock, q.GetExpiresAtMs()
	if q.GetTtlSeconds() != 0 {
		r.ExpiresAtMs = int64(f.clock>>16) + q.GetTtlSeconds()*1000
	}
	f.data[namespace+"\x00"+q.GetKey()] = r
	f.executed[q.GetKey()]++
	return &api.PutResponse{Version: r.GetVersion(), Revision: r.GetRevision(), ExpiresAtMs: r.GetExpiresAtMs(), Checksum: r.GetChecksum()}, nil
}

func checkTouch(q *api.TouchRequest, old *api.Record) *api.Status {
	if old == nil {
		return statusOf(CodeConditionFailed, "condition", "must_exist")
	}
	return checkCondition(q.GetCondition(), old)
}

func (f *fakeCluster) delete(namespace string, q *api.DeleteRequest) (*api.DeleteResponse, *api.Status) {
	old, st := f.find(namespace, q.GetKey())
	if st == nil {
		st = checkCondition(q.GetCondition(), old)
	}
	if st != nil {
		return nil, st
	}
	f.executed[q.GetKey()]++
	if old == nil {
		return &api.DeleteResponse{}, nil
	}
	f.clock++
	delete(f.data, namespace+"\x00"+q.GetKey())
	return &api.DeleteResponse{Existed: true, Revision: f.clock}, nil
}

func (f *fakeCluster) get(namespace, key string, keysOnly bool) (*api.Record, *api.Status) {
	r, st := f.find(namespace, key)
	if st == nil && r == nil {
		st = statusOf(CodeNotFound, "key", key)
	}
	if st != nil {
		return nil, st
	}
	return withoutValue(r, keysOnly), nil
}

func withoutValue(r *api.Record, keysOnly bool) *api.Record {
	r = proto.Clone(r).(*api.Record)
	if keysOnly {
		r.Value = nil
	}
	return r
}

// list pages by the last key; the token is that key.
func (f *fakeCluster) list(q *api.ListRequest) (out *api.ListResponse) {
	defer func() { out.Consistency, out.AgeMs = q.Consistency, q.MaxStalenessMs/2 }()
	var keys []string
	for k := range f.data {
		namespace, key, _ := strings.Cut(k, "\x00")
		if namespace == q.GetNamespace() && f.listed(q, key, f.data[k]) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	if q.GetReverse() {
		sort.Sort(sort.Reverse(sort.StringSlice(keys)))
	}
	out = &api.ListResponse{Revision: f.clock}
	limit := int(q.GetLimit())
	if limit == 0 {
		limit = 1000
	}
	for i, key := range keys {
		if i == limit {
			out.ContinuationToken = keys[i-1]
			break
		}
		if q.GetCountOnly() {
			out.Count++
			continue
		}
		out.Records = append(out.Records, withoutValue(f.data[q.GetNamespace()+"\x00"+key], q.GetKeysOnly()))
	}
	return out
}

func (f *fakeCluster) listed(q *api.ListRequest, key string, r *api.Record) bool {
	for name, value := range q.GetTags() {
		if r.GetTags()[name] != value {
			return false
		}
	}
	last := q.GetContinuationToken()
	after := last == "" || key > last && !q.GetReverse() || key < last && q.GetReverse()
	return after && strings.HasPrefix(key, q.GetPrefix()) && key >= q.GetStart() && (q.GetEnd() == "" || key < q.GetEnd())
}

// execute runs one operation of a pipeline.
func (n *fakeNode) execute(op *api.PipelineOp) *api.PipelineResult {
	f := n.cluster
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = n
	r := &api.PipelineResult{Id: op.GetId()}
	if id := requestIDOf(op); id != "" {
		if old := f.kept[id]; old != nil {
			return &api.PipelineResult{Id: op.GetId(), Status: old.Status, Result: old.Result}
		}
		f.kept[id] = r
	}
	switch op := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		put, st := f.put(op.Put.GetNamespace(), op.Put)
		r.Status, r.Result = st, &api.PipelineResult_Put{Put: put}
	case *api.PipelineOp_Get:
		record, st := f.get(op.Get.GetNamespace(), op.Get.GetKey(), op.Get.GetKeysOnly())
		r.Status = st
		r.Result = &api.PipelineResult_Get{Get: &api.GetResponse{Record: record, ReadRevision: f.clock, Consistency: op.Get.GetConsistency(), AgeMs: op.Get.GetMaxStalenessMs() / 2}}
	case *api.PipelineOp_Delete:
		deleted, st := f.delete(op.Delete.GetNamespace(), op.Delete)
		r.Status, r.Result = st, &api.PipelineResult_Delete{Delete: deleted}
	case *api.PipelineOp_Touch:
		put, st := f.touch(op.Touch.GetNamespace(), op.Touch)
		r.Status, r.Result = st, &api.PipelineResult_Touch{Touch: put}
	case *api.PipelineOp_Transaction:
		r.Result = &api.PipelineResult_Transaction{Transaction: f.transaction(op.Transaction)}
	default:
		f.executeBatch(op, r)
	}
	if r.GetStatus() != nil {
		r.Result = nil
	}
	return r
}

func (f *fakeCluster) executeBatch(op any, r *api.PipelineResult) {
	switch op := op.(type) {
	case *api.PipelineOp_BatchPut:
		out := &api.BatchPutResponse{}
		for _, q := range op.BatchPut.GetItems() {
			put, st := f.put(op.BatchPut.GetNamespace(), q)
			out.Results = append(out.Results, &api.BatchPutResult{Status: st, Put: put})
		}
		r.Result = &api.PipelineResult_BatchPut{BatchPut: out}
	case *api.PipelineOp_BatchGet:
		out := &api.BatchGetResponse{}
		for _, key := range op.BatchGet.GetKeys() {
			record, st := f.get(op.BatchGet.GetNamespace(), key, op.BatchGet.GetKeysOnly())
			out.Results = append(out.Results, &api.BatchGetResult{Status: st, Record: record})
		}
		r.Result = &api.PipelineResult_BatchGet{BatchGet: out}
	case *api.PipelineOp_BatchDelete:
		out := &api.BatchDeleteResponse{}
		for _, q := range op.BatchDelete.GetItems() {
			deleted, st := f.delete(op.BatchDelete.GetNamespace(), q)
			out.Results = append(out.Results, &api.BatchDeleteResult{Status: st, Delete: deleted})
		}
		r.Result = &api.PipelineResult_BatchDelete{BatchDelete: out}
	}
}
