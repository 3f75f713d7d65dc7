package replica

import (
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// OrderKind is a step that a participant of a transaction over several groups is
// asked for.
type OrderKind uint8

// The kinds of orders.
const (
	// OrderPrepare judges the checks, locks the keys and keeps the lists, or refuses
	// for good.
	OrderPrepare OrderKind = iota + 1
	// OrderRefuse refuses for good as if locks had stood in the way.
	OrderRefuse
	// OrderPoison makes sure that what is not prepared never will be.
	OrderPoison
	// OrderQuery tells what is known and changes nothing.
	OrderQuery
	OrderCommit
	OrderAbort
)

// OrderOp makes a request a step of a participant of a transaction over several
// groups (DESIGN 9, internal/twophase). With OrderPrepare the request is a
// transaction (Request.Txn) on the keys of this participant, of which nothing is
// written yet; other orders need nothing but the record, which the host fetches
// ahead as it fetches keys.
type OrderOp struct {
	Kind         OrderKind
	Key          keyspace.TxnKey
	Participants []keyspace.SlotID
	// Wait, of a prepare: wait for locks until the deadline instead of refusing.
	Wait bool
	// Remember: the outcome is kept for those who ask, with Answer.
	Remember bool
	// At and Branch belong to OrderCommit.
	At     keyspace.Revision
	Branch twophase.Branch
	// Answer is what the record keeps after this step.
	Answer []byte

	// Result is valid once Done was called without Request.Err.
	Result OrderResult
	record Op // fetches the record
}

// OrderResult is what a participant answers. Where it is prepared, and the order was
// a Prepare, Request.Txn has the results of both lists as far as they are known
// before the commit: the versions that reads saw and writes would make, and the
// conditions that do not hold.
type OrderResult struct {
	twophase.Answer
	// Participants are all slots that take part, as the record says; nil without one.
	Participants []keyspace.SlotID
	// Remembered is the answer that the record keeps, nil for none.
	Remembered []byte
}

// LowOp reads, and with Raise raises, the group's low-water mark. It is answered
// like a reading of the clock.
type LowOp struct {
	// Raise is what the mark is to be at least; 0 leaves it.
	Raise keyspace.Revision
	// LowWater is the mark afterwards.
	LowWater keyspace.Revision
	// Oldest is the earliest creation of what is prepared here, in log order behind
	// the raise; MaxRevision when nothing is.
	Oldest keyspace.Revision
}

// ForgetOp deletes records of transactions that are final and at or below the
// low-water mark; others it leaves.
type ForgetOp struct {
	Keys []keyspace.TxnKey
	// Forgotten counts those that were deleted.
	Forgotten int
	records   []Op
}
