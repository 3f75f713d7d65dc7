package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// namedWrite is a write under a request id, which is sent until it is answered: it
// happens once, and all its answers are the same.
type namedWrite struct {
	id    keyspace.TxnID
	ins   []input
	ops   []replica.Op
	open  *openWrite
	tries int
	maybe bool // one of the tries may have been executed
}

// submitNamed sends operations under an id.
func (c *client) submitNamed(g keyspace.GroupID, ins []input, ops []replica.Op) {
	w := c.w
	c.sendNamed(g, &namedWrite{
		id:  keyspace.TxnID{Created: keyspace.RevisionAt(firstWall + w.now.Milliseconds()), Random: w.rng.Uint64()},
		ins: ins, ops: ops, open: w.history.begin(c.id, ins, w.now),
	})
}

func (c *client) sendNamed(g keyspace.GroupID, o *namedWrite) {
	w := c.w
	asked := c.groupOf(g, o.ins[0].key)
	o.tries++
	over := false
	end := func(r *replica.Request) {
		if over {
			return
		}
		over = true
		c.namedAnswered(g, asked, o, r)
	}
	n := c.host(asked, false)
	if n == nil {
		delete(c.target, asked)
		end(&replica.Request{Err: fault.New(fault.WrongLeader, "no host")})
		return
	}
	w.after(w.between(200*time.Millisecond, 2*time.Second), func() { end(nil) })
	n.host.Submit(context.Background(), &replica.Request{Group: asked, ID: o.id, Encode: encodeAnswer, Ops: slices.Clone(o.ops),
		Deadline: w.now + w.between(200*time.Millisecond, 2*time.Second), Done: end})
	n.wake()
}

// namedAnswered takes what a try came to; nil was not answered.
func (c *client) namedAnswered(g, asked keyspace.GroupID, o *namedWrite, r *replica.Request) {
	w := c.w
	if r != nil && r.Err == nil {
		if r.Remembered != nil {
			w.stats.Remembered++
			decodeAnswer(r)
		}
		if before, known := w.answers[o.id]; known && before != string(encodeAnswer(r)) {
			w.problem("request %s was answered %q, and then %q", o.id, before, encodeAnswer(r))
		}
		w.answers[o.id] = string(encodeAnswer(r))
		if !w.faultsOn || o.tries > 1 || !w.chance(0.3) {
			o.open.done = true
			c.wrote(asked, o.ins, r, o.open.call)
			c.pause()
			return
		}
		r = nil // the answer is lost
	}
	o.maybe = o.maybe || r == nil || fault.CodeOf(r.Err) == fault.UnknownOutcome
	if r != nil {
		c.redirect(asked, r.Err)
		c.moved(asked, o.ins[0].key, r.Err)
	} else {
		delete(c.target, asked)
	}
	if o.tries < 5 && (r == nil || fault.CodeOf(r.Err) != fault.OutOfRange) {
		w.after(w.between(10*time.Millisecond, 300*time.Millisecond), func() { c.sendNamed(g, o) })
		return
	}
	o.open.done = true
	if o.maybe {
		r = nil
	}
	c.wrote(asked, o.ins, r, o.open.call)
	c.pause()
}

// encodeAnswer is what a group remembers of a write.
func encodeAnswer(r *replica.Request) []byte {
	var b strings.Builder
	for i := range r.Ops {
		res := &r.Ops[i].Result
		fmt.Fprintf(&b, "%d %v %v;", res.Version, res.Existed, res.Err != nil)
	}
	return []byte(b.String())
}

func decodeAnswer(r *replica.Request) {
	for i, text := range strings.Split(strings.TrimSuffix(string(r.Remembered), ";"), ";") {
		var refused bool
		res := &r.Ops[i].Result
		*res = replica.OpResult{}
		if _, err := fmt.Sscanf(text, "%d %t %t", &res.Version, &res.Existed, &refused); err != nil {
			panic(err)
		}
		if refused {
			res.Err = fault.New(fault.ConditionFailed, "remembered")
		}
	}
}
