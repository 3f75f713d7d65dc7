package router

import (
	"context"
	"slices"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Execute runs a frame of operations. It returns when all have been handed
// over, not when they are answered; done is called exactly once for each, in
// any order, on any goroutine, perhaps before Execute returns, and must not
// block. ctx ends reads early; writes that were handed over run on.
func (r *Router) Execute(ctx context.Context, calls []*Call, done func(*Call)) {
	f := r.newFrame(ctx, calls, done)
	if f == nil {
		return
	}
	f.async = true
	f.begin(calls)
	f.release()
}

// Do runs a frame of operations on the caller's goroutine and returns when all
// are answered; each Call holds its Result and Err. It is the cheapest way for
// a caller that has to wait anyway.
func (r *Router) Do(ctx context.Context, calls ...*Call) {
	f := r.newFrame(ctx, calls, func(*Call) {})
	if f == nil {
		return
	}
	f.begin(calls)
	f.release()
	f.drive()
}

// newFrame admits the calls, or answers them all and returns nil.
func (r *Router) newFrame(ctx context.Context, calls []*Call, done func(*Call)) *frame {
	refuse := func(err error) *frame {
		for _, c := range calls {
			c.fail(err)
			done(c)
		}
		return nil
	}
	n := int64(len(calls))
	if n == 0 {
		return nil
	}
	// Orders of this node are bounded by the transactions that they are of.
	if now := r.inflight.Add(n); now > int64(r.o.MaxInflight) && !calls[0].own {
		r.inflight.Add(-n)
		return refuse(fault.New(fault.Overloaded, "node has too many operations in flight",
			"limit", r.o.MaxInflight, "actual", now).WithRetry(100 * time.Millisecond))
	}
	if !r.hold() {
		r.inflight.Add(-n)
		return refuse(errClosed())
	}
	f := allocFrame(len(calls))
	f.r, f.ctx, f.done, f.wake, f.own = r, ctx, done, make(chan struct{}, 1), calls[0].own
	// One more than the calls: begin holds the frame open.
	f.open.Store(int32(n) + 1)
	return f
}

// solo is a frame of one call in one piece: unary calls are many.
type solo struct {
	frame
	state [1]callState
}

// allocFrame returns a frame with room for n calls.
func allocFrame(n int) *frame {
	if n > 1 {
		return &frame{states: make([]callState, n)}
	}
	s := &solo{}
	s.states = s.state[:]
	return &s.frame
}

// begin validates and plans every call and dispatches all parts at once.
func (f *frame) begin(calls []*Call) {
	now := f.r.o.Clock.Mono()
	var few [4]*part
	parts := few[:0]
	if len(calls) > len(few) {
		parts = make([]*part, 0, len(calls))
	}
	for i, c := range calls {
		st := &f.states[i]
		st.call, st.frame = c, f
		st.kind = kindOf(c.Op)
		if err := f.check(st); err != nil {
			f.refuse(st, err)
			continue
		}
		st.resolveMoment(f.r)
		if err := st.guard(); err != nil {
			f.refuse(st, err)
			continue
		}
		st.deadline = now + f.r.timeout(f.ctx, c.Op.TimeoutMs)
		st.giveUp = st.deadline
		if c.Elsewhere {
			st.giveUp = min(st.giveUp, now+GiveBackAfter)
		}
		st.nsName = namespaceOf(st.call.Op)
		if err := f.name(st); err != nil {
			f.refuse(st, err)
			continue
		}
		ready, err := f.plan(st)
		if err != nil {
			f.refuse(st, err)
			continue
		}
		if !ready {
			f.unresolved(st)
			continue
		}
		parts = append(parts, st.parts...)
	}
	f.dispatch(parts)
}

// check refuses what needs no state to be refused.
func (f *frame) check(st *callState) error {
	if st.kind == kindOrder {
		if err := st.call.refuseOrder(); err != nil || st.call.own {
			return err
		}
	}
	return validate(st.call.Op)
}

// refuse answers a call that has no parts.
func (f *frame) refuse(st *callState, err error) {
	st.call.fail(err)
	f.answer(st)
}

// timeout returns how long an operation may take: what the operation says,
// within the context's deadline, the default without either, at most
// MaxTimeout.
func (r *Router) timeout(ctx context.Context, opMillis int64) time.Duration {
	limit := MaxTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	} else if opMillis <= 0 {
		return DefaultTimeout
	}
	if opMillis > 0 && opMillis < int64(limit/time.Millisecond) {
		return time.Duration(opMillis) * time.Millisecond
	}
	return limit
}

// plan resolves the namespace and splits the call by group. ready false means
// that the directory must be read again first.
func (f *frame) plan(st *callState) (ready bool, err error) {
	m := f.r.o.Directory.Map()
	switch st.kind { //nolint:exhaustive // the others follow
	case kindTransaction:
		return f.planTransaction(m, st)
	case kindOrder:
		return f.planOrder(m, st)
	}
	ns, found, err := f.r.resolve(m, st.nsName, st.call.Identity, st.kind.write())
	if err != nil || !found {
		return false, err
	}
	st.ns = ns
	if ns != keyspace.SystemNamespace && m.Groups == 0 {
		return false, nil
	}
	st.prepareResult()
	switch {
	case st.call.Routed && itemCount(st.call.Op) > 0:
		if g := st.call.Group; (g == keyspace.MetaGroup) != (ns == keyspace.SystemNamespace) {
			return false, fault.New(fault.InvalidArgument, "operation is for a group that its namespace is not in", "group", g, "namespace", st.nsName)
		}
		st.whole(st.call.Group, m.Epoch)
	case !st.kind.batch():
		g, _ := m.GroupOfKey(ns, keyOf(st.call.Op, 0))
		st.whole(g, m.Epoch)
	case indivisible(st.call.Op):
		return true, f.planAtomic(m, st)
	default:
		st.split(m)
	}
	return true, nil
}

// whole makes the call one part.
func (st *callState) whole(g keyspace.GroupID, epoch uint64) {
	st.only = part{st: st, group: g, epoch: epoch}
	st.self[0] = &st.only
	st.parts = st.self[:1]
	st.open.Store(1)
}

// fewSplit is the number of a batch's items up to which splitting it needs no
// memory for their groups.
const fewSplit = 64

// split makes one part for each group of a batch.
func (st *callState) split(m *Map) {
	op := st.call.Op
	n := itemCount(op)
	if n == 0 {
		st.frame.answer(st)
		return
	}
	var few [fewSplit]keyspace.GroupID
	groups, one := few[:0], true
	if n > len(few) {
		groups = make([]keyspace.GroupID, 0, n)
	}
	for i := range n {
		g, _ := m.GroupOfKey(st.ns, keyOf(op, i))
		groups = append(groups, g)
		one = one && g == groups[0]
	}
	if one { // as the batches are that clients split
		st.whole(groups[0], m.Epoch)
		st.only.count = n
		return
	}
	var fewOf [fewSplit]int
	of := fewOf[:0]
	if n > len(fewOf) {
		of = make([]int, 0, n)
	}
	of, parts := st.group(m, groups, of)
	items := make([]int, n)
	for i := range parts {
		size := parts[i].count
		parts[i].items, items = items[:0:size], items[size:]
	}
	for i, p := range of {
		parts[p].items = append(parts[p].items, i)
	}
	st.open.Store(int32(len(parts)))
}

// scanParts is the number of parts up to which looking at each is cheaper than
// a map.
const scanParts = 32

// group makes a part of each group that items of a batch are of: the part of each
// item, added to of, and the parts with how many items each has.
func (st *callState) group(m *Map, groups []keyspace.GroupID, of []int) (_ []int, parts []part) {
	parts = make([]part, 0, max(2, min(len(groups), m.Groups)))
	var byGroup map[keyspace.GroupID]int
	for _, g := range groups {
		p := -1
		if byGroup != nil {
			if known, ok := byGroup[g]; ok {
				p = known
			}
		} else {
			p = slices.IndexFunc(parts, func(p part) bool { return p.group == g })
		}
		if p < 0 {
			p = len(parts)
			parts = append(parts, part{st: st, group: g, epoch: m.Epoch})
			switch {
			case byGroup != nil:
				byGroup[g] = p
			case len(parts) > scanParts:
				byGroup = make(map[keyspace.GroupID]int, len(groups))
				for i := range parts {
					byGroup[parts[i].group] = i
				}
			}
		}
		parts[p].count++
		of = append(of, p)
	}
	st.parts = st.self[:0]
	for i := range parts {
		st.parts = append(st.parts, &parts[i])
	}
	return of, parts
}

// indivisible operations happen whole or not at all.
func indivisible(op *api.PipelineOp) bool {
	return op.GetTransaction() != nil || op.GetBatchPut().GetAtomic() || op.GetBatchDelete().GetAtomic()
}

// resolve returns the id of a namespace. found false means that m does not
// know the name, or that it is being deleted, or that m is too old to be asked.
func (r *Router) resolve(m *Map, name, identity string, write bool) (id keyspace.NamespaceID, found bool, err error) {
	switch name {
	case "", keyspace.DefaultNamespaceName:
		return keyspace.DefaultNamespace, true, nil
	case keyspace.SystemNamespaceName:
		if write && identity != SystemIdentity {
			return 0, false, errReservedForCluster(name)
		}
		return keyspace.SystemNamespace, true, nil
	case keyspace.LeaseNamespaceName:
		if identity != SystemIdentity {
			return 0, false, errReservedForCluster(name)
		}
		return keyspace.LeaseNamespace, true, nil
	}
	if m.ValidUntil < r.o.Clock.Mono() {
		return 0, false, nil
	}
	ns, ok := m.Namespaces[name]
	return ns.ID, ok && (!ns.Deleting || identity == SystemIdentity), nil
}

func errReservedForCluster(name string) error {
	return fault.New(fault.PermissionDenied, "namespace is reserved for the cluster", "namespace", name)
}

// missing is the answer when a map that was just read does not resolve a name.
func (r *Router) missing(name string) error {
	m := r.o.Directory.Map()
	switch ns, ok := m.Namespaces[name]; {
	case m.Groups == 0 || m.ValidUntil < r.o.Clock.Mono():
		return fault.New(fault.Unavailable, "the cluster's layout is not known yet").WithRetry(time.Second)
	case ok && ns.Deleting:
		return fault.New(fault.NamespaceDeleting, "namespace is being deleted", "namespace", name)
	}
	return fault.New(fault.NamespaceNotFound, "namespace does not exist", "namespace", name)
}
