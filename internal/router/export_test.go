package router

import (
	"time"

	"kvstore/internal/keyspace"
)

// OnStep has f see the steps of the transactions that r coordinates; where it returns
// true the coordinator is dead.
func (r *Router) OnStep(f func(step string, id keyspace.TxnID) (dead bool)) {
	hook := func(step string, a *txnAttempt) bool { return f(step, a.id) }
	r.txns.hook.Store(&hook)
}

// SetGrace is the time that r gives coordinators.
func (r *Router) SetGrace(d time.Duration) { r.txns.resolver.grace = d }

// SetRememberFor is how long r keeps records.
func (r *Router) SetRememberFor(d time.Duration) { r.txns.janitor.keep = d }
