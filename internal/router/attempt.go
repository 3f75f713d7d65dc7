package router

import (
	"bytes"
	"slices"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// txnAttempt is what this node knows of one attempt of a transaction over several
// groups: its participants and what each said last. It belongs to who coordinates
// or recovers the transaction, and is used by one step at a time: ask hands orders
// over, and what was given to it runs when all are answered.
//
// Who takes part is what the record of the lowest slot says. Two coordinators of
// one request (a client may send it twice under one id) that know different slot
// maps may name different participants; all of them name the slot that is the
// lowest of all keys. So that record decides which of the sets may commit, and a
// participant that is prepared for another set than its own is as good as one that
// refused: it is never counted for this one.
type txnAttempt struct {
	r      *Router
	id     keyspace.TxnID
	number uint32
	// named: the outcome is remembered; mark tells the request from others.
	named   bool
	mark    []byte
	set     []uint32
	shares  []*share
	waiting atomic.Int32
	then    func()
}

// share is what one participant has of an attempt.
type share struct {
	a    *txnAttempt
	slot keyspace.SlotID
	// request are the checks and operations on its keys; nil for who recovers.
	// checks, then and otherwise are where they are in the transaction.
	request         *api.TransactionRequest
	then, otherwise []int

	// answer is the last; results those of a prepare. err is why the last order had
	// none.
	answer  *api.TxnAnswer
	results *api.TxnAnswer
	err     error
	// unsure: the last order may have been executed although it has no answer. never:
	// it was a prepare that was not, and nobody else prepares it.
	unsure, never bool

	call Call
	op   api.PipelineOp
}

// newAttempt is an attempt of which nothing is known.
func (r *Router) newAttempt(key keyspace.TxnKey, set []uint32) *txnAttempt {
	a := &txnAttempt{r: r, id: key.ID, number: key.Attempt, set: set, shares: make([]*share, len(set))}
	for i, slot := range set {
		a.shares[i] = &share{a: a, slot: keyspace.SlotID(slot)}
	}
	return a
}

// order is a new order for s.
func (s *share) order(kind api.TxnOrder_Kind) *api.TxnOrder {
	return &api.TxnOrder{Kind: kind, Id: s.a.id.Append(nil), Attempt: s.a.number, Slot: uint32(s.slot), Participants: s.a.set, Remember: s.a.named, Answer: s.a.mark}
}

// prepare makes the call of an order that is to end by a time.
func (s *share) prepare(o *api.TxnOrder, until time.Duration, identity string) *Call {
	left := until - s.a.r.o.Clock.Mono()
	s.op = api.PipelineOp{Op: &api.PipelineOp_Order{Order: o}, TimeoutMs: max(1, left.Milliseconds())}
	s.call = Call{Op: &s.op, Identity: identity, own: true, share: s}
	s.err, s.unsure = nil, false
	return &s.call
}

// ask counts the orders that are about to be sent; then runs when all are
// answered, perhaps on the host's loop, and must not block.
func (a *txnAttempt) ask(calls int, then func()) {
	a.then = then
	a.waiting.Store(int32(calls))
}

// orderDone takes the end of an order.
func orderDone(c *Call) {
	s := c.share
	if s.err = c.Err; c.Err != nil {
		prepare := c.Op.GetOrder().GetKind() == api.TxnOrder_KIND_PREPARE
		s.never = s.never || prepare && !s.a.named && !s.unsure && surelyNot(c.Err)
	} else {
		if s.answer = c.Result.GetOrder(); s.answer.GetJudged() {
			s.results = s.answer
		}
	}
	if s.a.waiting.Add(-1) == 0 {
		s.a.then()
	}
}

// surelyNot reports whether an order that ended with err, and was not sent twice, was
// certainly not executed.
func surelyNot(err error) bool {
	switch fault.CodeOf(err) {
	case fault.UnknownOutcome, fault.DeadlineExceeded, fault.Canceled, fault.Internal:
		return false
	}
	return true
}

// foreign reports whether a participant is prepared or committed for others than
// these, or for another request.
func (s *share) foreign() bool {
	state := s.answer.GetState()
	if state != api.TxnAnswer_STATE_PREPARED && state != api.TxnAnswer_STATE_COMMITTED {
		return false
	}
	return len(s.answer.GetParticipants()) > 0 && !slices.Equal(s.answer.GetParticipants(), s.a.set) || s.reused()
}

// reused reports whether a record is of a request that should not have this id.
func (s *share) reused() bool {
	_, mark := markOf(s.answer.GetAnswer())
	return s.a.mark != nil && mark != nil && !bytes.Equal(mark, s.a.mark)
}

// judged is what counts of a participant's answer.
func (s *share) judged() twophase.Answer {
	switch {
	case s.foreign():
		return twophase.Answer{Record: twophase.Record{State: twophase.Aborted, Cause: twophase.Conflict}}
	case s.never && s.answer == nil:
		return twophase.Answer{Record: twophase.Record{State: twophase.Aborted, Cause: twophase.Ordered}}
	}
	return participantAnswer(s.answer)
}

// conclude is what follows from all answers.
func (a *txnAttempt) conclude() twophase.Conclusion {
	var few [8]twophase.Answer
	answers := few[:0]
	for _, s := range a.shares {
		answers = append(answers, s.judged())
	}
	return twophase.Conclude(answers)
}

// other is the set of participants that decides in place of this one, nil when
// this one does.
func (a *txnAttempt) other() []uint32 {
	if first := a.shares[0]; first.foreign() && !first.reused() {
		return first.answer.GetParticipants()
	}
	return nil
}

// unsettled are the participants that are to be told to abort, poisoned only
// those that were not heard.
func (a *txnAttempt) unsettled(poison bool) (out []*share) {
	for _, s := range a.shares {
		switch answer := s.judged(); {
		case answer.State.Final(), answer.Expired:
		case poison && answer.State == twophase.Prepared:
		default:
			out = append(out, s)
		}
	}
	return out
}

// uncommitted are the participants that are to be told of a commit.
func (a *txnAttempt) uncommitted() (out []*share) {
	for _, s := range a.shares {
		if answer := s.judged(); answer.State != twophase.Committed && !answer.Expired {
			out = append(out, s)
		}
	}
	return out
}

// send hands over one order for each of some participants.
func (a *txnAttempt) send(shares []*share, kind api.TxnOrder_Kind, until time.Duration, change func(*share, *api.TxnOrder), then func()) {
	a.ask(len(shares), then)
	calls := make([]*Call, len(shares))
	for i, s := range shares {
		o := s.order(kind)
		if change != nil {
			change(s, o)
		}
		calls[i] = s.prepare(o, until, SystemIdentity)
	}
	a.r.txns.sendSoon(calls)
}

// commit tells all that are prepared.
func (a *txnAttempt) commit(c twophase.Conclusion, answer []byte, until time.Duration, then func()) {
	shares := a.uncommitted()
	if len(shares) == 0 {
		then()
		return
	}
	a.send(shares, api.TxnOrder_KIND_COMMIT, until, func(s *share, o *api.TxnOrder) {
		o.At, o.Branch = uint64(c.At), api.TxnBranch(c.Branch)
		if s == a.shares[0] && answer != nil {
			o.Answer = answer
		}
	}, then)
}
