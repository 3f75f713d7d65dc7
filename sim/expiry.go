package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// expiry is what clients saw of keys that expire. Each such key is written by one
// client, one write after the other, and read by all on any replica, so that what it
// may be at any time is known without a search: in the end every read is compared
// with the writes that it may have met.
type expiry struct {
	writes map[string][]*expiringWrite
	reads  []expiringRead
}

// ceiling is how far group time may be ahead of clocks: an election timeout, and the
// tick in which a message may be late.
const ceiling = 11 * tick

// expiringWrite is what a key is from a write on, known when that was acknowledged.
type expiringWrite struct {
	call, ret time.Duration
	unknown   bool // it may have happened, also later
	absent    bool
	rev       keyspace.Revision
	expires   int64
}

type expiringRead struct {
	key       string
	call, ret time.Duration
	clock     keyspace.Revision
	found     bool
	rev       keyspace.Revision
	expires   int64
}

// expiring is one operation on a key that expires.
func (c *client) expiring(g keyspace.GroupID) {
	w := c.w
	if w.chance(0.4) {
		c.readExpiring(g, w.spread(g, fmt.Sprintf("ttl%d-%d", w.rng.IntN(w.cfg.Clients), w.rng.IntN(2))))
		return
	}
	op := operation(w.spread(g, fmt.Sprintf("ttl%d-%d", c.id, w.rng.IntN(2))), "")
	switch n := w.rng.IntN(100); {
	case n < 5:
		op = replica.Op{Delete: true, Namespace: op.Namespace, Key: op.Key}
	case n < 35:
		op = replica.Op{Touch: true, Namespace: op.Namespace, Key: op.Key}
	default:
		w.history.values++
		value := fmt.Sprintf("v%d", w.history.values)
		if w.cfg.LargeEvery > 0 && w.rng.IntN(w.cfg.LargeEvery) == 0 {
			value = strings.Repeat(value, 200)
		}
		op = operation(op.Key, value)
	}
	if !op.Delete && w.chance(0.85) {
		op.TTL = w.between(100*time.Millisecond, 2*time.Second)
	}
	c.writeExpiring(g, op)
}

func (c *client) writeExpiring(g keyspace.GroupID, op replica.Op) {
	w := c.w
	asked := c.groupOf(g, op.Key)
	n := c.host(asked, false)
	if n == nil {
		delete(c.target, asked)
		c.pause()
		return
	}
	at := &expiringWrite{call: w.now, unknown: true}
	w.expiry.writes[op.Key] = append(w.expiry.writes[op.Key], at)
	done := false
	end := func(r *replica.Request) {
		if done {
			return
		}
		done = true
		at.ret = w.now
		c.wroteExpiring(asked, at, op.Key, r)
		c.pause()
	}
	w.after(patience, func() { end(nil) })
	n.host.Submit(context.Background(), &replica.Request{Group: asked, Ops: []replica.Op{op}, Deadline: w.now + w.between(200*time.Millisecond, 2*time.Second), Done: end})
	n.wake()
}

// wroteExpiring notes how a write ended; a nil request was never answered.
func (c *client) wroteExpiring(g keyspace.GroupID, at *expiringWrite, key string, r *replica.Request) {
	w := c.w
	if r == nil || fault.CodeOf(r.Err) == fault.UnknownOutcome {
		delete(c.target, g)
		return
	}
	op, before := &r.Ops[0], w.expiry.last(key, at)
	switch res := &op.Result; {
	case r.Err != nil:
		c.redirect(g, r.Err)
		c.moved(g, key, r.Err)
		w.expiry.forget(key, at)
	case res.Err != nil: // a touch of what is not there
		if before != nil && !before.unknown && !before.absent && before.expires == 0 {
			w.problem("%s has no deadline and was not there to be touched: %v", key, res.Err)
		}
		w.expiry.forget(key, at)
	case op.Delete && !res.Existed:
		at.unknown, at.absent = false, true
		if before != nil && !before.unknown && !before.absent && before.expires == 0 {
			w.problem("%s has no deadline and was not there to be deleted", key)
		}
	default:
		at.unknown, at.absent, at.rev, at.expires = false, op.Delete, res.Revision, res.Expires
		w.stats.Expiring++
		w.note(key, uint64(w.now), uint64(res.Revision))
	}
}

// last is the write of a key before at, nil for none.
func (x *expiry) last(key string, at *expiringWrite) *expiringWrite {
	all := x.writes[key]
	for i := range all {
		if all[i] == at && i > 0 {
			return all[i-1]
		}
	}
	return nil
}

// forget takes back the latest write of a key, which did not happen.
func (x *expiry) forget(key string, at *expiringWrite) {
	if all := x.writes[key]; all[len(all)-1] == at {
		x.writes[key] = all[:len(all)-1]
	}
}

func (c *client) readExpiring(g keyspace.GroupID, key string) {
	w := c.w
	asked := c.groupOf(g, key)
	n := c.host(asked, w.chance(0.7))
	if n == nil {
		c.pause()
		return
	}
	call, done, life := w.now, false, n.life
	end := func() {
		if !done {
			done = true
			c.pause()
		}
	}
	w.after(patience, end)
	n.host.ReadIndex(context.Background(), asked, func(p host.ReadPoint, err error) {
		if done {
			return
		}
		if err != nil {
			c.redirect(asked, err)
			end()
			return
		}
		w.after(w.between(0, time.Millisecond), func() {
			if n.life == life && n.host != nil {
				c.seeExpiring(n, asked, p, key, call)
			}
			end()
		})
	})
	n.wake()
}

// seeExpiring reads at a permission, by its clock alone.
func (c *client) seeExpiring(n *node, g keyspace.GroupID, p host.ReadPoint, key string, call time.Duration) {
	w := c.w
	p.Physical = 0 // the host would wait for an entry
	r := expiringRead{key: key, call: call, ret: w.now, clock: p.Clock}
	rec, err := n.host.Get(context.Background(), p, keyspace.DefaultNamespace, key, false)
	switch code := fault.CodeOf(err); {
	case err == nil:
		r.found, r.rev, r.expires = true, rec.Revision, rec.Expires
	case code == fault.WrongGroup:
		c.moved(g, key, err)
		return
	case code == fault.WrongLeader:
		return
	case code != fault.NotFound:
		w.problem("node %d: reading %s: %v", n.index, key, err)
		return
	}
	w.expiry.reads = append(w.expiry.reads, r)
	w.note(key, uint64(w.now), uint64(r.rev))
}

// checkExpiry compares reads, which are in the order of their ends, with writes.
func (w *World) checkExpiry() {
	for i := range w.expiry.reads {
		r := &w.expiry.reads[i]
		w.checkTimeOf(i)
		if met, known := w.expiry.met(r); known && !explains(met, r) {
			w.problem("at %v to %v and group time %d %s was found %v (revision %v, deadline %d); it may have been %s",
				r.call, r.ret, r.clock.UnixMilli(), r.key, r.found, r.rev, r.expires, describeWrites(met))
			return
		} else if known && !r.found && w.cfg.ClockJumps == 0 && tooEarly(met, r) {
			w.problem("at %v %s was gone; it should have been %s", r.ret, r.key, describeWrites(met))
		}
		if len(w.problems) > 0 {
			return
		}
	}
}

// checkTimeOf requires that a read is not judged at an earlier time than one of its
// key that had ended before it began: what had expired stays so.
func (w *World) checkTimeOf(i int) {
	r := &w.expiry.reads[i]
	for n := i - 1; n >= max(0, i-200); n-- {
		if o := &w.expiry.reads[n]; o.key == r.key && o.ret < r.call && o.clock > r.clock {
			w.problem("%s was read at group time %v after it had been read at %v", r.key, r.clock, o.clock)
		}
	}
}

// met are what a key may have been during a read; known is false when that is not
// known.
func (x *expiry) met(r *expiringRead) (met []*expiringWrite, known bool) {
	met = []*expiringWrite{{absent: true}}
	for _, at := range x.writes[r.key] {
		switch {
		case at.call > r.ret:
		case at.ret != 0 && at.ret < r.call && !at.unknown:
			met = []*expiringWrite{at}
		default:
			met = append(met, at)
		}
	}
	for _, at := range met {
		if at.unknown || at.ret == 0 && at.call != 0 {
			return met, false
		}
	}
	return met, true
}

// explains reports whether a read saw one of the states, gone exactly when its
// deadline has passed on group time.
func explains(met []*expiringWrite, r *expiringRead) bool {
	now := r.clock.UnixMilli()
	for _, at := range met {
		gone := at.absent || at.expires != 0 && at.expires <= now
		if gone && !r.found || !gone && r.found && at.rev == r.rev && at.expires == r.expires {
			return true
		}
	}
	return false
}

// tooEarly reports whether a key was gone more than one ceiling, an election timeout,
// before its deadline on the clocks of nodes, none of which is wrong.
func tooEarly(met []*expiringWrite, r *expiringRead) bool {
	for _, at := range met {
		if at.absent || at.expires != 0 && at.expires <= firstWall+(r.ret+ceiling).Milliseconds() {
			return false
		}
	}
	return true
}

func describeWrites(all []*expiringWrite) string {
	var b strings.Builder
	for _, at := range all {
		fmt.Fprintf(&b, "[%v to %v: absent %v, revision %v, deadline %d] ", at.call, at.ret, at.absent, at.rev, at.expires)
	}
	return b.String()
}

// sweptByNow counts what the hosts that are up have swept.
func (w *World) sweptByNow() (n int) {
	for _, node := range w.nodes {
		if node.host == nil {
			continue
		}
		for _, s := range node.host.Groups() {
			n += int(s.Swept)
		}
	}
	return n
}
