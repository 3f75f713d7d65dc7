package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// dispatch sends each part where it can be served: all local writes with one
// SubmitAll, the reads of each local group with one ReadIndex, the rest to the
// links of their peers. Parts without a destination wait for their backoff.
func (f *frame) dispatch(parts []*part) {
	var writes []*replica.Request
	var reads groupReads
	var txns []*coordination
	for _, p := range parts {
		switch {
		case p.txn != nil:
			txns = append(txns, p.txn)
			continue
		case p.snapshot:
			f.push(func(f *frame) { f.readSnapshot(p, p.st.call.Op.GetTransaction()) })
			continue
		}
		p.attempts++
		switch to := f.r.route(p); {
		case to.local && p.st.kind.write():
			writes = append(writes, p.request())
		case to.local:
			reads.join(f, p)
		case to.node != "":
			f.r.forward(p, to.node)
		default:
			f.retry(p, to.err)
		}
	}
	if len(writes) > 0 {
		f.r.o.Host.SubmitAll(f.ctx, writes)
	}
	reads.start()
	f.r.beginAll(txns)
}

// route is where a part goes: here, to a node, or nowhere yet because of err.
type route struct {
	local bool
	node  keyspace.NodeID
	err   error
}

// route chooses by the attempt: the first goes to the best place known, later
// ones follow a named leader or try the other members, since this node's own
// replica may be the one that is cut off.
func (r *Router) route(p *part) route {
	g := p.group
	leader, local, known := r.o.Host.Leader(g)
	hosted := r.o.Host.Hosts(g)
	write := p.st.kind.write()
	switch {
	case p.st.call.Forwarded:
		if hosted && (local || !write) {
			return route{local: true}
		}
		return route{err: r.elsewhere(g, leader)}
	case write && local:
		return route{local: true}
	case !write && hosted && p.attempts%2 == 1:
		return route{local: true}
	}
	if p.hint != "" {
		leader, known = p.hint, true
		p.hint = ""
	} else if !known {
		leader, known = r.hints.get(g)
	}
	if known && r.usable(leader) && (p.asked != leader || p.attempts%2 == 1) {
		return route{node: leader}
	}
	if hosted && write && p.attempts <= 2 {
		return route{err: errNoLeader(g)} // the local replica learns of it soon
	}
	if node, ok := r.otherMember(g, p.attempts); ok {
		return route{node: node}
	}
	return route{err: errNoLeader(g)}
}

// usable reports whether a forward to node makes sense now.
func (r *Router) usable(node keyspace.NodeID) bool {
	return node != "" && node != r.o.Node && r.link(node).usable()
}

// otherMember returns a member of g that may be asked, taking turns. Who the
// members are may have been read before the group moved: every third attempt,
// and every one when no member may be asked, goes to any node, which names one
// that hosts the group.
func (r *Router) otherMember(g keyspace.GroupID, attempt int) (keyspace.NodeID, bool) {
	m := r.o.Directory.Map()
	if attempt%3 != 0 {
		if id, ok := r.takeTurns(m.hosts(g)); ok {
			return id, true
		}
	}
	return r.takeTurns(slices.Sorted(maps.Keys(m.Nodes)))
}

func (r *Router) takeTurns(ids []keyspace.NodeID) (keyspace.NodeID, bool) {
	turn := int(r.turn.Add(1))
	for i := range ids {
		if id := ids[(turn+i)%len(ids)]; r.usable(id) {
			return id, true
		}
	}
	return "", false
}

// elsewhere refuses what is not served here and names who leads, else a node
// that should host the group.
func (r *Router) elsewhere(g keyspace.GroupID, leader keyspace.NodeID) error {
	if leader == "" && !r.o.Host.Hosts(g) {
		if leader, _ = r.hints.get(g); leader == "" || leader == r.o.Node {
			leader, _ = r.takeTurns(r.o.Directory.Map().hosts(g))
		}
	}
	return errWrongLeader(g, leader)
}

// request makes the write set of a part on this node's replica.
func (p *part) request() *replica.Request {
	st := p.st
	switch st.kind { //nolint:exhaustive // the others follow
	case kindTransaction:
		return p.transaction()
	case kindOrder:
		return p.orderRequest()
	}
	q := newRequest(p.size())
	q.Group, q.Deadline, q.Done = p.group, st.deadline, p.written
	p.remember(q)
	op := st.call.Op
	switch st.kind {
	case kindPut:
		putOp(&q.Ops[0], st.ns, op.GetPut())
	case kindDelete:
		deleteOp(&q.Ops[0], st.ns, op.GetDelete())
	case kindTouch:
		touchOp(&q.Ops[0], st.ns, op.GetTouch())
	case kindBatchPut:
		items := op.GetBatchPut().Items
		for n := range q.Ops {
			putOp(&q.Ops[n], st.ns, items[p.item(n)])
		}
	case kindBatchDelete:
		items := op.GetBatchDelete().Items
		for n := range q.Ops {
			deleteOp(&q.Ops[n], st.ns, items[p.item(n)])
		}
	default:
		panic(fmt.Sprintf("router: kind %d is no write", st.kind))
	}
	return q
}

// newRequest returns a request with room for n operations.
func newRequest(n int) *replica.Request {
	if n > 1 {
		return &replica.Request{Ops: make([]replica.Op, n)}
	}
	one := &struct {
		replica.Request
		op [1]replica.Op
	}{}
	one.Ops = one.op[:n]
	return &one.Request
}

// largePart is the number of items from which an answer is built on the
// frame's goroutine instead of the host's loop.
const largePart = 32

// written takes the outcome of a local write, mostly on the host's loop.
func (p *part) written(q *replica.Request) {
	err := q.Err
	if err == nil {
		err = notDone(q)
	}
	switch {
	case err != nil && len(q.Remembered) > 0 && p.st.reused(q.Remembered):
		p.failReused()
	case err != nil && p.again(err):
		p.st.frame.retry(p, err)
	case err != nil:
		p.fail(err)
	case p.st.kind == kindOrder:
		p.ordered(q)
	case q.Remembered != nil:
		p.st.frame.push(func(f *frame) { f.recall(p, q.Remembered) })
	default:
		p.detached(q)
		p.answerWrite(q)
	}
}

// answerWrite answers a local write that was judged.
func (p *part) answerWrite(q *replica.Request) {
	switch {
	case p.st.kind == kindTransaction:
		p.executed(q)
	case len(q.Ops) >= largePart:
		p.st.frame.push(func(*frame) { p.acknowledge(q) })
	default:
		p.acknowledge(q)
	}
}

// again reports whether a write or an order that ended with err is sent again; a
// named request, and a transaction that only reads, is also when it may have been
// executed.
func (p *part) again(err error) bool {
	switch {
	case p.st.kind == kindOrder:
		return repeatable(p.st.call.Op.GetOrder(), err)
	case !p.st.changes():
		return retryableRead(err) && worthAnother(err, p.attempts)
	}
	return notExecuted(err) || !p.st.id.Zero() && fault.CodeOf(err) == fault.UnknownOutcome
}

// notDone returns why nothing of a request was executed although it may be
// elsewhere or later: a request happens as a whole, so one operation says it of
// all.
func notDone(q *replica.Request) error {
	for i := range q.Ops {
		if err := q.Ops[i].Result.Err; err != nil && notExecuted(err) {
			return err
		}
	}
	return nil
}

// retry dispatches p again: by a newer map when its group does not own its
// slots, at once when the answer named a leader that was not asked yet, after a
// backoff otherwise, not at all for operations of a peer (it retries itself) or
// when the deadline is nearer than the backoff.
//
// This node may be cut off from the others while its callers are not: theirs
// that could ask another node are told soon, or they would wait here for
// nothing until their deadline.
func (f *frame) retry(p *part, err error) {
	p.last = err
	if s := p.st.call.share; s != nil && !notExecuted(err) {
		s.unsure = true
	}
	if fault.CodeOf(err) == fault.UnknownOutcome && p.st.kind != kindOrder && p.st.changes() {
		p.unsure = true
		switch several, failed := f.coordinateAgain(p); {
		case failed != nil:
			p.fail(failed)
			return
		case several:
			f.push(func(f *frame) { f.dispatch([]*part{p}) })
			return
		}
	}
	switch ask, short := shortPause(err); {
	case p.st.call.Forwarded:
		p.fail(err)
		return
	case fault.CodeOf(err) == fault.WrongGroup:
		f.reroute(p)
		return
	case short:
		wait := f.r.pauseFor(ask, p.waits)
		p.waits++
		p.attempts-- // the same way again
		p.asked = ""
		f.later(p, wait)
		return
	}
	p.waits = 0
	if limit := p.patience(); f.r.cutOff(p.group, limit) {
		p.fail(errCutOff(err, p.group, limit, p.st.call.Elsewhere))
		return
	}
	if leader := leaderOf(err); leader != "" && leader != f.r.o.Node {
		f.r.hints.set(p.group, leader)
		if leader != p.asked && p.hint == "" && p.attempts%2 == 1 {
			p.hint = leader
			f.push(func(f *frame) { f.dispatch([]*part{p}) })
			return
		}
	} else if p.asked != "" {
		f.r.hints.drop(p.group, p.asked)
	}
	f.later(p, f.r.backoff(p.attempts))
}

// later dispatches p after a wait, or answers it when its time is over by then.
func (f *frame) later(p *part, wait time.Duration) {
	now := f.r.o.Clock.Mono()
	if now+wait >= p.st.giveUp || f.ctx.Err() != nil || f.r.ctx.Err() != nil {
		p.fail(exhausted(f.ctx, p))
		return
	}
	p.due = now + wait
	f.delay(p)
}

// exhausted is the final answer of a part that was never executed, or of a named
// request whose outcome nobody told.
func exhausted(ctx context.Context, p *part) error {
	code := fault.Unavailable
	if err := ctx.Err(); err != nil {
		code = plainCode(err)
	}
	if p.unsure {
		return fault.Wrap(fault.UnknownOutcome, p.last, "no replica could tell the outcome of the request before its deadline; ask for it by its id", "group", p.group, "attempts", p.attempts)
	}
	if p.st.giveUp < p.st.deadline { // whoever is asked next need not be asked later
		return fault.Wrap(code, p.last, "this node could not have the operation served; another may", "group", p.group, "attempts", p.attempts)
	}
	e := fault.Wrap(code, p.last, "no replica could serve the operation before its deadline", "group", p.group, "attempts", p.attempts)
	return e.WithRetry(DefaultBackoffMax)
}

// backoff returns the pause before the attempt after n: doubling, bounded,
// with half of it random so that waiting callers do not come back together.
func (r *Router) backoff(n int) time.Duration {
	d := DefaultBackoffMax
	if shift := max(n-1, 0); shift < 6 {
		d = min(d, DefaultBackoffFirst<<shift)
	}
	return d/2 + time.Duration(r.o.Rand.Uint64()%uint64(d/2+1))
}

func errNoLeader(g keyspace.GroupID) error {
	return fault.New(fault.Unavailable, "group has no known leader", "group", g)
}

func errWrongLeader(g keyspace.GroupID, leader keyspace.NodeID) error {
	e := fault.New(fault.WrongLeader, "this node does not lead the group", "group", g)
	e.Leader = string(leader)
	return e
}
