package router

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// A write with a fence or a lease (docs/locks.md) is executed as a transaction of
//
//   - a check that the fence holds,
//   - a check that each lease exists, which it does until its deadline has passed
//     in the order of the log,
//   - the write itself, whose records keep the lease, and
//   - a record beside the lease for each key that is attached, so that whoever ends
//     the lease finds it (internal/lease).
//
// So a key is never attached to a lease that has ended, and never missed by its
// end. The node that is asked first makes the transaction; others see only that.
//
// A key that is written without its lease, or with another one, is no longer
// attached, although the old lease has its record. Options.Detached hears of it,
// and has the record removed.

// leaseEnds are the reasons of deletions by the end of a lease.
var leaseEnds = map[string]replica.LeaseEnd{
	ReasonLeaseExpired: replica.LeaseExpired,
	ReasonLeaseRevoked: replica.LeaseRevoked,
}

// Reasons of api.DeleteRequest.
const (
	ReasonLeaseExpired = "lease_expired"
	ReasonLeaseRevoked = "lease_revoked"
)

// guarded is a write that is executed as a transaction.
type guarded struct {
	outer *Call
	fence *api.Fence
	// leases are those that the lists begin with checks of, behind the fence's.
	then, otherwise []string
}

// asked is the call whose caller is answered.
func (st *callState) asked() *Call {
	if st.guarded == nil {
		return st.call
	}
	return st.guarded.answer(st.call)
}

// guard makes a transaction of a write that has a fence or leases, on the node that
// is asked first.
func (st *callState) guard() error {
	c := st.call
	if err := mayGiveReasons(c); err != nil || c.Forwarded || !needsGuard(c.Op) {
		return err
	}
	if err := mayNameLeases(c); err != nil {
		return err
	}
	g := &guarded{outer: c}
	q := g.transaction(c.Op)
	if err := validateTransaction(q); err != nil {
		return err
	}
	st.guarded, st.kind = g, kindTransaction
	st.call = &Call{
		Op:       &api.PipelineOp{Id: c.Op.Id, TimeoutMs: c.Op.TimeoutMs, Op: &api.PipelineOp_Transaction{Transaction: q}},
		Identity: c.Identity, Elsewhere: c.Elsewhere,
	}
	return nil
}

// mayGiveReasons refuses reasons of deletions that are not the cluster's.
func mayGiveReasons(c *Call) error {
	if c.Identity == SystemIdentity {
		return nil
	}
	given := false
	switch o := c.Op.GetOp().(type) {
	case *api.PipelineOp_Delete:
		given = o.Delete.Reason != ""
	case *api.PipelineOp_BatchDelete:
		given = slices.ContainsFunc(o.BatchDelete.Items, func(q *api.DeleteRequest) bool { return q.Reason != "" })
	case *api.PipelineOp_Transaction:
		has := func(op *api.TransactionOp) bool { return op.GetDelete().GetReason() != "" }
		given = slices.ContainsFunc(o.Transaction.Then, has) || slices.ContainsFunc(o.Transaction.Otherwise, has)
	}
	if given {
		return fault.New(fault.PermissionDenied, "the reason of a deletion is the cluster's to give")
	}
	return nil
}

// mayNameLeases refuses the namespace of leases to all but the cluster: what is
// added to a transaction may name it.
func mayNameLeases(c *Call) error {
	if c.Identity == SystemIdentity {
		return nil
	}
	named := namespaceOf(c.Op) == keyspace.LeaseNamespaceName || fenceOf(c.Op).GetNamespace() == keyspace.LeaseNamespaceName
	eachTxnKey(c.Op.GetTransaction(), func(space, _ string) bool {
		named = named || space == keyspace.LeaseNamespaceName
		return !named
	})
	if named {
		return errReservedForCluster(keyspace.LeaseNamespaceName)
	}
	return nil
}

// fenceOf is the fence of a write, nil for none.
func fenceOf(op *api.PipelineOp) *api.Fence {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return o.Put.GetFence()
	case *api.PipelineOp_Delete:
		return o.Delete.GetFence()
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.GetFence()
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.GetFence()
	case *api.PipelineOp_Transaction:
		return o.Transaction.GetFence()
	}
	return nil
}

// needsGuard reports whether an operation has a fence or leases.
func needsGuard(op *api.PipelineOp) bool {
	leased := func(op *api.TransactionOp) bool { return op.GetPut().GetLease() != "" }
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return o.Put.Fence != nil || o.Put.Lease != ""
	case *api.PipelineOp_Delete:
		return o.Delete.Fence != nil
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.Fence != nil || slices.ContainsFunc(o.BatchPut.Items, func(i *api.PutRequest) bool { return i.Lease != "" })
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.Fence != nil
	case *api.PipelineOp_Transaction:
		q := o.Transaction
		return q.Fence != nil || slices.ContainsFunc(q.Then, leased) || slices.ContainsFunc(q.Otherwise, leased)
	}
	return false
}

// transaction is what an operation that needs it is executed as, under its request
// id.
func (g *guarded) transaction(op *api.PipelineOp) *api.TransactionRequest {
	g.fence = fenceOf(op)
	if q := op.GetTransaction(); q != nil {
		out := shallow(q, &api.TransactionRequest{})
		out.Fence = nil
		out.Then, g.then = g.list(q, q.Then)
		out.Otherwise, g.otherwise = g.list(q, q.Otherwise)
		return out
	}
	q := batchTransaction(op)
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		q = &api.TransactionRequest{Namespace: o.Put.Namespace, Then: []*api.TransactionOp{{Op: &api.TransactionOp_Put{Put: plainPut(o.Put)}}}}
	case *api.PipelineOp_Delete:
		d := o.Delete
		plain := &api.DeleteRequest{Namespace: d.Namespace, Key: d.Key, Condition: d.Condition, Reason: d.Reason}
		q = &api.TransactionRequest{Namespace: d.Namespace, Then: []*api.TransactionOp{{Op: &api.TransactionOp_Delete{Delete: plain}}}}
	}
	q.RequestId = requestID(op)
	q.Then, g.then = g.list(q, q.Then)
	return q
}

// plainPut is a put without what stands beside it in a transaction.
func plainPut(q *api.PutRequest) *api.PutRequest {
	if q.Fence == nil && q.RequestId == "" {
		return q
	}
	out := shallow(q, &api.PutRequest{})
	out.Fence, out.RequestId = nil, ""
	return out
}

// shallow gives dst the fields of src, which share their memory.
func shallow[T proto.Message](src, dst T) T {
	to := dst.ProtoReflect()
	src.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(f, v)
		return true
	})
	return dst
}

// list puts the checks before the operations of a list of q and what is attached
// behind them, and returns the leases that are checked.
func (g *guarded) list(q *api.TransactionRequest, ops []*api.TransactionOp) (out []*api.TransactionOp, leases []string) {
	var attached []*api.TransactionOp
	for _, op := range ops {
		put := op.GetPut()
		if put.GetLease() == "" {
			continue
		}
		if !slices.Contains(leases, put.Lease) {
			leases = append(leases, put.Lease)
		}
		attached = append(attached, attach(spaceName(q, put.Namespace), put))
	}
	out = make([]*api.TransactionOp, 0, 1+len(leases)+len(ops)+len(attached))
	if g.fence != nil {
		out = append(out, check(g.fence.Namespace, g.fence.Key, &api.Condition{CreatedMatch: &g.fence.Revision}))
	}
	for _, id := range leases {
		out = append(out, check(keyspace.LeaseNamespaceName, keyspace.LeaseKey(id), &api.Condition{MustExist: true}))
	}
	return append(append(out, ops...), attached...), leases
}

func check(namespace, key string, c *api.Condition) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Namespace: namespace, Key: key, Condition: c}}}
}

// attach is the record of a key that put attaches. It does not expire with the key,
// which may be given more time; whoever deletes what has expired says so (Detached).
func attach(space string, put *api.PutRequest) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{
		Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseAttachedKey(put.Lease, space, put.Key),
		Value: format.EncodeLease(format.AttachedRecord{Namespace: space, Key: put.Key}),
	}}}
}

// answer gives the call that was made its answer from that of the transaction.
func (g *guarded) answer(inner *Call) *Call {
	c := g.outer
	if inner.Err != nil {
		c.fail(inner.Err)
		return c
	}
	txn := inner.Result.GetTransaction()
	leases, n := g.then, 0
	if !txn.Succeeded {
		leases = g.otherwise
	}
	if g.fence != nil {
		if s := txn.Results[0].Status; s.GetCode() == string(fault.ConditionFailed) {
			c.fail(fenceFailed(g.fence, s))
			return c
		}
		n = 1
	}
	for i, id := range leases {
		if txn.Results[n+i].Status.GetCode() == string(fault.ConditionFailed) {
			c.fail(NoLease(id))
			return c
		}
	}
	g.fill(txn, txn.Results[n+len(leases):])
	return c
}

// fill answers from the results of what was asked for, and what is behind them.
func (g *guarded) fill(txn *api.TransactionResponse, results []*api.TransactionResult) {
	c := g.outer
	if c.Result == nil {
		c.Result = &api.PipelineResult{}
	}
	c.Result.Id, c.Result.Status, c.Err = c.Op.GetId(), nil, nil
	switch o := c.Op.GetOp().(type) {
	case *api.PipelineOp_Put:
		if err := StatusError(results[0].Status); err != nil {
			c.fail(err)
			return
		}
		c.Result.Result = &api.PipelineResult_Put{Put: results[0].GetPut()}
	case *api.PipelineOp_Delete:
		if err := StatusError(results[0].Status); err != nil {
			c.fail(err)
			return
		}
		c.Result.Result = &api.PipelineResult_Delete{Delete: results[0].GetDelete()}
	case *api.PipelineOp_BatchPut:
		out := make([]*api.BatchPutResult, len(o.BatchPut.Items))
		for i := range out {
			out[i] = &api.BatchPutResult{Status: results[i].Status, Put: results[i].GetPut()}
		}
		c.Result.Result = &api.PipelineResult_BatchPut{BatchPut: &api.BatchPutResponse{Results: out}}
	case *api.PipelineOp_BatchDelete:
		out := make([]*api.BatchDeleteResult, len(o.BatchDelete.Items))
		for i := range out {
			out[i] = &api.BatchDeleteResult{Status: results[i].Status, Delete: results[i].GetDelete()}
		}
		c.Result.Result = &api.PipelineResult_BatchDelete{BatchDelete: &api.BatchDeleteResponse{Results: out}}
	case *api.PipelineOp_Transaction:
		list := o.Transaction.Then
		if !txn.Succeeded {
			list = o.Transaction.Otherwise
		}
		c.Result.Result = &api.PipelineResult_Transaction{Transaction: &api.TransactionResponse{
			Succeeded: txn.Succeeded, Revision: txn.Revision, Results: results[:len(list)],
		}}
	}
}

func fenceFailed(f *api.Fence, s *api.Status) error {
	return fault.New(fault.ConditionFailed, "the fence does not hold: the lock is not held any more",
		"condition", "fence", "fence_namespace", f.Namespace, "fence_key", f.Key, "want", f.Revision, "actual", s.Details["actual"])
}

// NoLease says that a lease never was, or has ended.
func NoLease(id string) *fault.Error {
	return fault.New(fault.LeaseNotFound, "lease does not exist, or has ended", "lease", id)
}

func validateFence(f *api.Fence) error {
	switch {
	case f == nil:
		return nil
	case f.Revision == 0:
		return fault.New(fault.InvalidArgument, "fence has no revision", "fence_key", f.Key)
	}
	if err := keyspace.ValidateKey(f.Key); err != nil {
		e := asFault(err)
		return fault.New(e.Code, "fence: "+e.Message, "fence_key", f.Key)
	}
	return nil
}

func errFenceOfItem(i int) error {
	return fault.New(fault.InvalidArgument, "the fence of a batch or transaction stands beside its items", "item", i)
}

// appendDetached adds what the writes of a prepared list would take from leases.
func appendDetached(dst []*api.TxnDetached, ops []replica.Op, otherwise bool) []*api.TxnDetached {
	for i := range ops {
		if o := &ops[i]; o.Result.Detached != "" && o.Result.Err == nil {
			dst = append(dst, &api.TxnDetached{Otherwise: otherwise, Item: uint32(i), Lease: o.Result.Detached})
		}
	}
	return dst
}

// detached tells of keys that a committed transaction took from their leases.
func (t *coordination) detached(branch twophase.Branch) {
	hear := t.r.o.Detached
	if hear == nil || branch == twophase.Nothing {
		return
	}
	for _, s := range t.shares {
		list := s.request.GetThen()
		if branch == twophase.Otherwise {
			list = s.request.GetOtherwise()
		}
		for _, d := range s.results.GetDetached() {
			if d.GetOtherwise() == (branch == twophase.Otherwise) && int(d.GetItem()) < len(list) {
				space, key := txnKey(list[d.GetItem()])
				hear(spaceName(t.q, space), key, d.GetLease())
			}
		}
	}
}

// detached tells of keys that a local write took from their leases.
func (p *part) detached(q *replica.Request) {
	for i := range q.Ops {
		o := &q.Ops[i]
		if o.Result.Detached == "" || o.Result.Err != nil || o.Read {
			continue
		}
		if hear := p.st.frame.r.o.Detached; hear != nil {
			hear(p.st.spaceOf(o.Namespace), o.Key, o.Result.Detached)
		}
	}
}

// spaceOf is the name of one of the call's namespaces.
func (st *callState) spaceOf(id keyspace.NamespaceID) string {
	name := st.nsName
	if st.spaces != nil {
		for _, s := range *st.spaces {
			if s.id == id {
				name = s.name
			}
		}
	}
	if name == "" {
		return keyspace.DefaultNamespaceName
	}
	return name
}
