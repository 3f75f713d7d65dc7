package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// client issues one operation after another, to a node it believes in.
type client struct {
	w      *World
	id     int
	target map[keyspace.GroupID]int
	banks  map[keyspace.GroupID]bank
	ledger ledger // as it was seen last
	once   bool   // issues single operations when told to
	routes
}

func (w *World) startClient(id int) {
	c := &client{w: w, id: id, target: make(map[keyspace.GroupID]int), banks: make(map[keyspace.GroupID]bank)}
	w.after(w.between(500*time.Millisecond, 2*time.Second), c.next)
}

// next starts the following operation, or ends the client.
func (c *client) next() {
	w := c.w
	if w.history.started >= w.cfg.Operations {
		w.history.finished++
		return
	}
	w.history.started++
	w.stats.Operations++
	if w.cfg.Lists {
		c.nextListed()
		return
	}
	g := keyspace.GroupID(1 + w.rng.IntN(w.cfg.Groups))
	if w.cfg.Expiring && w.chance(0.8) {
		c.expiring(g)
		return
	}
	if w.cfg.Transactions && w.chance(0.3) {
		c.ledgerOp()
		return
	}
	switch n := w.rng.IntN(100); {
	case n < 40:
		c.read(g)
	case n < 50:
		c.pair(g)
	case n < 60:
		c.transfer(g)
	default:
		c.write(g)
	}
}

// pause is the time between two operations of a client.
func (c *client) pause() {
	if c.once {
		return
	}
	c.w.after(c.w.between(time.Millisecond, 120*time.Millisecond), c.next)
}

func (c *client) key(g keyspace.GroupID) string {
	return c.w.spread(g, fmt.Sprintf("k%d", c.w.rng.IntN(c.w.cfg.Keys)))
}

// host picks a node: the one believed to lead, or any.
func (c *client) host(g keyspace.GroupID, any bool) *node {
	i, ok := c.target[g]
	if !ok || any {
		i = c.w.rng.IntN(len(c.w.nodes))
	}
	n := c.w.nodes[i]
	if n.host == nil || n.paused > c.w.now {
		return nil
	}
	return n
}

// write issues a put, create, compare-and-set or delete on one key.
func (c *client) write(g keyspace.GroupID) {
	w := c.w
	// Conditions fail often, so that refusals are judged as hard as writes.
	kinds := []kind{opPut, opPut, opCreate, opCreate, opCreate, opCAS, opCAS, opDelete, opDelete}
	in := input{key: c.key(g), kind: kinds[w.rng.IntN(len(kinds))]}
	w.history.values++
	in.value = fmt.Sprintf("v%d", w.history.values)
	if w.cfg.LargeEvery > 0 && w.rng.IntN(w.cfg.LargeEvery) == 0 {
		in.value = strings.Repeat(in.value+",", 200) // several chunks
		w.stats.Large++
	}
	op := operation(in.key, in.value)
	switch in.kind {
	case opCreate:
		op.Condition.MustNotExist = true
	case opCAS:
		in.version = w.history.versions[c.seen(in.key)]
		if in.version == 0 {
			in.kind = opPut
			break
		}
		op.Condition.Version = &in.version
	case opDelete:
		op.Delete, op.Value = true, nil
	default: // a put is what op already is
	}
	c.submit(g, []input{in}, []replica.Op{op})
}

// pair writes, or reads at one point, two keys that are only written together.
func (c *client) pair(g keyspace.GroupID) {
	w := c.w
	both := w.spread(g, "pair")
	keys := []string{both + "-a", both + "-b"}
	w.stats.Batches++
	if w.chance(0.5) {
		c.readKeys(g, keys)
		return
	}
	w.history.values++
	var ins []input
	var ops []replica.Op
	for _, k := range keys {
		in := input{key: k, kind: opPut, value: fmt.Sprintf("v%d", w.history.values)}
		ins, ops = append(ins, in), append(ops, operation(k, in.value))
	}
	c.submit(g, ins, ops)
}

func (c *client) read(g keyspace.GroupID) { c.readKeys(g, []string{c.key(g)}) }

func (c *client) seen(key string) string { return fmt.Sprintf("%d/%s", c.id, key) }

func operation(key, value string) replica.Op {
	return replica.Op{Namespace: keyspace.DefaultNamespace, Key: key, Value: []byte(value), Checksum: format.CRC32C([]byte(value))}
}

// patience is how long a client waits before it gives an operation up.
const patience = 5 * time.Second

func (c *client) submit(g keyspace.GroupID, ins []input, ops []replica.Op) {
	w := c.w
	if w.cfg.Transactions && !c.once && w.chance(0.4) {
		c.submitNamed(g, ins, ops)
		return
	}
	g = c.groupOf(g, ins[0].key)
	n := c.host(g, false)
	if n == nil {
		delete(c.target, g)
		c.pause()
		return
	}
	o := w.history.begin(c.id, ins, w.now)
	end := func(r *replica.Request) {
		if o.done {
			return
		}
		o.done = true
		c.wrote(g, ins, r, o.call)
		c.pause()
	}
	w.after(patience, func() { end(nil) })
	n.host.Submit(context.Background(), &replica.Request{Group: g, Ops: ops, Deadline: w.now + w.between(200*time.Millisecond, 2*time.Second), Done: end})
	n.wake()
}

// wrote records how a write ended; a nil request was never answered.
func (c *client) wrote(g keyspace.GroupID, ins []input, r *replica.Request, call time.Duration) {
	w := c.w
	w.wroteWatched(ins, r)
	if r == nil || fault.CodeOf(r.Err) == fault.UnknownOutcome {
		w.stats.Unknown++
		delete(c.target, g)
		for _, in := range ins {
			w.history.add(c.id, in, output{unknown: true}, call, 0)
		}
		return
	}
	if r.Err != nil {
		w.stats.Failed++
		c.redirect(g, r.Err)
		c.moved(g, ins[0].key, r.Err)
		return
	}
	w.stats.Acknowledged++
	for i, in := range ins {
		res := &r.Ops[i].Result
		out := output{version: res.Version, refused: res.Err != nil || (in.kind == opDelete && !res.Existed)}
		if !out.refused {
			w.history.versions[c.seen(in.key)] = res.Version
		}
		w.history.add(c.id, in, out, call, w.now)
		w.note(in.key, uint64(w.now), uint64(res.Revision))
	}
}

// redirect follows a leader hint.
func (c *client) redirect(g keyspace.GroupID, err error) {
	delete(c.target, g)
	var e *fault.Error
	if errors.As(err, &e) && e.Leader != "" {
		if i, wiped := c.w.find(keyspace.NodeID(e.Leader)); i >= 0 && !wiped {
			c.target[g] = i
		}
	}
}

// readKeys reads keys at one point, on any replica.
func (c *client) readKeys(g keyspace.GroupID, keys []string) {
	w := c.w
	g = c.groupOf(g, keys[0])
	n := c.host(g, w.chance(0.7))
	if n == nil {
		c.pause()
		return
	}
	w.stats.Reads++
	call, done, life := w.now, false, n.life
	w.after(patience, func() {
		if !done {
			done = true
			c.pause()
		}
	})
	n.host.ReadIndex(context.Background(), g, func(p host.ReadPoint, err error) {
		if done {
			return
		}
		done = true
		if err != nil {
			c.redirect(g, err)
			c.pause()
			return
		}
		w.after(w.between(0, time.Millisecond), func() {
			if n.life == life && n.host != nil {
				c.readAt(n, g, p, keys, call)
			}
			c.pause()
		})
	})
	n.wake()
}

func (c *client) readAt(n *node, g keyspace.GroupID, p host.ReadPoint, keys []string, call time.Duration) {
	w := c.w
	if _, local, _ := n.host.Leader(g); !local {
		w.stats.FollowerReads++
	}
	var values []string
	for _, key := range keys {
		out := output{}
		rec, err := n.host.Get(host.RunsLoop(context.Background()), p, keyspace.DefaultNamespace, key, false)
		switch {
		case err == nil:
			out = output{exists: true, value: string(rec.Value), version: rec.Version}
			w.history.versions[c.seen(key)] = rec.Version
		case fault.CodeOf(err) == fault.WrongGroup:
			c.moved(g, key, err)
			return
		case fault.CodeOf(err) != fault.NotFound:
			if fault.CodeOf(err) != fault.WrongLeader {
				w.problem("node %d: reading %s: %v", n.index, key, err)
			}
			return
		}
		values = append(values, out.value)
		w.history.add(c.id, input{key: key, kind: opGet}, out, call, w.now)
	}
	if len(values) == 2 && values[0] != values[1] {
		w.problem("node %d group %d: half an entry is visible: %q and %q", n.index, g, values[0], values[1])
	}
}
