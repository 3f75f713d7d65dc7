// Package twophase is the protocol of transactions over several participants:
// what a participant does with an order, and what anybody may conclude from
// participants' answers. It is pure; whoever uses it keeps the records in a
// group's log and carries the orders.
//
// There is no coordinator's log (DESIGN 9). A transaction is committed from the
// moment when every participant has a durable PREPARED record, whoever knows it,
// and aborted from the moment when one has a durable ABORTED record. Both exclude
// each other for ever: a participant that is asked about a transaction of which it
// has no record (Poison) writes ABORTED before it says so, and a refused Prepare
// leaves ABORTED behind, so that a late duplicate of it cannot prepare what others
// were told has failed.
//
// Records are dropped once all participants are final and the transaction is older
// than the participant's low-water mark. Below the mark a participant prepares
// nothing, so that no record is the same as ABORTED for whoever is still prepared;
// it says EXPIRED instead, since it cannot tell what was answered before. The mark
// belongs to the participant and moves with it. Who drops records asks for what is
// prepared, itself first and only then the others: one that was asked before could
// still prepare what the asker then commits and forgets.
//
// explore_test.go goes through every state of small systems with these functions.
package twophase

import (
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// State is how far a transaction is at one participant.
type State uint8

// The states. Unknown is the absence of a record; Committed and Aborted are final.
const (
	Unknown State = iota
	Prepared
	Committed
	Aborted
)

// Final reports whether a record never changes again.
func (s State) Final() bool { return s == Committed || s == Aborted }

// Cause says why a participant aborted.
type Cause uint8

// The causes.
const (
	// NoCause is that of all other states.
	NoCause Cause = iota
	// Conflict: another transaction holds a lock that this one needs.
	Conflict
	// Poisoned: somebody recovered the transaction before it was prepared here.
	Poisoned
	// Ordered: another participant had aborted.
	Ordered
	// Elsewhere: a request of the same id was carried out in one group, and its
	// outcome is remembered. Nothing else ever happens under the id.
	Elsewhere
)

// Branch is what a transaction does in the end.
type Branch uint8

// The branches.
const (
	NoBranch Branch = iota
	Then
	Otherwise
	// Nothing: a condition of an operation of the chosen list does not hold.
	Nothing
)

// Record is what a participant's log says of an attempt of a transaction.
type Record struct {
	State State
	// Cause of Aborted.
	Cause Cause
	// Stamp is the revision at which it was prepared, and Holds whether its checks
	// held then.
	Stamp keyspace.Revision
	Holds bool
	// ThenPossible and OtherwisePossible tell whether the conditions of each list's
	// operations held at Stamp.
	ThenPossible, OtherwisePossible bool
	// At is the revision of a commit, Branch what it does.
	At     keyspace.Revision
	Branch Branch
}

// Allows reports whether a commit of a branch may be ordered to a participant that
// is prepared like this: it would not be if it contradicted what it said.
func (r *Record) Allows(b Branch) bool {
	switch b {
	case Then:
		return r.Holds && r.ThenPossible
	case Otherwise:
		return r.OtherwisePossible
	case Nothing:
		return true
	case NoBranch:
	}
	return false
}

// Answer is what a participant says of an attempt. Silence is the zero Answer.
type Answer struct {
	Record
	// Expired: the participant has no record, and the attempt is too old to get
	// one.
	Expired bool
}

// Heard reports whether a participant has answered.
func (a *Answer) Heard() bool { return a.Expired || a.State != Unknown }

// Verdict is how a participant judges a Prepare against what it has: locks first,
// then checks, then the conditions of the operations of both lists.
type Verdict struct {
	Conflict                        bool
	Holds                           bool
	ThenPossible, OtherwisePossible bool
	Stamp                           keyspace.Revision
}

// Prepare is the step of a participant that is asked to prepare. expired: the
// attempt is below the low-water mark. next is to be durable before the answer is
// given.
func Prepare(cur Record, expired bool, v Verdict) (next Record, a Answer) {
	switch {
	case cur.State != Unknown:
		return cur, Answer{Record: cur}
	case expired:
		return cur, Answer{Expired: true}
	case v.Conflict:
		next = Record{State: Aborted, Cause: Conflict}
	default:
		next = Record{State: Prepared, Stamp: v.Stamp, Holds: v.Holds, ThenPossible: v.ThenPossible, OtherwisePossible: v.OtherwisePossible}
	}
	return next, Answer{Record: next}
}

// Poison is the step of a participant that is asked how an attempt stands, by
// somebody who wants it to end: what is not prepared never will be.
func Poison(cur Record, expired bool) (next Record, a Answer) {
	switch {
	case cur.State != Unknown:
		return cur, Answer{Record: cur}
	case expired:
		return cur, Answer{Expired: true}
	}
	next = Record{State: Aborted, Cause: Poisoned}
	return next, Answer{Record: next}
}

// Commit is the step of a participant that learns of a commit. Without a record
// the commit was carried out and forgotten.
func Commit(cur Record, expired bool, at keyspace.Revision, branch Branch) (next Record, a Answer) {
	switch cur.State { //nolint:exhaustive // the final ones follow
	case Unknown:
		invariant.Assert(expired, "commit at %v of a transaction that was never prepared here", at)
		return cur, Answer{Expired: true}
	case Prepared:
		invariant.Assert(cur.Allows(branch) && at >= cur.Stamp, "commit at %v (branch %d) of a transaction that is %+v", at, branch, cur)
		next = Record{State: Committed, At: at, Branch: branch}
		return next, Answer{Record: next}
	}
	invariant.Assert(cur.State == Committed && cur.At == at && cur.Branch == branch,
		"commit at %v (branch %d) of a transaction that is %+v", at, branch, cur)
	return cur, Answer{Record: cur}
}

// Abort is the step of a participant that learns that another one aborted, or
// has forgotten. The latter may be said of a transaction that committed, by
// somebody with old answers: final records ignore it.
func Abort(cur Record, expired bool) (next Record, a Answer) {
	if cur.State == Prepared || cur.State == Unknown && !expired {
		next = Record{State: Aborted, Cause: Ordered}
		return next, Answer{Record: next}
	}
	if cur.State == Unknown {
		return cur, Answer{Expired: true}
	}
	return cur, Answer{Record: cur}
}

// Verb is what follows from participants' answers.
type Verb uint8

// The verbs.
const (
	// Wait: nothing is decided by these answers.
	Wait Verb = iota
	// DoCommit and DoAbort: the attempt is decided; participants that are prepared
	// are to be told.
	DoCommit
	DoAbort
)

// Conclusion is what anybody may conclude from one answer of each participant,
// however old each is.
type Conclusion struct {
	Verb Verb
	// At and Branch of DoCommit.
	At     keyspace.Revision
	Branch Branch
	// Again, with DoAbort: all that stood in the way were locks, and every
	// participant has said so; a new attempt may begin.
	Again bool
	// Expired, with DoAbort: what is to be answered is not known any more.
	Expired bool
	// Known, with DoAbort: it may be answered. While Again is still possible it
	// may not.
	Known bool
	// Elsewhere, with DoAbort: what is to be answered is the outcome that a
	// participant remembers.
	Elsewhere bool
}

// Conclude is the rule of the protocol. What all prepared participants said decides
// the branch: Then when all checks held, else Otherwise; but Nothing when a
// condition of an operation of that list did not hold somewhere.
func Conclude(answers []Answer) Conclusion {
	heard, prepared := 0, 0
	c := Conclusion{}
	all := Record{Holds: true, ThenPossible: true, OtherwisePossible: true}
	conflicts, aborts, final := false, false, false
	for i := range answers {
		a := &answers[i]
		if a.Heard() {
			heard++
		}
		switch {
		case a.Expired:
			c.Expired = true
		case a.State == Committed:
			return Conclusion{Verb: DoCommit, At: a.At, Branch: a.Branch}
		case a.State == Prepared:
			prepared++
			c.At = max(c.At, a.Stamp)
			all.Holds = all.Holds && a.Holds
			all.ThenPossible, all.OtherwisePossible = all.ThenPossible && a.ThenPossible, all.OtherwisePossible && a.OtherwisePossible
		case a.State == Aborted:
			aborts = true
			conflicts = conflicts || a.Cause == Conflict
			final = final || a.Cause == Poisoned || a.Cause == Elsewhere
			c.Elsewhere = c.Elsewhere || a.Cause == Elsewhere
		}
	}
	if prepared == len(answers) {
		return Conclusion{Verb: DoCommit, At: c.At, Branch: all.branch()}
	}
	if !aborts && !c.Expired {
		return Conclusion{}
	}
	return Conclusion{Verb: DoAbort, Expired: c.Expired, Elsewhere: c.Elsewhere,
		Again: heard == len(answers) && prepared == 0 && conflicts && !final && !c.Expired,
		Known: final || c.Expired}
}

// branch is what a transaction does that all participants together judged so.
func (r *Record) branch() Branch {
	switch {
	case r.Holds && r.ThenPossible:
		return Then
	case !r.Holds && r.OtherwisePossible:
		return Otherwise
	}
	return Nothing
}
