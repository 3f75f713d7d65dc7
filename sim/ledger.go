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

// Accounts in different groups, between which transactions move money (ledger). They
// are one register to the checker: what a transaction saw or did, it saw or did of all
// its accounts at one moment.

// accounts is how many there are; they begin with nothing, and may owe.
const accounts = 3

type account struct {
	version uint64
	money   int
}

type ledger [accounts]account

// move is an operation on some accounts. Without money it only looks.
type move struct {
	of      []int
	version []uint64
	money   []int
}

func (m *move) String() string {
	var b strings.Builder
	for n, i := range m.of {
		fmt.Fprintf(&b, "%d", i)
		if m.money != nil {
			fmt.Fprintf(&b, " of version %d to %d", m.version[n], m.money[n])
		}
		b.WriteString("; ")
	}
	return b.String()
}

// stepLedger is what an operation does to the accounts, and whether it may have
// answered as it did.
func stepLedger(s state, m *move, out output) (bool, any) {
	told := true
	for _, i := range m.of {
		told = told && out.saw[i] == s.accounts[i]
	}
	if m.money == nil {
		return told, s
	}
	holds, next := true, s
	for n, i := range m.of {
		holds = holds && s.accounts[i].version == m.version[n]
		next.accounts[i] = account{s.accounts[i].version + 1, m.money[n]}
	}
	if !holds {
		next = s
	}
	switch {
	case out.unknown:
		return true, next
	case out.refused:
		return !holds && (told || out.untold), s
	}
	return holds, next
}

// account reads one; known is false when the node cannot tell.
func (w *World) account(n *node, p host.ReadPoint, i int) (a account, exists, known bool) {
	rec, err := n.host.Get(host.RunsLoop(context.Background()), p, keyspace.DefaultNamespace, w.txns.keys[i], false)
	switch code := fault.CodeOf(err); code {
	case "":
	case fault.NotFound:
		return a, false, true
	case fault.WrongLeader, fault.Unavailable, fault.WrongGroup, fault.OutOfRange:
		return a, false, false
	default:
		w.problem("node %d: reading account %d: %v", n.index, i, err)
		return a, false, false
	}
	text, _, _ := strings.Cut(string(rec.Value), ":")
	money, err := strconv.Atoi(text)
	if err != nil {
		w.problem("account %d holds %.20q", i, rec.Value)
	}
	return account{rec.Version, money}, true, true
}

// look reads one account on any replica.
func (c *client) look(i int) {
	w := c.w
	g := w.groupOfSlot(w.txns.slots[i], w.rng.IntN(2))
	n := c.host(g, w.chance(0.7))
	if n == nil {
		c.pause()
		return
	}
	call, life, done := w.now, n.life, false
	end := func() {
		if !done {
			done = true
			c.pause()
		}
	}
	w.after(patience, end)
	n.host.ReadIndex(context.Background(), g, func(p host.ReadPoint, err error) {
		w.after(w.between(0, time.Millisecond), func() {
			if done || err != nil || n.life != life || n.host == nil {
				end()
				return
			}
			if a, _, known := w.account(n, p, i); known {
				var saw ledger
				saw[i], c.ledger[i] = a, a
				w.history.add(c.id, input{key: "ledger", kind: opLedger, move: &move{of: []int{i}}}, output{saw: saw}, call, w.now)
			}
			end()
		})
	})
	n.wake()
}

// rewrite writes an account as it was, under the condition that it still is.
func (c *client) rewrite(i int) {
	w := c.w
	g := w.groupOfSlot(w.txns.slots[i], w.rng.IntN(2))
	n := c.host(g, false)
	if n == nil {
		delete(c.target, g)
		c.pause()
		return
	}
	seen := c.ledger[i]
	in := input{key: "ledger", kind: opLedger, move: &move{of: []int{i}, version: []uint64{seen.version}, money: []int{seen.money}}}
	op := w.setAccount(i, seen.money, uint64(len(w.watches.writes)))
	watched := w.beginWatched([]input{{key: op.Key, kind: opPut, value: string(op.Value)}})
	op.Condition.Version = &seen.version
	o := w.history.begin(c.id, []input{in}, w.now)
	end := func(r *replica.Request) {
		if o.done {
			return
		}
		o.done = true
		watched.answered(r)
		switch {
		case r == nil || fault.CodeOf(r.Err) == fault.UnknownOutcome:
			w.history.add(c.id, in, output{unknown: true}, o.call, 0)
		case r.Err != nil:
			c.redirect(g, r.Err)
		case r.Ops[0].Result.Err != nil:
			w.history.add(c.id, in, output{refused: true, untold: true}, o.call, w.now)
		default:
			c.ledger[i].version = r.Ops[0].Result.Version
			w.history.add(c.id, in, output{}, o.call, w.now)
		}
		c.pause()
	}
	w.after(patience, func() { end(nil) })
	n.host.Submit(context.Background(), &replica.Request{Group: g, Ops: []replica.Op{op}, Deadline: w.now + w.between(200*time.Millisecond, 2*time.Second), Done: end})
	n.wake()
}
