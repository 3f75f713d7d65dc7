package router

import (
	"time"

	"kvstore/internal/fault"
)

// receive answers operations in the order their results come, until the
// stream ends.
func (l *link) receive(stream ForwardStream, gen uint64) {
	for {
		m, err := stream.Recv()
		if err != nil {
			l.broken(gen, rpcError(err, l.node))
			return
		}
		l.mu.Lock()
		ops := make([]*remoteOp, len(m.Results))
		for i, res := range m.Results {
			op := l.inflight[res.Id]
			if op == nil {
				continue // given up meanwhile
			}
			delete(l.inflight, res.Id)
			l.bytes -= op.bytes
			ops[i] = op
		}
		if !l.answered {
			l.answered = true
			l.breaker.worked()
			l.openUntil.Store(0)
		}
		l.mu.Unlock()
		for i, op := range ops {
			if op != nil {
				op.part.forwarded(m.Results[i], nil)
			}
		}
	}
}

// broken ends stream gen and answers what was sent on it.
func (l *link) broken(gen uint64, cause error) {
	l.mu.Lock()
	if l.gen == gen && l.stream != nil {
		l.stream = nil
		l.cancel()
		if !l.answered {
			l.tripLocked()
		}
	}
	var lost []*remoteOp
	for id, op := range l.inflight {
		if op.stream <= gen {
			delete(l.inflight, id)
			l.bytes -= op.bytes
			lost = append(lost, op)
		}
	}
	l.mu.Unlock()
	for _, op := range lost {
		op.part.forwarded(nil, l.lost(op, cause))
	}
}

// lost is the error of an operation that was sent and not answered.
func (l *link) lost(op *remoteOp, cause error) error {
	if op.write {
		return fault.Wrap(fault.UnknownOutcome, cause,
			"connection to the leader was lost after the write was sent; it may or may not have happened",
			"node", l.node)
	}
	return fault.Wrap(fault.Unavailable, cause, "connection to a peer was lost", "node", l.node)
}

const (
	sweepEvery = 100 * time.Millisecond
	// stuckSend is how long a Send may wait for a peer that takes nothing.
	stuckSend = 5 * time.Second
)

// sweep gives up forwarded operations whose time is over, for all links: one
// timer instead of one for each operation.
func (r *Router) sweep() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-r.ctx.Done():
			return
		}
		r.links.Range(func(_, l any) bool {
			l.(*link).expire(r.o.Clock.Mono())
			return true
		})
	}
}

// expire answers what ran out of time: unsent operations were not executed,
// sent writes may have been.
func (l *link) expire(now time.Duration) {
	l.mu.Lock()
	var unsent, late []*remoteOp
	kept := l.queue[:0]
	for _, op := range l.queue {
		if op.expires <= now {
			unsent = append(unsent, op)
			l.bytes -= op.bytes
		} else {
			kept = append(kept, op)
		}
	}
	clear(l.queue[len(kept):])
	l.queue = kept
	for id, op := range l.inflight {
		if op.expires <= now {
			delete(l.inflight, id)
			l.bytes -= op.bytes
			late = append(late, op)
		}
	}
	if l.sendingSince > 0 && now-l.sendingSince > stuckSend && l.cancel != nil {
		l.cancel() // the sender and the receiver see the stream end
	}
	l.mu.Unlock()
	for _, op := range unsent {
		op.part.forwarded(nil, fault.New(fault.Unavailable, "operation could not be sent to the leader in time", "node", l.node))
	}
	for _, op := range late {
		op.part.forwarded(nil, l.overdue(op))
	}
}

func (l *link) overdue(op *remoteOp) error {
	if op.write {
		return fault.New(fault.UnknownOutcome, "the leader did not answer in time; the write may or may not have happened", "node", l.node)
	}
	return fault.New(fault.Unavailable, "peer did not answer in time", "node", l.node)
}
