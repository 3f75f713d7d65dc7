package router

import (
	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// validateTransaction checks what needs no state, of both lists. Errors name the
// list (checks, then, otherwise) and the position in it.
func validateTransaction(q *api.TransactionRequest) error {
	n := len(q.GetChecks()) + len(q.GetThen()) + len(q.GetOtherwise())
	switch {
	case n == 0:
		return fault.New(fault.InvalidArgument, "transaction is empty")
	case n > MaxBatchItems:
		return fault.New(fault.InvalidArgument, "transaction has too many checks and operations", "limit", MaxBatchItems, "actual", n)
	}
	if err := validateFence(q.Fence); err != nil {
		return err
	}
	total := 0
	for i, c := range q.Checks {
		size, err := validateCheck(c)
		if err != nil {
			return inList(err, "checks", i)
		}
		total += size
	}
	for _, list := range []struct {
		name string
		ops  []*api.TransactionOp
	}{{"then", q.Then}, {"otherwise", q.Otherwise}} {
		size, err := validateTxnOps(q, list.name, list.ops)
		if err != nil {
			return err
		}
		total += size
	}
	if total > MaxBatchBytes {
		return fault.New(fault.MessageTooLarge, "keys and values of the transaction are too large together",
			"limit_bytes", MaxBatchBytes, "actual_bytes", total)
	}
	return nil
}

// validateCheck refuses a check that would always hold: it was forgotten.
func validateCheck(c *api.TransactionCheck) (size int, err error) {
	if err := keyspace.ValidateKey(c.GetKey()); err != nil {
		return 0, err
	}
	cond := c.Condition
	if cond == nil || cond.VersionMatch == nil && cond.RevisionMatch == nil && !cond.MustExist && !cond.MustNotExist && cond.ValueEquals == nil &&
		cond.CreatedMatch == nil && cond.LeaseMatch == nil {
		return 0, fault.New(fault.InvalidArgument, "check has no condition", "key", c.Key)
	}
	return len(c.Key) + len(cond.ValueEquals), validateCondition(c.Key, cond)
}

func validateTxnOps(q *api.TransactionRequest, name string, ops []*api.TransactionOp) (size int, err error) {
	var written writtenKeys
	for i, op := range ops {
		n, err := validateTxnOp(op)
		if err != nil {
			return 0, inList(err, name, i)
		}
		size += n
		if op.GetGet() != nil || op.GetCheck() != nil {
			continue
		}
		if op.GetPut().GetFence() != nil || op.GetDelete().GetFence() != nil {
			return 0, inList(errFenceOfItem(i), name, i)
		}
		space, text := txnKey(op)
		if first, twice := written.add(writtenKey{spaceName(q, space), text}, i); twice {
			return 0, fault.New(fault.InvalidArgument, "transaction writes a key twice", "list", name, "key", text, "first", first, "second", i)
		}
	}
	return size, nil
}

// writtenKeys are the keys that a list writes, with where it does. A few are compared
// with each other, which is cheaper than to hash them.
type writtenKeys struct {
	n   int
	few [8]struct {
		key writtenKey
		at  int
	}
	many map[writtenKey]int
}

type writtenKey struct{ space, name string }

// add notes that the operation at a position writes a key, and tells which one did
// before.
func (w *writtenKeys) add(k writtenKey, at int) (first int, twice bool) {
	for i := range w.few[:w.n] {
		if w.few[i].key == k {
			return w.few[i].at, true
		}
	}
	if w.n < len(w.few) {
		w.few[w.n].key, w.few[w.n].at = k, at
		w.n++
		return 0, false
	}
	if first, twice = w.many[k]; twice {
		return first, true
	}
	if w.many == nil {
		w.many = make(map[writtenKey]int)
	}
	w.many[k] = at
	return 0, false
}

func validateTxnOp(op *api.TransactionOp) (size int, err error) {
	switch o := op.GetOp().(type) {
	case *api.TransactionOp_Put:
		if err := unnamed("transaction", o.Put.GetRequestId()); err != nil {
			return 0, err
		}
		return len(o.Put.GetKey()) + len(o.Put.GetValue()) + len(o.Put.GetCondition().GetValueEquals()), validatePut(o.Put)
	case *api.TransactionOp_Delete:
		if err := unnamed("transaction", o.Delete.GetRequestId()); err != nil {
			return 0, err
		}
		return len(o.Delete.GetKey()) + len(o.Delete.GetCondition().GetValueEquals()), validateDelete(o.Delete)
	case *api.TransactionOp_Touch:
		return len(o.Touch.GetKey()) + len(o.Touch.GetCondition().GetValueEquals()), validateTouch(o.Touch)
	case *api.TransactionOp_Get:
		return len(o.Get.GetKey()), validateTxnGet(o.Get)
	case *api.TransactionOp_Check:
		return validateCheck(o.Check)
	}
	return 0, fault.New(fault.InvalidArgument, "transaction holds an operation of no known kind")
}

// validateTxnGet allows what a transaction can tell: the newest version at its
// own moment.
func validateTxnGet(g *api.GetRequest) error {
	if err := keyspace.ValidateKey(g.GetKey()); err != nil {
		return err
	}
	if g.AtRevision != 0 || g.AtTimeMs != 0 || g.Consistency != api.Consistency_CONSISTENCY_LINEARIZABLE || g.MaxStalenessMs != 0 {
		return fault.New(fault.InvalidArgument, "a get in a transaction takes neither a revision, a time nor a consistency", "key", g.Key)
	}
	return nil
}

// inList adds to an error where in the transaction it is.
func inList(err error, list string, i int) error {
	e := asFault(atItem(err, i))
	e.Details["list"] = list
	return e
}
