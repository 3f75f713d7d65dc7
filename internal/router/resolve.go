package router

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// Whoever meets the lock of a transaction has it brought to its end (DESIGN 9): all
// participants are asked at once how it stands. If one knows the outcome, or all
// are prepared, which is the same, the others are told. Otherwise its coordinator
// may still be at work, and is given time: only when the transaction was met a
// while ago are those poisoned that are not prepared, after which it is decided.
// All of it may be done by several nodes at once.
//
// Who asks does not wait here: locks go, or do not, and whoever waits for one asks
// again now and then. Each transaction is looked after once, and so many at a time;
// who finds no room will ask again.

const (
	maxRecovering = 1024
	// poisonAfter is the time that a coordinator is given, since its transaction was
	// first met here.
	poisonAfter = 2 * time.Second
	// forgetAfter is when one that does not come to an end is given up; who meets it
	// begins anew.
	forgetAfter = 30 * time.Second
	// lookAgain is the first pause between two looks at a transaction that is not
	// decided; they double up to lookAgainMax.
	lookAgain    = 20 * time.Millisecond
	lookAgainMax = 500 * time.Millisecond
	// recoverOrder bounds an order of a recovery.
	recoverOrder = 5 * time.Second
)

// resolver looks after transactions that were met.
type resolver struct {
	r     *Router
	grace time.Duration

	mu      sync.Mutex
	met     map[keyspace.TxnKey]*recovery // by key with slot 0
	running bool
	wake    chan struct{} // room for one signal

	recovered, poisoned atomic.Uint64
}

// recovery is one transaction that is looked after. Between two looks it belongs to
// the resolver, during one to whoever has the last answer.
type recovery struct {
	*txnAttempt
	key keyspace.TxnKey
	// Guarded by resolver.mu: since when it is looked after, when the next look is
	// due, and whether one is under way.
	since, due time.Duration
	looks      int
	busy       bool
	ended      func() // nil but for those who wait
}

func (v *resolver) init(r *Router) {
	v.r, v.grace, v.met, v.wake = r, poisonAfter, make(map[keyspace.TxnKey]*recovery), make(chan struct{}, 1)
}

// FinishTransaction has a prepared transaction that somebody waits for brought to its end. It
// does not block, and may be called again as long as there is a reason.
func (r *Router) FinishTransaction(p *format.Prepared) {
	r.txns.resolver.meet(p, nil)
}

// meet looks after a transaction; ended, which may be nil, is called when the
// recovery is over, or at once where there is no room for it.
func (v *resolver) meet(p *format.Prepared, ended func()) {
	key := keyspace.TxnKey{ID: p.Key.ID, Attempt: p.Key.Attempt}
	now := v.r.o.Clock.Mono()
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.met[key]; known != nil || len(v.met) >= maxRecovering {
		return
	}
	set := make([]uint32, len(p.Participants))
	for i, slot := range p.Participants {
		set[i] = uint32(slot)
	}
	if len(set) == 0 {
		return
	}
	v.met[key] = &recovery{txnAttempt: v.r.newAttempt(key, set), key: key, since: now, due: now, ended: ended}
	if !v.running && v.r.hold() {
		v.running = true
		go func() {
			defer v.r.wg.Done()
			v.run()
		}()
		return
	}
	v.signal()
}

func (v *resolver) signal() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// run looks at what is due as long as there is anything.
func (v *resolver) run() {
	for {
		due, wait, more := v.next()
		if !more {
			return
		}
		var calls []*Call
		for _, c := range due {
			calls = append(calls, v.look(c)...)
		}
		v.r.sendOrders(calls)
		if len(due) > 0 {
			continue
		}
		ended := v.r.ctx.Done()
		if v.r.ctx.Err() != nil { // for the answers that are still to come
			ended, wait = nil, lookAgain
		}
		timer := time.NewTimer(wait)
		select {
		case <-v.wake:
		case <-timer.C:
		case <-ended:
		}
		timer.Stop()
	}
}

// next takes the recoveries that are due, and says when others are.
func (v *resolver) next() (due []*recovery, wait time.Duration, more bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.r.o.Clock.Mono()
	wait = forgetAfter
	for key, c := range v.met {
		switch {
		case v.r.ctx.Err() != nil && !c.busy:
			delete(v.met, key)
		case c.busy:
		case c.due <= now:
			c.busy = true
			due = append(due, c)
		default:
			wait = min(wait, c.due-now)
		}
	}
	v.running = len(v.met) > 0
	return due, wait, v.running
}

// look asks everybody how a transaction stands.
func (v *resolver) look(c *recovery) []*Call {
	until := v.r.o.Clock.Mono() + recoverOrder
	calls := make([]*Call, len(c.shares))
	for i, s := range c.shares {
		s.answer = nil
		calls[i] = s.prepare(s.order(api.TxnOrder_KIND_QUERY), until, SystemIdentity)
	}
	c.ask(len(calls), func() { v.looked(c) })
	return calls
}

// looked ends the transaction if it is decided, or has it decided when it is old
// enough, or looks again later.
func (v *resolver) looked(c *recovery) {
	c.named, c.mark = markOf(c.shares[0].answer.GetAnswer())
	until := v.r.o.Clock.Mono() + recoverOrder
	d := c.conclude()
	switch {
	case d.Verb == twophase.DoCommit:
		v.recovered.Add(1)
		c.commit(d, nil, until, func() { v.end(c) })
	case d.Verb == twophase.DoAbort:
		v.abort(c)
	case !slices.ContainsFunc(c.shares, func(s *share) bool { return s.judged().State == twophase.Prepared || s.err != nil }):
		v.end(c) // nobody holds a lock
	case v.r.o.Clock.Mono()-c.since >= v.grace:
		v.poisoned.Add(1)
		if shares := c.unsettled(true); len(shares) > 0 {
			c.send(shares, api.TxnOrder_KIND_POISON, until, nil, func() { v.decided(c) })
			return
		}
		v.again(c)
	default:
		v.again(c)
	}
}

// decided ends a transaction of which some were poisoned.
func (v *resolver) decided(c *recovery) {
	switch d := c.conclude(); d.Verb {
	case twophase.DoCommit:
		v.recovered.Add(1)
		c.commit(d, nil, v.r.o.Clock.Mono()+recoverOrder, func() { v.end(c) })
	case twophase.DoAbort:
		v.abort(c)
	case twophase.Wait:
		v.again(c)
	}
}

func (v *resolver) abort(c *recovery) {
	shares := c.unsettled(false)
	if len(shares) == 0 {
		v.end(c)
		return
	}
	v.recovered.Add(1)
	c.send(shares, api.TxnOrder_KIND_ABORT, v.r.o.Clock.Mono()+recoverOrder, nil, func() { v.end(c) })
}

// again looks later, unless that was done for long enough.
func (v *resolver) again(c *recovery) {
	now := v.r.o.Clock.Mono()
	if now-c.since >= forgetAfter {
		v.end(c)
		return
	}
	v.mu.Lock()
	c.busy = false
	c.due = now + min(lookAgain<<min(c.looks, 5), lookAgainMax)
	c.looks++
	v.mu.Unlock()
	v.signal()
}

// end is the end of a recovery.
func (v *resolver) end(c *recovery) {
	v.mu.Lock()
	delete(v.met, c.key)
	v.mu.Unlock()
	v.signal()
	if c.ended != nil {
		c.ended()
	}
}
