package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// Transactions over several groups (DESIGN 9), as the router coordinates them: by
// internal/twophase, with orders that go to whoever leads, get lost, and come again
// much later. Coordinators stop anywhere, and begin anew under the same id; whoever
// meets a lock finishes the transaction; old records are collected.
//
// Beside what the checker says of the ledger, all that anybody concludes of an attempt
// has to agree.

// transactions is what is known of them.
type transactions struct {
	keys  [accounts]string
	slots [accounts]keyspace.SlotID
	// made are the participants of all, the oldest first, of which the records are not
	// known to be gone.
	made  []keyspace.TxnKey
	ended map[keyspace.TxnKey]outcome
	// committed is the attempt of an id that was.
	committed map[keyspace.TxnID]uint32
	since     map[keyspace.TxnKey]time.Duration
	// unknown are operations that were not answered.
	unknown []unknownTxn
}

type unknownTxn struct {
	o    *openWrite
	last keyspace.TxnKey
}

type outcome struct {
	verb   twophase.Verb
	at     keyspace.Revision
	branch twophase.Branch
}

// txn is a transaction of a client.
type txn struct {
	id   keyspace.TxnID
	move *move // in the order of the accounts' slots
	set  []keyspace.SlotID
}

// ordersWithin bounds the orders of one step.
const ordersWithin = 2 * time.Second

// startTransactions begins to look after them.
func (w *World) startTransactions() {
	x := &w.txns
	x.ended, x.committed, x.since = map[keyspace.TxnKey]outcome{}, map[keyspace.TxnID]uint32{}, map[keyspace.TxnKey]time.Duration{}
	if !w.cfg.Transactions {
		return
	}
	for i := range x.keys {
		for n := 0; ; n++ {
			x.keys[i] = w.spread(keyspace.GroupID(1+i%w.cfg.Groups), fmt.Sprintf("account%d-%d", i, n))
			x.slots[i] = keyspace.SlotOf(keyspace.DefaultNamespace, x.keys[i])
			if !slices.Contains(x.slots[:i], x.slots[i]) {
				break
			}
		}
	}
	w.after(time.Second, w.tend)
	w.after(2*time.Second, w.collect)
}

// groupOfSlot is where an account's participant is, as far as anybody knows.
func (w *World) groupOfSlot(slot keyspace.SlotID, tries int) keyspace.GroupID {
	if !w.cfg.Splits {
		return keyspace.GroupID(1 + slices.Index(w.txns.slots[:], slot)%w.cfg.Groups)
	}
	if tries%2 == 1 {
		return keyspace.GroupID(w.cfg.Groups) // all slots move there
	}
	g, _ := w.slots.past[len(w.slots.past)-1].GroupOf(slot)
	return g
}

// ledgerOp is one operation on accounts.
func (c *client) ledgerOp() {
	w := c.w
	switch n := w.rng.IntN(100); {
	case n < 20:
		c.look(w.rng.IntN(accounts))
	case n < 35:
		c.rewrite(w.rng.IntN(accounts))
	default:
		w.spawn(func(t *task) {
			c.transact(t)
			c.pause()
		})
	}
}

// newTxn looks at all accounts, or moves money between two of them as this client
// saw them last.
func (c *client) newTxn() *txn {
	w, m := c.w, &move{}
	x := &txn{id: keyspace.TxnID{Created: keyspace.RevisionAt(firstWall + w.now.Milliseconds()), Random: w.rng.Uint64()}, move: m}
	for i := range accounts {
		m.of = append(m.of, i)
	}
	if w.chance(0.6) {
		m.of = slices.Delete(m.of, w.rng.IntN(accounts), accounts)
		for len(m.of) < 2 {
			if i := w.rng.IntN(accounts); !slices.Contains(m.of, i) {
				m.of = append(m.of, i)
			}
		}
		m.of = m.of[:2]
	}
	slices.SortFunc(m.of, func(a, b int) int { return int(w.txns.slots[a]) - int(w.txns.slots[b]) })
	amount := 1 + w.rng.IntN(50)
	for _, i := range m.of {
		x.set = append(x.set, w.txns.slots[i])
		if len(m.of) == 2 {
			m.version, m.money = append(m.version, c.ledger[i].version), append(m.money, c.ledger[i].money+amount)
			amount = -amount
		}
	}
	return x
}

// ops is the part of a participant.
func (w *World) ops(x *txn, n int) *replica.TxnOp {
	i := x.move.of[n]
	read := replica.Op{Read: true, Namespace: keyspace.DefaultNamespace, Key: w.txns.keys[i]}
	if x.move.money == nil {
		return &replica.TxnOp{Then: []replica.Op{read}}
	}
	version := x.move.version[n]
	check := read
	check.Read, check.Condition.Version = false, &version
	return &replica.TxnOp{Checks: []replica.Op{check}, Then: []replica.Op{w.setAccount(i, x.move.money[n], x.id.Random)}, Otherwise: []replica.Op{read}}
}

// setAccount writes an account; by is of nobody else.
func (w *World) setAccount(i, money int, by uint64) replica.Op {
	pad := ""
	if w.cfg.LargeEvery > 0 && w.rng.IntN(w.cfg.LargeEvery) == 0 {
		pad = strings.Repeat("x", 700)
	}
	return operation(w.txns.keys[i], fmt.Sprintf("%d:%s%s", money, w.mark(by), pad))
}

// order makes requests of a step of the n-th participant.
func (w *World) order(key keyspace.TxnKey, set []keyspace.SlotID, n int, o replica.OrderOp, x *txn) func() *replica.Request {
	key.Slot = set[n]
	o.Key, o.Participants = key, set
	return func() *replica.Request {
		again := o
		r := &replica.Request{Order: &again}
		if o.Kind == replica.OrderPrepare {
			r.Txn = w.ops(x, n)
		}
		return r
	}
}

// answered is an answer, and the node and its life that it came from.
type answered struct {
	*replica.Request
	n    *node
	life int
}

// askAll has every participant take a step, and waits for their answers, not for ever.
func (w *World) askAll(t *task, key keyspace.TxnKey, set []keyspace.SlotID, o replica.OrderOp, x *txn) []answered {
	out, left, over := make([]answered, len(set)), len(set), false
	_ = t.await(ordersWithin, func(done func()) {
		for n := range set {
			w.ask(set[n], w.order(key, set, n, o, x), w.now+ordersWithin, &over, func(a answered) {
				if out[n].Request != nil {
					return
				}
				if out[n], left = a, left-1; left == 0 {
					done()
				}
			})
		}
	})
	over = true
	return out
}

// tellAll has every participant told, and does not wait.
func (w *World) tellAll(key keyspace.TxnKey, set []keyspace.SlotID, o replica.OrderOp) {
	for n := range set {
		w.ask(set[n], w.order(key, set, n, o, nil), w.now+ordersWithin, new(bool), func(answered) {})
	}
}

func (w *World) ask(slot keyspace.SlotID, request func() *replica.Request, until time.Duration, over *bool, answer func(answered)) {
	w.askGroup(func(tries int) keyspace.GroupID { return w.groupOfSlot(slot, tries) }, request, until, over, answer)
	if w.faultsOn && w.chance(0.1) { // a copy that comes late
		w.after(w.between(0, 5*time.Second), func() {
			w.askGroup(func(tries int) keyspace.GroupID { return w.groupOfSlot(slot, tries) }, request, w.now+time.Second, new(bool), func(answered) {})
		})
	}
}

// askGroup sends a request to whoever may lead a group until it is answered.
func (w *World) askGroup(group func(tries int) keyspace.GroupID, request func() *replica.Request, until time.Duration, over *bool, answer func(answered)) {
	tries := 0
	var try func()
	try = func() {
		if *over || w.now >= until {
			return
		}
		g := group(tries)
		tries++
		n := w.leader(g)
		if n == nil || w.chance(0.1) {
			n = w.nodes[w.rng.IntN(len(w.nodes))]
		}
		settled := false
		again := func() {
			if !settled {
				settled = true
				w.after(w.between(5*time.Millisecond, 60*time.Millisecond), try)
			}
		}
		take := func(a answered) {
			settled = true
			if !*over {
				answer(a)
			}
		}
		w.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() { w.submitTo(n, g, request(), again, take) })
		w.after(w.between(300*time.Millisecond, time.Second), again)
	}
	try()
}

// submitTo runs a request on a node; what is lost on the way, or refused, is tried again.
func (w *World) submitTo(n *node, g keyspace.GroupID, r *replica.Request, again func(), answer func(answered)) {
	if n.host == nil || n.paused > w.now {
		again()
		return
	}
	life := n.life
	r.Group, r.Deadline = g, w.now+w.between(200*time.Millisecond, time.Second)
	r.Done = func(r *replica.Request) {
		w.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() {
			if o := r.Order; o != nil && fault.CodeOf(r.Err) == fault.FailedPrecondition {
				w.problem("group %d: %v", g, r.Err)
			}
			if r.Err != nil || w.faultsOn && w.chance(0.03) {
				again()
				return
			}
			answer(answered{r, n, life})
		})
	}
	n.host.Submit(context.Background(), r)
	n.wake()
}

// conclude is what follows from answers to orders.
func (w *World) conclude(key keyspace.TxnKey, all []answered) twophase.Conclusion {
	said := make([]twophase.Answer, len(all))
	for i := range all {
		if all[i].Request != nil {
			said[i] = all[i].Order.Result.Answer
		}
	}
	c := twophase.Conclude(said)
	if c.Verb == twophase.Wait || c.Expired {
		return c
	}
	key.Slot = 0
	got := outcome{c.Verb, c.At, c.Branch}
	if c.Verb == twophase.DoAbort {
		got = outcome{verb: c.Verb}
	}
	if before, known := w.txns.ended[key]; known && before != got {
		w.problem("transaction %s attempt %d was concluded as %+v, and now %+v", key.ID, key.Attempt, before, got)
	}
	w.txns.ended[key] = got
	if c.Verb == twophase.DoCommit {
		if before, known := w.txns.committed[key.ID]; known && before != key.Attempt {
			w.problem("transaction %s was executed in attempts %d and %d", key.ID, before, key.Attempt)
		}
		w.txns.committed[key.ID] = key.Attempt
		w.note("committed", uint64(c.At), key.ID.Random)
	}
	return c
}

// transact is the life of one transaction, as its client sees it.
func (c *client) transact(t *task) {
	w, x := c.w, c.newTxn()
	in := input{key: "ledger", kind: opLedger, move: x.move}
	o := w.history.begin(c.id, []input{in}, w.now)
	if x.move.money == nil {
		o.done = true // nobody misses it
	}
	w.stats.OverGroups++
	key := keyspace.TxnKey{ID: x.id}
	w.begun(key, x.set)
	w.beginWatchedTxn(x)
	defer func() {
		if !o.done {
			w.stats.Unknown++
			w.txns.unknown = append(w.txns.unknown, unknownTxn{o, key})
		}
	}()
	for again := 0; again < 4; again++ {
		all := w.askAll(t, key, x.set, replica.OrderOp{Kind: replica.OrderPrepare, Wait: again > 0 && w.chance(0.5)}, x)
		if w.stops(t, 0.08) {
			if w.stats.Stopped++; w.chance(0.5) || !c.wait(t) {
				return
			}
			continue // begun anew under the same id
		}
		d := w.conclude(key, all)
		if d.Verb == twophase.Wait {
			poisoned := w.askAll(t, key, x.set, replica.OrderOp{Kind: replica.OrderPoison}, nil)
			if d = w.conclude(key, poisoned); d.Verb == twophase.Wait {
				continue
			}
		}
		switch {
		case d.Verb == twophase.DoCommit:
			c.committed(x, d, all, in, o)
			if !w.stops(t, 0.1) {
				w.tellAll(key, x.set, replica.OrderOp{Kind: replica.OrderCommit, At: d.At, Branch: d.Branch})
			}
			return
		case d.Expired:
			return // not known any more
		}
		if w.stops(t, 0.2) {
			o.done = true
			return
		}
		w.tellAll(key, x.set, replica.OrderOp{Kind: replica.OrderAbort})
		if !d.Again || !c.wait(t) {
			o.done = true
			w.stats.Failed++
			return
		}
		key.Attempt++
		w.begun(key, x.set)
	}
}

// resolve takes back operations of unknown outcome of which it turned out that they
// were not executed.
func (w *World) resolve() {
	for _, u := range w.txns.unknown {
		never := true
		for key := u.last; ; key.Attempt-- {
			got, known := w.txns.ended[key]
			never = never && known && got.verb == twophase.DoAbort
			if key.Attempt == 0 {
				break
			}
		}
		u.o.done = u.o.done || never
	}
}

func (w *World) begun(key keyspace.TxnKey, set []keyspace.SlotID) {
	for _, slot := range set {
		key.Slot = slot
		w.txns.made = append(w.txns.made, key)
	}
}

// stops reports whether a coordinator stops here.
func (w *World) stops(t *task, p float64) bool { return t.ended || w.faultsOn && w.chance(p) }

func (c *client) wait(t *task) bool {
	return t.await(time.Minute, func(done func()) { c.w.after(c.w.between(time.Millisecond, 200*time.Millisecond), done) }) == nil
}

// committed answers the client.
func (c *client) committed(x *txn, d twophase.Conclusion, all []answered, in input, o *openWrite) {
	w := c.w
	call := o.call
	o.done = true
	out := output{refused: d.Branch == twophase.Otherwise}
	switch {
	case d.Branch == twophase.Nothing:
		w.problem("transaction %s has no conditions that could keep it from anything", x.id)
		return
	case d.Branch == twophase.Then && x.move.money != nil:
		for n, i := range x.move.of {
			c.ledger[i] = account{x.move.version[n] + 1, x.move.money[n]}
		}
		w.stats.Moved++
	default:
		saw, ok := c.values(x, d, all)
		if out.saw = saw; !ok {
			if out.untold = true; !out.refused {
				return
			}
			break
		}
		for _, i := range x.move.of {
			c.ledger[i] = saw[i]
		}
		if total := saw[0].money + saw[1].money + saw[2].money; len(x.move.of) == accounts {
			if w.stats.Looked++; total != 0 {
				w.problem("transaction %s saw %+v, together not 0", x.id, saw)
			}
		}
	}
	w.history.add(c.id, in, out, call, w.now)
}

// values reads what the participants saw, at the revisions that they saw; ok is false
// when that is not to be had.
func (c *client) values(x *txn, d twophase.Conclusion, all []answered) (saw ledger, ok bool) {
	for n, i := range x.move.of {
		a := all[n]
		if a.Request == nil || a.Order.Result.State != twophase.Prepared {
			return saw, false
		}
		ops := a.Txn.Then
		if d.Branch == twophase.Otherwise {
			ops = a.Txn.Otherwise
		}
		res := ops[0].Result
		if !res.Existed {
			continue
		}
		if a.n.life != a.life || a.n.host == nil {
			return saw, false
		}
		p := host.ReadPoint{Group: a.Group, Rev: res.Revision, Clock: res.Revision, Fixed: true}
		got, exists, known := c.w.account(a.n, p, i)
		if !known {
			return saw, false
		}
		if !exists || got.version != res.Version {
			c.w.problem("group %d: version %d of account %d is %+v", a.Group, res.Version, i, got)
		}
		saw[i] = got
	}
	return saw, true
}
