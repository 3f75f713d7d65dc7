package replica

import (
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// TxnOp makes a request a transaction on keys of one group (DESIGN 9): checks
// are judged, and of two lists of operations one is executed, all at one stamp
// in one entry.
//
// Evaluation looks at the keys of the checks and of both lists before it judges
// anything, since which list is taken is known only then: so the host fetches
// all of them ahead, and a slot of any of them that is not the group's, or moves,
// refuses the transaction. Checks, conditions and reads see the newest state in
// log order before the transaction's own writes, in-flight writes included, and
// expiry is judged for all at the same time. From there on a transaction is a
// set of operations like any other, with its list as Request.Ops. One that
// writes nothing, because its list only reads, deletes what is not there, or has
// a condition that does not hold, tells of the state: it waits as a refusal does
// until what it saw is applied and leadership is confirmed (park).
//
// It may be evaluated several times, until its prefetch is current, after its
// large values are in the log, and when raft drops its entry, each time perhaps
// with another list. What was uploaded for the list that is not taken is given
// up then.
type TxnOp struct {
	// Checks count with their key and condition only.
	Checks []Op
	// Then is executed when all checks hold, else Otherwise. Each writes a key at
	// most once.
	Then, Otherwise []Op
	// Succeeded tells, once Done was called without Request.Err, that all checks
	// held; Request.Ops is the list that was taken.
	Succeeded bool
}

// Sets are all operations of the request: Ops, or of a transaction its checks
// and both lists.
func (r *Request) Sets() [3][]Op {
	if r.Txn == nil {
		return [3][]Op{r.Ops}
	}
	return [3][]Op{r.Txn.Checks, r.Txn.Then, r.Txn.Otherwise}
}

// evaluateTxn judges a transaction and adds the writes of the list it takes.
func (c *Core) evaluateTxn(r *Request, b *building) verdict {
	t := r.Txn
	seen, ok := c.lookForTxn(t)
	if !ok {
		return verdictRefetch
	}
	checked := len(t.Checks)
	judged := max(keyspace.RevisionAt(b.now.Physical), c.lead.clock+1)
	switch holder, key, known := c.expiryHolder(t, judged); {
	case !known:
		return verdictRefetch
	case holder != nil:
		return c.parkBehind(r, holder, key, b.now)
	}
	holds, known := c.judgeChecks(t.Checks, seen[:checked], judged.UnixMilli())
	if !known {
		return verdictRefetch
	}
	then, otherwise := seen[checked:checked+len(t.Then)], seen[checked+len(t.Then):]
	t.Succeeded = holds
	curs := then
	if r.Ops = t.Then; !holds {
		r.Ops, curs = t.Otherwise, otherwise
	}
	c.abandonOther(t)
	v := c.execute(r, curs, judged, b)
	if v == verdictRefused {
		c.pinExpiry(seen[:checked], judged, b)
	}
	return v
}

// lookForTxn finds the newest versions of all keys: of the checks, then of Then,
// then of Otherwise. ok is false when one must be fetched again.
func (c *Core) lookForTxn(t *TxnOp) (seen []current, ok bool) {
	seen = c.currents(len(t.Checks) + len(t.Then) + len(t.Otherwise))
	n := 0
	for _, ops := range [...][]Op{t.Checks, t.Then, t.Otherwise} {
		for i := range ops {
			if seen[n], ok = c.look(ops[i].diskKey, &ops[i].fetch); !ok {
				return nil, false
			}
			n++
		}
	}
	return seen, true
}

// judgeChecks tells whether all checks hold; known is false when a value must be
// fetched to tell.
func (c *Core) judgeChecks(checks []Op, seen []current, nowMilli int64) (holds, known bool) {
	for i := range checks {
		switch known, err := c.judge(&checks[i], &seen[i], nowMilli); {
		case !known:
			return false, false
		case err != nil:
			return false, true
		}
	}
	return true, true
}

// abandonOther gives up what an earlier evaluation uploaded for the list that is
// not taken now.
func (c *Core) abandonOther(t *TxnOp) {
	if t.Succeeded {
		c.abandonList(t.Otherwise)
	} else {
		c.abandonList(t.Then)
	}
}

// abandonList gives up what was uploaded for operations.
func (c *Core) abandonList(ops []Op) {
	for i := range ops {
		if u := ops[i].upload; u != nil {
			c.discard(u)
			ops[i].upload = nil
		}
	}
}

// readResult is what a read answers of the version that it saw.
func readResult(h *format.Header, nowMilli int64) OpResult {
	if !h.Exists(nowMilli) {
		return OpResult{}
	}
	return OpResult{Existed: true, Version: h.Version, Revision: h.Revision, Created: h.Created, Expires: h.Expires}
}
