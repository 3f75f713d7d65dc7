package router

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// remoteOp is a part on its way over a peer's link. The link's mutex guards it
// while it is queued or in flight; whoever takes it out of the link answers it.
type remoteOp struct {
	part     *part
	id       uint64
	op       *api.PipelineOp
	identity string
	bytes    int64
	write    bool
	// stream is the generation of the stream it was sent on, 0 while queued.
	stream uint64
	// expires is when this attempt is given up, on env.Clock.Mono.
	expires time.Duration
}

// forward sends p to node.
func (r *Router) forward(p *part, node keyspace.NodeID) {
	p.asked = node
	now := r.o.Clock.Mono()
	expires := p.st.deadline
	if !p.st.changes() || p.st.kind == kindOrder && !p.st.call.Op.GetOrder().GetWait() {
		expires = min(expires, now+r.o.ReadAttempt)
	}
	op := p.forwardOp(p.st.deadline - now)
	p.remote = remoteOp{
		part: p, op: op, identity: p.st.call.Identity, write: p.st.changes(),
		bytes: int64(proto.Size(op)), expires: expires,
	}
	if err := r.link(node).enqueue(&p.remote); err != nil {
		if fault.CodeOf(err) == fault.Overloaded {
			p.fail(err)
			return
		}
		p.st.frame.retry(p, err)
	}
}

// forwardOp returns the operation for a peer: the caller's own for a whole
// call, a smaller batch for a part of one. left is what remains of the
// deadline.
func (p *part) forwardOp(left time.Duration) *api.PipelineOp {
	out := &api.PipelineOp{Op: p.st.call.Op.Op, TimeoutMs: max(1, left.Milliseconds())}
	if p.items == nil {
		return out
	}
	switch o := p.st.call.Op.Op.(type) {
	case *api.PipelineOp_BatchPut:
		b := &api.BatchPutRequest{Namespace: o.BatchPut.Namespace, Atomic: o.BatchPut.Atomic}
		for _, i := range p.items {
			b.Items = append(b.Items, o.BatchPut.Items[i])
		}
		out.Op = &api.PipelineOp_BatchPut{BatchPut: b}
	case *api.PipelineOp_BatchGet:
		b := &api.BatchGetRequest{
			Namespace: o.BatchGet.Namespace, Consistency: o.BatchGet.Consistency,
			MaxStalenessMs: o.BatchGet.MaxStalenessMs, KeysOnly: o.BatchGet.KeysOnly, AtRevision: o.BatchGet.AtRevision,
		}
		for _, i := range p.items {
			b.Keys = append(b.Keys, o.BatchGet.Keys[i])
		}
		out.Op = &api.PipelineOp_BatchGet{BatchGet: b}
	case *api.PipelineOp_BatchDelete:
		b := &api.BatchDeleteRequest{Namespace: o.BatchDelete.Namespace, Atomic: o.BatchDelete.Atomic}
		for _, i := range p.items {
			b.Items = append(b.Items, o.BatchDelete.Items[i])
		}
		out.Op = &api.PipelineOp_BatchDelete{BatchDelete: b}
	}
	return out
}

// forwarded takes the outcome of a forward: the peer's result, or the reason
// why there is none.
func (p *part) forwarded(res *api.PipelineResult, err error) {
	f := p.st.frame
	if err == nil {
		err = p.forwardedStatus(res)
	}
	switch {
	case err == nil:
		p.adopt(res)
	case p.st.kind.write() && p.again(err):
		f.retry(p, err)
	case p.st.kind.write():
		p.fail(err)
	default:
		f.readFailed(p, err)
	}
}

// forwardedStatus returns what kept the peer from executing the operation:
// the status of the whole, or one shared by all items of a batch.
func (p *part) forwardedStatus(res *api.PipelineResult) error {
	if err := StatusError(res.GetStatus()); err != nil {
		return err
	}
	// What is remembered of a request may have another form than a call made of it.
	if !p.sameKind(res) && (p.st.kind.batch() || p.st.id.Zero()) {
		return p.badResult("kind", fmt.Sprintf("%T", p.st.call.Op.GetOp()), fmt.Sprintf("%T", res.GetResult()))
	}
	if txn := res.GetTransaction(); txn != nil && p.st.id.Zero() {
		list := p.st.call.Op.GetTransaction().GetThen()
		if !txn.GetSucceeded() {
			list = p.st.call.Op.GetTransaction().GetOtherwise()
		}
		if got := len(txn.GetResults()); got != len(list) {
			return p.badResult("results", len(list), got)
		}
	}
	if set := res.GetOrder().GetParticipants(); len(set) > 0 && (!slices.IsSorted(set) || set[len(set)-1] >= keyspace.SlotCount) {
		return p.badResult("participants", keyspace.SlotCount, set[len(set)-1])
	}
	if !p.st.kind.batch() {
		return nil
	}
	if at := uint64(p.st.at); res.GetBatchGet().GetReadRevision() != at {
		return fault.New(fault.Unsupported, "the node that serves the keys cannot read a batch at a revision", "node", p.asked, "revision", at)
	}
	if got := resultCount(res); got != p.size() {
		return p.badResult("items", p.size(), got)
	}
	first := StatusError(itemStatus(res, 0))
	if first == nil || !p.again(first) {
		return nil
	}
	return first
}

// sameKind reports whether a result is one of the operation that the peer was asked
// for.
func (p *part) sameKind(res *api.PipelineResult) (same bool) {
	switch p.st.kind {
	case kindPut:
		_, same = res.GetResult().(*api.PipelineResult_Put)
	case kindGet:
		_, same = res.GetResult().(*api.PipelineResult_Get)
	case kindDelete:
		_, same = res.GetResult().(*api.PipelineResult_Delete)
	case kindTouch:
		_, same = res.GetResult().(*api.PipelineResult_Touch)
	case kindTransaction:
		_, same = res.GetResult().(*api.PipelineResult_Transaction)
	case kindOrder:
		_, same = res.GetResult().(*api.PipelineResult_Order)
	case kindBatchPut:
		_, same = res.GetResult().(*api.PipelineResult_BatchPut)
	case kindBatchGet:
		_, same = res.GetResult().(*api.PipelineResult_BatchGet)
	case kindBatchDelete:
		_, same = res.GetResult().(*api.PipelineResult_BatchDelete)
	case kindNone:
	}
	return same
}

func (p *part) badResult(what string, want, got any) error {
	code := fault.Internal
	if p.st.kind.write() {
		code = fault.UnknownOutcome
	}
	return fault.New(code, "peer answered another operation", "node", p.asked, "what", what, "expected", want, "actual", got)
}

func resultCount(res *api.PipelineResult) int {
	switch o := res.GetResult().(type) {
	case *api.PipelineResult_BatchPut:
		return len(o.BatchPut.GetResults())
	case *api.PipelineResult_BatchGet:
		return len(o.BatchGet.GetResults())
	case *api.PipelineResult_BatchDelete:
		return len(o.BatchDelete.GetResults())
	}
	return -1
}

func itemStatus(res *api.PipelineResult, i int) *api.Status {
	switch o := res.GetResult().(type) {
	case *api.PipelineResult_BatchPut:
		return o.BatchPut.Results[i].GetStatus()
	case *api.PipelineResult_BatchGet:
		return o.BatchGet.Results[i].GetStatus()
	case *api.PipelineResult_BatchDelete:
		return o.BatchDelete.Results[i].GetStatus()
	}
	return nil
}

// adopt copies the peer's result into the call's.
func (p *part) adopt(res *api.PipelineResult) {
	c := p.st.call
	switch o := res.Result.(type) {
	case *api.PipelineResult_BatchPut:
		to := c.Result.GetBatchPut().GetResults()
		for n, item := range o.BatchPut.Results {
			to[p.item(n)] = item
		}
	case *api.PipelineResult_BatchGet:
		to := c.Result.GetBatchGet().GetResults()
		for n, item := range o.BatchGet.Results {
			if err := p.st.take(len(item.GetRecord().GetValue())); err != nil {
				item.Record, item.Status = nil, ErrorStatus(err)
			}
			if p.st.encoded != nil {
				p.st.encoded[p.item(n)] = encodeResult(item)
				continue
			}
			to[p.item(n)] = item
		}
	case *api.PipelineResult_BatchDelete:
		to := c.Result.GetBatchDelete().GetResults()
		for n, item := range o.BatchDelete.Results {
			to[p.item(n)] = item
		}
	default:
		c.Result.Result = res.Result
	}
	p.finish()
}
