package sim

import (
	"fmt"
	"strings"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
	seen "kvstore/test/history"
)

// What was written of the keys that are watched, and the judgement.

// mark names the writer of an account, so that no two write the same.
func (w *World) mark(by uint64) string {
	if w.cfg.Watchers == 0 {
		return ""
	}
	return fmt.Sprintf("%x:", by)
}

// marked is a value without its padding.
func marked(value string) string {
	if parts := strings.SplitN(value, ":", 3); len(parts) == 3 {
		return parts[0] + ":" + parts[1]
	}
	return value
}

// wroteWatched notes a write that has ended; without an answer its outcome is unknown.
func (w *World) wroteWatched(ins []input, r *replica.Request) {
	if w.cfg.Watchers == 0 {
		return
	}
	w.beginWatched(ins).answered(r)
}

// watchedWrite is a write whose answer is still to come.
type watchedWrite struct{ *seen.Write }

// beginWatched notes a write that may happen.
func (w *World) beginWatched(ins []input) watchedWrite {
	at := &seen.Write{Outcome: seen.Unknown}
	for _, in := range ins {
		at.Changes = append(at.Changes, seen.Change{Key: in.key, Value: marked(in.value), Delete: in.kind == opDelete, Perhaps: in.kind == opDelete})
	}
	if w.cfg.Watchers > 0 {
		w.watches.writes = append(w.watches.writes, at)
	}
	return watchedWrite{at}
}

// answered notes what became of it.
func (at watchedWrite) answered(r *replica.Request) {
	switch {
	case r == nil, fault.CodeOf(r.Err) == fault.UnknownOutcome:
		return
	case r.Err != nil:
		at.Outcome = seen.Aborted
		return
	}
	switch res := &r.Ops[0].Result; {
	case res.Err != nil, at.Changes[0].Delete && !res.Existed:
		at.Outcome = seen.Aborted
	default:
		at.Outcome, at.Revision, at.Changes[0].Perhaps = seen.Committed, uint64(res.Revision), false
	}
}

// beginWatchedTxn notes a transaction over several groups.
func (w *World) beginWatchedTxn(x *txn) {
	if w.cfg.Watchers == 0 || x.move.money == nil {
		return
	}
	t := watchedTxn{id: x.id}
	for n, i := range x.move.of {
		t.changes = append(t.changes, seen.Change{Key: w.txns.keys[i], Value: marked(fmt.Sprintf("%d:%s", x.move.money[n], w.mark(x.id.Random)))})
	}
	w.watches.txns = append(w.watches.txns, t)
}

// outcome is what is known of a transaction by now.
func (t *watchedTxn) outcome(w *World) seen.Write {
	out := seen.Write{Outcome: seen.Unknown, Changes: t.changes}
	if attempt, committed := w.txns.committed[t.id]; committed {
		got := w.txns.ended[keyspace.TxnKey{ID: t.id, Attempt: attempt}]
		out.Outcome = seen.Aborted
		if got.branch == twophase.Then {
			out.Outcome, out.Revision = seen.Committed, uint64(got.at)
		}
	}
	return out
}

// writtenWatched is all that was written.
func (w *World) writtenWatched() (all []seen.Write) {
	for _, at := range w.watches.writes {
		all = append(all, *at)
	}
	for i := range w.watches.txns {
		all = append(all, w.watches.txns[i].outcome(w))
	}
	for _, o := range w.history.open {
		if !o.done && o.ins[0].kind != opLedger {
			all = append(all, *w.beginWatched(o.ins).Write)
		}
	}
	return all
}

// finishWatches requires that watches come to all that was acknowledged.
func (w *World) finishWatches() {
	if w.cfg.Watchers == 0 || len(w.problems) > 0 {
		return
	}
	for _, x := range w.watches.all {
		x.until = x.saw.From
		for _, at := range w.writtenWatched() {
			if at.Outcome == seen.Committed && x.saw.Match(at.Changes[0].Key) {
				x.until = max(x.until, at.Revision)
			}
		}
	}
	deadline := w.now + 60*time.Second
	for len(w.queue) > 0 && w.now < deadline && len(w.problems) == 0 {
		if w.watchesDone() && w.settled() {
			return
		}
		w.next()
	}
	for _, x := range w.watches.all {
		if len(w.problems) == 0 && x.at < x.until {
			w.problem("the watch of %s stands at %d and does not come to %d", x.saw.Name, x.at, x.until)
		}
	}
}

func (w *World) watchesDone() bool {
	for _, x := range w.watches.all {
		if x.at == 0 || x.at < x.until {
			return false
		}
	}
	return true
}

// checkWatches judges what the watches saw.
func (w *World) checkWatches() {
	if w.cfg.Watchers == 0 || len(w.problems) > 0 {
		return
	}
	var streams []seen.Stream
	for _, x := range w.watches.all {
		streams = append(streams, x.saw)
	}
	for _, v := range seen.CheckWatch(w.writtenWatched(), streams) {
		w.problem("%s", v)
	}
	if len(w.problems) == 0 && len(w.watches.previous) > 0 { // else one follows from the other
		w.problem("%s", w.watches.previous[0])
	}
}
