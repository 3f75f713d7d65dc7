package router

import (
	"sync"
	"sync/atomic"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	// maxCoordinated bounds the transactions over several groups that this node
	// coordinates: with those that are answered and not finished.
	maxCoordinated = 1 << 14
	// drainWithin bounds how long a node that stops finishes what it has answered.
	drainWithin = 2 * time.Second
)

// transactions are those over several groups that this node coordinates or
// recovers.
type transactions struct {
	r      *Router
	active atomic.Int64
	// idle has room for one signal that active is 0.
	idle chan struct{}

	// hook sees the steps of coordinations, in tests, and ends them there as the death
	// of this node would.
	hook atomic.Pointer[func(step string, a *txnAttempt) (dead bool)]

	mu sync.Mutex
	// outbox are orders that wait for the goroutine that sends them, which is there
	// while there are any.
	outbox  []*Call
	sending bool

	conflicts, leftover, aborts, unknowns atomic.Uint64
	// byGroups counts commits by the number of groups, the last those of more; tries
	// all attempts of what was committed.
	byGroups [4]atomic.Uint64
	tries    atomic.Uint64
	resolver resolver
	janitor  janitor
}

func (ts *transactions) init(r *Router) {
	ts.r, ts.idle = r, make(chan struct{}, 1)
	ts.resolver.init(r)
	ts.janitor.keep = RememberFor
}

// admit counts a transaction, if there is room for it.
func (ts *transactions) admit() error {
	if n := ts.active.Add(1); n > maxCoordinated {
		ts.done()
		return fault.New(fault.Overloaded, "node coordinates too many transactions over several groups", "limit", maxCoordinated, "actual", n).
			WithRetry(100 * time.Millisecond)
	}
	return nil
}

func (ts *transactions) done() {
	if ts.active.Add(-1) == 0 {
		select {
		case ts.idle <- struct{}{}:
		default:
		}
	}
}

// drain waits until all is finished, for a bounded time: what is left then,
// recovery finishes.
func (ts *transactions) drain() {
	timer := time.NewTimer(drainWithin)
	defer timer.Stop()
	for ts.active.Load() > 0 {
		select {
		case <-ts.idle:
		case <-timer.C:
			return
		}
	}
}

// died reports, in tests only, that the coordinator is dead when it comes to a step.
func (ts *transactions) died(step string, a *txnAttempt) bool {
	hook := ts.hook.Load()
	return hook != nil && (*hook)(step, a)
}

// sendSoon has orders sent on a goroutine that may block; those that wait leave
// together.
func (ts *transactions) sendSoon(calls []*Call) {
	ts.mu.Lock()
	ts.outbox = append(ts.outbox, calls...)
	start := !ts.sending
	ts.sending = true
	ts.mu.Unlock()
	switch {
	case !start:
	case ts.r.hold():
		go func() {
			defer ts.r.wg.Done()
			ts.send()
		}()
	default:
		ts.send() // refuses all
	}
}

func (ts *transactions) send() {
	for {
		ts.mu.Lock()
		calls := ts.outbox
		ts.outbox = nil
		ts.sending = len(calls) > 0
		ts.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		ts.r.sendOrders(calls)
	}
}

// newTxnID is an id that nobody else has.
func (r *Router) newTxnID() keyspace.TxnID {
	return keyspace.TxnID{Created: keyspace.RevisionAt(r.o.Clock.Wall()), Random: r.o.Rand.Uint64()}
}

func (ts *transactions) committed(groups, tries int) {
	ts.byGroups[min(groups, len(ts.byGroups))-1].Add(1)
	ts.tries.Add(uint64(tries))
}

func (ts *transactions) failed(err error) {
	if fault.CodeOf(err) == fault.UnknownOutcome {
		ts.unknowns.Add(1)
		return
	}
	ts.aborts.Add(1)
}

// TransactionStats are figures of transactions over several groups, since the start
// where they are counts.
type TransactionStats struct {
	// Committed by the number of groups from one, the last of them those of more.
	Committed                                []uint64
	Aborted, Unknown, Attempts, Conflicts    uint64
	Active, Prepared, Recovering             int64
	Leftover, Recovered, Poisoned, Collected uint64
	// Collections of old records that deleted nothing: something old is prepared, or a
	// group did not answer.
	CollectionsHeld, CollectionsFailed uint64
}

// TransactionStats returns what this node did.
func (r *Router) TransactionStats() TransactionStats {
	ts := &r.txns
	ts.resolver.mu.Lock()
	recovering := len(ts.resolver.met)
	ts.resolver.mu.Unlock()
	out := TransactionStats{
		Aborted: ts.aborts.Load(), Unknown: ts.unknowns.Load(), Attempts: ts.tries.Load(), Conflicts: ts.conflicts.Load(),
		Active: ts.active.Load(), Prepared: ts.janitor.prepared.Load(), Recovering: int64(recovering),
		Leftover: ts.leftover.Load(), Recovered: ts.resolver.recovered.Load(), Poisoned: ts.resolver.poisoned.Load(), Collected: ts.janitor.collected.Load(),
		CollectionsHeld: ts.janitor.held.Load(), CollectionsFailed: ts.janitor.failed.Load(),
	}
	for i := range ts.byGroups {
		out.Committed = append(out.Committed, ts.byGroups[i].Load())
	}
	return out
}
