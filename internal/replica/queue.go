package replica

import (
	"slices"
	"time"

	"kvstore/internal/fault"
)

// queue holds requests that wait for evaluation, in arrival order.
type queue struct {
	items []*Request
	ops   int
	bytes int
}

func (r *Request) cost() (ops, bytes int) {
	for _, set := range r.Sets() {
		ops += len(set)
		for i := range set {
			op := &set[i]
			bytes += len(op.Value) + len(op.Key) + len(op.Condition.ValueEquals) + len(op.fetch.Record) + 64
		}
	}
	switch {
	case r.Sweep != nil:
		ops += len(r.Sweep.Keys)
		bytes += r.Sweep.bytes()
	case r.Slots != nil:
		bytes += r.Slots.bytes()
	case r.Order != nil:
		bytes += len(r.Order.Answer)
	case r.Forget != nil:
		ops = len(r.Forget.Keys)
	}
	return max(1, ops), bytes
}

// EnqueueFirst admits a request of the host's own, ahead of what waits and beyond
// the bounds; there is one at a time.
func (c *Core) EnqueueFirst(r *Request) { c.requeue([]*Request{r}) }

func (q *queue) push(r *Request) {
	ops, bytes := r.cost()
	q.items = append(q.items, r)
	q.ops += ops
	q.bytes += bytes
}

// insert puts requests in front of the one at a position.
func (q *queue) insert(at int, requests []*Request) {
	for _, r := range requests {
		ops, bytes := r.cost()
		q.ops, q.bytes = q.ops+ops, q.bytes+bytes
	}
	if len(requests) > 0 {
		q.items = slices.Insert(q.items, at, requests...)
	}
}

// take removes the first n requests.
func (q *queue) take(n int) {
	for _, r := range q.items[:n] {
		ops, bytes := r.cost()
		q.ops -= ops
		q.bytes -= bytes
	}
	clear(q.items[:n])
	q.items = q.items[n:]
	if len(q.items) == 0 {
		q.items = nil
	}
}

func (q *queue) failAll(err error) {
	items := q.items
	*q = queue{}
	for _, r := range items {
		r.finish(err)
	}
}

// retryHint is how long a refused caller should wait; queues drain in
// milliseconds once they move.
const retryHint = 20 * time.Millisecond

// Enqueue admits a request for evaluation, or finishes it with overloaded.
func (c *Core) Enqueue(r *Request) {
	ops, bytes := r.cost()
	waiting, waitingBytes := c.load()
	if waiting > 0 && (waiting+ops > c.cfg.MaxQueueOps || waitingBytes+bytes > c.cfg.MaxQueueBytes) {
		r.finish(fault.New(fault.Overloaded, "too many operations wait for this group", "group", c.cfg.Group,
			"waiting", waiting, "limit", c.cfg.MaxQueueOps, "waiting_bytes", waitingBytes,
			"limit_bytes", c.cfg.MaxQueueBytes).WithRetry(retryHint))
		return
	}
	c.queue.push(r)
}

// load is what waits: in the queue, behind locks, for its chunks, or for a
// confirmation. raft bounds what is in flight.
func (c *Core) load() (ops, bytes int) {
	ops, bytes = c.queue.ops, c.queue.bytes
	if c.lead == nil {
		return ops, bytes
	}
	ops, bytes = ops+c.lead.parking.ops, bytes+c.lead.parking.bytes
	for _, u := range c.lead.uploads {
		ops++
		bytes += u.size
	}
	h := &c.lead.holds
	return ops + h.ops + len(c.lead.refusals), bytes + h.bytes
}

// Waiting counts operations that wait for evaluation.
func (c *Core) Waiting() int { return c.queue.ops }

// Expire ends requests whose deadline passed: waiting ones were not executed,
// proposed ones may be.
func (c *Core) Expire(now time.Duration) {
	kept := c.queue.items[:0]
	var ops, bytes int
	for _, r := range c.queue.items {
		if r.late(now) {
			r.finish(fault.New(fault.DeadlineExceeded, "the deadline passed before the operation was executed"))
			continue
		}
		o, b := r.cost()
		ops, bytes = ops+o, bytes+b
		kept = append(kept, r)
	}
	clear(c.queue.items[len(kept):])
	c.queue.items, c.queue.ops, c.queue.bytes = kept, ops, bytes
	if c.lead == nil {
		return
	}
	c.expireParked(now)
	c.lead.holds.expire(now)
	c.letThrough(now)
	for _, p := range c.lead.inflight {
		for _, r := range p.requests {
			switch {
			case !r.late(now):
			case r.refused:
				r.finish(lateRefusal())
			default:
				r.finish(fault.New(fault.UnknownOutcome, "the deadline passed while the write was being replicated",
					"group", c.cfg.Group))
			}
		}
	}
	for _, u := range c.lead.uploads {
		if u.req.late(now) {
			u.req.finish(fault.New(fault.DeadlineExceeded, "the deadline passed before the value was replicated"))
		}
	}
	for _, r := range c.lead.refusals {
		if r.late(now) {
			r.finish(lateRefusal())
		}
	}
	c.sweepUploads()
}

func lateRefusal() error {
	return fault.New(fault.DeadlineExceeded, "the deadline passed before leadership was confirmed")
}

func (r *Request) late(now time.Duration) bool { return r.Deadline != 0 && now > r.Deadline }

// Shed refuses everything that waits; nothing of it was executed.
func (c *Core) Shed(err error) { c.queue.failAll(err) }
