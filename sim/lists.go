package sim

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// Lists are reads of one key of every group at one moment, by the two rounds of
// the router. Their keys are written by puts of single keys; together they are
// one register for the checker.

// maxListed bounds the groups of a run with lists.
const maxListed = 4

// listed is the state of the keys, by group.
type listed [maxListed]string

// listInput is a list, or a put of a group's key.
type listInput struct {
	put   bool
	group int
	value string
}

// checkLimit bounds the judgement of the lists of a run, which puts of unknown
// outcome that overlap can make exponentially hard.
const checkLimit = 10 * time.Second

var listModel = porcupine.Model{
	Init: func() any { return listed{} },
	Step: func(s, in, out any) (bool, any) {
		state, i := s.(listed), in.(listInput)
		if !i.put {
			return out.(listed) == state, state
		}
		state[i.group] = i.value
		return true, state
	},
	Equal: func(a, b any) bool { return a == b },
}

func listKey(g keyspace.GroupID) string { return fmt.Sprintf("g%d-listed", g) }

// listOp is a put or a list under way.
type listOp struct {
	c       *client
	in      listInput
	call    time.Duration
	done    bool
	tries   int
	first   map[keyspace.GroupID]*listReading
	waiting int
	failed  bool
}

type listReading struct {
	op   *replica.ClockOp
	node *node
	life int
}

// nextListed starts a put or a list.
func (c *client) nextListed() {
	w := c.w
	o := &listOp{c: c, call: w.now}
	if w.chance(0.5) {
		o.list()
		return
	}
	g := keyspace.GroupID(1 + w.rng.IntN(w.cfg.Groups))
	n := c.host(g, false)
	if n == nil {
		delete(c.target, g)
		c.pause()
		return
	}
	w.history.values++
	o.in = listInput{put: true, group: int(g) - 1, value: fmt.Sprintf("v%d", w.history.values)}
	w.history.openLists = append(w.history.openLists, o)
	end := func(r *replica.Request) {
		switch {
		case o.done:
			return
		case r == nil || fault.CodeOf(r.Err) == fault.UnknownOutcome: // as it is open
			delete(c.target, g)
		case r.Err != nil:
			o.done = true
			c.redirect(g, r.Err)
		default:
			o.ended(listed{})
		}
		c.pause()
	}
	w.after(patience, func() { end(nil) })
	n.host.Submit(context.Background(), &replica.Request{Group: g, Ops: []replica.Op{operation(listKey(g), o.in.value)},
		Deadline: w.now + w.between(200*time.Millisecond, 2*time.Second), Done: end})
	n.wake()
}

// ended records an operation.
func (o *listOp) ended(saw listed) {
	o.done = true
	h := &o.c.w.history
	h.lists = append(h.lists, porcupine.Operation{ClientId: len(h.lists), Input: o.in, Output: saw, Call: int64(o.call), Return: int64(o.c.w.now)})
}

// list asks for the first readings.
func (o *listOp) list() {
	o.tries++
	hold := uint64(0)
	if o.tries > 2 {
		hold = o.c.w.rng.Uint64() | 1
	}
	o.first = make(map[keyspace.GroupID]*listReading)
	o.ask(func(g keyspace.GroupID) (*node, *replica.ClockOp) {
		n := o.c.host(g, false)
		op := &replica.ClockOp{Hold: hold}
		if n != nil {
			o.first[g] = &listReading{op: op, node: n, life: n.life}
		}
		return n, op
	}, o.second)
}

// ask reads the clocks of all groups and goes on with then.
func (o *listOp) ask(of func(keyspace.GroupID) (*node, *replica.ClockOp), then func()) {
	w := o.c.w
	o.waiting, o.failed = w.cfg.Groups, false
	for id := range w.cfg.Groups {
		g := keyspace.GroupID(id + 1)
		n, op := of(g)
		answered := false
		end := func(r *replica.Request) {
			if answered {
				return
			}
			answered = true
			if r == nil || r.Err != nil || len(op.Unsettled) > 0 {
				o.failed = true
				if r == nil {
					delete(o.c.target, g)
				} else if r.Err != nil {
					o.c.redirect(g, r.Err)
				}
			}
			if o.waiting--; o.waiting == 0 {
				w.after(w.between(0, time.Millisecond), func() { o.next(then) })
			}
		}
		if n == nil || n.host == nil {
			end(nil)
			continue
		}
		key := keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(listKey(g)))
		op.Sets = []replica.Spans{{{Lower: key, Upper: append(key[:len(key):len(key)], 0)}}}
		// The groups are asked at different times, as over a network.
		w.after(w.between(0, 3*time.Millisecond), func() {
			if n.host == nil {
				end(nil)
				return
			}
			w.after(patience, func() { end(nil) })
			n.host.Submit(context.Background(), &replica.Request{Group: g, Clock: op, Deadline: w.now + time.Second, Done: end})
			n.wake()
		})
	}
}

// next goes on, begins again, or gives up.
func (o *listOp) next(then func()) {
	const most = 5
	switch {
	case !o.failed:
		then()
	case o.tries < most:
		o.list()
	default:
		o.c.pause()
	}
}

// second asks for the second readings.
func (o *listOp) second() {
	rev := o.rev()
	o.ask(func(g keyspace.GroupID) (*node, *replica.ClockOp) {
		f := o.first[g]
		n := f.node
		if n.life != f.life || n.paused > o.c.w.now {
			n = nil
		}
		return n, &replica.ClockOp{AtLeast: rev, Hold: f.op.Hold, Since: replica.Reading{Term: f.op.Term, Clock: f.op.Result}}
	}, o.read)
}

func (o *listOp) rev() (rev keyspace.Revision) {
	for _, f := range o.first {
		rev = max(rev, f.op.Result)
	}
	return rev
}

// read reads the keys where their clocks were read.
func (o *listOp) read() {
	w, rev := o.c.w, o.rev()
	var saw listed
	for id := range w.cfg.Groups {
		g := keyspace.GroupID(id + 1)
		f := o.first[g]
		if f.node.life != f.life || f.node.host == nil {
			o.c.pause()
			return
		}
		rec, err := f.node.host.Get(context.Background(), host.ReadPoint{Group: g, Rev: rev, Clock: rev}, keyspace.DefaultNamespace, listKey(g), false)
		switch {
		case err == nil:
			saw[id] = string(rec.Value)
		case fault.CodeOf(err) != fault.NotFound:
			o.c.pause()
			return
		}
	}
	w.stats.Lists++
	if o.tries > 2 {
		w.stats.HeldLists++
	}
	o.ended(saw)
	o.c.pause()
}

// checkLists judges the lists and the puts of their keys.
func (w *World) checkLists() {
	h := &w.history
	for _, o := range h.openLists {
		if !o.done { // it may have happened, at any time since
			h.lists = append(h.lists, porcupine.Operation{ClientId: len(h.lists), Input: o.in, Output: listed{}, Call: int64(o.call), Return: math.MaxInt64})
		}
	}
	switch porcupine.CheckOperationsTimeout(listModel, h.lists, checkLimit) {
	case porcupine.Ok:
	case porcupine.Illegal:
		w.problem("lists over groups are not linearizable (%d lists and puts)", len(h.lists))
	case porcupine.Unknown:
		w.stats.Undecided++
	}
}
