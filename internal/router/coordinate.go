package router

import (
	"slices"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// A transaction over several groups is coordinated by the node that got the call,
// by the protocol of internal/twophase (DESIGN 9): it is split into a participant
// per group, all are asked to prepare at once, and when all have, the client is
// answered, one round of raft after its call. The participants are told then
// (finish). Nothing is kept here that anybody else would need: whoever meets a lock
// finds out how the transaction stands and ends it (resolve.go).
//
// The steps run where the last answer of the step before came in, on the loop of
// the host or a stream's goroutine, and only conclude there; what takes time is
// handed to the frame of the call (a new attempt, an answer with many results) or
// to the outbox (orders). So thousands are under way without a goroutine each, and
// their orders leave in frames together.
//
// An attempt that met locks ends (everybody is told, and has said so) and another
// begins after a pause with jitter: under a new id, unless the client named the
// request, since two attempts of one id are the protocol's matter only where
// somebody else may begin one too. After three the participants are asked one after
// the other, in the order of their slots, to wait for locks: whoever waits then
// holds only lower slots than those it waits for, so that no two wait for each
// other.
//
// A participant whose group refused its prepare, and never had it otherwise, will not
// prepare any more: nobody else sends it, unless the client named the request.
//
// The deadline: prepares end a little before that of the call. What is not decided
// then is poisoned in the time that is left, so that the answer is the truth: it
// was not executed, or it was. Only when that does not succeed is the outcome
// unknown, and recovery decides.

const (
	// unorderedTries are attempts that take locks in any order.
	unorderedTries = 3
	// graceShare of a call's time, at most maxGrace, is for finding out how it ended.
	graceShare = 5
	maxGrace   = 500 * time.Millisecond
	// finishWithin bounds how long this node tells the participants of an outcome; then
	// others find out.
	finishWithin = 10 * time.Second
)

// coordination is a transaction over several groups on its way.
type coordination struct {
	r    *Router
	part *part // answers the call
	q    *api.TransactionRequest
	m    *Map // by which it was split
	// until is when prepares end, on env.Clock.Mono.
	until time.Duration
	// tries counts attempts, over all ids.
	tries int
	// number is that of the next attempt of a named request.
	number uint32
	*txnAttempt
	// next is the participant that is asked now, of those that are asked in turn.
	next int
	// poisoned: what is not prepared was poisoned. cause is why one gave no answer.
	poisoned bool
	cause    error
}

// coordinateAgain makes a named request that one group refuses, because an attempt
// of it was begun over several, a transaction like those; ok is false when its keys
// are of one slot, which several groups never had.
func (f *frame) coordinateAgain(p *part) (ok bool, err error) {
	if p.st.call.Forwarded || p.txn != nil {
		return false, nil
	}
	if !p.st.kind.batch() && p.st.kind != kindTransaction {
		return false, nil
	}
	q := p.st.asTransaction()
	if slot, alone := p.st.oneSlot(q); alone || slot < 0 {
		return false, nil
	}
	return true, f.coordinate(p, q, []keyspace.GroupID{p.group})
}

// oneSlot is the slot of all keys, if it is one; slot is -1 for keys of the
// cluster's own.
func (st *callState) oneSlot(q *api.TransactionRequest) (slot int, alone bool) {
	slot, alone = -2, true
	eachTxnKey(q, func(space, key string) bool {
		ns := st.space(space)
		s := int(keyspace.SlotOf(ns, key))
		if ns == keyspace.SystemNamespace {
			s = -1
		}
		alone = alone && (slot == -2 || slot == s)
		slot = s
		return alone && s >= 0
	})
	return slot, alone
}

// coordinate makes a part that is of several groups a transaction over them.
func (f *frame) coordinate(p *part, q *api.TransactionRequest, groups []keyspace.GroupID) error {
	if p.st.call.Forwarded || slices.Contains(groups, keyspace.MetaGroup) {
		return errCrossGroup(groups)
	}
	if err := f.r.txns.admit(); err != nil {
		return err
	}
	left := p.st.deadline - f.r.o.Clock.Mono()
	p.txn = &coordination{r: f.r, part: p, q: q, until: p.st.deadline - min(left/graceShare, maxGrace)}
	return nil
}

// beginAll starts an attempt of each, their orders together; on the frame's
// goroutine.
func (r *Router) beginAll(ts []*coordination) {
	var calls []*Call
	for _, t := range ts {
		calls = append(calls, t.begin()...)
	}
	r.sendOrders(calls)
}

// begin starts an attempt and returns its first orders.
func (t *coordination) begin() []*Call {
	t.m = t.r.o.Directory.Map()
	t.txnAttempt = t.r.split(t.m, t.part.st, t.q)
	t.tries++
	if t.id = t.part.st.id; t.id.Zero() {
		t.id = t.r.newTxnID()
	} else {
		t.named, t.mark, t.txnAttempt.number = true, t.part.st.mark(), t.number
		t.number++
	}
	if t.r.txns.died("prepare", t.txnAttempt) {
		return nil
	}
	t.next, t.poisoned, t.cause = 0, false, nil
	if t.ordered() {
		t.ask(1, t.tookTurn)
		return []*Call{t.prepare(t.shares[0])}
	}
	t.ask(len(t.shares), t.answered)
	calls := make([]*Call, len(t.shares))
	for i, s := range t.shares {
		calls[i] = t.prepare(s)
	}
	if t.r.txns.died("half prepared", t.txnAttempt) {
		return calls[:1]
	}
	return calls
}

// ordered reports whether participants are asked one after the other.
func (t *coordination) ordered() bool { return t.tries > unorderedTries }

func (t *coordination) prepare(s *share) *Call {
	o := s.order(api.TxnOrder_KIND_PREPARE)
	o.Request, o.Wait = s.request, t.ordered()
	return s.prepare(o, t.until, t.part.st.call.Identity)
}

// tookTurn asks the next participant once one is prepared.
func (t *coordination) tookTurn() {
	s := t.shares[t.next]
	if t.next++; t.next == len(t.shares) || s.err != nil || s.judged().State != twophase.Prepared {
		t.answered()
		return
	}
	t.ask(1, t.tookTurn)
	t.r.txns.sendSoon([]*Call{t.prepare(t.shares[t.next])})
}

// answered decides by what the participants said, or asks further. In the end
// either all are prepared, or one has refused for good, or nobody knows.
func (t *coordination) answered() {
	if t.r.txns.died("conclude", t.txnAttempt) {
		return
	}
	for _, s := range t.shares {
		if s.err != nil && (t.cause == nil || fault.CodeOf(t.cause) == fault.Unavailable) {
			t.cause = s.err
		}
	}
	if other := t.other(); other != nil && !t.poisoned {
		t.adopt(other)
		return
	}
	c := t.conclude()
	switch {
	case c.Verb == twophase.DoCommit:
		t.committed(c)
	case c.Verb == twophase.DoAbort && !t.poisoned:
		t.settle(api.TxnOrder_KIND_ABORT, c)
	case c.Verb == twophase.DoAbort:
		t.aborted(c)
	case !t.poisoned:
		t.settle(api.TxnOrder_KIND_POISON, c)
	default:
		t.fail(t.unknown())
	}
}

// settle has every participant that has not ended the attempt do so, by an abort or,
// while nothing is decided, by poison.
func (t *coordination) settle(kind api.TxnOrder_Kind, c twophase.Conclusion) {
	t.poisoned = true
	shares := t.unsettled(kind == api.TxnOrder_KIND_POISON)
	if len(shares) == 0 {
		t.aborted(c)
		return
	}
	t.send(shares, kind, t.part.st.deadline, nil, func() {
		if kind == api.TxnOrder_KIND_POISON {
			t.poisonAnswered()
			return
		}
		t.answered()
	})
}

// poisonAnswered goes on after poison: when it is an abort after all, those that
// are prepared have still to be told.
func (t *coordination) poisonAnswered() {
	if c := t.conclude(); c.Verb == twophase.DoAbort {
		if shares := t.unsettled(false); len(shares) > 0 {
			t.send(shares, api.TxnOrder_KIND_ABORT, t.part.st.deadline, nil, t.answered)
			return
		}
	}
	t.answered()
}

// adopt goes on with the participants that another coordinator of the same request
// has named: this attempt is theirs. Those that are prepared for this one's never
// commit.
func (t *coordination) adopt(set []uint32) {
	mine := t.txnAttempt
	t.txnAttempt = t.r.newAttempt(keyspace.TxnKey{ID: mine.id, Attempt: mine.number}, set)
	t.named, t.mark = true, mine.mark
	t.poisoned = true
	t.send(t.shares, api.TxnOrder_KIND_POISON, t.part.st.deadline, nil, t.poisonAnswered)
	for _, s := range mine.shares {
		if answer := s.judged(); answer.State == twophase.Prepared && !slices.Contains(set, uint32(s.slot)) {
			lone := t.r.newAttempt(keyspace.TxnKey{ID: mine.id, Attempt: mine.number}, mine.set)
			lone.named, lone.mark = true, mine.mark
			lone.send(slices.DeleteFunc(lone.shares, func(o *share) bool { return o.slot != s.slot }), api.TxnOrder_KIND_ABORT,
				t.part.st.deadline, nil, func() {})
		}
	}
}

// committed answers and tells the participants. Results that nobody has any more,
// as after poison, are what the request's record keeps, or are read again.
func (t *coordination) committed(c twophase.Conclusion) {
	if t.r.txns.died("committed", t.txnAttempt) {
		return
	}
	t.r.txns.committed(len(t.shares), t.tries)
	push := t.part.st.frame.push
	switch lost := slices.ContainsFunc(t.shares, func(s *share) bool { return s.results == nil }); {
	case lost:
		t.commit(c, nil, t.part.st.deadline, func() { push(func(f *frame) { t.answerLost(f, c) }) })
	case len(t.q.GetThen())+len(t.q.GetOtherwise()) >= largePart:
		push(func(*frame) { t.answerCommitted(c) })
	default:
		t.answerCommitted(c)
	}
}

func (t *coordination) answerCommitted(c twophase.Conclusion) {
	out := t.merge(c)
	var kept []byte
	if t.named {
		if kept = t.part.st.writtenOf(out); kept == nil {
			kept = t.part.st.encodeOutcome(t.part.st.outcomeOf(out))
		}
	}
	a := t.txnAttempt
	t.detached(c.Branch)
	t.replyWritten(out)
	if t.r.txns.died("answered", a) {
		return
	}
	a.commit(c, kept, t.finishBy(), t.left)
}

func (t *coordination) finishBy() time.Duration { return t.r.o.Clock.Mono() + finishWithin }

// left is the end of a transaction that was answered: what was not told is left to
// recovery.
func (t *coordination) left() {
	for _, s := range t.shares {
		if s.err != nil {
			t.r.txns.leftover.Add(1)
			break
		}
	}
	t.r.txns.done()
}

// aborted goes on after an attempt that never commits: with another one, or with
// the answer.
func (t *coordination) aborted(c twophase.Conclusion) {
	if t.r.txns.died("aborted", t.txnAttempt) {
		return
	}
	if c.Again {
		t.r.txns.conflicts.Add(1)
	}
	now, wait := t.r.o.Clock.Mono(), t.r.backoff(t.tries)
	switch {
	case slices.ContainsFunc(t.shares, (*share).reused):
		t.fail(errReused(t.id))
	case c.Elsewhere: // in one group, under the same id
		t.r.txns.done()
		t.part.st.frame.push(func(f *frame) { f.recall(t.part, t.kept()) })
	case c.Expired:
		t.fail(errExpired(t.id))
	case t.named && c.Known:
		t.fail(errAborted(t.id))
	case t.cause != nil && !retryableRead(t.cause):
		t.giveUp(t.cause)
	case t.named && !c.Again, now+wait >= t.until, t.part.st.frame.ctx.Err() != nil, t.r.ctx.Err() != nil:
		t.giveUp(t.outOfTime())
	default:
		t.part.due = now + wait
		t.part.st.frame.delay(t.part)
	}
}

// giveUp answers that nothing was executed. Nobody else begins an attempt of an id
// of this node's own; of a named request the next one is poisoned first, so that
// the answer stays true.
func (t *coordination) giveUp(why error) {
	if !t.named {
		t.fail(why)
		return
	}
	key := keyspace.TxnKey{ID: t.id, Attempt: t.txnAttempt.number + 1}
	last := t.r.newAttempt(key, t.set)
	last.named, last.mark = true, t.mark
	last.send(last.shares[:1], api.TxnOrder_KIND_POISON, t.part.st.deadline, nil, func() {
		switch answer := participantAnswer(last.shares[0].answer); {
		case last.shares[0].err != nil, answer.State != twophase.Aborted && !answer.Expired:
			t.fail(t.unknown())
		default:
			t.fail(why)
		}
	})
}

// outOfTime is the answer of what was certainly not executed.
func (t *coordination) outOfTime() error {
	if err := t.part.st.frame.ctx.Err(); err != nil {
		return fault.Wrap(plainCode(err), err, "the transaction was ended by its caller; nothing was executed", "attempts", t.tries)
	}
	if t.cause != nil {
		return fault.Wrap(fault.Unavailable, t.cause, "a group could not take part in the transaction; nothing was executed",
			"attempts", t.tries, "groups", len(t.shares)).WithRetry(DefaultBackoffMax)
	}
	return fault.New(fault.Unavailable, "the transaction met locks of others until its time was over; nothing was executed",
		"attempts", t.tries, "groups", len(t.shares)).WithRetry(DefaultBackoffMax)
}

func (t *coordination) unknown() error {
	return fault.Wrap(fault.UnknownOutcome, t.cause, "it is not known whether the transaction was executed; it was in whole or not at all",
		"groups", len(t.shares), "attempts", t.tries)
}

// fail answers the call with an error.
func (t *coordination) fail(err error) {
	t.r.txns.failed(err)
	t.r.txns.done()
	t.part.fail(err)
}

// reply answers the call.
func (t *coordination) reply(out *api.TransactionResponse) {
	t.part.st.setResult(t.part.st.call.Result, out)
	t.part.finish()
}

// replyWritten is reply with the bytes that the record of the request keeps, where
// the caller takes them.
func (t *coordination) replyWritten(out *api.TransactionResponse) {
	st := t.part.st
	read := func(r *api.TransactionResult) bool { return r.GetGet() != nil }
	if !t.named || !st.call.Encoded || st.answer == nil || slices.ContainsFunc(out.Results, read) {
		t.reply(out)
		return
	}
	st.answerBytes(st.answer, out.Succeeded, out.Revision)
	t.part.finish()
}

// sendOrders executes orders of this node.
func (r *Router) sendOrders(calls []*Call) {
	if len(calls) == 0 {
		return
	}
	f := r.newFrame(r.ctx, calls, orderDone)
	if f == nil {
		return
	}
	f.async = true
	f.begin(calls)
	f.release()
}

// answerLost answers a transaction that is committed and finished, and whose results
// are not here.
func (t *coordination) answerLost(f *frame, c twophase.Conclusion) {
	t.left()
	ctx, cancel := f.within(t.part.st.deadline)
	defer cancel()
	if kept := t.kept(); len(kept) > markBytes {
		f.recall(t.part, kept)
		return
	}
	out, err := f.r.readOutcome(ctx, t.q, t.part.st.call.Identity, c)
	if err != nil && fault.CodeOf(err) != fault.ConditionFailed {
		err = fault.Wrap(fault.UnknownOutcome, err, "the transaction was executed, but its results cannot be read any more", "revision", uint64(c.At))
	}
	if err != nil {
		t.part.fail(err)
		return
	}
	t.reply(out)
}

// kept is what a record of the attempt remembers of the request.
func (t *coordination) kept() (kept []byte) {
	for _, s := range t.shares {
		if b := s.answer.GetAnswer(); len(b) > len(kept) {
			kept = b
		}
	}
	return kept
}
