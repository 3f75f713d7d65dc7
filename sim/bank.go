package sim

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// bank is what a client knows of the two accounts of a group. They are written
// together only, by transactions that move money from one to the other if both
// are as they were seen: so their versions are equal, and together they are one
// register, which the checker judges as such. Their sum never changes.
type bank struct {
	version uint64
	money   [2]int
}

// bankTotal is the sum of a group's two accounts.
const bankTotal = 100

func bankKey(g keyspace.GroupID) string { return fmt.Sprintf("g%d-bank", g) }

func (b bank) String() string { return fmt.Sprintf("%d|%d", b.money[0], b.money[1]) }

// transfer is one transaction: it moves money when the accounts are as this
// client saw them last, else it reads them; now and then it only reads.
func (c *client) transfer(g keyspace.GroupID) {
	w := c.w
	w.stats.Transactions++
	n := c.host(g, false)
	if n == nil {
		delete(c.target, g)
		c.pause()
		return
	}
	seen, next := c.banks[g], bank{money: [2]int{bankTotal, 0}}
	if seen.version > 0 {
		amount := 1 + w.rng.IntN(bankTotal/2)
		next.money = [2]int{seen.money[0] - amount, seen.money[1] + amount}
	}
	in := input{key: bankKey(g), kind: opTransfer, value: next.String(), version: seen.version}
	t := &replica.TxnOp{Then: c.accounts(g, nil)}
	if w.chance(0.2) {
		in = input{key: in.key, kind: opGet}
	} else {
		t = &replica.TxnOp{Checks: c.accounts(g, nil), Then: c.accounts(g, &next), Otherwise: c.accounts(g, nil)}
		for i := range t.Checks {
			t.Checks[i].Read = false
			t.Checks[i].Condition.Version = &in.version
		}
	}
	o, life := w.history.begin(c.id, []input{in}, w.now), n.life
	end := func(r *replica.Request) {
		if !o.done {
			o.done = true
			c.transferred(n, life, g, in, next, r, o.call)
		}
	}
	w.after(patience, func() { end(nil) })
	n.host.Submit(context.Background(), &replica.Request{Group: g, Txn: t, Deadline: w.now + w.between(200*time.Millisecond, 2*time.Second), Done: end})
	n.wake()
}

// accounts are reads of the two, or writes of what they should hold.
func (c *client) accounts(g keyspace.GroupID, next *bank) []replica.Op {
	pad := ""
	if next != nil && c.w.cfg.LargeEvery > 0 && c.w.rng.IntN(c.w.cfg.LargeEvery) == 0 {
		pad = strings.Repeat("x", 1500) // several chunks
		c.w.stats.Large++
	}
	ops := make([]replica.Op, 2)
	for i := range ops {
		key := fmt.Sprintf("%s-%d", bankKey(g), i)
		if next == nil {
			ops[i] = replica.Op{Read: true, Namespace: keyspace.DefaultNamespace, Key: key}
		} else {
			ops[i] = operation(key, fmt.Sprintf("%d:%s", next.money[i], pad))
		}
	}
	return ops
}

// transferred records how a transaction ended; a nil request was never answered.
func (c *client) transferred(n *node, life int, g keyspace.GroupID, in input, next bank, r *replica.Request, call time.Duration) {
	w := c.w
	switch {
	case in.kind == opGet && (r == nil || r.Err != nil): // nothing happened
		delete(c.target, g)
	case r == nil || fault.CodeOf(r.Err) == fault.UnknownOutcome:
		w.stats.Unknown++
		delete(c.target, g)
		w.history.add(c.id, in, output{unknown: true}, call, 0)
	case r.Err != nil:
		w.stats.Failed++
		c.redirect(g, r.Err)
	case in.kind == opTransfer && r.Txn.Succeeded:
		w.stats.Acknowledged++
		w.stats.Transferred++
		res := r.Ops[0].Result
		if res.Version != r.Ops[1].Result.Version || res.Revision != r.Ops[1].Result.Revision || res.Err != nil {
			w.problem("group %d: a transaction wrote %+v and %+v", g, res, r.Ops[1].Result)
		}
		next.version = res.Version
		c.banks[g] = next
		w.history.add(c.id, in, output{version: res.Version}, call, w.now)
		w.note(in.key, uint64(w.now), uint64(res.Revision))
	default:
		w.after(w.between(0, time.Millisecond), func() {
			if n.life == life && n.host != nil {
				c.readAccounts(n, g, in, r.Ops, call)
			}
			c.pause()
		})
		return
	}
	c.pause()
}

// readAccounts reads what a transaction saw, at the revisions that it saw.
func (c *client) readAccounts(n *node, g keyspace.GroupID, in input, ops []replica.Op, call time.Duration) {
	w := c.w
	saw := bank{version: ops[0].Result.Version}
	if ops[1].Result.Version != saw.version {
		w.problem("group %d: a transaction saw versions %d and %d of keys written together", g, saw.version, ops[1].Result.Version)
	}
	out := output{refused: in.kind == opTransfer, exists: saw.version > 0, version: saw.version}
	for i := range ops {
		if !out.exists {
			break
		}
		at := ops[i].Result.Revision
		rec, err := n.host.Get(host.RunsLoop(context.Background()), host.ReadPoint{Group: g, Rev: at, Clock: at, Fixed: true}, keyspace.DefaultNamespace, ops[i].Key, false)
		if err != nil || rec.Revision != at {
			if code := fault.CodeOf(err); code != fault.WrongLeader && code != fault.Unavailable {
				w.problem("node %d group %d: reading %s at %v: %v", n.index, g, ops[i].Key, at, err)
			}
			return
		}
		text, _, _ := strings.Cut(string(rec.Value), ":")
		if saw.money[i], err = strconv.Atoi(text); err != nil {
			w.problem("group %d: account %d holds %.20q", g, i, rec.Value)
		}
	}
	if out.exists {
		out.value = saw.String()
		if saw.money[0]+saw.money[1] != bankTotal {
			w.problem("group %d: accounts hold %v, together not %d", g, saw, bankTotal)
		}
	}
	c.banks[g] = saw
	w.history.add(c.id, in, out, call, w.now)
}
