package sim

import (
	"slices"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// met has a node finish a transaction that somebody waits for there.
func (n *node) met(_ keyspace.GroupID, p *format.Prepared) {
	life := n.life
	n.w.after(0, func() {
		if n.life == life && n.host != nil {
			n.finish(p)
		}
	})
}

// finish brings a transaction of others to its end.
func (n *node) finish(p *format.Prepared) {
	w, key := n.w, keyspace.TxnKey{ID: p.Key.ID, Attempt: p.Key.Attempt}
	if n.finishing[key] {
		return
	}
	n.finishing[key] = true
	life, since, grace := n.life, w.now, w.between(100*time.Millisecond, 1500*time.Millisecond)
	stop := w.spawn(func(t *task) {
		for !t.ended && w.now-since < 20*time.Second {
			all := w.askAll(t, key, p.Participants, replica.OrderOp{Kind: replica.OrderQuery}, nil)
			d := w.conclude(key, all)
			if d.Verb == twophase.Wait && w.now-since >= grace {
				d = w.conclude(key, w.askAll(t, key, p.Participants, replica.OrderOp{Kind: replica.OrderPoison}, nil))
			}
			o := replica.OrderOp{Kind: replica.OrderAbort}
			if d.Verb == twophase.DoCommit {
				o = replica.OrderOp{Kind: replica.OrderCommit, At: d.At, Branch: d.Branch}
			}
			if d.Verb != twophase.Wait {
				w.stats.Finished++
				w.askAll(t, key, p.Participants, o, nil)
				break
			}
			_ = t.await(time.Minute, func(done func()) { w.after(w.between(20*time.Millisecond, 300*time.Millisecond), done) })
		}
		if n.life == life {
			delete(n.finishing, key)
		}
	})
	n.tasks = append(n.tasks, stop)
}

// tend has finished what is prepared for long.
func (w *World) tend() {
	for _, n := range w.nodes {
		if n.host == nil || n.paused > w.now {
			continue
		}
		for _, s := range n.host.Groups() {
			for _, p := range s.Prepared {
				if since, known := w.txns.since[p.Key]; !known {
					w.txns.since[p.Key] = w.now
				} else if s.Role == "leader" && w.now-since > 2*time.Second {
					n.finish(p)
				}
			}
		}
	}
	w.after(500*time.Millisecond, w.tend)
}

// keepRecords is how long records are kept, and collectAtOnce how many are deleted
// by one entry.
const (
	keepRecords   = 3 * time.Second
	collectAtOnce = 12
)

// collect deletes old records of a group (ADR 0017).
func (w *World) collect() {
	g := keyspace.GroupID(1 + w.rng.IntN(w.cfg.Groups))
	raise := keyspace.RevisionAt(firstWall + (w.now - keepRecords).Milliseconds())
	w.spawn(func(t *task) {
		own := w.lowWater(t, g, raise)
		ok := own != nil && own.Oldest > own.LowWater
		for other := keyspace.GroupID(1); ok && int(other) <= w.cfg.Groups; other++ {
			if other != g {
				low := w.lowWater(t, other, 0)
				ok = low != nil && low.Oldest > own.LowWater
			}
		}
		if ok {
			w.forget(t, g, own.LowWater)
		}
		w.after(w.between(300*time.Millisecond, 2*time.Second), w.collect)
	})
}

// lowWater asks a group for its mark; nil without an answer.
func (w *World) lowWater(t *task, g keyspace.GroupID, raise keyspace.Revision) (low *replica.LowOp) {
	over := false
	_ = t.await(ordersWithin, func(done func()) {
		request := func() *replica.Request { return &replica.Request{Low: &replica.LowOp{Raise: raise}} }
		w.askGroup(func(int) keyspace.GroupID { return g }, request, w.now+ordersWithin, &over, func(a answered) {
			low = a.Low
			done()
		})
	})
	over = true
	return low
}

// forget deletes records of a group at or below its mark.
func (w *World) forget(t *task, g keyspace.GroupID, low keyspace.Revision) {
	var keys []keyspace.TxnKey
	for _, key := range w.txns.made {
		if key.ID.Created <= low && w.groupOfSlot(key.Slot, 0) == g && len(keys) < collectAtOnce {
			keys = append(keys, key)
		}
	}
	over, gone := false, 0
	_ = t.await(ordersWithin, func(done func()) {
		request := func() *replica.Request { return &replica.Request{Forget: &replica.ForgetOp{Keys: keys}} }
		w.askGroup(func(int) keyspace.GroupID { return g }, request, w.now+ordersWithin, &over, func(a answered) {
			gone = a.Forget.Forgotten
			done()
		})
	})
	over = true
	w.stats.Forgotten += gone
	// What was not there was never written, or is in another group.
	w.txns.made = slices.DeleteFunc(w.txns.made, func(key keyspace.TxnKey) bool { return slices.Contains(keys, key) })
}
