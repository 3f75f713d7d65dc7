package host

import (
	"bytes"
	"context"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// Submit evaluates a request on the leader of its group and replicates what
// comes out; see replica.Request for how it ends. The keys it needs are
// fetched here, on the caller's goroutine, so that a cold key never blocks the
// loop.
func (h *Host) Submit(ctx context.Context, r *replica.Request) {
	h.SubmitAll(ctx, []*replica.Request{r})
}

// SubmitAll submits independent requests together.
func (h *Host) SubmitAll(ctx context.Context, requests []*replica.Request) {
	ready := make([]*replica.Request, 0, len(requests))
	warmed := 0 // how many of the requests are, or were
	for i, r := range requests {
		g := h.lookup(r.Group)
		if err := h.admissible(g, r.Group); err != nil {
			r.Fail(err)
			continue
		}
		if i >= warmed {
			warmed = i + h.warm(g, requests[i:])
		}
		if err := h.prefetch(ctx, g, r, i < warmed); err != nil {
			r.Fail(err)
			continue
		}
		ready = append(ready, r)
	}
	if len(ready) == 0 || h.inbox.put(func(m *mail) { m.requests = append(m.requests, ready...) }) {
		return
	}
	for _, r := range ready {
		r.Fail(errStopped())
	}
}

// admissible refuses early what the loop would refuse.
func (h *Host) admissible(g *group, id keyspace.GroupID) error {
	if err := h.Err(); err != nil {
		return errFailed(err)
	}
	if h.watched.blocked.Load() {
		return errUnfit(id)
	}
	if g == nil {
		return errNotHosted(id)
	}
	p := g.published.Load()
	if p == nil || !p.leading {
		return wrongLeader(id, p)
	}
	return nil
}

func wrongLeader(id keyspace.GroupID, p *published) error {
	e := fault.New(fault.WrongLeader, "this node does not lead the group", "group", id)
	if p != nil {
		e.Leader = string(p.leaderNode)
	}
	return e
}

// prefetch reads the newest stored header of every key, of a transaction those
// of both its lists, and compares values where a condition asks for it; and what is
// recorded of the transaction. warm says that the processor's caches have been seen to.
func (h *Host) prefetch(ctx context.Context, g *group, r *replica.Request, warm bool) error {
	if len(r.Ops) == 0 && r.Txn == nil && r.Order == nil && r.Forget == nil && r.Sweep == nil && (r.Slots == nil || len(r.Slots.Keys) == 0) {
		return nil
	}
	p, err := g.acquire(h)
	if err != nil {
		return err
	}
	defer p.instance.release(h)
	view := h.opt.Store.View()
	defer view.Close()
	for _, ops := range r.Sets() {
		if err := h.prefetchOps(ctx, view, p, ops, warm); err != nil {
			return err
		}
	}
	for op := range r.Records {
		if err := prefetchRecord(view, p, op); err != nil {
			return err
		}
	}
	if r.Slots != nil {
		keys := r.Slots.Keys
		return prefetchHeaders(ctx, view, p, len(keys), func(i int) ([]byte, fetchedKey) { return keys[i].Key, &keys[i] })
	}
	if r.Sweep != nil {
		keys := r.Sweep.Keys
		return prefetchHeaders(ctx, view, p, len(keys), func(i int) ([]byte, fetchedKey) { return keys[i].Key, &keys[i] })
	}
	return nil
}

// fetched is what a view, taken after p, finds of a key, but for what that is.
func fetched(view *mvcc.View, p *published) replica.Fetched {
	return replica.Fetched{Delta: view.Active(), Instance: p.instance.id, Progress: p.progress, Valid: true}
}

// prefetchRecord reads the newest stored record of a transaction's participant,
// whole.
func prefetchRecord(view *mvcc.View, p *published, op *replica.Op) error {
	f := fetched(view, p)
	value, rev, ok, err := view.Get(p.instance.id, op.DiskKey(), keyspace.MaxRevision)
	if err != nil {
		return err
	}
	if ok {
		rec, err := format.DecodeRecord(value, rev)
		if err == nil {
			_, err = format.DecodeTxnRecord(rec.Value)
		}
		if err != nil {
			return err
		}
		f.Header, f.Record = rec.Header, bytes.Clone(value)
	}
	op.SetFetched(f)
	return nil
}

// fetchedKey takes what a prefetch found.
type fetchedKey interface{ SetFetched(replica.Fetched) }

func (h *Host) prefetchOps(ctx context.Context, view *mvcc.View, p *published, ops []replica.Op, warm bool) error {
	var keys [mvcc.PrefetchKeys][]byte
	if len(ops) > 1 {
		replica.BuildDiskKeys(ops)
	}
	for i := range ops {
		if some := ops[i:]; !warm && i%len(keys) == 0 && len(some) > 1 {
			some = some[:min(len(some), len(keys))]
			for n := range some {
				keys[n] = some[n].DiskKey()
			}
			view.PrefetchHeaders(p.instance.id, keys[:len(some)])
		}
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.DeadlineExceeded, err, "the request ended before it was executed")
		}
		if err := h.prefetchOp(view, p, &ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// prefetchHeaders reads the newest stored headers of keys.
func prefetchHeaders(ctx context.Context, view *mvcc.View, p *published, n int, at func(int) ([]byte, fetchedKey)) error {
	for i := range n {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.DeadlineExceeded, err, "the request ended before it was executed")
		}
		key, k := at(i)
		f := fetched(view, p)
		value, rev, ok, err := view.Get(p.instance.id, key, keyspace.MaxRevision)
		if err != nil {
			return err
		}
		if ok {
			if f.Header, err = format.DecodeHeader(value, rev); err != nil {
				return err
			}
		}
		k.SetFetched(f)
	}
	return nil
}

func (h *Host) prefetchOp(view *mvcc.View, p *published, op *replica.Op) error {
	key := op.DiskKey()
	f := fetched(view, p)
	value, rev, ok, err := view.Get(p.instance.id, key, keyspace.MaxRevision)
	if err != nil {
		return err
	}
	if ok {
		if f.Header, err = format.DecodeHeader(value, rev); err != nil {
			return err
		}
		if op.NeedsRecord() {
			if _, err = format.DecodeRecord(value, rev); err != nil {
				return err
			}
			f.Record = slices.Clone(value)
		}
		if op.Condition.HasValueEquals {
			if f.Equal, err = h.sameValue(view, p.instance.id, value, &f.Header, op.Condition.ValueEquals); err != nil {
				return err
			}
		}
	}
	op.SetFetched(f)
	return nil
}

// sameValue compares a stored value with want.
func (h *Host) sameValue(view *mvcc.View, inst keyspace.InstanceID, value []byte, hd *format.Header, want []byte) (bool, error) {
	if hd.Size != uint64(len(want)) {
		return false, nil
	}
	rec, err := format.DecodeRecord(value, hd.Revision)
	if err != nil {
		return false, err
	}
	if err := joinChunks(view, inst, &rec); err != nil {
		return false, err
	}
	return string(rec.Value) == string(want), nil
}

// refetch repeats prefetches that a write overtook, off the loop.
func (h *Host) refetch(g *group, requests []*replica.Request) {
	h.opt.Go(func(ctx context.Context) {
		for _, r := range requests {
			r.Err = h.prefetch(ctx, g, r, false) // admit ends it: its uploads belong to the loop
		}
		if h.inbox.put(func(m *mail) { m.requests = append(m.requests, requests...) }) {
			return
		}
		for _, r := range requests { // the loop failed meanwhile
			r.Fail(errStopped())
		}
	})
}

// admit queues a request at its group's core.
func (h *Host) admit(r *replica.Request) {
	g := h.groups[r.Group]
	switch {
	case r.Err != nil:
		r.Fail(r.Err)
	case g == nil || g.core == nil:
		r.Fail(errNotHosted(r.Group))
	case h.opt.Store.Full():
		if f := h.opt.Hooks.Overloaded; f != nil {
			f()
		}
		r.Fail(fault.New(fault.Overloaded, "the memory for recent writes is full until it is flushed",
			"bytes", h.opt.Store.Bytes()).WithRetry(h.opt.TickInterval))
	default:
		if _, leading := g.core.Leading(); !leading {
			r.Fail(wrongLeader(r.Group, g.published.Load()))
			return
		}
		g.core.Enqueue(r)
		g.dirty = true
	}
}

// propose evaluates what waits in a group and hands the entries to raft.
func (h *Host) propose(g *group) {
	if _, leading := g.core.Leading(); !leading || g.dropped || g.unsynced > g.lagging || h.hanging.Load() || !g.core.HasWork() {
		return
	}
	if !h.roomToPropose() {
		g.core.Shed(fault.New(fault.Overloaded, "the disk of the raft log is full").WithRetry(10 * h.opt.TickInterval))
		return
	}
	now := h.now(g)
	out := g.core.Evaluate(now)
	progress := out.Payload != nil && h.offer(g, out.Payload)
	for range maxChunksPerLoop {
		if !h.pace.ready(now.Mono) {
			h.pace.waiting = true
			break
		}
		chunk := g.core.NextChunk(now)
		if chunk == nil || !h.offer(g, chunk) {
			break
		}
		h.pace.spend(len(chunk))
		progress = true
	}
	if len(out.Refetch) > 0 {
		h.refetch(g, out.Refetch)
	}
	g.reads.evaluation = max(g.reads.evaluation, out.Confirm)
	// What is left waits for the next loop; without progress it waits for an
	// entry to be applied or for a tick.
	g.dirty = g.dirty || (progress && g.core.HasWork())
}

// roomToPropose reports whether the disk has room in the log for what a loop may
// propose.
func (h *Host) roomToPropose() bool { return h.log.HasSpace(int64(h.opt.MaxEntryBytes) * 4) }

// maxChunksPerLoop bounds how much of large values one loop proposes, so that
// small writes are not held up.
const maxChunksPerLoop = 4

func (h *Host) offer(g *group, payload []byte) bool {
	if err := g.rn.Propose(payload); err != nil {
		g.core.Dropped()
		g.dropped = true
		return false
	}
	g.batched = g.core.LastBatch()
	if f := h.opt.Hooks.Batch; f != nil {
		f(g.batched)
	}
	g.proposed = append(g.proposed, h.opt.Clock.Mono())
	g.core.Proposed()
	return true
}

// committed reports how long an entry that is applied now took since it was
// proposed here.
func (h *Host) committed(g *group, term keyspace.Term) {
	if leading, ok := g.core.Leading(); !ok || leading != term || len(g.proposed) == 0 {
		return
	}
	at := g.proposed[0]
	g.proposed = g.proposed[:copy(g.proposed, g.proposed[1:])]
	if f := h.opt.Hooks.Commit; f != nil {
		f(h.opt.Clock.Mono() - at)
	}
}
