package replica

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// Steps at random, of moves both ways, among writes, refused proposals, entries
// that are applied one by one or die with their term. What evaluation sees is
// always what the log up to there makes of the state; every write that is
// acknowledged is of a slot that was owned and not frozen at its place in the log;
// a second replica that applies the entries blindly ends in the same state.
func TestSlotsFollowTheLog(t *testing.T) {
	sets := []string{"200-300", "301-400", "0-50", "51-99"}
	rapid.Check(t, func(rt *rapid.T) {
		r := slotRig(t)
		follower := newRig(t)
		follower.core.cfg.Group = 5
		follower.core.state = r.core.state
		var log [][]byte // applied, after the first state
		apply := func() {
			payload := r.log[0]
			r.log = r.log[1:]
			log = append(log, payload)
			r.apply(payload)
		}
		move := format.MoveID(1)
		type written struct {
			a   *answer
			key string
		}
		var writes []written
		for range rapid.IntRange(10, 60).Draw(rt, "turns") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0, 1, 2:
				move += format.MoveID(rapid.IntRange(0, 1).Draw(rt, "next move"))
				out := rapid.IntRange(0, 1).Draw(rt, "side")
				c := format.SlotChange{Kind: format.SlotOpKind(rapid.IntRange(2, 11).Draw(rt, "kind")), Move: move,
					Peer: []keyspace.GroupID{9, 2}[out], Slots: slotsOf(rapid.SampledFrom(sets[2*out:2*out+2]).Draw(rt, "slots")),
					Nonce: 7, Ceiling: keyspace.RevisionAt(wall), Done: rapid.Bool().Draw(rt, "done")}
				if s := r.core.state.Slots; s.Out != nil && s.Out.Nonce != 0 && rapid.IntRange(0, 3).Draw(rt, "nonce") > 0 {
					c.Nonce = s.Out.Nonce
				}
				r.ask(c)
			case 3, 4:
				key := keyIn(slotsOf(rapid.SampledFrom(sets).Draw(rt, "slot")))
				writes = append(writes, written{r.submit(put(key, "v")), key})
			case 5, 6, 7:
				if out := r.core.Evaluate(r.now); out.Payload != nil {
					if rapid.IntRange(0, 3).Draw(rt, "dropped") == 0 {
						r.core.Dropped()
					} else {
						r.propose(out.Payload)
					}
				}
			case 8:
				if len(r.log) > 0 {
					apply()
				}
			case 9:
				if rapid.IntRange(0, 4).Draw(rt, "new term") == 0 {
					r.elect()
					r.now.Mono += time.Minute
					log = append(log, nil)
				}
			}
			want := r.core.state.Slots
			for _, payload := range r.log {
				var e format.Entry
				if err := format.DecodeEntry(payload, &e); err != nil {
					rt.Fatal(err)
				}
				if e.Slots != nil {
					want = r.core.nextSlots(want, e.Slots, nonceInFlight, 0)
				}
			}
			if got := r.core.slots(); !reflect.DeepEqual(got, want) {
				rt.Fatalf("evaluation sees %+v, the log says %+v", got, want)
			}
			if got := r.core.slots(); got.Owned.Meets(&got.Gone) || got.In != nil && got.Owned.Meets(&got.In.Slots) {
				rt.Fatalf("slots are owned and gone, or come: %+v", got)
			}
		}
		for len(r.log) > 0 {
			apply()
		}
		acknowledged := make(map[keyspace.Revision]string)
		for _, w := range writes {
			if w.a.done && w.a.req.Err == nil {
				acknowledged[w.a.req.Ops[0].Result.Revision] = w.key
			}
			if code := fault.CodeOf(w.a.req.Err); code == fault.FailedPrecondition {
				rt.Fatalf("a write was refused like a step: %v", w.a.req.Err)
			}
		}
		for _, payload := range log {
			var e format.Entry
			if len(payload) > 0 {
				if err := format.DecodeEntry(payload, &e); err != nil {
					rt.Fatal(err)
				}
			}
			s := follower.core.state.Slots
			for _, w := range e.Writes {
				if key, ok := acknowledged[w.Revision]; ok {
					if slot := keyspace.SlotOf(1, key); !s.Owns(slot) || s.Frozen(slot) {
						rt.Fatalf("write of slot %d at index %d, where the log says %+v", slot, follower.index+1, s)
					}
					delete(acknowledged, w.Revision)
				}
			}
			follower.index = follower.core.state.Index
			follower.term = max(follower.term, follower.core.state.Term)
			if len(payload) == 0 { // the first of a term
				follower.term++
			}
			follower.apply(payload)
		}
		if len(acknowledged) > 0 {
			rt.Fatalf("acknowledged writes that are not in the log: %v", acknowledged)
		}
		if a, b := format.AppendState(nil, r.core.State()), format.AppendState(nil, follower.core.State()); !bytes.Equal(a, b) {
			rt.Fatalf("leader %+v\nfollower %+v", r.core.State(), follower.core.State())
		}
	})
}
