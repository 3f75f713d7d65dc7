package router

import (
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// A transaction whose keys are of one group goes to it in one piece, as a put
// does, and under the rules of writes: what was certainly not executed is sent
// again, an unknown outcome stays one. Its keys may be of several namespaces. Keys
// of several groups, also when they are seen to be so by a newer map only
// (reroute.go), are coordinated from here (coordinate.go).
//
// The leader's replica evaluates which version each get saw and answers with its
// revision; the values are read afterwards, here on the leader's node, at exactly
// those revisions (executed). So no value is copied on the host's loop, and large
// ones are joined as in any read.

// txnSpaces are the namespaces of a transaction, which are few.
type txnSpaces []txnSpace

// txnSpace is one of them.
type txnSpace struct {
	name string
	id   keyspace.NamespaceID
}

// newTxnSpaces has room for one.
func newTxnSpaces() *txnSpaces {
	s := &struct {
		txnSpaces
		first [1]txnSpace
	}{}
	s.txnSpaces = s.first[:0]
	return &s.txnSpaces
}

func (s txnSpaces) find(name string) int {
	return slices.IndexFunc(s, func(one txnSpace) bool { return one.name == name })
}

// spaceName is the namespace of a transaction's item.
func spaceName(q *api.TransactionRequest, item string) string {
	if item == "" {
		item = q.GetNamespace()
	}
	if item == "" {
		return keyspace.DefaultNamespaceName
	}
	return item
}

// eachTxnKey calls visit for the keys of a transaction until it returns false.
func eachTxnKey(q *api.TransactionRequest, visit func(space, key string) bool) {
	for _, c := range q.GetChecks() {
		if !visit(spaceName(q, c.GetNamespace()), c.GetKey()) {
			return
		}
	}
	for _, ops := range [...][]*api.TransactionOp{q.GetThen(), q.GetOtherwise()} {
		for _, op := range ops {
			space, key := txnKey(op)
			if !visit(spaceName(q, space), key) {
				return
			}
		}
	}
}

func txnKey(op *api.TransactionOp) (space, key string) {
	switch o := op.GetOp().(type) {
	case *api.TransactionOp_Put:
		return o.Put.GetNamespace(), o.Put.GetKey()
	case *api.TransactionOp_Delete:
		return o.Delete.GetNamespace(), o.Delete.GetKey()
	case *api.TransactionOp_Touch:
		return o.Touch.GetNamespace(), o.Touch.GetKey()
	case *api.TransactionOp_Get:
		return o.Get.GetNamespace(), o.Get.GetKey()
	case *api.TransactionOp_Check:
		return o.Check.GetNamespace(), o.Check.GetKey()
	}
	return "", ""
}

// planTransaction is plan for transactions.
func (f *frame) planTransaction(m *Map, st *callState) (ready bool, err error) {
	if ready, err = f.resolveSpaces(m, st, st.call.Op.GetTransaction()); err != nil || !ready {
		return false, err
	}
	st.prepareResult()
	if st.call.Routed {
		return true, st.routed(m)
	}
	return true, f.coordinateIfSeveral(m, st, st.call.Op.GetTransaction())
}

// resolveSpaces notes the ids of all namespaces of a transaction's keys.
func (f *frame) resolveSpaces(m *Map, st *callState, q *api.TransactionRequest) (ready bool, err error) {
	st.spaces, ready = newTxnSpaces(), true
	eachTxnKey(q, func(space, _ string) bool {
		ready, err = f.resolveSpace(m, st, space)
		return ready && err == nil
	})
	return ready, err
}

// resolveSpace notes the id of a namespace; found as of resolve.
func (f *frame) resolveSpace(m *Map, st *callState, name string) (found bool, err error) {
	if st.spaces.find(name) >= 0 {
		return true, nil
	}
	identity := st.call.Identity
	if name == keyspace.LeaseNamespaceName && (st.guarded != nil || st.call.Forwarded || st.call.own) {
		identity = SystemIdentity // a node put the records of leases beside what was asked for
	}
	id, found, err := f.r.resolve(m, name, identity, true)
	if found = found && (m.Groups > 0 || id == keyspace.SystemNamespace); err != nil || !found {
		st.nsName = name // what is missing
		return false, err
	}
	*st.spaces = append(*st.spaces, txnSpace{name, id})
	return true, nil
}

// routed makes a transaction one part of the group that a peer named; the group
// judges its keys.
func (st *callState) routed(m *Map) error {
	g := st.call.Group
	for _, s := range *st.spaces {
		if (g == keyspace.MetaGroup) != (s.id == keyspace.SystemNamespace) {
			return fault.New(fault.InvalidArgument, "operation is for a group that its namespace is not in", "group", g, "namespace", s.name)
		}
	}
	st.whole(g, m.Epoch)
	return nil
}

// space is the id of a namespace that was resolved.
func (st *callState) space(name string) keyspace.NamespaceID {
	return (*st.spaces)[st.spaces.find(name)].id
}

// txnGroups are the groups of a transaction's keys in m, each once; other while
// the map knows none.
func (st *callState) txnGroups(q *api.TransactionRequest, m *Map, other keyspace.GroupID) (groups []keyspace.GroupID) {
	var last keyspace.GroupID
	eachTxnKey(q, func(space, key string) bool {
		g := m.groupFor(st.space(space), key, other)
		if len(groups) == 0 || g != last && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
		last = g
		return true
	})
	return groups
}

// coordinateIfSeveral makes the call one part: of its group, or a transaction over
// several.
func (f *frame) coordinateIfSeveral(m *Map, st *callState, q *api.TransactionRequest) error {
	groups := st.txnGroups(q, m, keyspace.MetaGroup)
	st.whole(groups[0], m.Epoch)
	switch {
	case len(groups) == 1:
		return nil
	case readsOnly(q) && !st.call.Forwarded:
		st.only.snapshot = true
		return nil
	}
	return f.coordinate(&st.only, q, groups)
}

// regroupTransaction gives p, which was refused by its group, the one of all its
// keys in m, or makes it a transaction over several.
func (f *frame) regroupTransaction(m *Map, p *part) error {
	q := p.st.asTransaction()
	groups := p.st.txnGroups(q, m, p.group)
	if p.group = groups[0]; len(groups) == 1 {
		return nil
	}
	if readsOnly(q) && !p.st.call.Forwarded {
		p.snapshot = true
		return nil
	}
	return f.coordinate(p, q, groups)
}

// transaction makes the request of a transaction on this node's replica.
func (p *part) transaction() *replica.Request {
	one := &struct {
		replica.Request
		txn replica.TxnOp
	}{}
	q := &one.Request
	q.Group, q.Txn, q.Deadline, q.Done = p.group, &one.txn, p.st.deadline, p.written
	p.st.txnOps(q.Txn, p.st.call.Op.GetTransaction())
	p.remember(q)
	return q
}

// txnOps makes the operations of a transaction.
func (st *callState) txnOps(t *replica.TxnOp, q *api.TransactionRequest) {
	all := make([]replica.Op, len(q.Checks)+len(q.Then)+len(q.Otherwise))
	t.Checks, all = all[:len(q.Checks)], all[len(q.Checks):]
	t.Then, t.Otherwise = all[:len(q.Then)], all[len(q.Then):]
	for i, c := range q.Checks {
		keyOp(&t.Checks[i], st.space(spaceName(q, c.Namespace)), c.Key, c.Condition)
	}
	for i, op := range q.Then {
		st.txnOp(&t.Then[i], q, op)
	}
	for i, op := range q.Otherwise {
		st.txnOp(&t.Otherwise[i], q, op)
	}
}

func (st *callState) txnOp(out *replica.Op, q *api.TransactionRequest, op *api.TransactionOp) {
	space, key := txnKey(op)
	ns := st.space(spaceName(q, space))
	switch o := op.Op.(type) {
	case *api.TransactionOp_Put:
		putOp(out, ns, o.Put)
	case *api.TransactionOp_Delete:
		deleteOp(out, ns, o.Delete)
	case *api.TransactionOp_Touch:
		touchOp(out, ns, o.Touch)
	case *api.TransactionOp_Check:
		keyOp(out, ns, key, o.Check.Condition)
		out.Read = true
	default:
		keyOp(out, ns, key, nil)
		out.Read = true
	}
}

// executed answers a transaction, mostly on the host's loop; what has values to
// read, or is much, on the frame's goroutine.
func (p *part) executed(q *replica.Request) {
	if len(q.Ops) >= largePart || reads(q.Ops, p.st.takenList(q)) {
		p.st.frame.push(func(f *frame) { f.answerTransaction(p, q) })
		return
	}
	p.st.frame.answerTransaction(p, q)
}

// reads reports whether the answer to operations has values to be read.
func reads(ops []replica.Op, list []*api.TransactionOp) bool {
	for i := range min(len(ops), len(list)) {
		if resultKindOf(&ops[i], list[i]) == resultGet {
			return true
		}
	}
	return false
}

func (f *frame) answerTransaction(p *part, q *replica.Request) {
	list := p.st.takenList(q)
	if p.st.call.Encoded && !reads(q.Ops, list) && p.st.answerEncoded(q) {
		p.finish()
		return
	}
	slots := slotsFor(q.Ops, list)
	out := newTxnAnswer(len(q.Ops))
	out.response.Succeeded, out.response.Revision = q.Txn.Succeeded, revisionOf(q)
	for i := range q.Ops {
		res, err := f.opResult(p, &slots, &q.Ops[i], list[i])
		if out.response.Revision == 0 && fault.CodeOf(err) == fault.OutOfRange { // nothing was written
			p.st.bytes.Store(0)
			f.retry(p, fault.Wrap(fault.Unavailable, err, "the transaction has to be executed again"))
			return
		}
		out.response.Results[i] = res
	}
	p.st.call.Result.Result = &out.result
	p.finish()
}

// opResult is what an operation of a transaction is answered with; err is that of
// a read.
func (f *frame) opResult(p *part, slots *txnSlots, o *replica.Op, op *api.TransactionOp) (_ *api.TransactionResult, err error) {
	switch resultKindOf(o, op) {
	case resultPut:
		return fillPutSlot(take(&slots.puts), o), nil
	case resultDelete:
		return fillDeleteSlot(take(&slots.deletes), o), nil
	case resultGet:
		slot := take(&slots.gets)
		err = f.fillRead(p, slot, o, op.GetGet().GetKeysOnly())
		slot.Status = ErrorStatus(err)
		return &slot.TransactionResult, err
	default: // resultStatus
		slot := take(&slots.statuses)
		if slot.Status = ErrorStatus(o.Result.Err); o.Result.Err == nil && op.GetCheck() == nil {
			err = errNoKey(o.Key)
			slot.Status = ErrorStatus(err)
		}
		return slot, err
	}
}

// revisionOf is that of a transaction's writes, 0 when it wrote nothing.
func revisionOf(q *replica.Request) (rev uint64) {
	for i := range q.Ops {
		if o := &q.Ops[i]; !o.Read && o.Result.Err == nil {
			rev = max(rev, uint64(o.Result.Revision))
		}
	}
	return rev
}

// fillRead reads the version that a get saw; out_of_range when this node does not
// have it any more.
func (f *frame) fillRead(p *part, slot *txnGet, o *replica.Op, keysOnly bool) error {
	ctx, cancel := f.within(p.st.deadline)
	defer cancel()
	at := host.ReadPoint{Group: p.group, Rev: o.Result.Revision, Clock: o.Result.Revision, Fixed: true}
	rec, err := f.r.o.Host.Get(ctx, at, o.Namespace, o.Key, keysOnly)
	switch code := fault.CodeOf(err); {
	case err == nil && rec.Revision == o.Result.Revision:
	case err == nil, code == fault.NotFound, retryableRead(err) && code != fault.Corruption:
		return fault.Wrap(fault.OutOfRange, err, "the version that the transaction read cannot be read here any more",
			"key", o.Key, "revision", uint64(o.Result.Revision))
	default:
		return err
	}
	if err := p.st.take(len(rec.Value)); err != nil {
		return err
	}
	fillRecord(&slot.record, o.Key, rec, keysOnly)
	slot.get.Get = &slot.record
	slot.Result = &slot.get
	return nil
}
